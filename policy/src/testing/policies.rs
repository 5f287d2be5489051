//! Random policies over the network of [`environment`](super::environment), as syntax trees.

use std::net::IpAddr;

use proptest::prelude::*;
use proptest::sample::select;

use super::packets::{DSCPS, PORTS};
use crate::ast::{
    Argument, Assertion, AssertionKind, Document, Expected, Expr, ExprKind, Item, ItemKind, Let,
    Name, Operator, Rate, Test, Value, ValueKind, Verb, Word,
};
use crate::diagnostic::Span;
use crate::field::{Field, Subject};

/// What a random policy may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Everything in the language, also what the data plane refuses.
    Any,
    /// Everything whose meaning does not depend on the policy around it: not plain `established`.
    Closed,
    /// Only what the data plane has, and fields that it can rewrite.
    Writable,
    /// As `Writable`, and nothing that depends on the packets before.
    Stateless,
}

impl Kind {
    /// Whether the data plane has all of it.
    fn is_for_tables(self) -> bool {
        matches!(self, Kind::Writable | Kind::Stateless)
    }
}

fn expr(kind: ExprKind) -> Expr {
    Expr {
        kind,
        span: Span::default(),
    }
}

fn value(kind: ValueKind) -> Value {
    Value {
        kind,
        span: Span::default(),
    }
}

fn name(text: &str) -> Name {
    Name {
        text: text.to_owned(),
        span: Span::default(),
    }
}

/// A whole document for network `shop`: some definitions, and `body` as the policy `main`.
#[must_use]
pub fn document(body: Expr) -> Document {
    let address = |text: &str| text.parse::<IpAddr>().expect("a literal address");
    let item = |kind| Item {
        kind,
        span: Span::default(),
    };
    let named = |text: &str| value(ValueKind::Name(text.to_owned()));
    let labels = vec![(name("tier"), "client".to_owned())];
    Document {
        source: "".into(),
        items: vec![
            item(ItemKind::Network {
                name: name("shop"),
                subnets: Some(vec![
                    value(ValueKind::Prefix(address("10.20.0.0"), 16)),
                    value(ValueKind::Prefix(address("fd00:14::"), 64)),
                ]),
                peers: Vec::new(),
                public: Vec::new(),
            }),
            item(ItemKind::Set {
                name: name("web"),
                value: value(ValueKind::Set(vec![named("web1"), named("web2")])),
            }),
            item(ItemKind::Set {
                name: name("clients"),
                value: value(ValueKind::Labels(labels)),
            }),
            item(ItemKind::Set {
                name: name("outside"),
                value: value(ValueKind::Set(vec![
                    named("internet"),
                    value(ValueKind::Address(address("10.20.255.255"))),
                ])),
            }),
            item(ItemKind::Let(Let {
                name: name("reach"),
                params: vec![name("who"), name("what")],
                value: expr(ExprKind::And(vec![
                    test(
                        Subject::Field(Field::Destination),
                        Operator::In,
                        named("who"),
                    ),
                    test(
                        Subject::Field(Field::DestinationPort),
                        Operator::In,
                        named("what"),
                    ),
                ])),
            })),
            item(ItemKind::Policy {
                name: name("main"),
                body,
            }),
        ],
    }
}

fn test(subject: Subject, operator: Operator, value: Value) -> Expr {
    expr(ExprKind::Test {
        subject,
        operator,
        value,
    })
}

/// Random predicates that every data plane has.
pub fn predicates() -> impl Strategy<Value = Expr> + Clone {
    predicates_of(Kind::Stateless)
}

fn predicates_of(kind: Kind) -> impl Strategy<Value = Expr> + Clone {
    let leaf = prop_oneof![
        1 => Just(expr(ExprKind::True)),
        1 => Just(expr(ExprKind::False)),
        2 => select(&Word::ALL[..]).prop_map(|(_, word)| expr(ExprKind::Word(word))),
        6 => (select(number_fields(kind)), operators()).prop_flat_map(|(field, operator)| {
            numbers(field).prop_map(move |value| test(Subject::Field(field), operator, value))
        }),
        6 => (address_subjects(), operators(), any::<prop::sample::Index>()).prop_map(
            |(subject, operator, index)| {
                let pool = addresses(subject);
                test(subject, operator, index.get(&pool).clone())
            }
        ),
        1 => select(&PORTS[..]).prop_map(|port| expr(ExprKind::Use {
            name: name("reach"),
            arguments: vec![
                Argument::Expr(expr(ExprKind::Use { name: name("web"), arguments: vec![] })),
                Argument::Value(value(ValueKind::Number(port.into()))),
            ],
        })),
    ];
    leaf.prop_recursive(3, 12, 3, move |inner| {
        let several = prop::collection::vec(inner.clone(), 2..4);
        let plain = prop_oneof![
            inner.clone().prop_map(|p| expr(ExprKind::Not(Box::new(p)))),
            several.clone().prop_map(|parts| expr(ExprKind::And(parts))),
            several.prop_map(|parts| expr(ExprKind::Or(parts))),
        ];
        match kind {
            Kind::Stateless => plain.boxed(),
            Kind::Any | Kind::Writable => prop_oneof![
                8 => plain,
                1 => Just(expr(ExprKind::Established(None))),
                1 => inner.prop_map(|p| expr(ExprKind::Established(Some(Box::new(p))))),
            ]
            .boxed(),
            Kind::Closed => prop_oneof![
                8 => plain,
                1 => inner.prop_map(|p| expr(ExprKind::Established(Some(Box::new(p))))),
            ]
            .boxed(),
        }
    })
}

/// Random policies.
pub fn policies(kind: Kind) -> impl Strategy<Value = Expr> + Clone {
    let labels = || {
        prop::option::weighted(
            0.5,
            select(&["a", "b", "deny it"][..]).prop_map(str::to_owned),
        )
    };
    let leaf = prop_oneof![
        1 => Just(expr(ExprKind::Id)),
        2 => labels().prop_map(|label| expr(ExprKind::Drop(label))),
        4 => labels().prop_map(|label| expr(ExprKind::Forward(label))),
        4 => predicates_of(kind).prop_map(|p| expr(ExprKind::Filter(Box::new(p)))),
        6 => assignments(kind),
        2 => verbs(kind),
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        let several = prop::collection::vec(inner.clone(), 2..4);
        let arms = prop::collection::vec((predicates_of(kind), inner.clone()), 1..4);
        prop_oneof![
            3 => several.clone().prop_map(|arms| expr(ExprKind::Union(arms))),
            4 => several.prop_map(|parts| expr(ExprKind::Sequence(parts))),
            1 => inner.clone().prop_map(|p| expr(ExprKind::Star(Box::new(p)))),
            3 => (arms, inner.clone()).prop_map(|(arms, otherwise)| expr(ExprKind::Conditional {
                arms,
                otherwise: Box::new(otherwise),
            })),
            1 => (predicates_of(kind), inner.clone()).prop_map(|(condition, body)| expr(ExprKind::While {
                condition: Box::new(condition),
                body: Box::new(body),
            })),
            1 => (inner.clone(), inner).prop_map(|(definition, body)| {
                let twice = expr(ExprKind::Use { name: name("once"), arguments: vec![] });
                expr(ExprKind::LetIn {
                    definition: Box::new(Let { name: name("once"), params: vec![], value: definition }),
                    body: Box::new(expr(ExprKind::Sequence(vec![twice, body]))),
                })
            }),
        ]
    })
}

fn operators() -> impl Strategy<Value = Operator> + Clone {
    select(&[Operator::Equal, Operator::NotEqual, Operator::In][..])
}

/// Verbs with operands, `dup` and links.
fn verbs(kind: Kind) -> impl Strategy<Value = Expr> + Clone {
    let named = |text: &str| value(ValueKind::Name(text.to_owned()));
    let number = |number| value(ValueKind::Number(number));
    let address = |text: &str| value(ValueKind::Address(text.parse().expect("an address")));
    let verb = |verb| expr(ExprKind::Verb(Box::new(verb)));
    let mut all = vec![
        expr(ExprKind::Dup),
        verb(Verb::Mirror(named("db1"))),
        verb(Verb::Multicast(named("web"))),
        verb(Verb::Count(name("hits"))),
        verb(Verb::Count(name("others"))),
        verb(Verb::Log(None)),
        verb(Verb::Log(Some("seen".to_owned()))),
    ];
    if !kind.is_for_tables() {
        all.extend([
            verb(Verb::Flood),
            verb(Verb::Balance {
                targets: vec![(named("web1"), Some(2)), (named("web2"), None)],
                by: vec![Subject::Ip4(Field::Source)],
            }),
            verb(Verb::Snat(address("203.0.113.10"))),
            verb(Verb::Dnat(address("10.20.0.3"), Some(number(443)))),
            verb(Verb::Limit {
                rate: Rate::Packets(100),
                per: vec![Subject::Ip4(Field::Source)],
            }),
            expr(ExprKind::Link {
                from: Box::new((number(1), number(1))),
                to: Box::new((number(2), number(2))),
            }),
        ]);
    }
    select(all)
}

/// Assertions and tests, for printers and parsers.
#[must_use]
pub fn claims(left: &Expr, right: &Expr, condition: &Expr) -> Vec<ItemKind> {
    let named = |text: &str| value(ValueKind::Name(text.to_owned()));
    let assertion = |kind, condition: Option<&Expr>| {
        ItemKind::Assert(Assertion {
            kind,
            condition: condition.cloned(),
        })
    };
    let case = |expected| crate::ast::TestCase {
        from: named("web1"),
        to: named("internet"),
        protocol: Some(Word::Tcp),
        port: Some(value(ValueKind::Number(22))),
        fields: vec![(Subject::Field(Field::Dscp), value(ValueKind::Number(10)))],
        expected,
        span: Span::default(),
    };
    vec![
        assertion(
            AssertionKind::Reach(named("web"), named("clients")),
            Some(condition),
        ),
        assertion(
            AssertionKind::Isolated {
                left: named("web"),
                right: named("internet"),
                both: true,
            },
            None,
        ),
        assertion(
            AssertionKind::Waypoint {
                from: named("internet"),
                to: named("web"),
                via: named("db1"),
            },
            Some(condition),
        ),
        assertion(AssertionKind::LoopFree, None),
        assertion(AssertionKind::NoBlackHole, Some(condition)),
        assertion(
            AssertionKind::Equal(left.clone(), right.clone()),
            Some(condition),
        ),
        assertion(AssertionKind::Contained(left.clone(), right.clone()), None),
        ItemKind::Test(Test {
            name: "a test".to_owned(),
            cases: vec![
                case(Expected::Drop(Some("default deny".to_owned()))),
                case(Expected::Forward(Some(named("web2")), None)),
            ],
        }),
        ItemKind::Import {
            path: "common.nk".to_owned(),
        },
    ]
}

fn number_fields(kind: Kind) -> Vec<Field> {
    Field::ALL
        .into_iter()
        .filter(|field| field.bits() > 0)
        .filter(|field| kind != Kind::Stateless || !field.is_virtual())
        .filter(|field| !kind.is_for_tables() || !matches!(field, Field::Bucket | Field::Token))
        .collect()
}

fn address_subjects() -> impl Strategy<Value = Subject> + Clone {
    let both = [Field::Source, Field::Destination];
    let subjects: Vec<Subject> = both
        .into_iter()
        .flat_map(|field| {
            [
                Subject::Field(field),
                Subject::Field(field),
                Subject::Ip4(field),
                Subject::Ip6(field),
            ]
        })
        .collect();
    select(subjects)
}

/// Values that packets have in a field, their neighbours, and ranges between them.
fn numbers(field: Field) -> impl Strategy<Value = Value> + Clone {
    let pool: Vec<u64> = match field {
        Field::Port => vec![1, 2, 3, 4, 5],
        Field::Node => vec![1, 2, 3],
        Field::EtherType => vec![0x0800, 0x0806, 0x86dd],
        Field::Protocol => vec![0, 1, 6, 17, 58],
        Field::Dscp => DSCPS.map(u64::from).to_vec(),
        Field::SourcePort | Field::DestinationPort => PORTS.map(u64::from).to_vec(),
        Field::EthSource | Field::EthDestination => {
            vec![0x0200_0000_1401, 0x0200_0000_1402, 0xffff_ffff_ffff]
        }
        _ => vec![0, 1, 8],
    };
    let pool: Vec<u64> = pool
        .into_iter()
        .filter(|number| *number <= field.max())
        .collect();
    let pair = (select(pool.clone()), select(pool.clone()));
    let range = pair.prop_map(|(a, b)| value(ValueKind::Range(a.min(b), a.max(b))));
    let one = select(pool).prop_map(|number| value(ValueKind::Number(number)));
    let set = prop::collection::vec(prop_oneof![one.clone(), range.clone()], 1..4);
    prop_oneof![4 => one, 2 => range, 1 => set.prop_map(|values| value(ValueKind::Set(values)))]
}

fn addresses(subject: Subject) -> Vec<Value> {
    let named = [
        "web", "web1", "db1", "clients", "outside", "internet", "shop", "client1",
    ];
    let mut pool: Vec<Value> = named.map(|n| value(ValueKind::Name(n.to_owned()))).to_vec();
    let literals = ["10.20.0.1", "10.20.0.3", "0.0.0.0", "fd00:14::1", "::"];
    for text in literals {
        let address: IpAddr = text.parse().expect("a literal address");
        if subject.admits(address) {
            pool.push(value(ValueKind::Address(address)));
        }
    }
    for (text, length) in [
        ("10.20.0.0", 30),
        ("10.0.0.0", 8),
        ("0.0.0.0", 0),
        ("fd00:14::", 126),
        ("::", 0),
    ] {
        let address: IpAddr = text.parse().expect("a literal address");
        if subject.admits(address) {
            pool.push(value(ValueKind::Prefix(address, length)));
        }
    }
    let pair = vec![pool[1].clone(), pool[pool.len() - 1].clone()];
    pool.push(value(ValueKind::Set(pair)));
    pool
}

fn assignments(kind: Kind) -> impl Strategy<Value = Expr> + Clone {
    let assign = |subject, value| expr(ExprKind::Assign { subject, value });
    let number = move |field: Field, pool: Vec<u64>| {
        select(pool)
            .prop_map(move |n| assign(Subject::Field(field), value(ValueKind::Number(n))))
            .boxed()
    };
    let address = move |subject: Subject, pool: &'static [&'static str]| {
        select(pool)
            .prop_map(move |text| {
                let address = text.parse().expect("a literal address");
                assign(subject, value(ValueKind::Address(address)))
            })
            .boxed()
    };
    let mut all = vec![
        number(Field::Dscp, DSCPS.map(u64::from).to_vec()),
        number(Field::SourcePort, vec![80, 7000]),
        number(Field::DestinationPort, vec![80, 443, 7001, 7002]),
        number(Field::Port, vec![1, 2, 3]),
        number(
            Field::EthDestination,
            vec![0x0200_0000_1401, 0x0200_0000_1403],
        ),
        number(Field::EthSource, vec![0x0200_0000_1402]),
        address(
            Subject::Ip4(Field::Destination),
            &["10.20.0.1", "10.20.0.3"],
        ),
        address(Subject::Ip4(Field::Source), &["10.20.0.2", "203.0.113.10"]),
    ];
    if !kind.is_for_tables() {
        all.push(number(Field::Protocol, vec![6, 17]));
        all.push(number(Field::EtherType, vec![0x0800, 0x86dd]));
        all.push(number(Field::Node, vec![1, 2]));
        all.push(number(Field::IcmpType, vec![0, 8]));
        all.push(address(
            Subject::Ip6(Field::Destination),
            &["fd00:14::1", "fd00:14::3"],
        ));
    }
    proptest::strategy::Union::new(all)
}

/// A document with all places forgotten, so that trees can be compared.
#[must_use]
pub fn strip_places(mut document: Document) -> Document {
    document.source = "".into();
    for item in &mut document.items {
        item.span = Span::default();
        match &mut item.kind {
            ItemKind::Network {
                name,
                subnets,
                peers,
                public,
            } => {
                name.span = Span::default();
                peers
                    .iter_mut()
                    .for_each(|peer| peer.span = Span::default());
                subnets.iter_mut().flatten().for_each(strip_value);
                for public in public {
                    strip_value(&mut public.address);
                    strip_value(&mut public.endpoint);
                }
            }
            ItemKind::Assert(assertion) => {
                assertion.condition.iter_mut().for_each(strip_expr);
                strip_assertion(&mut assertion.kind);
            }
            ItemKind::Test(test) => {
                for case in &mut test.cases {
                    case.span = Span::default();
                    strip_value(&mut case.from);
                    strip_value(&mut case.to);
                    case.port.iter_mut().for_each(strip_value);
                    case.fields.iter_mut().for_each(|(_, v)| strip_value(v));
                    if let Expected::Forward(Some(to), _) = &mut case.expected {
                        strip_value(to);
                    }
                }
            }
            ItemKind::Import { .. } => {}
            ItemKind::Set { name, value } => {
                name.span = Span::default();
                strip_value(value);
            }
            ItemKind::Let(definition) => strip_let(definition),
            ItemKind::Policy { name, body } => {
                name.span = Span::default();
                strip_expr(body);
            }
        }
    }
    document
}

fn strip_assertion(kind: &mut AssertionKind) {
    match kind {
        AssertionKind::Reach(a, b)
        | AssertionKind::Isolated {
            left: a, right: b, ..
        } => {
            strip_value(a);
            strip_value(b);
        }
        AssertionKind::Waypoint { from, to, via } => {
            strip_value(from);
            strip_value(to);
            strip_value(via);
        }
        AssertionKind::LoopFree | AssertionKind::NoBlackHole => {}
        AssertionKind::Equal(a, b) | AssertionKind::Contained(a, b) => {
            strip_expr(a);
            strip_expr(b);
        }
    }
}

fn strip_verb(verb: &mut Verb) {
    match verb {
        Verb::ForwardTo(value, _)
        | Verb::Multicast(value)
        | Verb::Snat(value)
        | Verb::Mirror(value) => strip_value(value),
        Verb::Dnat(value, port) => {
            strip_value(value);
            port.iter_mut().for_each(strip_value);
        }
        Verb::Balance { targets, .. } => targets.iter_mut().for_each(|(v, _)| strip_value(v)),
        Verb::Count(name) => name.span = Span::default(),
        Verb::Flood | Verb::Limit { .. } | Verb::Log(_) => {}
    }
}

fn strip_let(definition: &mut Let) {
    definition.name.span = Span::default();
    definition
        .params
        .iter_mut()
        .for_each(|param| param.span = Span::default());
    strip_expr(&mut definition.value);
}

fn strip_value(value: &mut Value) {
    value.span = Span::default();
    match &mut value.kind {
        ValueKind::Set(values) => values.iter_mut().for_each(strip_value),
        ValueKind::Labels(labels) => labels
            .iter_mut()
            .for_each(|(key, _)| key.span = Span::default()),
        _ => {}
    }
}

fn strip_expr(expr: &mut Expr) {
    expr.span = Span::default();
    match &mut expr.kind {
        ExprKind::Filter(inner) | ExprKind::Not(inner) | ExprKind::Star(inner) => strip_expr(inner),
        ExprKind::Test { value, .. } | ExprKind::Assign { value, .. } => strip_value(value),
        ExprKind::Verb(verb) => strip_verb(verb),
        ExprKind::Established(inner) => inner.iter_mut().for_each(|e| strip_expr(e)),
        ExprKind::Link { from, to } => {
            for (node, port) in [from.as_mut(), to.as_mut()] {
                strip_value(node);
                strip_value(port);
            }
        }
        ExprKind::Use { name, arguments } => {
            name.span = Span::default();
            for argument in arguments {
                match argument {
                    Argument::Value(value) => strip_value(value),
                    Argument::Expr(expr) => strip_expr(expr),
                }
            }
        }
        ExprKind::And(parts)
        | ExprKind::Or(parts)
        | ExprKind::Union(parts)
        | ExprKind::Sequence(parts) => parts.iter_mut().for_each(strip_expr),
        ExprKind::Conditional { arms, otherwise } => {
            for (condition, body) in arms {
                strip_expr(condition);
                strip_expr(body);
            }
            strip_expr(otherwise);
        }
        ExprKind::While { condition, body } => {
            strip_expr(condition);
            strip_expr(body);
        }
        ExprKind::LetIn { definition, body } => {
            strip_let(definition);
            strip_expr(body);
        }
        _ => {}
    }
}
