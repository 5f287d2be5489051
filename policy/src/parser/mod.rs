//! Text to syntax tree, by recursive descent, reporting every mistake and never just the first.
//!
//! Precedence of policies, loosest first, as in Frenetic: `let … in`, `+`, `;`, `if`/`while`, `*`;
//! of predicates: `or`, `and`, `not`. Both share one grammar, in which predicates bind tighter:
//!
//! ```text
//! policy   = sequence { "+" sequence }
//! sequence = unary { ";" unary }
//! unary    = "if" or "then" policy { "else" "if" … } "else" unary | "while" or "do" unary
//!          | "let" NAME [params] "=" policy "in" policy | "filter" or { "*" } | or
//! or       = and { "or" and }        and = not { "and" not }        not = "not" not | atom { "*" }
//! ```
//!
//! After a mistake the parser skips to where an expression or a definition can start anew. Nesting
//! is limited, so no input can exhaust the stack; chains of `else if`, `+` and `;` do not nest.

mod assertion;
mod atom;
mod expression;
mod item;
mod test_block;
mod value;
mod verb;

use std::sync::Arc;

use crate::ast::{Document, Name};
use crate::diagnostic::{Code, Diagnostic, Sink, Span};
use crate::field::subject_names;
use crate::token::{Token, shorten, tokens};

/// Greatest nesting of expressions and values.
pub const MAX_NESTING: usize = 256;
/// Greatest length of a source text in bytes.
pub const MAX_SOURCE_BYTES: usize = 16 << 20;

/// Parses a source text. The tree holds what could be read; it is complete when no diagnostic is
/// an error.
#[must_use]
pub fn parse(text: &str) -> (Document, Vec<Diagnostic>) {
    let too_large = text.len() > MAX_SOURCE_BYTES;
    let text = if too_large { "" } else { text };
    let source: Arc<str> = text.into();
    let mut sink = Sink::new(source.clone());
    if too_large {
        sink.report(
            Code::SourceTooLarge,
            Span::default(),
            format!("the policy is larger than {} MiB", MAX_SOURCE_BYTES >> 20),
        );
    }
    let tokens = tokens(text, &mut sink);
    let mut parser = Parser {
        tokens,
        at: 0,
        depth: 0,
        stars: true,
        comparing: false,
        reported: usize::MAX,
        sink,
    };
    let items = parser.items();
    (Document { source, items }, parser.sink.finish())
}

struct Parser<'a> {
    /// Ends with [`Token::End`], which is never passed.
    tokens: Vec<(Token<'a>, Span)>,
    at: usize,
    depth: usize,
    /// Whether a `*` belongs to the atom before it; not directly inside `filter`.
    stars: bool,
    /// Whether `==` after a name compares two policies, as in an assertion.
    comparing: bool,
    /// Token of the last mistake: one token is reported once.
    reported: usize,
    sink: Sink,
}

/// Words that cannot be names.
pub const RESERVED: [&str; 37] = [
    "network",
    "set",
    "let",
    "policy",
    "in",
    "if",
    "then",
    "else",
    "while",
    "do",
    "not",
    "and",
    "or",
    "filter",
    "true",
    "false",
    "drop",
    "id",
    "skip",
    "dup",
    "forward",
    "flood",
    "multicast",
    "balance",
    "snat",
    "dnat",
    "count",
    "limit",
    "mirror",
    "log",
    "assert",
    "test",
    "import",
    "established",
    "labels",
    "subnet",
    "pipe",
];

/// Words that begin a definition.
const ITEM_WORDS: [&str; 7] = [
    "network", "set", "let", "policy", "assert", "test", "import",
];

fn is_reserved(word: &str) -> bool {
    RESERVED.contains(&word)
        || subject_names().any(|name| name == word)
        || crate::ast::Word::named(word).is_some()
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        self.tokens[self.at].0
    }

    fn peek_at(&self, ahead: usize) -> Token<'a> {
        self.tokens[(self.at + ahead).min(self.tokens.len() - 1)].0
    }

    fn span(&self) -> Span {
        self.tokens[self.at].1
    }

    /// From the start of a token to the end of the last one read.
    fn since(&self, start: Span) -> Span {
        let last = self.tokens[self.at.saturating_sub(1)].1;
        Span::new(start.start, last.end.max(start.start))
    }

    fn advance(&mut self) {
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
    }

    fn is_word(&self, word: &str) -> bool {
        self.peek() == Token::Ident(word)
    }

    fn is_sign(&self, sign: &str) -> bool {
        matches!(self.peek(), Token::Sign(s) if s == sign)
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let eaten = self.is_word(word);
        if eaten {
            self.advance();
        }
        eaten
    }

    fn eat_sign(&mut self, sign: &str) -> bool {
        let eaten = self.is_sign(sign);
        if eaten {
            self.advance();
        }
        eaten
    }

    /// A quoted text, when there is one.
    fn eat_text(&mut self) -> Option<String> {
        if let Token::Text(text) = self.peek() {
            self.advance();
            return Some(text.to_owned());
        }
        None
    }

    /// Whether an expression or value is certainly over here.
    fn at_item(&self) -> bool {
        match self.peek() {
            Token::End => true,
            Token::Ident(word) => ITEM_WORDS.contains(&word),
            _ => false,
        }
    }

    /// Reports that something else was expected, once for each token.
    fn expected(&mut self, what: &str) {
        self.expected_hint(what, None);
    }

    fn expected_hint(&mut self, what: &str, hint: Option<&str>) {
        if self.reported == self.at || self.peek() == Token::Error {
            return;
        }
        self.reported = self.at;
        let found = match self.peek() {
            Token::End => "the end of the text".to_owned(),
            Token::Ident(word) => format!("`{}`", shorten(word)),
            Token::Sign(sign) => format!("`{sign}`"),
            Token::Number(number) => format!("`{number}`"),
            Token::Text(_) => "a quoted text".to_owned(),
            Token::Mac(_) => "a MAC address".to_owned(),
            Token::Address(address) => format!("`{address}`"),
            Token::Prefix(address, length) => format!("`{address}/{length}`"),
            Token::Error => return,
        };
        let span = self.span();
        let report = self.sink.report(
            Code::UnexpectedToken,
            span,
            format!("expected {what}, found {found}"),
        );
        if let Some(hint) = hint {
            report.hint(hint);
        }
    }

    fn expect_sign(&mut self, sign: &str) -> bool {
        let eaten = self.eat_sign(sign);
        if !eaten {
            self.expected(&format!("`{sign}`"));
        }
        eaten
    }

    fn expect_word(&mut self, word: &str) -> bool {
        let eaten = self.eat_word(word);
        if !eaten {
            self.expected(&format!("`{word}`"));
        }
        eaten
    }

    /// A name that is being defined.
    fn new_name(&mut self, what: &str) -> Name {
        let span = self.span();
        match self.peek() {
            Token::Ident(word) => {
                if is_reserved(word) {
                    self.sink
                        .report(
                            Code::ReservedWord,
                            span,
                            format!("`{word}` is a word of the language and cannot name {what}"),
                        )
                        .hint("choose another name");
                }
                self.advance();
                Name {
                    text: word.to_owned(),
                    span,
                }
            }
            _ => {
                self.expected(&format!("the name of {what}"));
                Name {
                    text: String::new(),
                    span,
                }
            }
        }
    }

    /// Runs `inner` one level deeper, or gives up on the rest of the text at the limit.
    fn nested<T>(&mut self, inner: impl FnOnce(&mut Self) -> T, otherwise: T) -> T {
        if self.depth >= MAX_NESTING {
            let span = self.span();
            if self.peek() != Token::End {
                self.sink.report(
                    Code::NestedTooDeeply,
                    span,
                    format!("expressions are nested more than {MAX_NESTING} deep"),
                );
            }
            self.at = self.tokens.len() - 1;
            self.reported = self.at;
            return otherwise;
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }
}
