//! Verbs with operands, `established`, `dup`, and links.

use super::Parser;
use super::expression::error;
use crate::ast::{Expr, ExprKind, Rate, Verb};
use crate::diagnostic::Code;
use crate::field::Subject;
use crate::token::Token;

/// Units of rates, with what one of them is in packets or bits.
const RATES: [(&str, Rate); 8] = [
    ("pps", Rate::Packets(1)),
    ("kpps", Rate::Packets(1_000)),
    ("mpps", Rate::Packets(1_000_000)),
    ("bps", Rate::Bits(1)),
    ("bit", Rate::Bits(1)),
    ("kbit", Rate::Bits(1_000)),
    ("mbit", Rate::Bits(1_000_000)),
    ("gbit", Rate::Bits(1_000_000_000)),
];

impl Parser<'_> {
    /// What a word begins that is a verb, `established` or `dup`.
    pub(super) fn verb(&mut self, start: crate::diagnostic::Span, word: &str) -> Option<Expr> {
        let kind = match word {
            "dup" => {
                self.advance();
                ExprKind::Dup
            }
            "established" => {
                self.advance();
                let inner = if self.eat_sign("(") {
                    let inner = self.policy();
                    self.expect_sign(")");
                    Some(Box::new(inner))
                } else {
                    None
                };
                ExprKind::Established(inner)
            }
            "pipe" => {
                self.advance();
                self.sink
                    .report(
                        Code::NotSupported,
                        start,
                        "`pipe` is for controllers that see packets, which this one does not",
                    )
                    .hint("leave it out");
                if self.eat_sign("(") {
                    self.eat_text();
                    self.expect_sign(")");
                }
                return Some(error(self.since(start)));
            }
            _ => ExprKind::Verb(Box::new(self.verb_operands(word)?)),
        };
        Some(self.built(start, kind))
    }

    fn verb_operands(&mut self, word: &str) -> Option<Verb> {
        let known = [
            "flood",
            "multicast",
            "balance",
            "snat",
            "dnat",
            "count",
            "limit",
            "mirror",
            "log",
        ];
        if !known.contains(&word) {
            return None;
        }
        self.advance();
        Some(match word {
            "flood" => Verb::Flood,
            "multicast" => Verb::Multicast(self.value()),
            "balance" => self.balance(),
            "snat" | "dnat" => {
                let bracket = self.eat_sign("(");
                let to = self.value();
                let port = word == "dnat" && self.eat_word("port");
                let port = port.then(|| self.value());
                if bracket {
                    self.expect_sign(")");
                }
                match word {
                    "snat" => Verb::Snat(to),
                    _ => Verb::Dnat(to, port),
                }
            }
            "count" => Verb::Count(self.new_name("a counter")),
            "limit" => {
                let rate = self.rate();
                let per = match self.eat_word("per") {
                    true => self.subjects(),
                    false => Vec::new(),
                };
                Verb::Limit { rate, per }
            }
            "mirror" => {
                self.expect_word("to");
                Verb::Mirror(self.value())
            }
            _ => Verb::Log(self.eat_text()),
        })
    }

    fn balance(&mut self) -> Verb {
        let mut targets = Vec::new();
        let mut by = Vec::new();
        if self.expect_sign("(") {
            while !self.is_sign(")") && !self.at_item() {
                let before = self.at;
                let target = self.value();
                let mut weight = None;
                if self.eat_word("weight") {
                    match self.peek() {
                        Token::Number(number) => {
                            self.advance();
                            weight = Some(number);
                        }
                        _ => self.expected("a weight, such as `2`"),
                    }
                }
                targets.push((target, weight));
                if self.eat_word("by") {
                    by = self.subjects();
                    break;
                }
                if !self.eat_sign(",") || self.at == before {
                    break;
                }
            }
            self.expect_sign(")");
        }
        Verb::Balance { targets, by }
    }

    /// Fields, with commas between them.
    fn subjects(&mut self) -> Vec<Subject> {
        let mut subjects = Vec::new();
        loop {
            match self.subject() {
                Some(subject) => subjects.push(subject),
                None => {
                    self.expected("a field, such as `ip4Src`");
                    break;
                }
            }
            if !self.is_sign(",") {
                break;
            }
            self.advance();
        }
        subjects
    }

    /// `100/s`, `100 pps`, `10mbit`, `10mbit/s`.
    fn rate(&mut self) -> Rate {
        let Token::Number(number) = self.peek() else {
            self.expected("a rate, such as `100 pps` or `10 mbit`");
            return Rate::Packets(0);
        };
        self.advance();
        let unit = match self.peek() {
            Token::Ident(word) => RATES
                .iter()
                .find(|(name, _)| *name == word)
                .map(|(_, r)| *r),
            Token::Sign("/") => Some(Rate::Packets(1)),
            _ => None,
        };
        let Some(unit) = unit else {
            self.expected("`/s`, `pps`, `kpps`, `mpps`, `bit`, `kbit`, `mbit` or `gbit`");
            return Rate::Packets(number);
        };
        if !self.is_sign("/") {
            self.advance();
        }
        if self.eat_sign("/") {
            self.expect_word("s");
        }
        match unit {
            Rate::Packets(one) => Rate::Packets(number.saturating_mul(one)),
            Rate::Bits(one) => Rate::Bits(number.saturating_mul(one)),
        }
    }

    /// `NODE@PORT => NODE@PORT`; `=>>` means the same.
    pub(super) fn link(&mut self) -> Expr {
        let start = self.span();
        let from = self.location();
        if !self.eat_sign("=>") && !self.eat_sign("=>>") {
            self.expected_hint("`=>`", Some("a link is written `node@port => node@port`"));
            return error(self.since(start));
        }
        let to = self.location();
        let kind = ExprKind::Link {
            from: Box::new(from),
            to: Box::new(to),
        };
        self.built(start, kind)
    }

    fn location(&mut self) -> (crate::ast::Value, crate::ast::Value) {
        let node = self.value();
        self.expect_sign("@");
        let port = self.value();
        (node, port)
    }
}
