//! The axioms of NetKAT (Anderson et al., POPL 2014, figure 3) hold: in the evaluator, packet by
//! packet, and in the compiler, where equal meaning is one node.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use sunwire_policy::ast::{Expr, ExprKind, Operator, Value, ValueKind};
use sunwire_policy::compile::Options;
use sunwire_policy::diagnostic::{Span, render_all};
use sunwire_policy::field::{Field, Subject};
use sunwire_policy::packet::Packet;
use sunwire_policy::term::Resolved;
use sunwire_policy::testing::{
    Kind, document, environment, for_all, policies, predicates, records,
};
use sunwire_policy::{equivalent, evaluate, parse, resolve};

/// What a law speaks of: three policies, three predicates, two fields with values.
#[derive(Clone, Debug)]
struct Given {
    p: Expr,
    q: Expr,
    r: Expr,
    a: Expr,
    b: Expr,
    c: Expr,
    f: Field,
    g: Field,
    n: u64,
    m: u64,
}

fn e(kind: ExprKind) -> Expr {
    Expr {
        kind,
        span: Span::default(),
    }
}

fn plus(parts: &[&Expr]) -> Expr {
    e(ExprKind::Union(
        parts.iter().map(|p| (*p).clone()).collect(),
    ))
}

fn seq(parts: &[&Expr]) -> Expr {
    e(ExprKind::Sequence(
        parts.iter().map(|p| (*p).clone()).collect(),
    ))
}

fn and(a: &Expr, b: &Expr) -> Expr {
    e(ExprKind::And(vec![a.clone(), b.clone()]))
}

fn or(a: &Expr, b: &Expr) -> Expr {
    e(ExprKind::Or(vec![a.clone(), b.clone()]))
}

fn not(a: &Expr) -> Expr {
    e(ExprKind::Not(Box::new(a.clone())))
}

fn star(p: &Expr) -> Expr {
    e(ExprKind::Star(Box::new(p.clone())))
}

fn id() -> Expr {
    e(ExprKind::Id)
}

fn drop() -> Expr {
    e(ExprKind::Drop(None))
}

fn number(n: u64) -> Value {
    Value {
        kind: ValueKind::Number(n),
        span: Span::default(),
    }
}

fn test(field: Field, n: u64) -> Expr {
    e(ExprKind::Test {
        subject: Subject::Field(field),
        operator: Operator::Equal,
        value: number(n),
    })
}

fn set(field: Field, n: u64) -> Expr {
    e(ExprKind::Assign {
        subject: Subject::Field(field),
        value: number(n),
    })
}

fn choice(condition: &Expr, then: &Expr, otherwise: &Expr) -> Expr {
    e(ExprKind::Conditional {
        arms: vec![(condition.clone(), then.clone())],
        otherwise: Box::new(otherwise.clone()),
    })
}

type Law = (&'static str, fn(&Given) -> (Expr, Expr));

const LAWS: &[Law] = &[
    ("KA-PLUS-ASSOC", |x| {
        (
            plus(&[&x.p, &plus(&[&x.q, &x.r])]),
            plus(&[&plus(&[&x.p, &x.q]), &x.r]),
        )
    }),
    ("KA-PLUS-COMM", |x| {
        (plus(&[&x.p, &x.q]), plus(&[&x.q, &x.p]))
    }),
    ("KA-PLUS-ZERO", |x| (plus(&[&x.p, &drop()]), x.p.clone())),
    ("KA-PLUS-IDEM", |x| (plus(&[&x.p, &x.p]), x.p.clone())),
    ("KA-SEQ-ASSOC", |x| {
        (
            seq(&[&x.p, &seq(&[&x.q, &x.r])]),
            seq(&[&seq(&[&x.p, &x.q]), &x.r]),
        )
    }),
    ("KA-ONE-SEQ", |x| (seq(&[&id(), &x.p]), x.p.clone())),
    ("KA-SEQ-ONE", |x| (seq(&[&x.p, &id()]), x.p.clone())),
    ("KA-SEQ-DIST-L", |x| {
        (
            seq(&[&x.p, &plus(&[&x.q, &x.r])]),
            plus(&[&seq(&[&x.p, &x.q]), &seq(&[&x.p, &x.r])]),
        )
    }),
    ("KA-SEQ-DIST-R", |x| {
        (
            seq(&[&plus(&[&x.p, &x.q]), &x.r]),
            plus(&[&seq(&[&x.p, &x.r]), &seq(&[&x.q, &x.r])]),
        )
    }),
    ("KA-ZERO-SEQ", |x| (seq(&[&drop(), &x.p]), drop())),
    ("KA-SEQ-ZERO", |x| (seq(&[&x.p, &drop()]), drop())),
    ("KA-UNROLL-L", |x| {
        (plus(&[&id(), &seq(&[&x.p, &star(&x.p)])]), star(&x.p))
    }),
    ("KA-UNROLL-R", |x| {
        (plus(&[&id(), &seq(&[&star(&x.p), &x.p])]), star(&x.p))
    }),
    ("KA-STAR-STAR", |x| (star(&star(&x.p)), star(&x.p))),
    ("KA-DENEST", |x| {
        (
            star(&plus(&[&x.p, &x.q])),
            seq(&[&star(&x.p), &star(&seq(&[&x.q, &star(&x.p)]))]),
        )
    }),
    ("KA-SLIDE", |x| {
        (
            seq(&[&star(&seq(&[&x.p, &x.q])), &x.p]),
            seq(&[&x.p, &star(&seq(&[&x.q, &x.p]))]),
        )
    }),
    ("BA-PLUS-DIST", |x| {
        (
            or(&x.a, &and(&x.b, &x.c)),
            and(&or(&x.a, &x.b), &or(&x.a, &x.c)),
        )
    }),
    ("BA-PLUS-ONE", |x| (or(&x.a, &e(ExprKind::True)), id())),
    ("BA-EXCL-MID", |x| (or(&x.a, &not(&x.a)), id())),
    ("BA-SEQ-COMM", |x| (seq(&[&x.a, &x.b]), seq(&[&x.b, &x.a]))),
    ("BA-CONTRA", |x| (seq(&[&x.a, &not(&x.a)]), drop())),
    ("BA-SEQ-IDEM", |x| (seq(&[&x.a, &x.a]), x.a.clone())),
    ("BA-DE-MORGAN", |x| {
        (not(&and(&x.a, &x.b)), or(&not(&x.a), &not(&x.b)))
    }),
    ("filter of or", |x| (or(&x.a, &x.b), plus(&[&x.a, &x.b]))),
    ("filter of and", |x| (and(&x.a, &x.b), seq(&[&x.a, &x.b]))),
    ("conditional", |x| {
        let (then, otherwise) = (seq(&[&x.a, &x.p]), seq(&[&not(&x.a), &x.q]));
        (choice(&x.a, &x.p, &x.q), plus(&[&then, &otherwise]))
    }),
    ("while", |x| {
        let looped = e(ExprKind::While {
            condition: Box::new(x.a.clone()),
            body: Box::new(x.p.clone()),
        });
        (looped.clone(), choice(&x.a, &seq(&[&x.p, &looped]), &id()))
    }),
    ("PA-MOD-MOD-COMM", |x| {
        let (f, g) = (set(x.f, x.n), set(x.g, x.m));
        if x.f == x.g {
            (id(), id())
        } else {
            (seq(&[&f, &g]), seq(&[&g, &f]))
        }
    }),
    ("PA-MOD-FILTER-COMM", |x| {
        let (f, g) = (set(x.f, x.n), test(x.g, x.m));
        if x.f == x.g {
            (id(), id())
        } else {
            (seq(&[&f, &g]), seq(&[&g, &f]))
        }
    }),
    ("PA-MOD-FILTER", |x| {
        (seq(&[&set(x.f, x.n), &test(x.f, x.n)]), set(x.f, x.n))
    }),
    ("PA-FILTER-MOD", |x| {
        (seq(&[&test(x.f, x.n), &set(x.f, x.n)]), test(x.f, x.n))
    }),
    ("PA-MOD-MOD", |x| {
        (seq(&[&set(x.f, x.n), &set(x.f, x.m)]), set(x.f, x.m))
    }),
    ("PA-CONTRA", |x| {
        let both = seq(&[&test(x.f, x.n), &test(x.f, x.m)]);
        if x.n == x.m {
            (id(), id())
        } else {
            (both, drop())
        }
    }),
    ("PA-MATCH-ALL", |x| {
        (plus(&[&test(x.f, x.n), &not(&test(x.f, x.n))]), id())
    }),
];

fn given() -> impl Strategy<Value = Given> {
    let fields = [
        Field::Port,
        Field::Node,
        Field::EtherType,
        Field::Protocol,
        Field::Dscp,
        Field::SourcePort,
        Field::DestinationPort,
        Field::IcmpType,
        Field::EthSource,
    ];
    let policy = || policies(Kind::Closed);
    (
        (policy(), policy(), policy()),
        (predicates(), predicates(), predicates()),
        (
            select(fields.to_vec()),
            select(fields.to_vec()),
            0..4u64,
            0..4u64,
        ),
    )
        .prop_map(|((p, q, r), (a, b, c), (f, g, n, m))| Given {
            p,
            q,
            r,
            a,
            b,
            c,
            f,
            g,
            n,
            m,
        })
}

fn resolved(body: Expr) -> Result<Resolved, String> {
    let text = document(body).to_string();
    let (document, _) = parse(&text);
    resolve(&document, &environment()).map_err(|d| render_all(&d, &text))
}

fn packets(policy: &Resolved, packet: &Packet) -> Result<BTreeSet<Packet>, String> {
    let outcome = evaluate(policy, packet).map_err(|e| e.to_string())?;
    Ok(outcome.copies.into_keys().collect())
}

#[test]
fn axioms_hold_packet_by_packet_and_as_equal_nodes() {
    let records = prop::collection::vec(records(&environment(), "shop"), 4);
    let values = (given(), any::<Index>(), records);
    for_all("axioms", 1000, &values, |(given, index, records)| {
        let (name, law) = index.get(LAWS);
        let (left, right) = law(&given);
        let (left, right) = (resolved(left)?, resolved(right)?);
        for record in records {
            if packets(&left, &record)? != packets(&right, &record)? {
                return Err(format!("{name}: the evaluator differs on {record:?}"));
            }
        }
        match equivalent(&left, &right, &Options::default()) {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("{name}: the diagrams differ")),
            Err(error) => Err(format!("{name}: {error}")),
        }
    });
}

#[test]
fn different_policies_are_told_apart() {
    let values = (
        policies(Kind::Closed),
        policies(Kind::Closed),
        prop::collection::vec(records(&environment(), "shop"), 16),
    );
    for_all("inequality", 500, &values, |(p, q, records)| {
        let (left, right) = (resolved(p)?, resolved(q)?);
        let equal = equivalent(&left, &right, &Options::default()).map_err(|e| e.to_string())?;
        for record in records {
            if equal && packets(&left, &record)? != packets(&right, &record)? {
                return Err(format!("called equal, and differ on {record:?}"));
            }
        }
        Ok(())
    });
}
