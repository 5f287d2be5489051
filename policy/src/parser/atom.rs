//! Atoms: constants, tests, assignments, verbs, names, brackets.

use super::Parser;
use super::expression::error;
use crate::ast::{Argument, Expr, ExprKind, Name, Operator, Verb, Word};
use crate::diagnostic::Span;
use crate::field::{Field, Subject};
use crate::token::Token;

impl Parser<'_> {
    pub(super) fn atom(&mut self) -> Expr {
        let start = self.span();
        match self.peek() {
            Token::Sign("(") => {
                self.advance();
                let mut inner = self.policy();
                self.expect_sign(")");
                inner.span = self.since(start);
                inner
            }
            Token::Ident(word) => self.word(start, word),
            Token::Number(_) | Token::Text(_) if self.peek_at(1) == Token::Sign("@") => self.link(),
            Token::Error => {
                self.advance();
                error(start)
            }
            _ => {
                self.expected("a policy or predicate");
                self.skip_bad_token();
                error(start)
            }
        }
    }

    /// Passes a token that begins no expression, unless something outside may go on with it.
    fn skip_bad_token(&mut self) {
        let outside = match self.peek() {
            Token::Sign(sign) => matches!(sign, ")" | ";" | "+" | "|" | "}" | "," | "=" | ":="),
            Token::Ident(word) => matches!(word, "then" | "else" | "do" | "in" | "and" | "or"),
            _ => false,
        };
        if !outside && !self.at_item() {
            self.advance();
        }
    }

    /// Passes the rest of a test that could not be read.
    fn skip_to_operator(&mut self) {
        let at_operator = |token: Token<'_>| match token {
            Token::Sign(sign) => !matches!(sign, "=" | "==" | "!=" | "<" | ">" | "-" | "/" | ":"),
            Token::Ident(word) => matches!(word, "then" | "else" | "do" | "in" | "and" | "or"),
            _ => false,
        };
        while !self.at_item() && !at_operator(self.peek()) {
            self.advance();
        }
    }

    fn word(&mut self, start: Span, word: &str) -> Expr {
        let simple = match word {
            "true" => Some(ExprKind::True),
            "false" => Some(ExprKind::False),
            "id" | "skip" => Some(ExprKind::Id),
            _ => None,
        };
        if let Some(kind) = simple {
            self.advance();
            return self.built(start, kind);
        }
        match word {
            "drop" => {
                self.advance();
                let label = self.eat_text();
                return self.built(start, ExprKind::Drop(label));
            }
            "forward" => {
                self.advance();
                if self.eat_word("to") {
                    let target = self.value();
                    let label = self.eat_text();
                    let verb = Box::new(Verb::ForwardTo(target, label));
                    return self.built(start, ExprKind::Verb(verb));
                }
                let label = self.eat_text();
                return self.built(start, ExprKind::Forward(label));
            }
            _ => {}
        }
        if self.peek_at(1) == Token::Sign("@") && !super::is_reserved(word) {
            return self.link();
        }
        if let Some(expr) = self.verb(start, word) {
            return expr;
        }
        if let Some(kind) = Word::named(word) {
            return self.protocol(start, kind);
        }
        if let Some(subject) = self.subject() {
            return self.test_or_assignment(start, subject);
        }
        if super::is_reserved(word) {
            self.expected("a policy or predicate");
            self.skip_bad_token();
            return error(start);
        }
        self.named(start, word)
    }

    /// A word that stands for a test; after a protocol, `src port` and `dst port` may follow.
    fn protocol(&mut self, start: Span, word: Word) -> Expr {
        self.advance();
        let test = self.built(start, ExprKind::Word(word));
        let ports =
            self.peek_at(1) == Token::Ident("port") && (self.is_word("src") || self.is_word("dst"));
        if !ports || !matches!(word, Word::Tcp | Word::Udp) {
            return test;
        }
        let second = self.span();
        match self.subject() {
            Some(subject) => {
                let port = self.test_or_assignment(second, subject);
                self.built(start, ExprKind::And(vec![test, port]))
            }
            None => test,
        }
    }

    /// The field that is named here, of one word or two.
    pub(super) fn subject(&mut self) -> Option<Subject> {
        let Token::Ident(word) = self.peek() else {
            return None;
        };
        let subject = Subject::named(word)?;
        self.advance();
        if self.is_word("port") {
            let port = match subject {
                Subject::Field(Field::Source) => Some(Field::SourcePort),
                Subject::Field(Field::Destination) => Some(Field::DestinationPort),
                _ => None,
            };
            if let Some(port) = port {
                self.advance();
                return Some(Subject::Field(port));
            }
        }
        Some(subject)
    }

    fn test_or_assignment(&mut self, start: Span, subject: Subject) -> Expr {
        let operator = match self.peek() {
            Token::Sign("=" | "==") => Operator::Equal,
            Token::Sign("!=") => Operator::NotEqual,
            Token::Ident("in") => Operator::In,
            Token::Sign(":=") => {
                self.advance();
                let value = self.value();
                return self.built(start, ExprKind::Assign { subject, value });
            }
            // `dst port 80`, without an operator.
            Token::Number(_) if is_port(subject) => {
                let value = self.value();
                let operator = Operator::Equal;
                return self.built(
                    start,
                    ExprKind::Test {
                        subject,
                        operator,
                        value,
                    },
                );
            }
            Token::Sign("<" | ">" | "<=" | ">=") => {
                self.expected_hint(
                    "`=`, `!=`, `in` or `:=`",
                    Some("write a range: `dst port in 1024-65535`"),
                );
                self.advance();
                self.value();
                return error(start);
            }
            _ => {
                self.expected(&format!(
                    "`=`, `!=`, `in` or `:=` after `{}`",
                    subject.name()
                ));
                self.skip_to_operator();
                return error(start);
            }
        };
        self.advance();
        let value = self.value();
        self.built(
            start,
            ExprKind::Test {
                subject,
                operator,
                value,
            },
        )
    }

    fn named(&mut self, start: Span, word: &str) -> Expr {
        let name = Name {
            text: word.to_owned(),
            span: start,
        };
        self.advance();
        let compared = self.comparing && self.is_sign("==");
        if matches!(
            self.peek(),
            Token::Sign("=" | "==" | "!=" | ":=") | Token::Ident("in")
        ) && self.looks_like_field_use()
            && !compared
        {
            return self.unknown_field(&name);
        }
        let mut arguments = Vec::new();
        if self.eat_sign("(") {
            while !self.is_sign(")") && !self.at_item() {
                arguments.push(self.argument());
                if !self.eat_sign(",") {
                    break;
                }
            }
            self.expect_sign(")");
        }
        self.built(start, ExprKind::Use { name, arguments })
    }

    /// A name before `in` may be the value of a `let … in`; before `=` or `:=` it is a field.
    fn looks_like_field_use(&self) -> bool {
        !self.is_word("in") || matches!(self.peek_at(1), Token::Sign("{") | Token::Prefix(..))
    }

    fn unknown_field(&mut self, name: &Name) -> Expr {
        let names: Vec<&str> = crate::field::subject_names().collect();
        let report = self.sink.report(
            crate::diagnostic::Code::UnknownName,
            name.span,
            format!("unknown field `{}`", crate::token::shorten(&name.text)),
        );
        if let Some(near) = crate::nearest::nearest(&name.text, names.iter().copied()) {
            report.hint(format!("did you mean `{near}`?"));
        }
        self.advance();
        self.value();
        error(name.span)
    }

    fn argument(&mut self) -> Argument {
        let value = match self.peek() {
            Token::Number(_) => self.peek_at(1) != Token::Sign("@"),
            Token::Mac(_) | Token::Address(_) | Token::Prefix(..) | Token::Text(_) => true,
            Token::Sign("{") | Token::Ident("labels") => true,
            // `internet` as an argument is an expression that may also mean the set.
            _ => false,
        };
        if value {
            Argument::Value(self.value())
        } else {
            Argument::Expr(self.policy())
        }
    }
}

fn is_port(subject: Subject) -> bool {
    matches!(
        subject,
        Subject::Field(Field::SourcePort | Field::DestinationPort)
    )
}
