//! Why a packet is treated as it is: the decision step by step, and the conditions that led to it.
//!
//! The decision is the evaluator's. The conditions are those of the `if`s around the statement that
//! decided: the ones before its arm do not hold, its own does.

use serde::Serialize;

use crate::ast::{Document, Expr, ExprKind, ItemKind};
use crate::diagnostic::{Span, position};
use crate::environment::Environment;
use crate::packet::Packet;
use crate::prove::{Step, way};
use crate::show::{show_changes, show_packet};
use crate::term::Resolved;

/// Why a packet is treated as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The packet, on one line.
    pub packet: String,
    /// Decisions about it, in order; more than one where it is sent through transparent endpoints.
    pub decisions: Vec<Decision>,
}

/// A decision about a packet at one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// The endpoint where the packet is.
    pub at: String,
    /// Label of the decision.
    pub label: String,
    /// The statement that decided; `None` when none did.
    pub statement: Option<Clause>,
    /// The conditions that led there, outermost and first written first.
    pub conditions: Vec<Condition>,
    /// What is done with each copy; none is a drop.
    pub copies: Vec<Copied>,
}

/// A part of the text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Clause {
    /// Bytes in the text.
    pub span: Span,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// The text itself, on one line.
    pub text: String,
}

/// A condition on the way to a statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// The condition.
    #[serde(flatten)]
    pub clause: Clause,
    /// Whether it holds for the packet.
    pub holds: bool,
}

/// What is done with a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Copied {
    /// In words, such as `forwards it to db1`.
    pub what: String,
    /// Fields that were rewritten, in words; empty when none was.
    pub rewritten: String,
}

/// Explains what becomes of a packet. `document` is the tree that `policy` was resolved from.
#[must_use]
pub fn explain(
    policy: &Resolved,
    document: &Document,
    environment: &Environment,
    packet: &Packet,
) -> Explanation {
    let steps = way(policy, environment, *packet);
    Explanation {
        packet: show_packet(packet),
        decisions: steps.iter().map(|step| decision(document, step)).collect(),
    }
}

fn decision(document: &Document, step: &Step) -> Decision {
    let source = &document.source;
    Decision {
        at: step.at.clone(),
        label: step.label.clone(),
        statement: step.span.map(|span| clause(source, span)),
        conditions: step
            .span
            .map(|span| conditions(document, span))
            .unwrap_or_default(),
        copies: step
            .copies
            .iter()
            .map(|(copy, what)| Copied {
                what: what.clone(),
                rewritten: show_changes(&step.packet, copy),
            })
            .collect(),
    }
}

fn clause(source: &str, span: Span) -> Clause {
    let (line, column) = position(source, span.start);
    let text = source
        .get(span.start as usize..span.end as usize)
        .unwrap_or_default();
    Clause {
        span,
        line,
        column,
        text: text.split_whitespace().collect::<Vec<_>>().join(" "),
    }
}

/// The conditions of the `if`s and `while`s around a place.
fn conditions(document: &Document, place: Span) -> Vec<Condition> {
    let mut out = Vec::new();
    for item in &document.items {
        match &item.kind {
            ItemKind::Policy { body, .. } => around(&document.source, body, place, &mut out),
            ItemKind::Let(definition) => {
                around(&document.source, &definition.value, place, &mut out);
            }
            _ => {}
        }
    }
    out
}

fn holds(span: Span, place: Span) -> bool {
    span.start <= place.start && place.end <= span.end
}

/// Walks down to a place, past the conditions around it.
fn around(source: &str, mut expr: &Expr, place: Span, out: &mut Vec<Condition>) {
    let condition = |expr: &Expr, holds| Condition {
        clause: clause(source, expr.span),
        holds,
    };
    while holds(expr.span, place) {
        expr = match &expr.kind {
            ExprKind::Conditional { arms, otherwise } => {
                let taken = arms.iter().position(|(_, body)| holds(body.span, place));
                let before = taken.unwrap_or(arms.len());
                out.extend(arms[..before].iter().map(|(c, _)| condition(c, false)));
                match taken {
                    Some(at) => {
                        out.push(condition(&arms[at].0, true));
                        &arms[at].1
                    }
                    None => otherwise,
                }
            }
            ExprKind::While {
                condition: test,
                body,
            } => {
                out.push(condition(test, true));
                body
            }
            ExprKind::LetIn { definition, body } => {
                if holds(definition.value.span, place) {
                    &definition.value
                } else {
                    body
                }
            }
            ExprKind::Star(inner) => inner,
            ExprKind::Union(parts) | ExprKind::Sequence(parts) => {
                let inside = parts.iter().position(|part| holds(part.span, place));
                // What filters stand before it in a sequence hold as well.
                if let (ExprKind::Sequence(_), Some(at)) = (&expr.kind, inside) {
                    let filters = parts[..at].iter().filter(|part| part.is_test());
                    out.extend(filters.map(|part| condition(part, true)));
                }
                match inside {
                    Some(at) => &parts[at],
                    None => return,
                }
            }
            _ => return,
        };
    }
}
