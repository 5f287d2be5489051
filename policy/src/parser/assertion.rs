//! Assertions: what shall hold of a policy.

use super::Parser;
use crate::ast::{Assertion, AssertionKind};
use crate::token::Token;

/// Assertions that begin with a word of their own.
const KINDS: [&str; 5] = [
    "reach",
    "isolated",
    "waypoint",
    "loop-free",
    "no-black-hole",
];

impl Parser<'_> {
    /// `assert …`; nothing when it could not be read, which is then reported.
    pub(super) fn assertion(&mut self) -> Option<Assertion> {
        self.advance();
        let word = match self.peek() {
            Token::Ident(word) if KINDS.contains(&word) => word,
            _ => return self.comparison(),
        };
        let opens = self.peek_at(1) == Token::Sign("(")
            || (word == "isolated" && self.peek_at(1) == Token::Ident("both"));
        let alone = matches!(word, "loop-free" | "no-black-hole");
        if !opens && !alone {
            self.advance();
            self.expected_hint(
                "`(`",
                Some("write `assert reach(web, db where tcp dst port 5432)`"),
            );
            self.skip_to_item();
            return None;
        }
        self.advance();
        let both = word == "isolated" && self.eat_word("both");
        let kind = match word {
            "reach" => {
                self.expect_sign("(");
                let from = self.value();
                self.expect_sign(",");
                AssertionKind::Reach(from, self.value())
            }
            "isolated" => {
                self.expect_sign("(");
                let left = self.value();
                self.expect_sign(",");
                let right = self.value();
                AssertionKind::Isolated { left, right, both }
            }
            "waypoint" => {
                self.expect_sign("(");
                let from = self.value();
                self.expect_sign(",");
                let to = self.value();
                self.expect_sign(",");
                self.expect_word("via");
                let via = self.value();
                AssertionKind::Waypoint { from, to, via }
            }
            "loop-free" => AssertionKind::LoopFree,
            _ => AssertionKind::NoBlackHole,
        };
        let bracket = !alone || self.eat_sign("(");
        let condition = self.eat_word("where").then(|| self.or());
        if bracket {
            self.expect_sign(")");
        }
        Some(Assertion { kind, condition })
    }

    /// `p == q`, `p <= q`, `p >= q`, with `where` behind.
    fn comparison(&mut self) -> Option<Assertion> {
        let before = std::mem::replace(&mut self.comparing, true);
        let left = self.policy();
        self.comparing = before;
        let sign = match self.peek() {
            Token::Sign(sign @ ("==" | "<=" | ">=")) => sign,
            _ => {
                self.expected_hint(
                    "`==` or `<=`",
                    Some(
                        "assertions are `reach(a, b)`, `isolated(a, b)`, `waypoint(a, b, via c)`, \
                         `loop-free`, `no-black-hole`, `p == q`, `p <= q`",
                    ),
                );
                self.skip_to_item();
                return None;
            }
        };
        self.advance();
        let right = self.policy();
        let kind = match sign {
            "==" => AssertionKind::Equal(left, right),
            "<=" => AssertionKind::Contained(left, right),
            _ => AssertionKind::Contained(right, left),
        };
        let condition = self.eat_word("where").then(|| self.or());
        Some(Assertion { kind, condition })
    }
}
