//! Tests in the language: packets, and what shall become of them.

use super::Parser;
use crate::ast::{Expected, Test, TestCase, Word};
use crate::token::Token;

impl Parser<'_> {
    /// `test "name" { from X to Y tcp 22 : drop … }`.
    pub(super) fn test_block(&mut self) -> Option<Test> {
        self.advance();
        let Some(name) = self.eat_text() else {
            self.expected_hint(
                "the name of the test in quotes",
                Some("write `test \"web may not ssh\" { from web1 to db1 tcp 22 : drop }`"),
            );
            self.skip_block();
            return None;
        };
        if !self.expect_sign("{") {
            self.skip_block();
            return None;
        }
        let mut cases = Vec::new();
        while !self.is_sign("}") && !self.at_item() {
            if !self.is_word("from") {
                self.expected("`from` or `}`");
                self.skip_case();
                continue;
            }
            cases.push(self.test_case());
            self.eat_sign(";");
        }
        self.expect_sign("}");
        Some(Test { name, cases })
    }

    fn test_case(&mut self) -> TestCase {
        let start = self.span();
        self.advance();
        let from = self.value();
        self.expect_word("to");
        let to = self.value();
        let protocol = match self.peek() {
            Token::Ident(word) => Word::named(word).filter(|word| is_protocol(*word)),
            _ => None,
        };
        if protocol.is_some() {
            self.advance();
        }
        let port = matches!(self.peek(), Token::Number(_)).then(|| self.value());
        let mut fields = Vec::new();
        if self.eat_word("with") {
            loop {
                let Some(subject) = self.subject() else {
                    self.expected("a field, such as `conn`");
                    break;
                };
                if !self.eat_sign("=") {
                    self.eat_sign("==");
                }
                fields.push((subject, self.value()));
                if !self.eat_sign(",") {
                    break;
                }
            }
        }
        self.expect_sign(":");
        let expected = self.outcome();
        TestCase {
            from,
            to,
            protocol,
            port,
            fields,
            expected,
            span: self.since(start),
        }
    }

    fn outcome(&mut self) -> Expected {
        if self.eat_word("drop") {
            return Expected::Drop(self.eat_text());
        }
        if self.eat_word("forward") {
            let to = self.eat_word("to").then(|| self.value());
            return Expected::Forward(to, self.eat_text());
        }
        self.expected_hint(
            "`drop` or `forward`",
            Some("after the colon stands what shall become of the packet"),
        );
        self.skip_case();
        Expected::Drop(None)
    }

    /// Skips to the next case, or the end of the block.
    fn skip_case(&mut self) {
        while !self.is_word("from") && !self.is_sign("}") && !self.at_item() {
            self.advance();
        }
    }

    /// Skips a block whose head could not be read.
    fn skip_block(&mut self) {
        while !self.is_sign("}") && !self.at_item() {
            self.advance();
        }
        self.eat_sign("}");
    }
}

const fn is_protocol(word: Word) -> bool {
    matches!(
        word,
        Word::Tcp
            | Word::Udp
            | Word::Icmp
            | Word::Icmp4
            | Word::Icmp6
            | Word::Arp
            | Word::Http
            | Word::Https
            | Word::Ssh
            | Word::Dns
    )
}
