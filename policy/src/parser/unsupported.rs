//! Parts of the language that this release refuses by name.
//!
//! They are read far enough to go on behind them, so that a policy that uses one still gets all its
//! other mistakes reported.

use super::Parser;
use super::expression::error;
use crate::ast::Expr;
use crate::diagnostic::{Code, Span};
use crate::token::Token;

/// What is missing, by the word that asks for it, and what to do instead.
const VERBS: [(&str, &str, &str); 11] = [
    (
        "established",
        "needs connection tracking, which this data plane does not have",
        "match reply packets by source port: `src in web and tcp src port 443`",
    ),
    (
        "balance",
        "needs connection tracking, which this data plane does not have",
        "forward to one endpoint",
    ),
    (
        "snat",
        "needs connection tracking, which this data plane does not have",
        "rewrite one field: `ip4Src := …`",
    ),
    (
        "dnat",
        "needs connection tracking, which this data plane does not have",
        "rewrite one field: `ip4Dst := …`",
    ),
    (
        "count",
        "is not there yet",
        "label the verdict, `forward \"name\"`: every label is counted",
    ),
    (
        "limit",
        "needs rate limiters, which this data plane does not have",
        "leave it out",
    ),
    (
        "mirror",
        "is not there yet",
        "send a copy: `forward + (port := X)`",
    ),
    (
        "log",
        "is not there yet",
        "label the verdict, `drop \"name\"`: every label is counted",
    ),
    (
        "flood",
        "is not there yet",
        "name the receivers: `(port := a) + (port := b)`",
    ),
    (
        "multicast",
        "is not there yet",
        "name the receivers: `(port := a) + (port := b)`",
    ),
    (
        "pipe",
        "is for controllers that see packets, which this one does not",
        "leave it out",
    ),
];

impl Parser<'_> {
    fn refuse(&mut self, span: Span, message: String, hint: &str) {
        self.sink
            .report(Code::NotSupported, span, message)
            .hint(hint);
    }

    /// A verb or a word that is refused, with what belongs to it.
    pub(super) fn refuse_word(&mut self, word: &str) -> Option<Expr> {
        let start = self.span();
        if word == "dup" {
            self.advance();
            self.refuse(
                start,
                "`dup` is for proofs about paths, which are not there yet".to_owned(),
                "leave it out: it changes no packet",
            );
            return Some(error(start));
        }
        let (_, why, hint) = VERBS.iter().find(|(verb, ..)| *verb == word)?;
        self.advance();
        self.refuse(start, format!("`{word}` {why}"), hint);
        self.skip_operands();
        Some(error(self.since(start)))
    }

    pub(super) fn refuse_forward_to(&mut self, start: Span) -> Expr {
        self.advance();
        let span = self.since(start);
        self.refuse(
            span,
            "`forward to` needs transparent endpoints, which are not there yet".to_owned(),
            "send the packet to the endpoint itself: `port := X`",
        );
        self.skip_operands();
        error(self.since(start))
    }

    /// `1@2 => 3@4`.
    pub(super) fn refuse_link(&mut self) -> Expr {
        let start = self.span();
        while matches!(
            self.peek(),
            Token::Number(_) | Token::Sign("@" | "=>" | "=>>")
        ) {
            self.advance();
        }
        let span = self.since(start);
        self.refuse(
            span,
            "links between switches are not there yet".to_owned(),
            "endpoints of a network reach each other without links: use `forward`",
        );
        error(span)
    }

    /// Skips what a refused verb takes: bracketed arguments, values, and words between them.
    fn skip_operands(&mut self) {
        loop {
            match self.peek() {
                Token::Sign("(") => self.skip_brackets(),
                Token::Number(_)
                | Token::Text(_)
                | Token::Address(_)
                | Token::Mac(_)
                | Token::Prefix(..) => {
                    self.advance();
                }
                Token::Sign("/") => self.advance(),
                Token::Ident("then" | "else" | "do" | "in" | "and" | "or") => return,
                Token::Ident(_) if !self.at_item() => self.advance(),
                _ => return,
            }
        }
    }

    fn skip_brackets(&mut self) {
        let mut depth = 0usize;
        while self.peek() != Token::End {
            match self.peek() {
                Token::Sign("(" | "{") => depth += 1,
                Token::Sign(")" | "}") => depth = depth.saturating_sub(1),
                _ => {}
            }
            self.advance();
            if depth == 0 {
                return;
            }
        }
    }

    /// `assert …`, `test "…" { … }`, `import …`.
    pub(super) fn refuse_item(&mut self, word: &str) {
        let span = self.span();
        self.advance();
        let (why, hint) = match word {
            "assert" => ("proofs", "leave it out, and try the traffic"),
            "test" => ("tests in the language", "leave it out, and try the traffic"),
            _ => ("imports", "copy the definitions into this file"),
        };
        self.refuse(span, format!("`{word}`: {why} are not there yet"), hint);
        while !self.at_item() {
            match self.peek() {
                Token::Sign("(" | "{") => self.skip_brackets(),
                _ => self.advance(),
            }
        }
    }

    /// `public ADDRESS -> ENDPOINT` in a `network` block.
    pub(super) fn refuse_public(&mut self) {
        let span = self.span();
        self.refuse(
            span,
            "`public` addresses are not there yet".to_owned(),
            "leave it out: endpoints are reached on their own addresses",
        );
        while !self.is_sign(";") && !self.is_sign("}") && !self.at_item() {
            self.advance();
        }
    }
}
