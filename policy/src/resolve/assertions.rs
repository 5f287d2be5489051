//! Assertions: names resolved, ready to be proved.

use super::{Meaning, Resolver, Scope};
use crate::ast::{Assertion, AssertionKind, Expr};
use crate::claim::{Claim, ClaimKind, Operand};
use crate::diagnostic::Span;

impl<'d> Resolver<'d> {
    pub(super) fn assertion(&mut self, assertion: &'d Assertion, span: Span) {
        let condition = match &assertion.condition {
            Some(condition) => match self.condition(condition, &Scope::default()) {
                Some(condition) => Some(condition),
                None => return,
            },
            None => None,
        };
        let Some(kind) = self.claim_kind(&assertion.kind) else {
            return;
        };
        self.assertions.push(Claim {
            kind,
            condition,
            span,
            text: self.written(span).unwrap_or_else(|| assertion.to_string()),
        });
    }

    /// An assertion as it is written, on one line.
    fn written(&self, span: Span) -> Option<String> {
        let range = span.start as usize..span.end as usize;
        let text = self.document.source.get(range)?.strip_prefix("assert")?;
        let words: Vec<&str> = text.split_whitespace().collect();
        (!words.is_empty()).then(|| words.join(" "))
    }

    fn claim_kind(&mut self, kind: &'d AssertionKind) -> Option<ClaimKind> {
        Some(match kind {
            AssertionKind::Reach(from, to) => {
                let (from, to) = (self.group(from), self.group(to));
                ClaimKind::Reach(from?, to?)
            }
            AssertionKind::Isolated { left, right, both } => {
                let (left, right) = (self.group(left), self.group(right));
                ClaimKind::Isolated {
                    left: left?,
                    right: right?,
                    both: *both,
                }
            }
            AssertionKind::Waypoint { from, to, via } => {
                let (from, to, via) = (self.group(from), self.group(to), self.group(via));
                ClaimKind::Waypoint {
                    from: from?,
                    to: to?,
                    via: Box::new(via?),
                }
            }
            AssertionKind::LoopFree => ClaimKind::LoopFree,
            AssertionKind::NoBlackHole => ClaimKind::NoBlackHole,
            AssertionKind::Equal(left, right) => {
                let (left, right) = (self.operand(left), self.operand(right));
                ClaimKind::Equal(left?, right?)
            }
            AssertionKind::Contained(left, right) => {
                let (left, right) = (self.operand(left), self.operand(right));
                ClaimKind::Contained(left?, right?)
            }
        })
    }

    fn operand(&mut self, expr: &'d Expr) -> Option<Operand> {
        match self.expr(expr, &Scope::default()) {
            Meaning::Term(term) => Some(Operand::Policy(term)),
            Meaning::Pred(predicate) => Some(Operand::Predicate(predicate)),
            Meaning::Erroneous => None,
        }
    }
}
