//! Values: numbers, ranges, addresses, prefixes, names, sets.

use super::Parser;
use super::item::no_value;
use crate::ast::{Name, Value, ValueKind};
use crate::token::Token;

impl Parser<'_> {
    pub(super) fn value(&mut self) -> Value {
        let start = self.span();
        let kind = match self.peek() {
            Token::Number(first) => {
                self.advance();
                match (self.is_sign("-"), self.peek_at(1)) {
                    (true, Token::Number(last)) => {
                        self.advance();
                        self.advance();
                        ValueKind::Range(first, last)
                    }
                    _ => ValueKind::Number(first),
                }
            }
            Token::Mac(mac) => {
                self.advance();
                ValueKind::Mac(mac)
            }
            Token::Address(first) => {
                self.advance();
                match (self.is_sign("-"), self.peek_at(1)) {
                    (true, Token::Address(last)) => {
                        self.advance();
                        self.advance();
                        ValueKind::AddressRange(first, last)
                    }
                    _ => ValueKind::Address(first),
                }
            }
            Token::Prefix(address, length) => {
                self.advance();
                ValueKind::Prefix(address, length)
            }
            Token::Text(text) => {
                self.advance();
                ValueKind::Text(text.to_owned())
            }
            Token::Ident("labels") => self.labels(),
            Token::Ident(word) if is_value_word(word) => {
                self.advance();
                match (self.is_sign("."), self.peek_at(1)) {
                    (true, Token::Ident(member)) => {
                        self.advance();
                        self.advance();
                        ValueKind::Name(format!("{word}.{member}"))
                    }
                    _ => ValueKind::Name(word.to_owned()),
                }
            }
            Token::Sign("{") => {
                let elements = self.nested(Self::elements, Vec::new());
                ValueKind::Set(elements)
            }
            Token::Error => {
                self.advance();
                ValueKind::Error
            }
            _ => {
                self.expected("a value");
                return no_value(start);
            }
        };
        Value {
            kind,
            span: self.since(start),
        }
    }

    fn elements(&mut self) -> Vec<Value> {
        self.advance();
        let mut elements = Vec::new();
        while !self.is_sign("}") && !self.at_item() {
            let before = self.at;
            elements.push(self.value());
            if !self.eat_sign(",") && !self.is_sign("}") {
                self.expected("`,` or `}`");
                // What stands between two commas is passed; a missing brace ends the set.
                while !matches!(self.peek(), Token::Sign("}" | "," | ";" | ")" | "{"))
                    && !self.ends_value()
                {
                    self.advance();
                }
                if !self.eat_sign(",") {
                    break;
                }
            }
            if self.at == before {
                self.advance();
            }
        }
        self.expect_sign("}");
        elements
    }

    fn ends_value(&self) -> bool {
        self.at_item()
            || matches!(
                self.peek(),
                Token::Ident("then" | "else" | "do" | "in" | "and" | "or")
            )
    }

    fn labels(&mut self) -> ValueKind {
        self.advance();
        let mut labels = Vec::new();
        if !self.expect_sign("(") {
            return ValueKind::Error;
        }
        while !self.is_sign(")") && !self.at_item() {
            let span = self.span();
            // Any word can be a key, and a quoted text too.
            let text = match self.peek() {
                Token::Ident(word) => word.to_owned(),
                Token::Text(text) => text.to_owned(),
                _ => {
                    self.expected("a label, as in `tier = \"db\"`");
                    break;
                }
            };
            self.advance();
            self.expect_sign("=");
            match self.eat_text() {
                Some(value) => labels.push((Name { text, span }, value)),
                None => {
                    self.expected("the label's value in quotes");
                    break;
                }
            }
            if !self.eat_sign(",") {
                break;
            }
        }
        if !self.is_sign(")") {
            self.expected("`,` or `)`");
            while !self.is_sign(")") && !self.ends_value() {
                self.advance();
            }
        }
        self.eat_sign(")");
        if labels.is_empty() {
            self.expected("at least one label");
        }
        ValueKind::Labels(labels)
    }
}

/// Whether a word can stand for a value: a name, or a word such as `tcp` in `ipProto = tcp`.
fn is_value_word(word: &str) -> bool {
    crate::ast::Word::named(word).is_some()
        || matches!(word, "ip" | "established")
        || !super::is_reserved(word)
}
