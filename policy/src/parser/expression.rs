//! Expressions from the loosest operator down to `not`.

use super::Parser;
use crate::ast::{Expr, ExprKind};
use crate::diagnostic::{Code, Span};
use crate::token::Token;

impl Parser<'_> {
    /// A whole policy: the loosest level.
    pub(super) fn policy(&mut self) -> Expr {
        let start = self.span();
        let stars = std::mem::replace(&mut self.stars, true);
        let nothing = error(start);
        let expr = self.nested(Self::union, nothing);
        self.stars = stars;
        expr
    }

    fn union(&mut self) -> Expr {
        let start = self.span();
        let (first, filter) = self.sequence();
        if !self.is_sign("+") && !self.is_sign("|") {
            return first;
        }
        let mut arms = vec![first];
        while self.eat_sign("+") || self.eat_sign("|") {
            let (arm, _) = self.sequence();
            if let Some(filter) = filter.filter(|_| !is_guarded(&arm)) {
                self.sink
                    .report(
                        Code::EscapesFilter,
                        arm.span,
                        "this arm is not under the filter before `;`",
                    )
                    .label(
                        filter,
                        "this filter guards only its own arm: `;` binds tighter than `+`",
                    )
                    .hint("write `filter …; (p + q)` to guard both");
            }
            arms.push(arm);
        }
        self.built(start, ExprKind::Union(arms))
    }

    /// A sequence, and its leading filter when it has one.
    fn sequence(&mut self) -> (Expr, Option<Span>) {
        let start = self.span();
        let first = self.unary();
        if !self.is_sign(";") {
            return (first, None);
        }
        let filter = first.is_test().then_some(first.span);
        let mut parts = vec![first];
        while self.eat_sign(";") {
            parts.push(self.unary());
        }
        (self.built(start, ExprKind::Sequence(parts)), filter)
    }

    fn unary(&mut self) -> Expr {
        let start = self.span();
        match self.peek() {
            Token::Ident("if") => self.nested(Self::conditional, error(start)),
            Token::Ident("while") => self.nested(Self::repetition, error(start)),
            Token::Ident("let") => self.nested(Self::let_in, error(start)),
            Token::Ident("filter") => {
                self.advance();
                let stars = std::mem::replace(&mut self.stars, false);
                let condition = self.or();
                self.stars = stars;
                let filter = self.built(start, ExprKind::Filter(Box::new(condition)));
                self.starred(start, filter)
            }
            _ => self.or(),
        }
    }

    fn conditional(&mut self) -> Expr {
        let start = self.span();
        let mut arms = Vec::new();
        loop {
            let branch = self.span();
            self.advance();
            let condition = self.or();
            self.expect_word("then");
            let policy = self.policy();
            arms.push((condition, policy));
            if !self.eat_word("else") {
                self.missing_else(branch);
                let otherwise = Box::new(error(self.span()));
                return self.built(start, ExprKind::Conditional { arms, otherwise });
            }
            if !self.is_word("if") {
                break;
            }
        }
        let otherwise = Box::new(self.unary());
        self.built(start, ExprKind::Conditional { arms, otherwise })
    }

    fn missing_else(&mut self, branch: Span) {
        if self.reported == self.at || self.peek() == Token::Error {
            return;
        }
        // What stands here is no end of a branch: then that is the mistake.
        let ends = self.at_item() || matches!(self.peek(), Token::Sign(")" | ";" | "+" | "|"));
        if !ends {
            self.expected_hint("`else`", Some("predicates are joined by `and` or `or`"));
            return;
        }
        self.reported = self.at;
        self.sink
            .report(Code::MissingElse, branch, "this `if` has no `else`")
            .hint("write `else drop` to drop everything else, or `else id` to let it through");
    }

    fn repetition(&mut self) -> Expr {
        let start = self.span();
        self.advance();
        let condition = Box::new(self.or());
        self.expect_word("do");
        let body = Box::new(self.unary());
        self.built(start, ExprKind::While { condition, body })
    }

    fn let_in(&mut self) -> Expr {
        let start = self.span();
        let definition = Box::new(self.definition());
        self.expect_word("in");
        let body = Box::new(self.policy());
        self.built(start, ExprKind::LetIn { definition, body })
    }

    pub(super) fn or(&mut self) -> Expr {
        let start = self.span();
        let first = self.and();
        if !self.is_word("or") && !self.is_sign("||") {
            return first;
        }
        let mut parts = vec![first];
        while self.eat_word("or") || self.eat_sign("||") {
            parts.push(self.and());
        }
        self.built(start, ExprKind::Or(parts))
    }

    fn and(&mut self) -> Expr {
        let start = self.span();
        let first = self.not();
        if !self.is_word("and") && !self.is_sign("&&") {
            return first;
        }
        let mut parts = vec![first];
        while self.eat_word("and") || self.eat_sign("&&") {
            parts.push(self.not());
        }
        self.built(start, ExprKind::And(parts))
    }

    fn not(&mut self) -> Expr {
        let start = self.span();
        if self.eat_word("not") || self.eat_sign("!") {
            let inner = self.nested(Self::not, error(start));
            return self.built(start, ExprKind::Not(Box::new(inner)));
        }
        let atom = self.atom();
        if self.stars {
            return self.starred(start, atom);
        }
        atom
    }

    /// Wraps `expr` once for the stars that follow: star is idempotent.
    fn starred(&mut self, start: Span, expr: Expr) -> Expr {
        if !self.is_sign("*") {
            return expr;
        }
        while self.eat_sign("*") {}
        self.built(start, ExprKind::Star(Box::new(expr)))
    }

    pub(super) fn built(&self, start: Span, kind: ExprKind) -> Expr {
        Expr {
            kind,
            span: self.since(start),
        }
    }
}

/// What could not be read.
pub(super) const fn error(span: Span) -> Expr {
    Expr {
        kind: ExprKind::Error,
        span,
    }
}

/// Whether an arm decides by itself when it applies.
fn is_guarded(arm: &Expr) -> bool {
    match &arm.kind {
        ExprKind::Sequence(parts) => parts.first().is_some_and(is_guarded),
        ExprKind::Conditional { .. } | ExprKind::While { .. } | ExprKind::Use { .. } => true,
        ExprKind::Drop(_) | ExprKind::Error => true,
        _ => arm.is_test(),
    }
}
