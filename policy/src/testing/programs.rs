//! Random programs for the verifier, and packets for them: numbers, integers and addresses, with
//! values, ranges and sets that meet often.

use proptest::prelude::*;
use proptest::sample::select;

use crate::verify::program::{Domain, FieldId, Kind, NodeId, Program, Range, Value};
use crate::verify::space::Packet;

/// A program to be, so that it can be shown, made smaller, and built into any [`Program`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipe {
    /// Nothing comes out.
    Drop,
    /// The packet comes out.
    Id,
    /// Records the packet.
    Dup,
    /// The field of this number is in these ranges.
    Test(u16, Vec<Range>),
    /// The field of this number gets the value.
    Assign(u16, Value),
    /// Not this predicate.
    Not(Box<Recipe>),
    /// Any of these.
    Union(Vec<Recipe>),
    /// One after the other.
    Sequence(Vec<Recipe>),
    /// Any number of times.
    Star(Box<Recipe>),
    /// If, then, …, else.
    Conditional(Vec<(Recipe, Recipe)>, Box<Recipe>),
    /// In both.
    Intersection(Box<Recipe>, Box<Recipe>),
    /// In the first only.
    Difference(Box<Recipe>, Box<Recipe>),
    /// In exactly one.
    SymmetricDifference(Box<Recipe>, Box<Recipe>),
}

/// What random programs are about: fields with the values that they name.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Name, domain and values of each field.
    pub fields: Vec<(&'static str, Domain, Vec<Value>)>,
    /// Whether tests may be of ranges between the values.
    pub ranges: bool,
    /// Whether programs may have `dup`.
    pub dup: bool,
}

impl Setting {
    /// Numbers, integers and addresses of all kinds, without `dup`.
    #[must_use]
    pub fn wide() -> Self {
        let v4 = |number| Value {
            kind: Kind::V4,
            number,
        };
        let v6 = |number| Value {
            kind: Kind::V6,
            number,
        };
        let none = Value {
            kind: Kind::Nothing,
            number: 0,
        };
        Setting {
            fields: vec![
                ("bit", Domain::Number { max: 1 }, vec![0, 1]),
                ("small", Domain::Number { max: 4 }, vec![0, 1, 2, 3, 4]),
                (
                    "port",
                    Domain::Number { max: 65535 },
                    vec![0, 1, 80, 81, 443, 65535],
                ),
            ]
            .into_iter()
            .map(|(name, domain, values)| {
                (
                    name,
                    domain,
                    values.into_iter().map(Value::number).collect(),
                )
            })
            .chain([
                (
                    "tag",
                    Domain::Integer,
                    [i64::MIN, -1, 0, 1, i64::MAX].map(Value::integer).to_vec(),
                ),
                (
                    "src",
                    Domain::Address,
                    vec![
                        none,
                        v4(0),
                        v4(0x0a14_0001),
                        v4(0x0a14_00ff),
                        v4(u128::from(u32::MAX)),
                        v6(0),
                        v6(0xfd00 << 112 | 1),
                        v6(u128::MAX),
                    ],
                ),
            ])
            .collect(),
            ranges: true,
            dup: false,
        }
    }

    /// Few packets (all can be tried), with `dup`.
    #[must_use]
    pub fn narrow() -> Self {
        let numbers = |max| (0..=max).map(Value::number).collect();
        Setting {
            fields: vec![
                ("a", Domain::Number { max: 2 }, numbers(2)),
                ("b", Domain::Number { max: 1 }, numbers(1)),
            ],
            ranges: true,
            dup: true,
        }
    }

    /// A program with these fields and nothing else; field numbers are those of recipes.
    #[must_use]
    pub fn program(&self) -> Program {
        let mut program = Program::new();
        for (name, domain, _) in &self.fields {
            program.field(name, *domain);
        }
        program
    }

    /// Every packet over the named values.
    #[must_use]
    pub fn all_packets(&self) -> Vec<Packet> {
        let mut packets = vec![vec![]];
        for (_, _, values) in &self.fields {
            packets = (packets.into_iter())
                .flat_map(|packet: Packet| {
                    values.iter().map(move |value| {
                        let mut packet = packet.clone();
                        packet.push(*value);
                        packet
                    })
                })
                .collect();
        }
        packets
    }

    /// Packets with named values and values beside them.
    pub fn packets(&self) -> BoxedStrategy<Packet> {
        let fields: Vec<BoxedStrategy<Value>> = (self.fields.iter())
            .map(|(_, domain, values)| {
                let near: Vec<Value> = (values.iter())
                    .flat_map(|value| beside(*domain, *value))
                    .collect();
                prop_oneof![3 => select(values.clone()), 1 => select(near)].boxed()
            })
            .collect();
        fields.boxed()
    }

    /// Predicates.
    pub fn predicates(&self) -> BoxedStrategy<Recipe> {
        let leaf = prop_oneof![
            1 => Just(Recipe::Id),
            1 => Just(Recipe::Drop),
            8 => self.tests(),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                inner.clone().prop_map(|p| Recipe::Not(Box::new(p))),
                proptest::collection::vec(inner.clone(), 2..4).prop_map(Recipe::Union),
                proptest::collection::vec(inner.clone(), 2..4).prop_map(Recipe::Sequence),
                (inner.clone(), inner.clone(), inner.clone())
                    .prop_map(|(p, q, r)| Recipe::Conditional(vec![(p, q)], Box::new(r))),
                (inner.clone(), inner)
                    .prop_map(|(p, q)| Recipe::Difference(Box::new(p), Box::new(q))),
            ]
        })
        .boxed()
    }

    /// Programs.
    pub fn recipes(&self) -> BoxedStrategy<Recipe> {
        let predicates = self.predicates();
        let dups = if self.dup { 3 } else { 0 };
        let mut leaves = vec![
            (1, Just(Recipe::Id).boxed()),
            (1, Just(Recipe::Drop).boxed()),
            (4, self.assignments()),
            (3, predicates.clone()),
        ];
        if dups > 0 {
            leaves.push((dups, Just(Recipe::Dup).boxed()));
        }
        let guards = predicates.clone();
        proptest::strategy::Union::new_weighted(leaves)
            .prop_recursive(4, 20, 3, move |inner| {
                let pair =
                    || (inner.clone(), inner.clone()).prop_map(|(p, q)| (Box::new(p), Box::new(q)));
                prop_oneof![
                    4 => proptest::collection::vec(inner.clone(), 2..4).prop_map(Recipe::Union),
                    6 => proptest::collection::vec(inner.clone(), 2..4).prop_map(Recipe::Sequence),
                    2 => inner.clone().prop_map(|p| Recipe::Star(Box::new(p))),
                    2 => (
                        proptest::collection::vec((guards.clone(), inner.clone()), 1..3),
                        inner.clone(),
                    )
                        .prop_map(|(arms, last)| Recipe::Conditional(arms, Box::new(last))),
                    1 => pair().prop_map(|(p, q)| Recipe::Intersection(p, q)),
                    1 => pair().prop_map(|(p, q)| Recipe::Difference(p, q)),
                    1 => pair().prop_map(|(p, q)| Recipe::SymmetricDifference(p, q)),
                ]
            })
            .boxed()
    }

    /// A field with a value that is named for it.
    pub fn field_values(&self) -> BoxedStrategy<(u16, Value)> {
        let pairs: Vec<(u16, Value)> = (0u16..)
            .zip(&self.fields)
            .flat_map(|(field, (_, _, values))| values.iter().map(move |value| (field, *value)))
            .collect();
        select(pairs).boxed()
    }

    fn assignments(&self) -> BoxedStrategy<Recipe> {
        (self.field_values())
            .prop_map(|(field, value)| Recipe::Assign(field, value))
            .boxed()
    }

    fn tests(&self) -> BoxedStrategy<Recipe> {
        let values = (self.field_values())
            .prop_map(|(field, value)| Recipe::Test(field, vec![(value, value)]));
        if !self.ranges {
            return values.boxed();
        }
        let fields = self.fields.clone();
        let ranges = (0..fields.len()).prop_flat_map(move |field| {
            let values = fields[field].2.clone();
            let range = (select(values.clone()), select(values))
                .prop_filter_map("values of one kind", |(a, b)| {
                    (a.kind == b.kind).then(|| (a.min(b), a.max(b)))
                });
            proptest::collection::vec(range, 1..3)
                .prop_map(move |ranges| Recipe::Test(field as u16, ranges))
        });
        prop_oneof![values, ranges].boxed()
    }
}

impl Recipe {
    /// The recipe as a node of a program that has the fields.
    pub fn build(&self, program: &mut Program) -> NodeId {
        match self {
            Recipe::Drop => program.drop(),
            Recipe::Id => program.id(),
            Recipe::Dup => program.dup(),
            Recipe::Test(field, ranges) => program.test(FieldId(*field), ranges.iter().copied()),
            Recipe::Assign(field, value) => program.assign(FieldId(*field), *value),
            Recipe::Not(operand) => {
                let operand = operand.build(program);
                program.not(operand)
            }
            Recipe::Union(parts) => {
                let parts: Vec<_> = parts.iter().map(|part| part.build(program)).collect();
                program.union(parts)
            }
            Recipe::Sequence(parts) => {
                let parts: Vec<_> = parts.iter().map(|part| part.build(program)).collect();
                program.sequence(parts)
            }
            Recipe::Star(body) => {
                let body = body.build(program);
                program.star(body)
            }
            Recipe::Conditional(arms, otherwise) => {
                let arms: Vec<_> = (arms.iter())
                    .map(|(guard, then)| (guard.build(program), then.build(program)))
                    .collect();
                let otherwise = otherwise.build(program);
                program.conditional(arms, otherwise)
            }
            Recipe::Intersection(left, right) => {
                let (left, right) = (left.build(program), right.build(program));
                program.intersection(left, right)
            }
            Recipe::Difference(left, right) => {
                let (left, right) = (left.build(program), right.build(program));
                program.difference(left, right)
            }
            Recipe::SymmetricDifference(left, right) => {
                let (left, right) = (left.build(program), right.build(program));
                program.symmetric_difference(left, right)
            }
        }
    }
}

/// The values before and after one, as far as they are in the domain, or itself.
fn beside(domain: Domain, value: Value) -> Vec<Value> {
    let greatest = value.kind.greatest(domain).unwrap_or(0);
    let numbers = [
        value.number.saturating_sub(1),
        value.number.saturating_add(1).min(greatest),
    ];
    numbers.map(|number| Value { number, ..value }).to_vec()
}
