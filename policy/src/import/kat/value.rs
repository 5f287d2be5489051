//! Tests and assignments of Frenetic's fields, and the values they take.

use crate::diagnostic::{Code, Span};
use crate::nearest::nearest;
use crate::token::shorten;
use crate::verify::program::{NodeId, Range, Value};

use super::field::{self, Field, Notation};
use super::lexer::Token;
use super::reader::{Outcome, Reader};

/// Words of the language that begin neither a test nor an assignment.
const WORDS: [&str; 7] = ["then", "else", "do", "in", "if", "while", "filter"];

impl Reader<'_, '_> {
    /// `FIELD = v`, `FIELD != v`, `FIELD := v`.
    pub(super) fn on_field(&mut self, name: &str) -> Outcome<NodeId> {
        let span = self.span();
        let Some(field) = field::named(name) else {
            return Err(self.unknown(name, span));
        };
        self.advance();
        let sign = self.peek();
        let Token::Sign(sign @ ("=" | "!=" | ":=")) = sign else {
            return Err(self.expected("`=`, `!=` or `:=`"));
        };
        self.advance();
        let id = self.field(field, span)?;
        let start = self.span();
        let (first, last) = self.value(field)?;
        if sign == ":=" {
            if first != last {
                let span = self.since(start);
                return Err(self.report(
                    Code::ForeignValue,
                    span,
                    "a prefix is assigned, which is many addresses",
                    Some("assign one address"),
                ));
            }
            let made = self.builder.assign(id, first);
            return self.made(span, made);
        }
        let mut made = self.builder.test(id, [(first, last)]);
        if sign == "!=" {
            made = made.and_then(|test| self.builder.not(test));
        }
        self.made(span, made)
    }

    fn unknown(&mut self, name: &str, span: Span) -> super::reader::Failed {
        if WORDS.contains(&name) {
            return self.expected("a policy or a predicate");
        }
        if field::PORTLESS.contains(&name) {
            let message = format!("`{name}` is a field of portless policies");
            let hint = "say where packets are by `switch` and `port`";
            return self.report(Code::ForeignConstruct, span, message, Some(hint));
        }
        let words = ["filter", "drop", "dup", "true", "false", "skip", "while"];
        let near = nearest(name, field::names().chain(words));
        let hint = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!(
                "fields are {}",
                field::names().collect::<Vec<_>>().join(", ")
            ),
        };
        let message = format!("there is no field `{}`", shorten(name));
        self.report(Code::ForeignName, span, message, Some(&hint))
    }

    /// A value of a field, or the range of a prefix.
    fn value(&mut self, field: Field) -> Outcome<Range> {
        let span = self.span();
        let number = match self.peek() {
            Token::Number(number) => number,
            Token::Mac(mac) if field.notation == Notation::Mac => mac,
            Token::Address(address) if field.notation == Notation::Address => {
                self.advance();
                return self.prefix(address);
            }
            Token::Word(word @ ("pipe" | "query")) if field.notation == Notation::Location => {
                return Err(self.outside(word));
            }
            _ => {
                let what = match field.notation {
                    Notation::Number | Notation::Location => "a number",
                    Notation::Mac => "a number or a MAC address",
                    Notation::Address => "a number, an IPv4 address or a prefix",
                };
                return Err(self.expected(&format!("{what} for `{}`", field.name)));
            }
        };
        self.advance();
        let value = self.in_range(number, field, span);
        Ok((value, value))
    }

    /// What may follow an address: `/` and the length of a prefix.
    fn prefix(&mut self, address: u32) -> Outcome<Range> {
        if !self.eat("/") {
            let value = Value::number(address.into());
            return Ok((value, value));
        }
        let span = self.span();
        let Token::Number(length) = self.peek() else {
            return Err(self.expected("the length of a prefix"));
        };
        self.advance();
        if length > 32 {
            let message = format!("prefixes of IPv4 have up to 32 bits, not {length}");
            return Err(self.report(Code::ForeignValue, span, message, None));
        }
        // 64-bit arithmetic, as a shift by the whole width is none.
        let hosts = (1u64 << (32 - length)) - 1;
        let first = u64::from(address) & !hosts;
        Ok((Value::number(first), Value::number(first | hosts)))
    }

    /// `pipe("…")` and `query("…")`.
    fn outside(&mut self, word: &str) -> super::reader::Failed {
        let start = self.span();
        self.advance();
        // Read on, so that what follows is not a second mistake.
        if self.eat("(") {
            if matches!(self.peek(), Token::Text(_)) {
                self.advance();
            }
            self.eat(")");
        }
        let span = self.since(start);
        self.report(
            Code::ForeignConstruct,
            span,
            format!("`{word}` sends packets to a controller, which no program expresses"),
            Some("give such packets a port that nothing else uses"),
        )
    }
}
