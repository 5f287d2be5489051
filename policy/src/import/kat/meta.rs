//! Meta-fields: `` let `x := v in p `` and `` var `x := v in p ``.
//!
//! A constant that is never assigned needs no field: its tests are decided while they are read. Any
//! other meta-field is a field of the program, set before the body and zero after it. One that
//! begins as an alias of a packet's field gets that field's value as far as the body can tell: each
//! value it is tested for, or one that it is not tested for. As in Frenetic, a body with such a
//! field holds no `dup` and no link: histories would show what exists inside of the switch only.

use std::collections::BTreeSet;

use crate::diagnostic::{Code, Span};
use crate::import::builder::Excess;
use crate::nearest::nearest;
use crate::verify::program::{FieldId, NodeId, Value};

use super::field::{self, Field};
use super::lexer::Token;
use super::numbers;
use super::reader::{Outcome, Reader};

/// A meta-field in scope.
#[derive(Clone, Debug)]
pub(super) struct Meta<'a> {
    name: &'a str,
    mutable: bool,
    start: Start,
    /// The values it is tested for.
    tested: BTreeSet<u64>,
    /// The values it is assigned.
    assigned: BTreeSet<u64>,
}

/// What a meta-field begins as.
#[derive(Clone, Copy, Debug)]
enum Start {
    Constant(u64),
    /// The value of a packet's field at the beginning of the body.
    Alias(Field, FieldId),
}

impl<'a> Reader<'_, 'a> {
    /// The whole binding.
    pub(super) fn binding(&mut self) -> Outcome<NodeId> {
        let start = self.span();
        let mutable = self.peek() == Token::Word("var");
        self.advance();
        let Token::Meta(name) = self.peek() else {
            return Err(self.expected("the name of a meta-field, which begins with a backquote"));
        };
        self.advance();
        self.expect(":=")?;
        let begins = self.beginning()?;
        self.expect_word("in")?;
        self.metas.push(Meta {
            name,
            mutable,
            start: begins,
            tested: BTreeSet::new(),
            assigned: BTreeSet::new(),
        });
        let depth = self.metas.len();
        let body = self.policy();
        let meta = self.metas.pop().expect("scopes close in order");
        let body = body?;
        if meta.is_decided() {
            return Ok(body);
        }
        let span = self.since(start);
        if self.builder.records(body) {
            let message = format!("`dup` or a link stands inside of the scope of `{name}`");
            return Err(self.report(
                Code::ForeignConstruct,
                span,
                message,
                Some("meta-fields exist inside of a switch only; close their scope before"),
            ));
        }
        let made = self.bound(&meta, depth, body);
        self.made(span, made)
    }

    /// A value or the name of a field.
    fn beginning(&mut self) -> Outcome<Start> {
        let span = self.span();
        if let Token::Word(name) = self.peek()
            && let Some(field) = field::named(name)
        {
            self.advance();
            return Ok(Start::Alias(field, self.field(field, span)?));
        }
        self.meta_value().map(Start::Constant)
    }

    /// A value of any notation.
    fn meta_value(&mut self) -> Outcome<u64> {
        let value = match self.peek() {
            Token::Number(number) => number,
            Token::Mac(mac) => mac,
            Token::Address(address) => address.into(),
            _ => return Err(self.expected("a number, a MAC address or an IPv4 address")),
        };
        self.advance();
        Ok(value)
    }

    /// A test or an assignment of a meta-field.
    pub(super) fn on_meta(&mut self, name: &'a str) -> Outcome<NodeId> {
        let span = self.span();
        self.advance();
        let Some(index) = self.metas.iter().rposition(|meta| meta.name == name) else {
            let near = nearest(name, self.metas.iter().map(|meta| meta.name));
            let hint = match near {
                Some(near) => format!("did you mean `` `{near} ``?"),
                None => "bind it by `let` or `var` around this".to_owned(),
            };
            let message = format!("no meta-field `{name}` is in scope");
            return Err(self.report(Code::ForeignName, span, message, Some(&hint)));
        };
        let Token::Sign(sign @ ("=" | "!=" | ":=")) = self.peek() else {
            return Err(self.expected("`=`, `!=` or `:=`"));
        };
        self.advance();
        let value = self.meta_value()?;
        if sign == ":=" {
            return self.assign_meta(index, value, span);
        }
        let meta = &mut self.metas[index];
        let test = match (meta.is_decided(), meta.start) {
            (true, Start::Constant(constant)) if constant == value => self.builder.id(),
            (true, _) => self.builder.drop(),
            (false, _) => {
                meta.tested.insert(value);
                let field = self.meta_field(index + 1);
                let field = self.made(span, field)?;
                let value = Value::number(value);
                let made = self.builder.test(field, [(value, value)]);
                self.made(span, made)?
            }
        };
        if sign == "=" {
            return Ok(test);
        }
        let made = self.builder.not(test);
        self.made(span, made)
    }

    fn assign_meta(&mut self, index: usize, value: u64, span: Span) -> Outcome<NodeId> {
        let meta = &mut self.metas[index];
        if !meta.mutable {
            let message = format!("`{}` is bound by `let` and never changes", meta.name);
            let hint = "bind it by `var`";
            return Err(self.report(Code::ForeignKind, span, message, Some(hint)));
        }
        meta.assigned.insert(value);
        let field = self.meta_field(index + 1);
        let field = self.made(span, field)?;
        let made = self.builder.assign(field, Value::number(value));
        self.made(span, made)
    }

    /// The field of the meta-field that is bound at a depth, from 1. Scopes side by side share it.
    fn meta_field(&mut self, depth: usize) -> Result<FieldId, Excess> {
        self.builder.field(&format!("`{depth}"), numbers(u64::MAX))
    }

    /// Sets the field, runs the body, and forgets the field.
    fn bound(&mut self, meta: &Meta<'a>, depth: usize, body: NodeId) -> Result<NodeId, Excess> {
        let field = self.meta_field(depth)?;
        let begin = match meta.start {
            Start::Constant(value) => self.builder.assign(field, Value::number(value))?,
            Start::Alias(of, id) => self.alias(meta, field, of, id)?,
        };
        let end = self.builder.assign(field, Value::number(0))?;
        self.builder.sequence(&[begin, body, end])
    }

    /// Copies the field `id` as far as the body can tell.
    fn alias(
        &mut self,
        meta: &Meta<'a>,
        field: FieldId,
        of: Field,
        id: FieldId,
    ) -> Result<NodeId, Excess> {
        let mut arms = Vec::new();
        for value in meta.tested.iter().filter(|value| **value <= of.max) {
            let value = Value::number(*value);
            let test = self.builder.test(id, [(value, value)])?;
            arms.push((test, self.builder.assign(field, value)?));
        }
        // Finitely many values are tested or assigned, so one is free.
        let other = (0..=u64::MAX)
            .find(|value| !meta.tested.contains(value) && !meta.assigned.contains(value))
            .expect("a text names fewer values than there are");
        let otherwise = self.builder.assign(field, Value::number(other))?;
        self.builder.conditional(&arms, otherwise)
    }
}

impl Meta<'_> {
    /// Whether its tests are decided while they are read.
    fn is_decided(&self) -> bool {
        !self.mutable && matches!(self.start, Start::Constant(_))
    }
}
