//! Resolved policies as programs of the verifier.

use std::collections::HashMap;

use crate::address::{Address, AddressSet, Family, Prefix};
use crate::field::{FIELDS, Field, OWNER};
use crate::packet::Packet;
use crate::term::{Pred, PredId, Resolved, Term, TermId};
use crate::verify::program::{Domain, FieldId, Kind, NodeId, Program, Range, Value};

/// A program that policies are added to, with a field of its own for each of theirs.
pub(crate) struct Translation {
    /// The program.
    pub(crate) program: Program,
    fields: [FieldId; FIELDS],
    /// `dup` is kept.
    histories: bool,
}

/// One policy on its way.
struct Walk<'a> {
    to: &'a mut Translation,
    policy: &'a Resolved,
    terms: HashMap<TermId, NodeId>,
    predicates: HashMap<PredId, NodeId>,
}

impl Translation {
    /// For questions about the packets that come out: `dup` lets them through.
    pub(crate) fn new() -> Self {
        Self::made(false)
    }

    /// For questions about the ways of packets: `dup` records them.
    pub(crate) fn with_histories() -> Self {
        Self::made(true)
    }

    fn made(histories: bool) -> Self {
        let mut program = Program::new();
        let fields = Field::ALL.map(|field| {
            let domain = match field {
                Field::Source | Field::Destination => Domain::Address,
                Field::Port => Domain::Number { max: OWNER },
                _ => Domain::Number { max: field.max() },
            };
            program.field(field.name(), domain)
        });
        Translation {
            program,
            fields,
            histories,
        }
    }

    /// The field of the program that stands for a packet's field.
    pub(crate) fn field(&self, field: Field) -> FieldId {
        self.fields[field as usize]
    }

    /// The packet's field that a field of the program stands for.
    pub(crate) fn packet_field(&self, id: FieldId) -> Option<Field> {
        let at = self.fields.iter().position(|field| *field == id)?;
        Some(Field::ALL[at])
    }

    /// The policy as a program.
    pub(crate) fn policy(&mut self, policy: &Resolved) -> NodeId {
        self.term(policy, policy.root)
    }

    /// A part of a policy.
    pub(crate) fn term(&mut self, policy: &Resolved, term: TermId) -> NodeId {
        self.walk(policy).term(term)
    }

    /// A predicate of a policy.
    pub(crate) fn predicate(&mut self, policy: &Resolved, predicate: PredId) -> NodeId {
        self.walk(policy).predicate(predicate)
    }

    fn walk<'a>(&'a mut self, policy: &'a Resolved) -> Walk<'a> {
        Walk {
            to: self,
            policy,
            terms: HashMap::new(),
            predicates: HashMap::new(),
        }
    }

    /// `FIELD in ranges`, of a numeric field.
    pub(crate) fn number(&mut self, field: Field, ranges: &[(u64, u64)]) -> NodeId {
        let ranges = ranges
            .iter()
            .map(|(first, last)| (Value::number(*first), Value::number(*last)));
        self.program.test(self.fields[field as usize], ranges)
    }

    /// `FIELD = value`, of a numeric field.
    pub(crate) fn equals(&mut self, field: Field, value: u64) -> NodeId {
        self.number(field, &[(value, value)])
    }

    /// `FIELD in set`, of an address.
    pub(crate) fn address(&mut self, field: Field, set: &AddressSet) -> NodeId {
        let covered = covered(&set.prefixes);
        let mut ranges = if set.complement {
            outside(covered)
        } else {
            covered
        };
        if set.none {
            let nothing = Value::address(Address::None);
            ranges.push((nothing, nothing));
        }
        self.program.test(self.fields[field as usize], ranges)
    }

    /// Whether the address is of this kind.
    pub(crate) fn kind(&mut self, field: Field, kind: Kind) -> NodeId {
        let all = Domain::Address.all();
        let ranges = all.into_iter().filter(|(first, _)| first.kind == kind);
        self.program.test(self.fields[field as usize], ranges)
    }

    /// `FIELD := value`, of a numeric field.
    pub(crate) fn assign(&mut self, field: Field, value: u64) -> NodeId {
        self.program
            .assign(self.fields[field as usize], Value::number(value))
    }

    /// A packet with these values; fields that are not named are zero, or have no address.
    pub(crate) fn packet(&self, values: &[(FieldId, Value)]) -> Packet {
        let mut packet = Packet::default();
        for (id, value) in values {
            let Some(field) = self.packet_field(*id) else {
                continue;
            };
            match value.kind {
                Kind::Nothing => packet.set_address(field, Address::None),
                Kind::Number => packet.set_number(field, value.number as u64),
                Kind::V4 => {
                    packet.set_address(field, Family::V4.address(value.number).into());
                }
                Kind::V6 => {
                    packet.set_address(field, Family::V6.address(value.number).into());
                }
            }
        }
        packet
    }
}

impl Walk<'_> {
    fn term(&mut self, id: TermId) -> NodeId {
        if let Some(done) = self.terms.get(&id) {
            return *done;
        }
        let done = match self.policy.term(id) {
            Term::Filter(predicate) => self.predicate(*predicate),
            Term::SetNumber(field, value) => self.to.assign(*field, *value),
            Term::SetAddress(field, address) => {
                let field = self.to.field(*field);
                self.to.program.assign(field, Value::address(*address))
            }
            Term::SetPort(port, _) => self.to.assign(Field::Port, *port),
            Term::Drop(_) => self.to.program.drop(),
            Term::Dup if self.to.histories => self.to.program.dup(),
            Term::Dup | Term::Note(_) => self.to.program.id(),
            Term::Union(arms) => {
                let arms: Vec<NodeId> = arms.iter().map(|arm| self.term(*arm)).collect();
                self.to.program.union(arms)
            }
            Term::Sequence(parts) => {
                let parts: Vec<NodeId> = parts.iter().map(|part| self.term(*part)).collect();
                self.to.program.sequence(parts)
            }
            Term::Star(body) => {
                let body = self.term(*body);
                self.to.program.star(body)
            }
            Term::Conditional(arms, otherwise) => {
                let arms: Vec<_> = arms
                    .iter()
                    .map(|(condition, body)| (self.predicate(*condition), self.term(*body)))
                    .collect();
                let otherwise = self.term(*otherwise);
                self.to.program.conditional(arms, otherwise)
            }
        };
        self.terms.insert(id, done);
        done
    }

    fn predicate(&mut self, id: PredId) -> NodeId {
        if let Some(done) = self.predicates.get(&id) {
            return *done;
        }
        let done = match self.policy.predicate(id) {
            Pred::True => self.to.program.id(),
            Pred::False => self.to.program.drop(),
            Pred::Number(field, ranges) => self.to.number(*field, ranges),
            Pred::Address(field, set) => self.to.address(*field, self.policy.set(*set)),
            Pred::And(parts) => {
                let parts: Vec<NodeId> = parts.iter().map(|part| self.predicate(*part)).collect();
                self.to.program.sequence(parts)
            }
            Pred::Or(parts) => {
                let parts: Vec<NodeId> = parts.iter().map(|part| self.predicate(*part)).collect();
                self.to.program.union(parts)
            }
            Pred::Not(inner) => {
                let inner = self.predicate(*inner);
                self.to.program.not(inner)
            }
            Pred::Conditional(arms, otherwise) => {
                let arms: Vec<_> = arms
                    .iter()
                    .map(|(condition, then)| (self.predicate(*condition), self.predicate(*then)))
                    .collect();
                let otherwise = self.predicate(*otherwise);
                self.to.program.conditional(arms, otherwise)
            }
            Pred::Reverse => match self.policy.reverse {
                Some(reverse) => self.predicate(reverse),
                None => self.to.program.drop(),
            },
        };
        self.predicates.insert(id, done);
        done
    }
}

/// The addresses in prefixes, as ranges; they may overlap.
fn covered(prefixes: &[Prefix]) -> Vec<Range> {
    prefixes
        .iter()
        .map(|p| [p.first, p.last()].map(|number| Value::of_family(p.family, number)))
        .map(|[first, last]| (first, last))
        .collect()
}

/// All addresses outside of ranges, in any order.
fn outside(mut covered: Vec<Range>) -> Vec<Range> {
    covered.sort_unstable();
    let mut outside = Domain::Address.complement(&covered);
    outside.retain(|(first, _)| first.kind != Kind::Nothing);
    outside
}
