//! The axioms of NetKAT (Anderson et al., POPL 2014, figure 3), and of the set operations of KATch
//! (Moeller et al., PLDI 2024), hold in both interpretations of programs: the evaluator of
//! histories, packet by packet, and the prover. One list of laws.

use std::collections::BTreeSet;

use proptest::prelude::*;
use sunwire_policy::testing::for_all;
use sunwire_policy::testing::programs::{Recipe, Setting};
use sunwire_policy::verify::decide::{contained, equivalent};
use sunwire_policy::verify::options::Options;
use sunwire_policy::verify::program::Value;
use sunwire_policy::verify::semantics::{History, Refused, histories};
use sunwire_policy::verify::symbolic::Symbolic;

/// What a law speaks of: three programs, three predicates, two fields with two values of one.
#[derive(Clone, Debug)]
struct Given {
    p: Recipe,
    q: Recipe,
    r: Recipe,
    a: Recipe,
    b: Recipe,
    c: Recipe,
    f: u16,
    g: u16,
    n: Value,
    m: Value,
    /// A value of `g`.
    k: Value,
    /// All values of `f`.
    all: Vec<Value>,
}

fn plus(parts: &[&Recipe]) -> Recipe {
    Recipe::Union(parts.iter().map(|part| (*part).clone()).collect())
}

fn seq(parts: &[&Recipe]) -> Recipe {
    Recipe::Sequence(parts.iter().map(|part| (*part).clone()).collect())
}

fn star(body: &Recipe) -> Recipe {
    Recipe::Star(Box::new(body.clone()))
}

fn not(predicate: &Recipe) -> Recipe {
    Recipe::Not(Box::new(predicate.clone()))
}

fn cap(left: &Recipe, right: &Recipe) -> Recipe {
    Recipe::Intersection(Box::new(left.clone()), Box::new(right.clone()))
}

fn minus(left: &Recipe, right: &Recipe) -> Recipe {
    Recipe::Difference(Box::new(left.clone()), Box::new(right.clone()))
}

fn xor(left: &Recipe, right: &Recipe) -> Recipe {
    Recipe::SymmetricDifference(Box::new(left.clone()), Box::new(right.clone()))
}

fn is(field: u16, value: Value) -> Recipe {
    Recipe::Test(field, vec![(value, value)])
}

fn set(field: u16, value: Value) -> Recipe {
    Recipe::Assign(field, value)
}

fn choice(guard: &Recipe, then: &Recipe, otherwise: &Recipe) -> Recipe {
    Recipe::Conditional(
        vec![(guard.clone(), then.clone())],
        Box::new(otherwise.clone()),
    )
}

use Recipe::{Drop, Dup, Id};

type Law = (&'static str, fn(&Given) -> (Recipe, Recipe));

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
    ("KA-PLUS-ZERO", |x| (plus(&[&x.p, &Drop]), x.p.clone())),
    ("KA-PLUS-IDEM", |x| (plus(&[&x.p, &x.p]), x.p.clone())),
    ("KA-SEQ-ASSOC", |x| {
        (
            seq(&[&x.p, &seq(&[&x.q, &x.r])]),
            seq(&[&seq(&[&x.p, &x.q]), &x.r]),
        )
    }),
    ("KA-ONE-SEQ", |x| (seq(&[&Id, &x.p]), x.p.clone())),
    ("KA-SEQ-ONE", |x| (seq(&[&x.p, &Id]), x.p.clone())),
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
    ("KA-ZERO-SEQ", |x| (seq(&[&Drop, &x.p]), Drop)),
    ("KA-SEQ-ZERO", |x| (seq(&[&x.p, &Drop]), Drop)),
    ("KA-UNROLL-L", |x| {
        (plus(&[&Id, &seq(&[&x.p, &star(&x.p)])]), star(&x.p))
    }),
    ("KA-UNROLL-R", |x| {
        (plus(&[&Id, &seq(&[&star(&x.p), &x.p])]), star(&x.p))
    }),
    ("KA-STAR-STAR", |x| (star(&star(&x.p)), star(&x.p))),
    ("KA-DENESTING", |x| {
        (
            star(&plus(&[&x.p, &x.q])),
            seq(&[&star(&x.p), &star(&seq(&[&x.q, &star(&x.p)]))]),
        )
    }),
    ("KA-SLIDING", |x| {
        (
            seq(&[&star(&seq(&[&x.p, &x.q])), &x.p]),
            seq(&[&x.p, &star(&seq(&[&x.q, &x.p]))]),
        )
    }),
    ("BA-PLUS-DIST", |x| {
        (
            plus(&[&x.a, &seq(&[&x.b, &x.c])]),
            seq(&[&plus(&[&x.a, &x.b]), &plus(&[&x.a, &x.c])]),
        )
    }),
    ("BA-PLUS-ONE", |x| (plus(&[&x.a, &Id]), Id)),
    ("BA-EXCL-MID", |x| (plus(&[&x.a, &not(&x.a)]), Id)),
    ("BA-SEQ-COMM", |x| (seq(&[&x.a, &x.b]), seq(&[&x.b, &x.a]))),
    ("BA-CONTRA", |x| (seq(&[&x.a, &not(&x.a)]), Drop)),
    ("BA-SEQ-IDEM", |x| (seq(&[&x.a, &x.a]), x.a.clone())),
    ("BA-NOT-NOT", |x| (not(&not(&x.a)), x.a.clone())),
    ("NOT-OF-A-CONJUNCTION", |x| {
        (
            not(&seq(&[&x.a, &x.b, &x.c])),
            plus(&[&not(&x.a), &not(&x.b), &not(&x.c)]),
        )
    }),
    ("NOT-OF-A-DISJUNCTION", |x| {
        (not(&plus(&[&x.a, &x.b])), seq(&[&not(&x.a), &not(&x.b)]))
    }),
    ("CONDITIONAL", |x| {
        (
            choice(&x.a, &x.p, &x.q),
            plus(&[&seq(&[&x.a, &x.p]), &seq(&[&not(&x.a), &x.q])]),
        )
    }),
    ("CONDITIONAL-CHAIN", |x| {
        let chain = vec![(x.a.clone(), x.p.clone()), (x.b.clone(), x.q.clone())];
        (
            Recipe::Conditional(chain, Box::new(x.r.clone())),
            choice(&x.a, &x.p, &choice(&x.b, &x.q, &x.r)),
        )
    }),
    ("PA-MOD-MOD-COMM", |x| {
        if x.f == x.g {
            return (Id, Id);
        }
        (
            seq(&[&set(x.f, x.n), &set(x.g, x.k)]),
            seq(&[&set(x.g, x.k), &set(x.f, x.n)]),
        )
    }),
    ("PA-MOD-FILTER-COMM", |x| {
        if x.f == x.g {
            return (Id, Id);
        }
        (
            seq(&[&set(x.f, x.n), &is(x.g, x.k)]),
            seq(&[&is(x.g, x.k), &set(x.f, x.n)]),
        )
    }),
    ("PA-DUP-FILTER-COMM", |x| {
        (seq(&[&Dup, &is(x.f, x.n)]), seq(&[&is(x.f, x.n), &Dup]))
    }),
    ("PA-MOD-FILTER", |x| {
        (seq(&[&set(x.f, x.n), &is(x.f, x.n)]), set(x.f, x.n))
    }),
    ("PA-FILTER-MOD", |x| {
        (seq(&[&is(x.f, x.n), &set(x.f, x.n)]), is(x.f, x.n))
    }),
    ("PA-MOD-MOD", |x| {
        (seq(&[&set(x.f, x.n), &set(x.f, x.m)]), set(x.f, x.m))
    }),
    ("PA-CONTRA", |x| {
        let both = seq(&[&is(x.f, x.n), &is(x.f, x.m)]);
        (both, if x.n == x.m { is(x.f, x.n) } else { Drop })
    }),
    ("PA-MATCH-ALL", |x| {
        let tests: Vec<Recipe> = x.all.iter().map(|value| is(x.f, *value)).collect();
        (Recipe::Union(tests), Id)
    }),
    ("SET-INTERSECTION", |x| {
        (cap(&x.p, &x.q), minus(&x.p, &minus(&x.p, &x.q)))
    }),
    ("SET-INTERSECTION-COMM", |x| {
        (cap(&x.p, &x.q), cap(&x.q, &x.p))
    }),
    ("SET-XOR", |x| {
        (
            xor(&x.p, &x.q),
            plus(&[&minus(&x.p, &x.q), &minus(&x.q, &x.p)]),
        )
    }),
    ("SET-XOR-ASSOC", |x| {
        (xor(&x.p, &xor(&x.q, &x.r)), xor(&xor(&x.p, &x.q), &x.r))
    }),
    ("SET-XOR-SELF", |x| (xor(&x.p, &plus(&[&x.p, &x.p])), Drop)),
    ("SET-DIST", |x| {
        (
            cap(&x.p, &plus(&[&x.q, &x.r])),
            plus(&[&cap(&x.p, &x.q), &cap(&x.p, &x.r)]),
        )
    }),
    ("SET-MINUS-OF-UNION", |x| {
        (
            minus(&x.p, &plus(&[&x.q, &x.r])),
            minus(&minus(&x.p, &x.q), &x.r),
        )
    }),
    ("SET-ABSORPTION", |x| {
        (plus(&[&x.p, &cap(&x.p, &x.q)]), x.p.clone())
    }),
    ("SET-OF-PREDICATES", |x| {
        (minus(&x.a, &x.b), seq(&[&x.a, &not(&x.b)]))
    }),
    ("SET-IN-A-STAR", |x| {
        (
            star(&xor(&x.p, &x.q)),
            star(&plus(&[&minus(&x.p, &x.q), &minus(&x.q, &x.p)])),
        )
    }),
    ("SET-BEFORE-MORE", |x| {
        (
            seq(&[&minus(&x.p, &x.q), &x.r]),
            seq(&[&xor(&x.p, &cap(&x.q, &x.p)), &x.r]),
        )
    }),
];

fn given(setting: &Setting) -> BoxedStrategy<Given> {
    let fields = setting.fields.clone();
    let programs = (setting.recipes(), setting.recipes(), setting.recipes());
    let predicates = (
        setting.predicates(),
        setting.predicates(),
        setting.predicates(),
    );
    let named = (
        setting.field_values(),
        setting.field_values(),
        any::<prop::sample::Index>(),
    );
    (programs, predicates, named)
        .prop_map(move |((p, q, r), (a, b, c), ((f, n), (g, k), m))| {
            let all = fields[usize::from(f)].2.clone();
            let m = *m.get(&all);
            Given {
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
                k,
                all,
            }
        })
        .boxed()
}

/// With `dup` and few packets: all of them can be tried.
fn narrow_laws(name: &str, cases: u32, holds: impl Fn(&Given, &Law) -> Result<(), String>) {
    let setting = Setting::narrow();
    for_all(name, cases, &given(&setting), |given| {
        LAWS.iter().try_for_each(|law| holds(&given, law))
    });
}

fn histories_of(setting: &Setting, recipe: &Recipe) -> Result<Vec<BTreeSet<History>>, Refused> {
    let mut program = setting.program();
    let node = recipe.build(&mut program);
    (setting.all_packets().iter())
        .map(|packet| histories(&program, node, packet, 2))
        .collect()
}

#[test]
fn laws_hold_in_the_evaluator() {
    let setting = Setting::narrow();
    narrow_laws("laws_hold_in_the_evaluator", 24, |given, (name, law)| {
        let (left, right) = law(given);
        if histories_of(&setting, &left) == histories_of(&setting, &right) {
            Ok(())
        } else {
            Err(format!("{name}: {left:?} is not {right:?}"))
        }
    });
}

#[test]
fn laws_hold_in_the_prover() {
    let setting = Setting::narrow();
    narrow_laws("laws_hold_in_the_prover", 128, |given, (name, law)| {
        let (left, right) = law(given);
        let mut program = setting.program();
        let (left, right) = (left.build(&mut program), right.build(&mut program));
        let answer = equivalent(&program, left, right, &Options::default());
        match answer.map_err(|limit| limit.to_string())? {
            answer if answer.holds() => Ok(()),
            answer => Err(format!("{name}: {}", answer.counterexample().unwrap())),
        }
    });
}

/// Without `dup`, over ranges, addresses and integers: equal meaning is one diagram.
#[test]
fn laws_make_equal_diagrams() {
    let setting = Setting::wide();
    for_all("laws_make_equal_diagrams", 96, &given(&setting), |given| {
        for (name, law) in LAWS {
            let (left, right) = law(&given);
            // A field named only in part has values beside those: no excluded middle of them.
            let dups = matches!(*name, "PA-DUP-FILTER-COMM");
            let whole = given.f < 2;
            if dups || (*name == "PA-MATCH-ALL" && !whole) {
                continue;
            }
            let mut program = setting.program();
            let (left, right) = (left.build(&mut program), right.build(&mut program));
            let mut symbolic = Symbolic::new(&program, &[left, right], &Options::default())
                .map_err(|limit| limit.to_string())?;
            if symbolic.spp_of(left) != symbolic.spp_of(right) {
                return Err(format!("{name} gives two diagrams"));
            }
        }
        Ok(())
    });
}

/// KA-LFP-L and KA-LFP-R: implications, so containments.
#[test]
fn star_is_the_least_fixpoint() {
    let setting = Setting::narrow();
    for_all(
        "star_is_the_least_fixpoint",
        256,
        &given(&setting),
        |given| {
            let Given { p, q, r, .. } = given;
            let holds = |left: &Recipe, right: &Recipe| {
                let mut program = setting.program();
                let (left, right) = (left.build(&mut program), right.build(&mut program));
                contained(&program, left, right, &Options::default())
                    .unwrap()
                    .holds()
            };
            // Random programs are seldom fixpoints: the closure of a program under `p` is one.
            for r in [&r, &seq(&[&star(&p), &plus(&[&q, &r])])] {
                if holds(&plus(&[&q, &seq(&[&p, r])]), r) && !holds(&seq(&[&star(&p), &q]), r) {
                    return Err(format!("KA-LFP-L: ({p:?})*; {q:?} is not in {r:?}"));
                }
            }
            for r in [&r, &seq(&[&plus(&[&q, &r]), &star(&p)])] {
                if holds(&plus(&[&q, &seq(&[r, &p])]), r) && !holds(&seq(&[&q, &star(&p)]), r) {
                    return Err(format!("KA-LFP-R: {q:?}; ({p:?})* is not in {r:?}"));
                }
            }
            Ok(())
        },
    );
}

/// The list of laws could not fail if the prover said yes to everything.
#[test]
fn what_is_no_law_is_refuted() {
    let setting = Setting::narrow();
    let wrong: &[Law] = &[
        ("sequence does not commute", |x| {
            (
                seq(&[&set(x.f, x.n), &is(x.f, x.m)]),
                seq(&[&is(x.f, x.m), &set(x.f, x.n)]),
            )
        }),
        ("dup is recorded", |_| (Dup, Id)),
        ("one dup is not two", |_| (seq(&[&Dup, &Dup]), Dup)),
        ("a star of dup is not one dup", |_| {
            (star(&Dup), plus(&[&Id, &Dup]))
        }),
        ("filters are no modifications", |x| {
            (is(x.f, x.n), set(x.f, x.n))
        }),
    ];
    for_all("what_is_no_law_is_refuted", 16, &given(&setting), |given| {
        for (name, law) in wrong {
            let (left, right) = law(&given);
            let mut program = setting.program();
            let (left, right) = (left.build(&mut program), right.build(&mut program));
            if equivalent(&program, left, right, &Options::default())
                .unwrap()
                .holds()
            {
                return Err((*name).to_owned());
            }
        }
        Ok(())
    });
}
