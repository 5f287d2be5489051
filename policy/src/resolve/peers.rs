//! The policies of peered networks as one term.
//!
//! A packet that crosses from one network to another is let through by both policies: by the
//! sender's as it was sent, and by the receiver's as it comes. So the policy of a network is composed
//! with those of its peers before anything looks at it, and evaluator, diagrams, prover and tables
//! have no case of their own for it:
//!
//! ```text
//! own ; if port = OWNER and dst in PEER then cross to PEER else id
//! cross to PEER  =  port := 0 ; PEER's policy ; filter port = OWNER
//! ```
//!
//! The packet is at none of the receiver's endpoints, so what tests `port` there does not hold of it,
//! and what the receiver's policy only lets pass is sent nowhere. Its copies for `mirror` leave with
//! it; `flood` and `multicast` of the receiver are for its own endpoints' packets.
//!
//! A source address that a policy has given (`snat`) means something in that network alone, so such
//! packets do not cross.

use std::collections::BTreeSet;
use std::net::IpAddr;

use sunwire_dataplane_common::limit::Limit;

use super::{Resolver, resolve_part};
use crate::address::{Address, AddressSet, Prefix};
use crate::diagnostic::{Code, Diagnostic, Span};
use crate::environment::Network;
use crate::field::{Field, OWNER};
use crate::packet::{LabelId, NO_LABEL};
use crate::parser::parse;
use crate::term::{Pred, PredId, Resolved, SetId, Term, TermId};

/// Labels that are made here for one network, behind those of its text.
const OWN_LABELS: LabelId = 4;

/// A policy that packets may cross to.
struct Side {
    network: String,
    /// Whether the destination is in its subnets, and whether the source is.
    to: PredId,
    from: PredId,
    /// `None` when no policy is in force there.
    policy: Option<TermId>,
    /// Where copies may be after it that have crossed.
    ports: Box<[(u64, u64)]>,
    /// Addresses that it gives to sources.
    given: Vec<Prefix>,
    /// The first label that is free behind its text.
    label: LabelId,
}

/// What a composition is.
pub(super) struct Composed {
    /// What becomes of packets that enter in the policy's own network.
    pub(super) root: TermId,
    /// The same, and of packets that enter in its peers.
    pub(super) whole: TermId,
    /// What [`Pred::Reverse`] stands for, when something asks for it.
    pub(super) reverse: Option<PredId>,
}

impl<'d> Resolver<'d> {
    /// The networks that this one is peered with, in the order of their names.
    pub(super) fn peers(&self) -> Vec<&'d Network> {
        let Some(own) = self.network else {
            return Vec::new();
        };
        let names: BTreeSet<&str> = own.peers.iter().map(String::as_str).collect();
        let found = names
            .into_iter()
            .filter_map(|name| self.environment.network(name));
        found.collect()
    }

    /// The peer of this name.
    pub(super) fn peer(&self, name: &str) -> Option<&'d Network> {
        let own = self.network?;
        let known = own.peers.iter().any(|peer| peer == name);
        known.then(|| self.environment.network(name)).flatten()
    }

    /// Says where a `network` block names a peer that is none.
    pub(super) fn check_peers(&mut self, network: &Network, named: &[crate::ast::Name]) {
        for name in named {
            if network.peers.contains(&name.text) {
                continue;
            }
            let (message, hint) = match self.environment.network(&name.text) {
                None => (
                    format!("there is no network `{}`", name.text),
                    "create the network first".to_owned(),
                ),
                Some(_) if name.text == network.name => (
                    format!("network `{}` is no peer of its own", name.text),
                    "name the other network".to_owned(),
                ),
                Some(_) => (
                    format!("network `{}` has no peer `{}`", network.name, name.text),
                    format!(
                        "peer them first: `sunwire network peer {} {}`",
                        network.name, name.text
                    ),
                ),
            };
            self.sink
                .report(Code::NetworkDiffers, name.span, message)
                .hint(hint);
        }
    }

    /// The policy composed with those of its network's peers.
    pub(super) fn composed(&mut self, own: TermId) -> Composed {
        let peers = self.peers();
        let Some(network) = self.network.filter(|_| !peers.is_empty()) else {
            let reverse = self.asks_reverse.then(|| self.reverse_of_policy(own));
            return Composed {
                root: own,
                whole: own,
                reverse,
            };
        };
        let given = given_sources(&self.arena.terms);
        let mirrored = mirrored(&self.arena.terms, |label| self.groups.contains_key(&label));
        let label = self.document.source.len() as LabelId + 1;
        let home = self.side(network, Some(own), &mirrored, given, label);
        let mut label = label + OWN_LABELS;
        let mut others = Vec::new();
        for peer in peers {
            let policy = self.policy_of(peer);
            let side = match policy {
                Some(policy) => self.import(peer, &policy, label),
                None => self.side(peer, None, &BTreeSet::new(), BTreeSet::new(), label),
            };
            label = side.label + OWN_LABELS;
            others.push(side);
        }
        let root = self.crossing(own, &home, &others);
        let mut ways_in = Vec::new();
        let mut answered = Vec::new();
        let home = [home];
        for side in &others {
            let Some(policy) = side.policy else {
                continue;
            };
            let there = self.crossing(policy, side, &home);
            ways_in.push((side.from, there));
            if self.asks_reverse {
                // What a packet to a peer answers was sent in that peer.
                answered.push((side.to, self.reverse_of_policy(there)));
            }
        }
        let whole = match ways_in.is_empty() {
            true => root,
            false => self.arena.term(Term::Conditional(ways_in.into(), root)),
        };
        let reverse = self.asks_reverse.then(|| {
            let own = self.reverse_of_policy(root);
            match answered.is_empty() {
                true => own,
                false => self
                    .arena
                    .predicate(Pred::Conditional(answered.into(), own)),
            }
        });
        Composed {
            root,
            whole,
            reverse,
        }
    }

    /// A policy, and what becomes of what it forwards to other networks.
    fn crossing(&mut self, policy: TermId, from: &Side, to: &[Side]) -> TermId {
        let forwarded = self.number(Field::Port, &[(OWNER, OWNER)]);
        let mut arms = Vec::new();
        for side in to {
            let crosses = self.both(forwarded, side.to);
            arms.push((crosses, self.cross(from, side)));
        }
        let stays = self.constant(true);
        let stays = self.arena.term(Term::Filter(stays));
        let onward = self.arena.term(Term::Conditional(arms.into(), stays));
        self.arena.term(Term::Sequence(Box::new([policy, onward])))
    }

    /// What becomes of what one network forwards to another.
    fn cross(&mut self, from: &Side, to: &Side) -> TermId {
        let Some(policy) = to.policy else {
            let label = self.own_label(to, 0, "no policy in force");
            return self.arena.term(Term::Drop(label));
        };
        let sent = self.not_given(from);
        let nowhere = self.arena.term(Term::SetNumber(Field::Port, 0));
        let label = self.own_label(to, 1, "not forwarded");
        let drop = self.arena.term(Term::Drop(label));
        // Where it says nothing of its own about a packet that it drops.
        let policy = self.arena.term(Term::Union(Box::new([policy, drop])));
        let sent_on = self.number(Field::Port, &to.ports);
        let received = self.not_given(to);
        let arms = Box::new([(sent_on, received)]);
        let arrives = self.arena.term(Term::Conditional(arms, drop));
        let parts = [sent, nowhere, policy, arrives];
        self.arena.term(Term::Sequence(Box::new(parts)))
    }

    /// Lets packets through whose source address no `snat` of a network has given.
    fn not_given(&mut self, side: &Side) -> TermId {
        let pass = self.constant(true);
        let pass = self.arena.term(Term::Filter(pass));
        if side.given.is_empty() {
            return pass;
        }
        let set = self.arena.set(AddressSet {
            identity: format!("given by {:?}", side.network),
            prefixes: side.given.clone(),
            ..AddressSet::default()
        });
        let given = self.arena.predicate(Pred::Address(Field::Source, set));
        let label = self.own_label(side, 2, "translated sources do not cross");
        let drop = self.arena.term(Term::Drop(label));
        let arms = Box::new([(given, drop)]);
        self.arena.term(Term::Conditional(arms, pass))
    }

    /// One of the labels that are made for a network.
    fn own_label(&mut self, side: &Side, number: LabelId, text: &str) -> LabelId {
        let label = side.label + number;
        let text = format!("{}: {text}", side.network);
        self.labels.entry(label).or_insert(text);
        label
    }

    fn side(
        &mut self,
        network: &Network,
        policy: Option<TermId>,
        mirrored: &BTreeSet<u64>,
        given: BTreeSet<IpAddr>,
        label: LabelId,
    ) -> Side {
        let set = self.arena.set(AddressSet {
            identity: format!("subnets of {:?}", network.name),
            prefixes: sorted(network.prefixes()),
            ..AddressSet::default()
        });
        let test = |resolver: &mut Self, field| resolver.arena.predicate(Pred::Address(field, set));
        let ports = mirrored.iter().chain([&OWNER]);
        Side {
            network: network.name.clone(),
            to: test(self, Field::Destination),
            from: test(self, Field::Source),
            policy,
            ports: ports.map(|port| (*port, *port)).collect(),
            given: sorted(given.into_iter().map(|address| Prefix::new(address, 128))),
            label,
        }
    }

    /// The policy of a peer, resolved by itself; `None` when it is not, or cannot be, in force.
    fn policy_of(&self, peer: &Network) -> Option<Resolved> {
        let (document, findings) = parse(peer.policy.as_deref()?);
        if findings.iter().any(Diagnostic::is_error) {
            return None;
        }
        let index = self.lookup.index();
        let resolved = resolve_part(&document, self.environment, index, true);
        let (policy, ..) = resolved.ok()?;
        let in_force = policy.network.name == peer.name && policy.refused_features().is_empty();
        in_force.then_some(policy)
    }

    /// Takes the policy of a peer over; labels of its own text begin at `base`.
    fn import(&mut self, peer: &Network, policy: &Resolved, base: LabelId) -> Side {
        let shifted = |label: LabelId| match label {
            NO_LABEL => NO_LABEL,
            label => label.saturating_add(base).min(NO_LABEL - OWN_LABELS),
        };
        let sets: Vec<SetId> = policy
            .sets
            .iter()
            .map(|set| {
                // What a set is called is another's name here, and its labels are of another network.
                self.arena.set(AddressSet {
                    identity: format!("of {:?}: {}", peer.name, set.identity),
                    selection: None,
                    ..set.clone()
                })
            })
            .collect();
        let mut predicates: Vec<PredId> = Vec::with_capacity(policy.predicates.len());
        for predicate in &policy.predicates {
            let of = |id: &PredId| predicates[id.0 as usize];
            let mapped = match predicate {
                Pred::True => Pred::True,
                Pred::False => Pred::False,
                Pred::Number(field, ranges) => Pred::Number(*field, ranges.clone()),
                Pred::Address(field, set) => Pred::Address(*field, sets[set.0 as usize]),
                Pred::And(parts) => Pred::And(parts.iter().map(of).collect()),
                Pred::Or(parts) => Pred::Or(parts.iter().map(of).collect()),
                Pred::Not(inner) => Pred::Not(of(inner)),
                Pred::Conditional(arms, otherwise) => Pred::Conditional(
                    arms.iter().map(|(p, q)| (of(p), of(q))).collect(),
                    of(otherwise),
                ),
                Pred::Reverse => {
                    self.asks_reverse = true;
                    Pred::Reverse
                }
            };
            predicates.push(self.arena.predicate(mapped));
        }
        let mut terms: Vec<TermId> = Vec::with_capacity(policy.terms.len());
        for term in &policy.terms {
            let of = |id: &TermId| terms[id.0 as usize];
            let holds = |id: &PredId| predicates[id.0 as usize];
            let mapped = match term {
                Term::Filter(predicate) => Term::Filter(holds(predicate)),
                Term::SetNumber(field, value) => Term::SetNumber(*field, *value),
                Term::SetAddress(field, address) => Term::SetAddress(*field, *address),
                Term::SetPort(port, label) => Term::SetPort(*port, shifted(*label)),
                Term::Drop(label) => Term::Drop(shifted(*label)),
                Term::Note(note) => Term::Note(note.clone()),
                Term::Dup => Term::Dup,
                Term::Union(arms) => Term::Union(arms.iter().map(of).collect()),
                Term::Sequence(parts) => Term::Sequence(parts.iter().map(of).collect()),
                Term::Star(body) => Term::Star(of(body)),
                Term::Conditional(arms, otherwise) => Term::Conditional(
                    arms.iter().map(|(p, t)| (holds(p), of(t))).collect(),
                    of(otherwise),
                ),
            };
            terms.push(self.arena.term(mapped));
        }
        for (label, text) in &policy.labels {
            let text = format!("{}: {text}", peer.name);
            self.labels.insert(shifted(*label), text);
        }
        for feature in policy.needs.keys() {
            self.needs.entry(*feature).or_default();
        }
        self.links |= policy.links;
        self.shared.push(Shared {
            network: peer.name.clone(),
            limit: policy.limit,
            bucket: policy.bucket,
        });
        let mirrored = mirrored(&policy.terms, |label| policy.groups.contains_key(&label));
        self.mirrored
            .extend(mirrored.iter().map(|port| *port as u32));
        let given = given_sources(&policy.terms);
        let root = terms[policy.root.0 as usize];
        let label = shifted(policy.source().len() as LabelId + 1);
        self.side(peer, Some(root), &mirrored, given, label)
    }

    /// The rate of the policy's `limit`s and what its bucket is a hash of, with those of its peers: a
    /// packet has one token and one bucket.
    pub(super) fn shared_with_peers(&mut self, mut limit: Limit, mut bucket: u32) -> (Limit, u32) {
        let own = self.network.map_or("", |network| network.name.as_str());
        let mut differing = Vec::new();
        for shared in &self.shared {
            let Shared {
                network,
                limit: other,
                bucket: key,
            } = shared;
            if *other != Limit::default() {
                if limit != Limit::default() && limit != *other {
                    differing.push(format!(
                        "the policies of networks `{own}` and `{network}` have different rates or \
                         keys of `limit`, and a packet between them has one token"
                    ));
                }
                limit = *other;
            }
            if *key != 0 {
                if bucket != 0 && bucket != *key {
                    differing.push(format!(
                        "the policies of networks `{own}` and `{network}` have different keys of \
                         `balance`, and a packet between them has one bucket"
                    ));
                }
                bucket = *key;
            }
        }
        for message in differing {
            self.sink
                .report(Code::NotSupported, Span::default(), message)
                .hint("write the same in both, or end the peering");
        }
        (limit, bucket)
    }
}

/// What a peer's policy has of that a packet has one of.
pub(super) struct Shared {
    network: String,
    limit: Limit,
    bucket: u32,
}

/// The addresses that terms give to sources.
fn given_sources(terms: &[Term]) -> BTreeSet<IpAddr> {
    let given = terms.iter().filter_map(|term| match term {
        Term::SetAddress(Field::Source, Address::V4(v4)) => Some(IpAddr::V4(*v4)),
        Term::SetAddress(Field::Source, Address::V6(v6)) => Some(IpAddr::V6(*v6)),
        _ => None,
    });
    given.collect()
}

/// The endpoints that terms send copies to by number, those of groups left out.
fn mirrored(terms: &[Term], is_group: impl Fn(LabelId) -> bool) -> BTreeSet<u64> {
    let ports = terms.iter().filter_map(|term| match term {
        Term::SetPort(port, label) if *port != OWNER && !is_group(*label) => Some(*port),
        _ => None,
    });
    ports.collect()
}

fn sorted(prefixes: impl Iterator<Item = Prefix>) -> Vec<Prefix> {
    let sorted: BTreeSet<Prefix> = prefixes.collect();
    sorted.into_iter().collect()
}
