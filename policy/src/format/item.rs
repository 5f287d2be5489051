//! Layout of definitions.

use super::layout::{Between, Layout, NO_ROW};
use crate::ast::{Assertion, AssertionKind, Expr, Item, ItemKind, Test, Value};
use crate::token::Token;

impl Layout<'_> {
    /// The whole text.
    pub(super) fn document(&mut self, items: &[Item]) {
        let mut table = NO_ROW;
        let mut word = None;
        for item in items {
            // Neighbouring definitions of one kind make a table, until something else comes.
            let next = match self.peek() {
                Token::Ident(word @ ("set" | "let" | "policy")) => Some(word),
                _ => None,
            };
            if next.is_none() || next != word {
                table = self.table();
                word = next;
            }
            self.gap(Between::Hard);
            self.item(item, table);
            self.tokens(item.span.end);
        }
        self.gap(Between::Hard);
    }

    fn item(&mut self, item: &Item, table: u32) {
        match &item.kind {
            ItemKind::Network { .. } => {
                self.token();
                self.token();
                if self.before(item.span.end) {
                    self.network();
                }
            }
            ItemKind::Set { value, .. } => {
                self.token();
                self.token();
                self.equals(table);
                self.named_value(value);
            }
            ItemKind::Let(definition) => self.definition(definition, table),
            ItemKind::Policy { body, .. } if self.is_word("policy") => {
                self.token();
                self.token();
                self.equals(table);
                self.body(body);
            }
            ItemKind::Policy { body, .. } => self.expr(body),
            ItemKind::Assert(assertion) => self.assertion(assertion),
            ItemKind::Test(test) => self.test(test, item.span.end),
            ItemKind::Import { .. } => self.tokens(item.span.end),
        }
    }

    /// The value of a set: in braces behind the sign, otherwise where it fits.
    fn named_value(&mut self, value: &Value) {
        if self.is_sign("{") || self.is_word("labels") {
            self.gap(Between::Space);
            return self.value(value);
        }
        self.open();
        self.indent();
        self.gap(Between::Line);
        self.value(value);
        self.dedent();
        self.close();
    }

    /// `{ subnet …; public … }`: on one line, or each on its own.
    fn network(&mut self) {
        let closing = self.lexed().closing(self.at());
        let group = self.open();
        self.token();
        if self.broken_before(0) {
            self.break_group(group);
        }
        self.indent();
        let mut between = Between::Line;
        while self.at() < closing {
            self.gap(between);
            between = Between::LineKeepingBlank;
            self.open();
            self.indent();
            while self.at() < closing && !self.is_sign(";") {
                let comma = self.is_sign(",");
                self.token();
                if comma && self.at() < closing {
                    self.gap(Between::Line);
                }
            }
            self.dedent();
            self.close();
            if self.is_sign(";") {
                self.gap(Between::Nothing);
                self.token();
            }
        }
        self.gap_closing(Between::Line);
        self.token();
        self.close();
    }

    fn assertion(&mut self, assertion: &Assertion) {
        self.token();
        self.gap(Between::Space);
        let (left, right) = match &assertion.kind {
            // `p >= q` is kept as `q <= p`.
            AssertionKind::Equal(left, right) | AssertionKind::Contained(left, right) => {
                match left.span.start <= right.span.start {
                    true => (left, right),
                    false => (right, left),
                }
            }
            AssertionKind::Reach(from, to) => {
                return self.claim(&[from, to], assertion.condition.as_ref());
            }
            AssertionKind::Isolated { left, right, .. } => {
                return self.claim(&[left, right], assertion.condition.as_ref());
            }
            AssertionKind::Waypoint { from, to, via } => {
                return self.claim(&[from, to, via], assertion.condition.as_ref());
            }
            AssertionKind::LoopFree | AssertionKind::NoBlackHole => {
                return self.claim(&[], assertion.condition.as_ref());
            }
        };
        self.open();
        self.indent();
        self.expr(left);
        self.gap(Between::Line);
        self.token();
        self.gap(Between::Space);
        self.expr(right);
        if let Some(condition) = &assertion.condition {
            self.gap(Between::Line);
            self.condition(condition);
        }
        self.dedent();
        self.close();
    }

    /// `where p`.
    fn condition(&mut self, condition: &Expr) {
        self.token();
        self.gap(Between::Space);
        self.hanging(condition);
    }

    /// `reach(…)` and its like.
    fn claim(&mut self, values: &[&Value], condition: Option<&Expr>) {
        self.token();
        if self.is_word("both") {
            self.token();
        }
        if self.is_sign("(") {
            let mut values = values.iter().copied().peekable();
            self.arguments(|layout| match condition {
                Some(condition) if layout.is_word("where") => layout.condition(condition),
                _ => layout.token_or_value(&mut values),
            });
        } else if let Some(condition) = condition {
            self.gap(Between::Space);
            self.condition(condition);
        }
    }

    fn test(&mut self, test: &Test, end: u32) {
        let group = self.open();
        self.token();
        self.token();
        self.token();
        if test.cases.len() > 1 || self.broken_before(0) {
            self.break_group(group);
        }
        self.indent();
        let table = self.table();
        for (at, case) in test.cases.iter().enumerate() {
            self.gap(match at {
                0 => Between::Line,
                _ => Between::LineKeepingBlank,
            });
            self.open();
            self.indent();
            let values = [Some(&case.from), Some(&case.to), case.port.as_ref()];
            let fields = case.fields.iter().map(|(_, value)| value);
            let mut values = values.into_iter().flatten().chain(fields).peekable();
            while self.before(case.span.end) {
                if self.is_sign(":") {
                    let row = self.row(table, false);
                    self.gap(Between::Anchor(row));
                } else if self.is_word("with") {
                    self.gap(Between::Line);
                }
                self.token_or_value(&mut values);
            }
            self.dedent();
            self.close();
            if self.is_sign(";") {
                self.gap(Between::Nothing);
                self.token();
            }
        }
        self.gap_closing(Between::Line);
        self.tokens(end);
        self.close();
    }
}
