//! Layout of policies and predicates.
//!
//! The tree says where operands are, the tokens how they are written: brackets that the tree no
//! longer has are found by the place where an expression stands.

use super::layout::{Between, Layout, NO_ROW};
use crate::ast::{Argument, Expr, ExprKind, Let, Value, Verb};

/// Where a chain of operands breaks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operators {
    /// Before each operator, when its author broke at the first one or it does not fit.
    Leading,
    /// Before each operator, when it does not fit.
    LeadingWhereNeeded,
    /// Behind each operator, when its author did at the first one or it does not fit.
    Trailing,
}

impl Layout<'_> {
    /// An expression, whose first token is the next one.
    pub(super) fn expr(&mut self, expr: &Expr) {
        self.within(expr, expr.span.end);
    }

    /// An expression that ends at a byte, with the brackets around it.
    fn within(&mut self, expr: &Expr, end: u32) {
        if let Some(closing) = self.bracket(end) {
            self.open();
            self.token();
            self.indent();
            self.gap(Between::Soft);
            self.within(expr, self.lexed().span(closing - 1).end);
            self.gap_closing(Between::Soft);
            self.token();
            self.close();
            return;
        }
        match &expr.kind {
            ExprKind::Union(parts) => self.operands(parts, Operators::Leading),
            ExprKind::Sequence(parts) => self.operands(parts, Operators::Trailing),
            ExprKind::Or(parts) => self.operands(parts, Operators::Leading),
            ExprKind::And(parts) => self.operands(parts, Operators::LeadingWhereNeeded),
            ExprKind::Not(inner) => {
                let sign = self.is_sign("!");
                self.token();
                self.gap(if sign {
                    Between::Nothing
                } else {
                    Between::Space
                });
                self.expr(inner);
            }
            ExprKind::Star(inner) => {
                self.expr(inner);
                self.tokens(end);
            }
            ExprKind::Filter(inner) => {
                self.token();
                self.gap(Between::Space);
                self.hanging(inner);
            }
            ExprKind::Conditional { arms, otherwise } => self.conditional(arms, otherwise),
            ExprKind::While { condition, body } => {
                self.head(condition, NO_ROW);
                self.body(body);
            }
            ExprKind::LetIn { definition, body } => {
                let group = self.open();
                self.definition(definition, NO_ROW);
                self.gap(Between::Space);
                self.token();
                if self.broken_before(0) {
                    self.break_group(group);
                }
                self.gap(Between::Line);
                self.expr(body);
                self.close();
            }
            ExprKind::Test { value, .. } | ExprKind::Assign { value, .. } => {
                self.tokens(value.span.start);
                self.value(value);
            }
            ExprKind::Verb(verb) => self.verb(verb, end),
            ExprKind::Established(inner) => {
                self.token();
                if let Some(inner) = inner {
                    self.arguments(|layout| layout.expr(inner));
                }
            }
            ExprKind::Use { arguments, .. } => {
                self.token();
                if self.before(end) {
                    let mut arguments = arguments.iter();
                    self.arguments(|layout| match arguments.next() {
                        Some(Argument::Value(value)) => layout.value(value),
                        Some(Argument::Expr(expr)) => layout.expr(expr),
                        None => layout.token(),
                    });
                }
            }
            _ => self.tokens(end),
        }
    }

    /// The bracket that closes at a byte, when the next token is what opens it.
    fn bracket(&self, end: u32) -> Option<usize> {
        let closing = self.lexed().closing(self.at());
        (self.is_sign("(") && closing > self.at() && self.lexed().span(closing).end == end)
            .then_some(closing)
    }

    fn operands(&mut self, parts: &[Expr], operators: Operators) {
        let group = self.open();
        for (at, part) in parts.iter().enumerate() {
            if at == 1 {
                let broken = match operators {
                    Operators::Leading => self.broken_before(0) || self.broken_before(1),
                    Operators::Trailing => self.broken_before(1),
                    Operators::LeadingWhereNeeded => false,
                };
                if broken {
                    self.break_group(group);
                }
            }
            if at > 0 {
                let operator = self.before(part.span.start);
                match operators {
                    // `tcp dst port 80` is a conjunction without an operator.
                    _ if !operator => self.gap(Between::Space),
                    Operators::Trailing => {
                        self.gap(Between::Nothing);
                        self.token();
                        self.gap(Between::Line);
                    }
                    _ => {
                        self.gap(Between::Line);
                        self.token();
                        self.gap(Between::Space);
                    }
                }
            }
            self.expr(part);
        }
        self.close();
    }

    fn conditional(&mut self, arms: &[(Expr, Expr)], otherwise: &Expr) {
        let group = self.open();
        let table = self.table();
        for (at, (condition, body)) in arms.iter().enumerate() {
            if at > 0 {
                self.gap(Between::LineKeepingBlank);
                self.token();
                self.gap(Between::Space);
            }
            let row = if arms.len() > 1 { table } else { NO_ROW };
            self.head(condition, row);
            self.body(body);
            if at == 0 && (arms.len() > 1 || self.broken_before(0)) {
                self.break_group(group);
            }
        }
        self.gap(Between::LineKeepingBlank);
        self.token();
        self.body(otherwise);
        self.close();
    }

    /// `if p then` or `while p do`, the second word in a row of a table.
    fn head(&mut self, condition: &Expr, table: u32) {
        self.token();
        self.gap(Between::Space);
        let bracketed = self.bracket(condition.span.end).is_some();
        let group = self.open();
        self.hanging(condition);
        self.close();
        let row = match table {
            NO_ROW => NO_ROW,
            table => self.row(table, false),
        };
        self.gap(match (bracketed, row) {
            (false, row) => Between::LineIf { group, row },
            // The word stands behind the bracket, also where that closes on a line of its own.
            (true, NO_ROW) => Between::Space,
            (true, row) => Between::Anchor(row),
        });
        self.token();
    }

    /// A condition behind a word: its further lines are a step deeper, as a bracket's are anyway.
    pub(super) fn hanging(&mut self, condition: &Expr) {
        let bracketed = self.bracket(condition.span.end).is_some();
        if !bracketed {
            self.indent();
        }
        self.expr(condition);
        if !bracketed {
            self.dedent();
        }
    }

    /// What a word leads to: behind it, or a step deeper on lines of its own.
    pub(super) fn body(&mut self, expr: &Expr) {
        // Brackets and braces open on the line of the word.
        if self.bracket(expr.span.end).is_some() {
            self.gap(Between::Space);
            return self.expr(expr);
        }
        self.open();
        self.indent();
        self.gap(Between::Line);
        self.expr(expr);
        self.dedent();
        self.close();
    }

    /// `let NAME(params) = …`, the sign in a row of a table.
    pub(super) fn definition(&mut self, definition: &Let, table: u32) {
        self.token();
        self.token();
        self.arguments(Layout::token);
        self.equals(table);
        self.body(&definition.value);
    }

    /// The `=` of a definition.
    pub(super) fn equals(&mut self, table: u32) {
        if table != NO_ROW {
            let row = self.row(table, true);
            self.gap(Between::Anchor(row));
        }
        self.token();
    }

    fn verb(&mut self, verb: &Verb, end: u32) {
        let mut values: Vec<&Value> = Vec::new();
        match verb {
            Verb::ForwardTo(value, _)
            | Verb::Multicast(value)
            | Verb::Snat(value)
            | Verb::Mirror(value)
            | Verb::Dnat(value, None) => values.push(value),
            Verb::Dnat(value, Some(port)) => values.extend([value, port]),
            Verb::Balance { targets, .. } => {
                values.extend(targets.iter().map(|(target, _)| target));
                self.token();
                let mut values = values.into_iter().peekable();
                self.arguments(|layout| layout.token_or_value(&mut values));
                return;
            }
            Verb::Flood | Verb::Count(_) | Verb::Limit { .. } | Verb::Log(_) => {}
        }
        let mut values = values.into_iter().peekable();
        while self.before(end) {
            self.token_or_value(&mut values);
        }
    }

    /// The next of some values, when it stands here; otherwise a token.
    pub(super) fn token_or_value<'v>(
        &mut self,
        values: &mut std::iter::Peekable<impl Iterator<Item = &'v Value>>,
    ) {
        let here = self.lexed().span(self.at()).start;
        match values.next_if(|value| value.span.start == here) {
            Some(value) => self.value(value),
            None => self.token(),
        }
    }
}
