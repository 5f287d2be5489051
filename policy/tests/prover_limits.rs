//! Hostile programs: as deep or long as they like, they end neither stack nor memory; what takes too
//! much is refused with the reason.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sunwire_policy::verify::decide::{Answer, contained, empty, equivalent};
use sunwire_policy::verify::options::{Limit, Limits, Options};
use sunwire_policy::verify::program::{Domain, FieldId, NodeId, Program, Value};
use sunwire_policy::verify::semantics::{self, Refused, evaluate};
use sunwire_policy::verify::symbolic::Symbolic;

const MANY: u64 = 50_000;

fn program() -> (Program, impl Fn(&mut Program, u64) -> (NodeId, NodeId)) {
    let mut program = Program::new();
    let field = program.field("f", Domain::Integer);
    let test_and_set = move |program: &mut Program, value| {
        let value = Value::integer(value as i64);
        (
            program.test_value(field, value),
            program.assign(field, value),
        )
    };
    (program, test_and_set)
}

fn limited(limits: Limits) -> Options {
    Options {
        limits,
        ..Options::default()
    }
}

#[test]
fn a_sequence_of_very_many_dups_is_followed() {
    let (mut program, test_and_set) = program();
    let dup = program.dup();
    let dups = program.sequence((0..MANY).map(|_| dup));
    let (test, set) = test_and_set(&mut program, 1);
    let (last, other) = (
        program.sequence([dups, set]),
        program.sequence([dups, test]),
    );
    let options = Options::default();
    assert!(contained(&program, other, last, &options).unwrap().holds());
    let answer = contained(&program, last, other, &options).unwrap();
    assert_eq!(answer.counterexample().unwrap().hops.len() as u64, MANY);
}

#[test]
fn deep_nesting_does_not_end_the_stack() {
    let (mut program, test_and_set) = program();
    let dup = program.dup();
    let (test, set) = test_and_set(&mut program, 1);
    let mut plain = set;
    let mut with_dup = dup;
    let mut compared = dup;
    for depth in 0..MANY {
        let (test, set) = test_and_set(&mut program, depth % 10);
        plain = match depth % 5 {
            0 => program.union([plain, test]),
            1 => program.sequence([set, plain]),
            2 => program.star(plain),
            3 => program.conditional([(test, plain)], set),
            _ => program.symmetric_difference(plain, test),
        };
        with_dup = match depth % 3 {
            0 => program.union([with_dup, test]),
            1 => program.sequence([test, with_dup]),
            _ => program.conditional([(test, with_dup)], set),
        };
        compared = match depth % 3 {
            0 => program.intersection(compared, with_dup),
            1 => program.difference(compared, test),
            _ => program.union([compared, dup]),
        };
    }
    let options = Options::default();
    for node in [plain, with_dup, compared] {
        let more = program.union([node, test]);
        assert!(contained(&program, node, more, &options).unwrap().holds());
    }
}

#[test]
fn the_evaluator_refuses_deep_nesting() {
    let (mut program, test_and_set) = program();
    let (_, set) = test_and_set(&mut program, 1);
    let mut deep = set;
    for _ in 0..MANY {
        let star = program.star(deep);
        deep = program.union([star, set]);
    }
    let packet = [Value::integer(0)];
    assert_eq!(evaluate(&program, deep, &packet), Err(Refused::TooDeep));
}

/// In a star within a star, every `dup` is reached again in as many ways as there are stars.
#[test]
fn stars_within_stars_are_followed() {
    let (mut program, test_and_set) = program();
    let dup = program.dup();
    let mut body = dup;
    for depth in 0..300 {
        let (test, _) = test_and_set(&mut program, depth);
        let star = program.star(body);
        body = program.sequence([star, test]);
    }
    // A round needs the test before and the one after it, which exclude each other.
    let (last, _) = test_and_set(&mut program, 299);
    let answer = equivalent(&program, body, last, &Options::default()).unwrap();
    assert_eq!(answer, Answer::Holds);
}

#[test]
fn a_conditional_of_very_many_arms_is_compiled() {
    let (mut program, test_and_set) = program();
    let other = program.field("g", Domain::Integer);
    let arms: Vec<_> = (0..20_000u64)
        .map(|arm| {
            let (guard, _) = test_and_set(&mut program, arm * 7 % 20_000);
            (
                guard,
                program.assign(other, Value::integer((arm % 50) as i64)),
            )
        })
        .collect();
    let drop = program.drop();
    let chain = program.conditional(arms.clone(), drop);
    // The guards exclude each other, so order means nothing.
    let union: Vec<_> = (arms.iter())
        .map(|(guard, then)| program.sequence([*guard, *then]))
        .collect();
    let union = program.union(union);
    assert!(
        equivalent(&program, chain, union, &Options::default())
            .unwrap()
            .holds()
    );
}

/// The guards test what comes last in the order, so that each arm concerns everything.
#[test]
fn a_conditional_whose_arms_all_concern_everything_is_compiled() {
    let (mut program, test_and_set) = program();
    let (first, out) = (
        program.field("first", Domain::Integer),
        program.field("out", Domain::Integer),
    );
    let mut tables = Vec::new();
    for value in 0..300 {
        let here = program.test_value(first, Value::integer(value));
        let set = program.assign(out, Value::integer(value));
        tables.push(program.sequence([here, set]));
    }
    let table = program.union(tables);
    let arms: Vec<_> = (0..2_000u64)
        .map(|arm| {
            let (guard, _) = test_and_set(&mut program, arm);
            (guard, program.assign(out, Value::integer(arm as i64 % 7)))
        })
        .collect();
    let mut changed = arms.clone();
    changed[1_000].1 = table;
    let chain = program.conditional(arms, table);
    let changed = program.conditional(changed, table);
    let options = Options {
        order: vec![first],
        ..Options::default()
    };
    let answer = equivalent(&program, chain, changed, &options).unwrap();
    assert!(
        answer
            .counterexample()
            .unwrap()
            .to_string()
            .contains("f=1000")
    );
}

#[test]
fn a_packet_of_the_most_bits_is_decided_on_a_small_stack() {
    let mut program = Program::new();
    let bits = Limits::default().bits;
    let flips: Vec<NodeId> = (0..bits)
        .map(|bit| {
            let field = program.field(&format!("f{bit}"), Domain::Number { max: 1 });
            let (zero, one) = (Value::number(0), Value::number(1));
            let (is_zero, is_one) = (
                program.test_value(field, zero),
                program.test_value(field, one),
            );
            let (to_zero, to_one) = (program.assign(field, zero), program.assign(field, one));
            let up = program.sequence([is_zero, to_one]);
            let down = program.sequence([is_one, to_zero]);
            program.union([up, down])
        })
        .collect();
    let all = program.sequence(flips.iter().copied());
    let twice = program.sequence([all, all]);
    let id = program.id();
    let (once_or_not, many) = (program.union([all, id]), program.star(all));
    let dup = program.dup();
    let with_dup = program.sequence([all, dup, all]);
    let options = Options::default();
    assert!(equivalent(&program, twice, id, &options).unwrap().holds());
    assert!(
        equivalent(&program, once_or_not, many, &options)
            .unwrap()
            .holds()
    );
    assert!(!empty(&program, with_dup, &options).unwrap().holds());

    let one_more = program.field("one more", Domain::Number { max: 1 });
    let test = program.test_value(one_more, Value::number(1));
    let more = program.sequence([all, test]);
    assert_eq!(empty(&program, more, &options), Err(Limit::Bits));
}

/// Equality of two fields, bit by bit, with all bits of the first before those of the second, is
/// exponential in any diagram.
fn exponential(program: &mut Program, pairs: u64) -> NodeId {
    let fields: Vec<_> = (0..2 * pairs)
        .map(|field| program.field(&format!("f{field}"), Domain::Number { max: 1 }))
        .collect();
    let pairs: Vec<NodeId> = (0..pairs as usize)
        .map(|pair| {
            let arms = [0, 1].map(|bit| {
                let tests = [fields[pair], fields[pair + pairs as usize]]
                    .map(|field| program.test_value(field, Value::number(bit)));
                program.sequence(tests)
            });
            program.union(arms)
        })
        .collect();
    program.sequence(pairs)
}

#[test]
fn too_many_nodes_are_refused() {
    let mut program = Program::new();
    let node = exponential(&mut program, 20);
    let limits = Limits {
        nodes: 100_000,
        ..Limits::default()
    };
    let apart = Options {
        order: (0..40).map(FieldId).collect(),
        ..limited(limits)
    };
    assert_eq!(empty(&program, node, &apart), Err(Limit::Nodes));
    // Pair by pair it is small.
    let together = Options {
        order: (0..20)
            .flat_map(|pair| [FieldId(pair), FieldId(pair + 20)])
            .collect(),
        ..limited(limits)
    };
    assert!(!empty(&program, node, &together).unwrap().holds());
}

#[test]
fn too_many_states_are_refused() {
    let (mut program, _) = program();
    let (dup, id) = (program.dup(), program.id());
    let either = program.union([dup, id]);
    // From each of these places, every later one can be next.
    let places = program.sequence((0..MANY).map(|_| either));
    let nothing = program.drop();
    let never = program.sequence([places, nothing]);
    let left = program.intersection(places, dup);
    let limits = Limits {
        states: 10_000,
        ..Limits::default()
    };
    assert!(empty(&program, never, &limited(limits)).unwrap().holds());
    let result = contained(&program, places, left, &limited(limits));
    assert_eq!(result, Err(Limit::States));
}

#[test]
fn a_cancelled_question_ends() {
    let mut program = Program::new();
    let node = exponential(&mut program, 24);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let options = Options {
        order: (0..48).map(FieldId).collect(),
        cancelled: Some(Arc::new(move || count.fetch_add(1, Ordering::Relaxed) == 3)),
        ..Options::default()
    };
    let result =
        Symbolic::new(&program, &[node], &options).and_then(|mut symbolic| symbolic.set_of(node));
    assert_eq!(result, Err(Limit::Cancelled));
    assert_eq!(asked.load(Ordering::Relaxed), 4);
}

#[test]
fn the_evaluator_refuses_what_it_cannot_answer() {
    let (mut program, test_and_set) = program();
    let dup = program.dup();
    let (test, _) = test_and_set(&mut program, 1);
    let twice = program.sequence([dup, dup]);
    let compared = program.difference(twice, dup);
    let packet = [Value::integer(1)];
    assert_eq!(
        evaluate(&program, compared, &packet),
        Err(Refused::ComparesHistories)
    );
    assert_eq!(
        semantics::histories(&program, compared, &packet, 2)
            .unwrap()
            .len(),
        1
    );
    let plain = program.difference(test, dup);
    assert_eq!(
        evaluate(&program, plain, &packet),
        Err(Refused::ComparesHistories)
    );
}
