//! The definitions of a document: its network, sets, `let`s and policies.

use std::collections::BTreeSet;

use super::{Global, GlobalKind, Meaning, NamedSet, Resolver, Scope};
use crate::address::Prefix;
use crate::ast::{Expr, ItemKind, Name, Value, ValueKind};
use crate::diagnostic::{Code, Span};
use crate::environment::Network;
use crate::nearest::nearest;
use crate::term::{Term, TermId};

/// Operations that a policy may have with every definition written out.
const MAX_WEIGHT: usize = 1 << 24;

impl<'d> Resolver<'d> {
    /// Reads the whole document; the policy's term, the same with that of packets that enter in peers,
    /// and where it is defined.
    pub(super) fn document(&mut self) -> Option<(TermId, TermId, Span)> {
        self.collect_declared();
        self.find_network();
        let mut policies: Vec<(&'d Name, Option<TermId>, Span)> = Vec::new();
        self.policy = self.name_in_force();
        let force = self.policy.clone();
        for item in &self.document.items {
            match &item.kind {
                ItemKind::Network { public, .. } => {
                    for public in public {
                        self.public(public);
                    }
                }
                ItemKind::Set { name, value } => self.define_set(name, value),
                ItemKind::Let(definition) => self.define(definition),
                ItemKind::Policy { name, body } => {
                    // Labels without a text of their own name the policy where they stand.
                    self.policy.clone_from(&name.text);
                    let term = self.whole_policy(body);
                    self.policy.clone_from(&force);
                    self.define_policy(name, term);
                    policies.push((name, term, body.span));
                }
                ItemKind::Import { path } => {
                    self.sink
                        .report(
                            Code::NotSupported,
                            item.span,
                            format!("`{path}` is not here: imports are part of files"),
                        )
                        .hint("check and apply the file with `sunwire policy`, which includes what it imports");
                }
                ItemKind::Assert(_) | ItemKind::Test(_) => {}
            }
        }
        if policies.is_empty() {
            let end = self.document.source.len() as u32;
            self.sink
                .report(
                    Code::NoPolicy,
                    Span::new(end, end),
                    "there is no policy here",
                )
                .hint("write `policy main = …`");
        }
        let root = self.in_force(&policies);
        if self.alone {
            return root.map(|(root, span)| (root, root, span));
        }
        let root = root.map(|(own, span)| {
            let composed = self.composed(own);
            self.reverse = composed.reverse;
            (composed.root, composed.whole, span)
        });
        // Claims see every definition, wherever they stand.
        for item in &self.document.items {
            match &item.kind {
                ItemKind::Assert(assertion) => self.assertion(assertion, item.span),
                ItemKind::Test(test) => self.test_block(test, item.span),
                _ => {}
            }
        }
        root
    }

    /// The policy after which verdicts are named: `main`, or the only one.
    fn name_in_force(&self) -> String {
        let mut names = self
            .document
            .items
            .iter()
            .filter_map(|item| match &item.kind {
                ItemKind::Policy { name, .. } => Some(name.text.as_str()),
                _ => None,
            });
        match (names.next(), names.next()) {
            (Some(only), None) => only.to_owned(),
            _ => "main".to_owned(),
        }
    }

    /// The policy in force: `main`, or else all of them together, in the order of the text.
    fn in_force(
        &mut self,
        policies: &[(&'d Name, Option<TermId>, Span)],
    ) -> Option<(TermId, Span)> {
        let main = policies.iter().find(|(name, ..)| name.text == "main");
        match (main, policies) {
            (Some((_, term, span)), _) | (None, [(_, term, span)]) => Some(((*term)?, *span)),
            (None, []) => None,
            (None, several) => {
                let terms: Option<Box<[TermId]>> = several.iter().map(|(_, t, _)| *t).collect();
                let span = several[0].2.to(several[several.len() - 1].2);
                Some((self.arena.term(Term::Union(terms?)), span))
            }
        }
    }

    /// A policy can be used in later ones and in assertions.
    fn define_policy(&mut self, name: &'d Name, term: Option<TermId>) {
        if self.is_taken(name) {
            return;
        }
        let meaning = term.map_or(Meaning::Erroneous, Meaning::Term);
        self.globals.insert(
            &name.text,
            Global {
                span: name.span,
                kind: GlobalKind::Meaning(meaning),
            },
        );
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
            let ItemKind::Network {
                name,
                subnets,
                peers,
                ..
            } = &item.kind
            else {
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
            self.check_peers(network, peers);
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
            .or_else(|| self.globals.get(name.text.as_str()).map(|g| g.span));
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
        let kind = if definition.params.is_empty() {
            GlobalKind::Meaning(self.expr(&definition.value, &Scope::default()))
        } else {
            self.check_params(definition);
            GlobalKind::Parametric(definition)
        };
        if !self.is_taken(&definition.name) {
            let span = definition.name.span;
            self.globals
                .insert(&definition.name.text, Global { span, kind });
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
