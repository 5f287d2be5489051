//! The prover agrees with the evaluator, and whatever it refutes is refuted by its counterexample.

use std::collections::BTreeSet;

use proptest::prelude::*;
use sunwire_policy::testing::for_all;
use sunwire_policy::testing::programs::{Recipe, Setting};
use sunwire_policy::verify::counterexample::{Counterexample, Side};
use sunwire_policy::verify::decide::{Answer, Verifier, contained, empty, equivalent};
use sunwire_policy::verify::options::Options;
use sunwire_policy::verify::program::{Domain, FieldId, Kind, NodeId, Program, Value};
use sunwire_policy::verify::semantics::{History, evaluate, histories};
use sunwire_policy::verify::symbolic::Symbolic;

/// More hops than this are not followed by the evaluator.
const HOPS: usize = 6;

/// Whether a counterexample is a history of one program and not of the other.
fn distinguishes(
    program: &Program,
    counterexample: &Counterexample,
    (left, right): (NodeId, Option<NodeId>),
) -> Result<(), String> {
    let history = History {
        hops: counterexample.hops.clone(),
        output: counterexample.output.clone(),
    };
    let hops = history.hops.len();
    if hops > HOPS {
        return Ok(());
    }
    let has = |node| {
        histories(program, node, &counterexample.input, hops)
            .map(|histories| histories.contains(&history))
            .map_err(|refused| refused.to_string())
    };
    let right = match right {
        Some(right) => has(right)?,
        None => false,
    };
    let expected = match counterexample.side {
        Side::Left => (true, false),
        Side::Right => (false, true),
    };
    let found = (has(left)?, right);
    if found == expected {
        Ok(())
    } else {
        Err(format!(
            "{found:?}, not {expected:?} have\n{counterexample}"
        ))
    }
}

#[test]
fn diagrams_do_what_the_evaluator_does() {
    let setting = Setting::wide();
    let values = (
        setting.recipes(),
        prop::collection::vec(setting.packets(), 8),
    );
    for_all(
        "diagrams_do_what_the_evaluator_does",
        2000,
        &values,
        |(recipe, packets)| {
            let mut program = setting.program();
            let node = recipe.build(&mut program);
            let mut symbolic = Symbolic::new(&program, &[node], &Options::default()).unwrap();
            let spp = symbolic.spp_of(node).unwrap();
            let passing = symbolic.set_of(node).unwrap();
            for packet in packets {
                let expected = evaluate(&program, node, &packet).unwrap();
                let found = symbolic.outputs(spp, &packet);
                if found != expected {
                    return Err(format!("{packet:?} gives {found:?}, not {expected:?}"));
                }
                let cubes = symbolic.cubes(passing).filter(|cube| {
                    cube.fields.iter().all(|(field, ranges)| {
                        let value = packet[usize::from(field.0)];
                        ranges
                            .iter()
                            .any(|(first, last)| *first <= value && value <= *last)
                    })
                });
                if cubes.count() != usize::from(!expected.is_empty()) {
                    return Err(format!(
                        "{packet:?} is in not just one cube, or not in none"
                    ));
                }
            }
            Ok(())
        },
    );
}

/// Whatever order fields are tested in.
#[test]
fn the_order_of_fields_changes_no_answer() {
    let setting = Setting::wide();
    let orders = Just(
        (0..setting.fields.len() as u16)
            .map(FieldId)
            .collect::<Vec<_>>(),
    );
    let values = (setting.recipes(), setting.recipes(), orders.prop_shuffle());
    for_all(
        "the_order_of_fields_changes_no_answer",
        500,
        &values,
        |(left, right, order)| {
            let mut program = setting.program();
            let (left, right) = (left.build(&mut program), right.build(&mut program));
            let plain = contained(&program, left, right, &Options::default()).unwrap();
            let options = Options {
                order,
                ..Options::default()
            };
            let ordered = contained(&program, left, right, &options).unwrap();
            if plain.holds() != ordered.holds() {
                return Err(format!("{plain:?}, but {ordered:?}"));
            }
            Ok(())
        },
    );
}

/// Pairs that are often equal: a program and another, and a program and itself with more in it.
fn pairs(setting: &Setting) -> BoxedStrategy<(Recipe, Recipe)> {
    let pair = (setting.recipes(), setting.recipes());
    (pair, 0..6u8)
        .prop_map(|((p, q), form)| {
            let both = |p: &Recipe, q: &Recipe| (Box::new(p.clone()), Box::new(q.clone()));
            let (left, right) = both(&p, &q);
            match form {
                0 => (p, q),
                1 => (p.clone(), Recipe::Union(vec![p, q])),
                2 => (p, Recipe::Intersection(left, right)),
                3 => (Recipe::Difference(left.clone(), right), *left),
                4 => (
                    Recipe::Star(left.clone()),
                    Recipe::Union(vec![Recipe::Id, *left]),
                ),
                _ => (p, Recipe::SymmetricDifference(left, right)),
            }
        })
        .boxed()
}

/// All histories with at most `dups` hops, of every packet.
fn all_histories(
    setting: &Setting,
    program: &Program,
    node: NodeId,
    dups: usize,
) -> Result<Vec<BTreeSet<History>>, String> {
    (setting.all_packets().iter())
        .map(|packet| histories(program, node, packet, dups).map_err(|error| error.to_string()))
        .collect()
}

#[test]
fn answers_are_those_of_trying_all_histories() {
    let setting = Setting::narrow();
    for_all(
        "answers_are_those_of_trying_all_histories",
        1500,
        &pairs(&setting),
        |(p, q)| {
            let mut program = setting.program();
            let (left, right) = (p.build(&mut program), q.build(&mut program));
            let mut verifier =
                Verifier::new(&program, &[left, right], &Options::default()).unwrap();
            let tried = (
                all_histories(&setting, &program, left, 2)?,
                all_histories(&setting, &program, right, 2)?,
            );
            let nothing = tried.0.iter().all(BTreeSet::is_empty);
            let equal = tried.0 == tried.1;
            let part = tried
                .0
                .iter()
                .zip(&tried.1)
                .all(|(left, right)| left.is_subset(right));
            let asked = [
                (
                    "empty",
                    verifier.empty(left).unwrap(),
                    nothing,
                    (left, None),
                ),
                (
                    "equal",
                    verifier.equivalent(left, right).unwrap(),
                    equal,
                    (left, Some(right)),
                ),
                (
                    "part",
                    verifier.contained(left, right).unwrap(),
                    part,
                    (left, Some(right)),
                ),
            ];
            for (question, answer, tried, nodes) in asked {
                match answer {
                    Answer::Holds if !tried => {
                        return Err(format!("{question}: holds, but does not"));
                    }
                    Answer::Holds => {}
                    Answer::Fails(counterexample) => {
                        if tried && counterexample.hops.len() <= 2 {
                            return Err(format!("{question}: fails, but no history shows it"));
                        }
                        distinguishes(&program, &counterexample, nodes)
                            .map_err(|error| format!("{question}: {error}"))?;
                    }
                }
            }
            Ok(())
        },
    );
}

#[test]
fn counterexamples_over_ranges_and_addresses_distinguish() {
    let setting = Setting {
        dup: true,
        ..Setting::wide()
    };
    let name = "counterexamples_over_ranges_and_addresses_distinguish";
    for_all(name, 1000, &pairs(&setting), |(p, q)| {
        let mut program = setting.program();
        let (left, right) = (p.build(&mut program), q.build(&mut program));
        if let Answer::Fails(why) = equivalent(&program, left, right, &Options::default()).unwrap()
        {
            distinguishes(&program, &why, (left, Some(right)))?;
        }
        Ok(())
    });
}

fn v4(text: &str, length: u32) -> (Value, Value) {
    let first = text
        .parse::<std::net::Ipv4Addr>()
        .expect("an address")
        .to_bits();
    let last = first | u32::MAX.checked_shr(length).unwrap_or(0);
    let of = |number: u32| Value {
        kind: Kind::V4,
        number: number.into(),
    };
    (of(first), of(last))
}

#[test]
fn prefixes_are_decided_exactly() {
    let mut program = Program::new();
    let source = program.field("src", Domain::Address);
    let whole = program.test(source, [v4("10.0.0.0", 8)]);
    let low = program.test(source, [v4("10.0.0.0", 9)]);
    let high = program.test(source, [v4("10.128.0.0", 9)]);
    let halves = program.union([low, high]);
    // Not the same node by way of the union: through a conditional.
    let halves_chosen = program.conditional([(low, low)], high);
    let options = Options::default();
    assert!(
        equivalent(&program, whole, halves, &options)
            .unwrap()
            .holds()
    );
    assert!(
        equivalent(&program, whole, halves_chosen, &options)
            .unwrap()
            .holds()
    );
    assert!(contained(&program, low, whole, &options).unwrap().holds());
    let answer = contained(&program, whole, low, &options).unwrap();
    let why = answer.counterexample().unwrap();
    assert_eq!(why.to_string(), "in   src=10.128.0.1\nout  src=10.128.0.1");
}

#[test]
fn a_negated_conjunction_is_not_two_negations() {
    let mut program = Program::new();
    let (a, b) = (Domain::Number { max: 65535 }, Domain::Address);
    let (port, source) = (program.field("port", a), program.field("src", b));
    let web = program.test_value(port, Value::number(80));
    let inside = program.test(source, [v4("10.0.0.0", 8)]);
    let both = program.sequence([web, inside]);
    let neither = program.not(both);
    let (no_web, outside) = (program.not(web), program.not(inside));
    let either = program.union([no_web, outside]);
    let each = program.sequence([no_web, outside]);
    let options = Options::default();
    assert!(
        equivalent(&program, neither, either, &options)
            .unwrap()
            .holds()
    );
    let answer = equivalent(&program, neither, each, &options).unwrap();
    let why = answer.counterexample().unwrap();
    assert_eq!(why.side, Side::Left);
    distinguishes(&program, why, (neither, Some(each))).unwrap();
}

#[test]
fn id_plus_an_assignment_gives_one_packet_where_it_changes_nothing() {
    let mut program = Program::new();
    let port = program.field("port", Domain::Number { max: 65535 });
    let id = program.id();
    let set = program.assign(port, Value::number(80));
    let both = program.union([id, set]);
    let mut symbolic = Symbolic::new(&program, &[both], &Options::default()).unwrap();
    let spp = symbolic.spp_of(both).unwrap();
    let packet = |port| vec![Value::number(port)];
    let outputs = |port| symbolic.outputs(spp, &packet(port));
    assert_eq!(outputs(80), BTreeSet::from([packet(80)]));
    assert_eq!(outputs(81), BTreeSet::from([packet(80), packet(81)]));
    for port in [80, 81] {
        assert_eq!(
            outputs(port),
            evaluate(&program, both, &packet(port)).unwrap()
        );
    }
}

/// Every value of the field is assigned, so codes are left over that stand for nothing.
#[test]
fn values_that_do_not_exist_make_no_difference() {
    let mut program = Program::new();
    let field = program.field("f", Domain::Number { max: 2 });
    let all: Vec<NodeId> = (0..3)
        .map(|value| {
            let test = program.test_value(field, Value::number(value));
            let set = program.assign(field, Value::number(value));
            program.sequence([test, set])
        })
        .collect();
    let all = program.union(all);
    let id = program.id();
    let dup = program.dup();
    let (all_dup, id_dup) = (program.sequence([all, dup]), program.sequence([id, dup]));
    let options = Options::default();
    assert!(equivalent(&program, all, id, &options).unwrap().holds());
    assert!(
        equivalent(&program, all_dup, id_dup, &options)
            .unwrap()
            .holds()
    );
    let nothing = program.difference(id, all);
    assert!(empty(&program, nothing, &options).unwrap().holds());
    let nothing = program.intersection(nothing, id);
    assert!(empty(&program, nothing, &options).unwrap().holds());
}

#[test]
fn a_trace_is_shortest_and_names_only_fields_of_the_question() {
    let mut program = Program::new();
    let numbers = Domain::Number { max: 999 };
    let (place, other) = (
        program.field("sw", numbers),
        program.field("other", numbers),
    );
    let dup = program.dup();
    let links = [(1, 2), (2, 3), (3, 4), (1, 3)].map(|(from, to)| {
        let here = program.test_value(place, Value::number(from));
        let there = program.assign(place, Value::number(to));
        program.sequence([here, there, dup])
    });
    let links = program.union(links);
    let network = program.star(links);
    let start = program.test_value(place, Value::number(1));
    let end = program.test_value(place, Value::number(4));
    let way = program.sequence([start, network, end]);
    let unrelated = program.test_value(other, Value::number(1));
    let mut verifier = Verifier::new(&program, &[way, unrelated], &Options::default()).unwrap();
    let answer = verifier.empty(way).unwrap();
    let why = answer.counterexample().unwrap();
    assert_eq!(
        why.to_string(),
        "in   sw=1\ndup  sw=3\ndup  sw=4\nout  sw=4"
    );
    distinguishes(&program, why, (way, None)).unwrap();
}
