//! Definitions of a text, and the places where names are used.
//!
//! A name is looked up from the inside out: parameters and `let … in` around the place, then the
//! definitions of the text. One that is defined later is found as well: the editor should lead
//! there even while the order is still wrong.

use std::collections::HashMap;

use sunwire_policy::ast::{
    Argument, AssertionKind, Document, Expected, Expr, ExprKind, ItemKind, Let, Name, Value,
    ValueKind, Verb,
};
use sunwire_policy::diagnostic::Span;

/// What a definition defines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Network,
    Set,
    Let,
    /// `let` with parameters.
    Function,
    /// `let … in`.
    Local,
    Parameter,
    Policy,
}

/// A definition.
#[derive(Clone, Debug)]
pub(super) struct Definition {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Where the name stands.
    pub(super) at: Span,
    /// The whole definition; of a parameter, the definition that it belongs to.
    pub(super) whole: Span,
    /// Where a parameter or local definition can be used; everywhere when absent.
    pub(super) scope: Option<Span>,
}

/// A place where a name stands.
#[derive(Clone, Debug)]
pub(super) struct Occurrence {
    pub(super) at: Span,
    pub(super) name: String,
    /// What it means, when that is defined in the text.
    pub(super) definition: Option<usize>,
}

/// Definitions and where names are used.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) definitions: Vec<Definition>,
    /// In the order of the text; definitions are among them.
    pub(super) occurrences: Vec<Occurrence>,
}

impl Index {
    pub(super) fn new(document: &Document) -> Self {
        let mut walk = Walk {
            index: Index::default(),
            globals: HashMap::new(),
            locals: Vec::new(),
        };
        walk.globals(document);
        for item in &document.items {
            walk.item(&item.kind, item.span);
        }
        let mut index = walk.index;
        index.occurrences.sort_by_key(|found| found.at);
        index
    }

    /// The name at a byte, or the one that ends there.
    pub(super) fn at(&self, offset: u32) -> Option<&Occurrence> {
        let behind = self
            .occurrences
            .partition_point(|found| found.at.start <= offset);
        let found = &self.occurrences[behind.checked_sub(1)?];
        (offset <= found.at.end && found.at.start < found.at.end).then_some(found)
    }

    /// All places of a definition, itself among them.
    pub(super) fn uses(&self, definition: usize) -> impl Iterator<Item = Span> {
        let uses = self.occurrences.iter();
        uses.filter(move |found| found.definition == Some(definition))
            .map(|found| found.at)
    }

    /// Definitions that can be used at a place.
    pub(super) fn visible(&self, offset: u32) -> impl Iterator<Item = &Definition> {
        self.definitions.iter().filter(move |definition| {
            definition
                .scope
                .is_none_or(|scope| scope.start <= offset && offset <= scope.end)
        })
    }
}

struct Walk<'d> {
    index: Index,
    globals: HashMap<&'d str, usize>,
    /// Innermost last.
    locals: Vec<(&'d str, usize)>,
}

impl<'d> Walk<'d> {
    fn define(&mut self, name: &Name, kind: Kind, whole: Span, scope: Option<Span>) -> usize {
        let definition = self.index.definitions.len();
        self.index.definitions.push(Definition {
            name: name.text.clone(),
            kind,
            at: name.span,
            whole,
            scope,
        });
        self.index.occurrences.push(Occurrence {
            at: name.span,
            name: name.text.clone(),
            definition: Some(definition),
        });
        definition
    }

    /// Definitions outside of any expression; of several of one name the first counts.
    fn globals(&mut self, document: &'d Document) {
        for item in &document.items {
            let (name, kind) = match &item.kind {
                ItemKind::Network { name, .. } => (name, Kind::Network),
                ItemKind::Set { name, .. } => (name, Kind::Set),
                ItemKind::Let(definition) => (&definition.name, kind_of(definition)),
                ItemKind::Policy { name, .. } => (name, Kind::Policy),
                _ => continue,
            };
            let definition = self.define(name, kind, item.span, None);
            self.globals.entry(&name.text).or_insert(definition);
        }
    }

    fn item(&mut self, kind: &'d ItemKind, span: Span) {
        match kind {
            ItemKind::Network {
                subnets, public, ..
            } => {
                subnets.iter().flatten().for_each(|value| self.value(value));
                for public in public {
                    self.value(&public.address);
                    self.value(&public.endpoint);
                }
            }
            ItemKind::Set { value, .. } => self.value(value),
            ItemKind::Let(definition) => self.body(definition, span),
            ItemKind::Policy { body, .. } => self.expr(body),
            ItemKind::Assert(assertion) => {
                match &assertion.kind {
                    AssertionKind::Reach(left, right)
                    | AssertionKind::Isolated { left, right, .. } => {
                        self.value(left);
                        self.value(right);
                    }
                    AssertionKind::Waypoint { from, to, via } => {
                        self.value(from);
                        self.value(to);
                        self.value(via);
                    }
                    AssertionKind::Equal(left, right) | AssertionKind::Contained(left, right) => {
                        self.expr(left);
                        self.expr(right);
                    }
                    AssertionKind::LoopFree | AssertionKind::NoBlackHole => {}
                }
                assertion.condition.iter().for_each(|c| self.expr(c));
            }
            ItemKind::Test(test) => {
                for case in &test.cases {
                    self.value(&case.from);
                    self.value(&case.to);
                    case.fields.iter().for_each(|(_, value)| self.value(value));
                    if let Expected::Forward(Some(to), _) = &case.expected {
                        self.value(to);
                    }
                }
            }
            ItemKind::Import { .. } => {}
        }
    }

    /// What a `let` stands for, with its parameters.
    fn body(&mut self, definition: &'d Let, whole: Span) {
        let outer = self.locals.len();
        for param in &definition.params {
            let scope = Some(definition.value.span);
            let number = self.define(param, Kind::Parameter, whole, scope);
            self.locals.push((&param.text, number));
        }
        self.expr(&definition.value);
        self.locals.truncate(outer);
    }

    fn find(&self, name: &str) -> Option<usize> {
        let local = self.locals.iter().rev().find(|(local, _)| *local == name);
        local
            .map(|(_, definition)| *definition)
            .or_else(|| self.globals.get(name).copied())
    }

    fn used(&mut self, name: &str, at: Span) {
        let definition = self.find(name);
        self.index.occurrences.push(Occurrence {
            at,
            name: name.to_owned(),
            definition,
        });
    }

    fn value(&mut self, value: &'d Value) {
        match &value.kind {
            ValueKind::Name(name) => self.used(name, value.span),
            // What is quoted means an endpoint or a node, never a definition.
            ValueKind::Text(name) => self.index.occurrences.push(Occurrence {
                at: value.span,
                name: name.clone(),
                definition: None,
            }),
            ValueKind::Set(values) => values.iter().for_each(|value| self.value(value)),
            _ => {}
        }
    }

    fn expr(&mut self, expr: &'d Expr) {
        match &expr.kind {
            ExprKind::Filter(inner) | ExprKind::Not(inner) | ExprKind::Star(inner) => {
                self.expr(inner);
            }
            ExprKind::Established(inner) => inner.iter().for_each(|inner| self.expr(inner)),
            ExprKind::Test { value, .. } | ExprKind::Assign { value, .. } => self.value(value),
            ExprKind::Verb(verb) => self.verb(verb),
            ExprKind::Link { from, to } => {
                for (node, port) in [from.as_ref(), to.as_ref()] {
                    self.value(node);
                    self.value(port);
                }
            }
            ExprKind::Use { name, arguments } => {
                self.used(&name.text, name.span);
                for argument in arguments {
                    match argument {
                        Argument::Value(value) => self.value(value),
                        Argument::Expr(expr) => self.expr(expr),
                    }
                }
            }
            ExprKind::And(parts)
            | ExprKind::Or(parts)
            | ExprKind::Union(parts)
            | ExprKind::Sequence(parts) => parts.iter().for_each(|part| self.expr(part)),
            ExprKind::Conditional { arms, otherwise } => {
                for (condition, body) in arms {
                    self.expr(condition);
                    self.expr(body);
                }
                self.expr(otherwise);
            }
            ExprKind::While { condition, body } => {
                self.expr(condition);
                self.expr(body);
            }
            ExprKind::LetIn { definition, body } => {
                self.body(definition, expr.span);
                let scope = Some(body.span);
                let number = self.define(&definition.name, Kind::Local, expr.span, scope);
                self.locals.push((&definition.name.text, number));
                self.expr(body);
                self.locals.pop();
            }
            ExprKind::True
            | ExprKind::False
            | ExprKind::Id
            | ExprKind::Drop(_)
            | ExprKind::Forward(_)
            | ExprKind::Dup
            | ExprKind::Word(_)
            | ExprKind::Error => {}
        }
    }

    fn verb(&mut self, verb: &'d Verb) {
        match verb {
            Verb::ForwardTo(value, _)
            | Verb::Multicast(value)
            | Verb::Snat(value)
            | Verb::Mirror(value) => self.value(value),
            Verb::Dnat(value, port) => {
                self.value(value);
                port.iter().for_each(|port| self.value(port));
            }
            Verb::Balance { targets, .. } => {
                targets.iter().for_each(|(target, _)| self.value(target));
            }
            Verb::Flood | Verb::Count(_) | Verb::Limit { .. } | Verb::Log(_) => {}
        }
    }
}

fn kind_of(definition: &Let) -> Kind {
    match definition.params.is_empty() {
        true => Kind::Let,
        false => Kind::Function,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(text: &str) -> Index {
        Index::new(&sunwire_policy::parse(text).0)
    }

    /// Where the name at the nth occurrence of `word` is defined: the definition's text.
    fn leads_to(text: &str, word: &str, nth: usize) -> Option<String> {
        let index = index(text);
        let at = text.match_indices(word).nth(nth).unwrap().0 as u32;
        let definition = &index.definitions[index.at(at)?.definition?];
        let from = definition.at.start as usize;
        Some(text[from..].chars().take(8).collect())
    }

    #[test]
    fn names_lead_to_the_innermost_definition() {
        let text = "set web = { a } let f(web) = dst in web policy main = \
                    if f(web) then (let web = tcp in web) else filter src in web";
        // The parameter, its use, the argument, the local, its use, the set again.
        let found: Vec<_> = (0..7).map(|nth| leads_to(text, "web", nth)).collect();
        let starts: Vec<&str> = found.iter().map(|f| f.as_deref().unwrap()).collect();
        assert_eq!(
            starts,
            [
                "web = { ", "web) = d", "web) = d", "web = { ", "web = tc", "web = tc", "web = { "
            ]
        );
    }

    #[test]
    fn every_place_that_can_hold_a_name_is_seen() {
        let text = "network n { subnet 10.0.0.0/8; public 1.2.3.4 -> x }\nset s = { x, \"x\", { x } }\n\
                    policy p = src = x; dst := x; forward to x; multicast x; snat x; dnat x port 1; \
                    mirror to x; balance(x weight 2, x); x@x => x@x; established(x)*; not x\n\
                    assert reach(x, x where x)\nassert isolated(x, x)\nassert waypoint(x, x, via x)\n\
                    assert x <= x where x\ntest \"t\" { from x to x : forward to x }";
        let occurrences = index(text).occurrences;
        let found = occurrences.iter().filter(|found| found.name == "x").count();
        let is_name = |c: char| c.is_alphanumeric() || c == '-';
        let written = text
            .split(|c| !is_name(c))
            .filter(|word| *word == "x")
            .count();
        assert_eq!(found, written);
    }

    #[test]
    fn the_cursor_behind_a_name_still_means_it() {
        let index = index("set web = { a }");
        for offset in 4..=7 {
            assert_eq!(index.at(offset).unwrap().name, "web");
        }
        assert!(index.at(3).is_none() && index.at(8).is_none());
    }
}
