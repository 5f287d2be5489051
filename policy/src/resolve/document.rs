//! The definitions of a document: its network, sets, `let`s, and the one policy.

use std::collections::BTreeSet;

use super::{Global, Meaning, NamedSet, Resolver, Scope};
use crate::address::Prefix;
use crate::ast::{Expr, ItemKind, Name, Value, ValueKind};
use crate::diagnostic::{Code, Span};
use crate::environment::Network;
use crate::nearest::nearest;
use crate::term::{Term, TermId};

/// Operations that a policy may have with every definition written out.
const MAX_WEIGHT: usize = 1 << 24;

impl<'d> Resolver<'d> {
    /// Reads the whole document; the policy's term and where it is defined.
    pub(super) fn document(&mut self) -> Option<(TermId, Span)> {
        self.collect_declared();
        self.find_network();
        let mut policy: Option<(&'d Name, &'d Expr)> = None;
        for item in &self.document.items {
            if let ItemKind::Policy { name, body } = &item.kind {
                match policy {
                    None => {
                        self.policy.clone_from(&name.text);
                        policy = Some((name, body));
                    }
                    Some((first, _)) => {
                        self.sink
                            .report(
                                Code::NotSupported,
                                name.span,
                                "several policies in one text are not there yet",
                            )
                            .label(first.span, "the first policy")
                            .hint("make one of them a `let` and use it in the other");
                    }
                }
            }
        }
        let mut root = None;
        for item in &self.document.items {
            match &item.kind {
                ItemKind::Network { .. } => {}
                ItemKind::Set { name, value } => self.define_set(name, value),
                ItemKind::Let(definition) => self.define(definition),
                ItemKind::Policy { name, body } => {
                    let term = self.whole_policy(body);
                    if policy.is_some_and(|(first, _)| std::ptr::eq(first, name)) {
                        root = term.map(|term| (term, body.span));
                    }
                }
            }
        }
        if policy.is_none() {
            let end = self.document.source.len() as u32;
            self.sink
                .report(
                    Code::NoPolicy,
                    Span::new(end, end),
                    "there is no policy here",
                )
                .hint("write `policy main = …`");
        }
        root
    }

    fn whole_policy(&mut self, body: &'d Expr) -> Option<TermId> {
        let term = self.policy(body, &Scope::default())?;
        if self.arena.facts(term).weight > MAX_WEIGHT {
            self.spend(usize::MAX, body.span);
            return None;
        }
        Some(term)
    }

    /// The network that the document names, or the only one there is.
    fn find_network(&mut self) {
        let mut named: Option<&'d Name> = None;
        for item in &self.document.items {
            let ItemKind::Network { name, subnets } = &item.kind else {
                continue;
            };
            if let Some(first) = named {
                self.sink
                    .report(
                        Code::NotSupported,
                        name.span,
                        "several networks in one text are not there yet",
                    )
                    .label(first.span, "the first network")
                    .hint("write one text for each network");
                continue;
            }
            named = Some(name);
            let networks = &self.environment.networks;
            let Some(network) = networks.iter().find(|n| n.name == name.text) else {
                let near = nearest(&name.text, networks.iter().map(|n| n.name.as_str()));
                let hint = match near {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "create the network first".to_owned(),
                };
                self.sink
                    .report(
                        Code::UnknownNetwork,
                        name.span,
                        format!("there is no network `{}`", name.text),
                    )
                    .hint(hint);
                continue;
            };
            self.network = Some(network);
            if let Some(subnets) = subnets {
                self.check_subnets(network, name, subnets);
            }
        }
        if named.is_none() {
            match self.environment.networks.as_slice() {
                [only] => self.network = Some(only),
                _ => {
                    self.sink
                        .report(
                            Code::UnknownNetwork,
                            Span::default(),
                            "the text does not say for which network the policy is",
                        )
                        .hint("write `network NAME` first");
                }
            }
        }
    }

    /// Says where a `network` block contradicts the network as it is.
    fn check_subnets(&mut self, network: &Network, name: &Name, subnets: &[Value]) {
        let actual: BTreeSet<Prefix> = network
            .subnets
            .iter()
            .map(|(a, l)| Prefix::new(*a, *l))
            .collect();
        let mut written = BTreeSet::new();
        for value in subnets {
            match value.kind {
                ValueKind::Prefix(address, length) => {
                    let prefix = self.prefix(address, length, value.span);
                    written.insert(prefix);
                    if !actual.contains(&prefix) {
                        let is: Vec<String> = actual.iter().map(Prefix::to_string).collect();
                        self.sink
                            .report(
                                Code::NetworkDiffers,
                                value.span,
                                format!("network `{}` has no subnet {prefix}", network.name),
                            )
                            .hint(format!("its subnets are {}", is.join(", ")));
                    }
                }
                ValueKind::Error => return,
                _ => {
                    self.sink.report(
                        Code::WrongKind,
                        value.span,
                        "a subnet is a prefix, such as 10.20.0.0/16",
                    );
                }
            }
        }
        if let Some(missing) = actual.difference(&written).next() {
            self.sink
                .report(
                    Code::NetworkDiffers,
                    name.span,
                    format!("network `{}` also has the subnet {missing}", network.name),
                )
                .hint("list all its subnets, or leave the block out: `network NAME`");
        }
    }

    fn is_taken(&mut self, name: &Name) -> bool {
        let first = self
            .sets
            .get(name.text.as_str())
            .map(|set| set.span)
            .or_else(|| {
                self.globals
                    .get(name.text.as_str())
                    .map(|g| g.definition.name.span)
            });
        if let Some(first) = first {
            self.sink
                .report(
                    Code::DuplicateName,
                    name.span,
                    format!("`{}` is already defined", name.text),
                )
                .label(first, "here");
        }
        first.is_some()
    }

    fn define_set(&mut self, name: &'d Name, value: &'d Value) {
        let addresses = if holds_numbers(value) {
            None
        } else {
            let mut addresses =
                self.addresses(value, &Scope::default(), super::addresses::View::Both);
            addresses.listed.identity = format!("set {:?}", name.text);
            Some(addresses)
        };
        if !self.is_taken(name) {
            self.sets.insert(
                &name.text,
                NamedSet {
                    value,
                    span: name.span,
                    addresses,
                },
            );
        }
    }

    fn define(&mut self, definition: &'d crate::ast::Let) {
        let meaning = if definition.params.is_empty() {
            Some(self.expr(&definition.value, &Scope::default()))
        } else {
            self.check_params(definition);
            None
        };
        if !self.is_taken(&definition.name) {
            self.globals.insert(
                &definition.name.text,
                Global {
                    definition,
                    meaning,
                },
            );
        }
    }

    pub(super) fn check_params(&mut self, definition: &crate::ast::Let) {
        for (at, param) in definition.params.iter().enumerate() {
            if let Some(first) = definition.params[..at]
                .iter()
                .find(|p| p.text == param.text)
            {
                self.sink
                    .report(
                        Code::DuplicateName,
                        param.span,
                        format!("parameter `{}` stands here twice", param.text),
                    )
                    .label(first.span, "first here");
            }
        }
    }

    /// The term of an expression that has to be a policy.
    pub(super) fn policy(&mut self, expr: &'d Expr, scope: &Scope<'d>) -> Option<TermId> {
        match self.expr(expr, scope) {
            Meaning::Term(term) => Some(term),
            Meaning::Pred(predicate) => Some(self.arena.term(Term::Filter(predicate))),
            Meaning::Erroneous => None,
        }
    }
}

/// Whether a set is one of numbers, to be used for ports and the like.
fn holds_numbers(value: &Value) -> bool {
    match &value.kind {
        ValueKind::Number(_) | ValueKind::Range(..) | ValueKind::Mac(_) => true,
        ValueKind::Set(elements) => elements.first().is_some_and(holds_numbers),
        _ => false,
    }
}
