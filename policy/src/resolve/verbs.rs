//! Verbs with operands, `established`, and links, as terms.
//!
//! Every verb has a meaning for the evaluator and the prover, also where the data plane lacks what
//! it takes; what a policy needs is noted in [`Feature`]s.

use std::collections::BTreeSet;

use sunwire_dataplane_common::limit::{BITS, Limit, RATE_MAX};
use sunwire_dataplane_common::tables::key;

use super::{Meaning, Resolver, Scope};
use crate::ast::{Expr, Rate, Value, ValueKind, Verb};
use crate::diagnostic::{Code, Span};
use crate::feature::Feature;
use crate::field::{Connection, Field, Subject};
use crate::packet::{LabelId, Note};
use crate::term::{AssignedField, Pred, Term, TermId};

/// What the data plane keeps packets apart by for a field that `limit` names.
fn limit_key(subject: Subject) -> Option<u32> {
    Some(match subject {
        Subject::Field(Field::Source) => key::SRC,
        Subject::Field(Field::Destination) => key::DST,
        Subject::Ip4(Field::Source) => key::IP4_SRC,
        Subject::Ip4(_) => key::IP4_DST,
        Subject::Ip6(Field::Source) => key::IP6_SRC,
        Subject::Ip6(_) => key::IP6_DST,
        Subject::Field(Field::SourcePort) => key::SRC_PORT,
        Subject::Field(Field::DestinationPort) => key::DST_PORT,
        Subject::Field(Field::Protocol) => key::PROTOCOL,
        Subject::Field(Field::Port) => key::ENDPOINT,
        Subject::Field(_) => return None,
    })
}

/// Label by which an endpoint says that it takes packets of others on their way.
const TRANSPARENT: (&str, &str) = ("transparent", "true");

impl<'d> Resolver<'d> {
    /// Notes that the policy needs a feature here.
    pub(super) fn need(&mut self, feature: Feature, span: Span) {
        self.needs.entry(feature).or_insert(span);
    }

    pub(super) fn verb(&mut self, verb: &'d Verb, span: Span, scope: &Scope<'d>) -> Meaning {
        let term = match verb {
            Verb::ForwardTo(target, label) => {
                self.forward_to(target, label.as_deref(), span, scope)
            }
            Verb::Flood => {
                let network = self.network;
                let endpoints = self.environment.endpoints.iter();
                let numbers: Vec<u64> = endpoints
                    .filter(|e| network.is_some_and(|n| n.name == e.network))
                    .map(|e| e.number.into())
                    .collect();
                let label = self.label(span, None, "flood");
                Some(self.copies_to(&numbers, label))
            }
            Verb::Multicast(group) => {
                let ranges = self.ranges(Field::Port, group, scope);
                let label = self.label(span, None, &format!("multicast {group}"));
                ranges.map(|ranges| {
                    let numbers: Vec<u64> = ranges
                        .iter()
                        .flat_map(|(first, last)| *first..=*last)
                        .collect();
                    self.copies_to(&numbers, label)
                })
            }
            Verb::Balance { targets, by } => self.balance(targets, by, span, scope),
            Verb::Snat(address) => self.snat(address, span, scope),
            Verb::Dnat(address, port) => self.dnat(address, port.as_ref(), span, scope),
            Verb::Count(name) => Some(self.note(Note::Count(name.text.as_str().into()))),
            Verb::Log(text) => {
                let text = self.label_text(span, text.as_deref(), "log");
                Some(self.note(Note::Log(text.into())))
            }
            Verb::Limit { rate, per } => self.limit(*rate, per, span),
            Verb::Mirror(target) => {
                let label = self.label(span, None, &format!("mirror to {target}"));
                let number = self.one_number(Field::Port, target, scope);
                self.assigned
                    .entry(AssignedField::Number(Field::Port))
                    .or_insert(span);
                number.map(|number| self.arena.term(Term::SetPort(number, label)))
            }
        };
        term.map_or(Meaning::Erroneous, Meaning::Term)
    }

    fn id(&mut self) -> TermId {
        let always = self.arena.predicate(Pred::True);
        self.arena.term(Term::Filter(always))
    }

    fn note(&mut self, note: Note) -> TermId {
        self.arena.term(Term::Note(note))
    }

    fn forward_to(
        &mut self,
        target: &'d Value,
        label: Option<&str>,
        span: Span,
        scope: &Scope<'d>,
    ) -> Option<TermId> {
        let label = self.label(span, label, &format!("forward to {target}"));
        let number = self.one_number(Field::Port, target, scope)?;
        self.need(Feature::Transparent, span);
        let environment = self.environment;
        let endpoint = environment
            .endpoints
            .iter()
            .find(|e| u64::from(e.number) == number);
        let (key, value) = TRANSPARENT;
        if endpoint.is_none_or(|e| e.labels.get(key).is_none_or(|v| v != value)) {
            self.sink
                .report(
                    Code::NotTransparent,
                    target.span,
                    format!(
                        "`{target}` is not declared transparent, so it would drop what it is sent"
                    ),
                )
                .hint(format!("give the endpoint the label `{key}={value}`"));
            return None;
        }
        self.transparent.insert(number as u32);
        Some(self.arena.term(Term::SetPort(number, label)))
    }

    /// A copy to each endpoint but the one where the packet is.
    fn copies_to(&mut self, numbers: &[u64], label: LabelId) -> TermId {
        let arms: Vec<TermId> = numbers
            .iter()
            .map(|number| {
                let here = self.number(Field::Port, &[(*number, *number)]);
                let elsewhere = self.arena.predicate(Pred::Not(here));
                let filter = self.arena.term(Term::Filter(elsewhere));
                let send = self.arena.term(Term::SetPort(*number, label));
                self.arena.term(Term::Sequence(Box::new([filter, send])))
            })
            .collect();
        let members: BTreeSet<u32> = numbers.iter().map(|number| *number as u32).collect();
        self.groups.insert(label, members.into_iter().collect());
        self.arena.term(Term::Union(arms.into()))
    }

    fn limit(&mut self, rate: Rate, per: &[Subject], span: Span) -> Option<TermId> {
        let (amount, unit, most) = match rate {
            Rate::Packets(packets) => (packets, "packets", RATE_MAX),
            Rate::Bits(bits) => (bits, "bits", RATE_MAX),
        };
        if !(1..=most).contains(&amount) {
            self.sink
                .report(
                    Code::ValueOutOfRange,
                    span,
                    format!("a rate is 1 to {most} {unit} per second, and this is {amount}"),
                )
                .hint(if amount == 0 {
                    "write `drop` where nothing shall pass"
                } else {
                    "leave it out where everything shall pass"
                });
            return None;
        }
        if let Some(other) = per.iter().find(|subject| limit_key(**subject).is_none()) {
            self.sink
                .report(
                    Code::NotSupported,
                    span,
                    format!("`limit` does not tell packets apart by `{}`", other.name()),
                )
                .hint(
                    "write `per` src, dst, ip4Src, ip4Dst, ip6Src, ip6Dst, tcpSrcPort, tcpDstPort, \
                     ipProto or port",
                );
            return None;
        }
        let asked = (rate, per.to_vec());
        if *self.rates.get_or_insert_with(|| asked.clone()) != asked {
            self.one_only(span, "every `limit` of a policy has the same rate and key");
            return None;
        }
        let label = self.label(span, None, "limit");
        let admitted = self.number(Field::Token, &[(1, 1)]);
        let pass = self.id();
        let stop = self.arena.term(Term::Drop(label));
        let arms = Box::new([(admitted, pass)]);
        Some(self.arena.term(Term::Conditional(arms, stop)))
    }

    /// The rate of the policy's `limit`s; zeroed when it has none.
    pub(super) fn rate(&self) -> Limit {
        let Some((rate, per)) = &self.rates else {
            return Limit::default();
        };
        let keys = per.iter().filter_map(|subject| limit_key(*subject));
        let key = keys.fold(0, |all, one| all | one);
        match rate {
            Rate::Packets(packets) => Limit::new(*packets, key),
            Rate::Bits(bits) => Limit::new(*bits, key | BITS),
        }
    }

    pub(super) fn one_only(&mut self, span: Span, rule: &str) {
        self.sink
            .report(Code::NotSupported, span, format!("{rule}, in this release"))
            .hint("give it a name with `let`, and use it in both places");
    }

    /// `established`: the connection was admitted, and its first packet still would be.
    pub(super) fn established(
        &mut self,
        inner: Option<&'d Expr>,
        span: Span,
        scope: &Scope<'d>,
    ) -> Meaning {
        self.need(Feature::Connections, span);
        let states = (Connection::Established as u64, Connection::Related as u64);
        let state = self.number(Field::Connection, &[states]);
        let reverse = match inner {
            None => {
                self.asks_reverse = true;
                self.arena.predicate(Pred::Reverse)
            }
            Some(inner) => match self.expr(inner, scope) {
                Meaning::Pred(predicate) => self.reverse_of_predicate(predicate),
                Meaning::Term(term) => self.reverse_of_policy(term),
                Meaning::Erroneous => return Meaning::Erroneous,
            },
        };
        self.pred_of(Some(Pred::And(Box::new([state, reverse]))))
    }

    /// A link: `filter node = a and port = b; dup; node := c; port := d; dup`.
    pub(super) fn link(
        &mut self,
        from: &'d (Value, Value),
        to: &'d (Value, Value),
        scope: &Scope<'d>,
    ) -> Meaning {
        let mut numbers = [0; 4];
        let values = [&from.0, &from.1, &to.0, &to.1];
        let mut complete = true;
        for (at, value) in values.into_iter().enumerate() {
            let field = if at % 2 == 0 {
                Field::Node
            } else {
                Field::Port
            };
            match self.one_number(field, value, scope) {
                Some(number) => numbers[at] = number,
                None => complete = false,
            }
        }
        if !complete {
            return Meaning::Erroneous;
        }
        self.links = true;
        let node = self.number(Field::Node, &[(numbers[0], numbers[0])]);
        let port = self.number(Field::Port, &[(numbers[1], numbers[1])]);
        let at = self.arena.predicate(Pred::And(Box::new([node, port])));
        let at = self.arena.term(Term::Filter(at));
        let dup = self.arena.term(Term::Dup);
        let to_node = self.arena.term(Term::SetNumber(Field::Node, numbers[2]));
        let to_port = self.arena.term(Term::SetNumber(Field::Port, numbers[3]));
        self.term_of(Some(Term::Sequence(Box::new([
            at, dup, to_node, to_port, dup,
        ]))))
    }

    /// `public ADDRESS -> ENDPOINT` in a `network` block.
    pub(super) fn public(&mut self, public: &'d crate::ast::Public) {
        if !matches!(
            public.address.kind,
            ValueKind::Address(_) | ValueKind::Error
        ) {
            self.sink.report(
                Code::WrongKind,
                public.address.span,
                "a public address is one address, such as 203.0.113.10",
            );
        }
        self.one_number(Field::Port, &public.endpoint, &Scope::default());
        self.need(Feature::Public, public.address.span);
    }
}
