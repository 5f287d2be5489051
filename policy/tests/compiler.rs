//! What the compiler may choose changes nothing in meaning, and hostile policies end in time.

use std::collections::BTreeSet;
use std::fmt::Write;

use proptest::prelude::*;
use sunwire_policy::ast::Expr;
use sunwire_policy::compile::Options;
use sunwire_policy::environment::Environment;
use sunwire_policy::fdd::Order;
use sunwire_policy::field::Field;
use sunwire_policy::installed::Installed;
use sunwire_policy::lower::{Capacity, Hosted, HostedEndpoint, Refused, Unspecialised, specialise};
use sunwire_policy::packet::Packet;
use sunwire_policy::tables::FlowTables;
use sunwire_policy::term::Resolved;
use sunwire_policy::testing::fat_tree::{FatTree, Uplinks};
use sunwire_policy::testing::{Kind, document, environment, for_all, packets, policies};
use sunwire_policy::{compile, evaluate, lower, parse, resolve};

fn resolved(text: &str, environment: &Environment) -> Resolved {
    let (document, diagnostics) = parse(text);
    assert!(diagnostics.iter().all(|d| !d.is_error()), "{diagnostics:?}");
    resolve(&document, environment).unwrap_or_else(|diagnostics| panic!("{diagnostics:?}"))
}

fn policy_of(body: Expr) -> Resolved {
    resolved(&document(body).to_string(), &environment())
}

/// Whether two tables decide the same about a packet.
fn agree(left: &Installed, right: &Installed, packet: &Packet) -> Result<(), String> {
    let decided = |tables: &Installed| {
        let leaf = tables.verdict(packet)?;
        // Setting a field to the value that it has, and leaving it, are the same.
        let copies: BTreeSet<_> = leaf.emit(packet).into_iter().collect();
        Some((copies, leaf.label.clone()))
    };
    let (left, right) = (decided(left), decided(right));
    match left == right && left.is_some() {
        true => Ok(()),
        false => Err(format!("{packet:?}\n{left:?}\n{right:?}")),
    }
}

fn installed(tables: &FlowTables) -> Result<Installed, String> {
    Installed::new(tables).map_err(|error| error.to_string())
}

#[test]
fn the_order_of_tests_changes_nothing_in_meaning() {
    let environment = environment();
    let orders = Just(Order::default().0.to_vec()).prop_shuffle();
    let values = (
        policies(Kind::Writable),
        orders,
        prop::collection::vec(packets(&environment, "shop"), 8),
    );
    for_all(
        "any order = one meaning",
        500,
        &values,
        |(body, order, packets)| {
            let policy = policy_of(body);
            let order: [Field; sunwire_policy::fdd::TESTED] =
                order.try_into().map_err(|_| "an order has all fields")?;
            let options = Options {
                order: Order(order),
                ..Options::default()
            };
            let fdd = compile(&policy, &options).map_err(|e| e.to_string())?;
            for packet in &packets {
                let expected = evaluate(&policy, packet).map_err(|e| e.to_string())?;
                if fdd.evaluate(packet) != expected {
                    return Err(format!("{packet:?}\n{expected:?}"));
                }
            }
            let usual =
                compile(&policy, &Options::for_policy(&policy)).map_err(|e| e.to_string())?;
            let capacity = Capacity::default();
            match (
                lower(&usual, &policy, &capacity),
                lower(&fdd, &policy, &capacity),
            ) {
                (Ok(usual), Ok(other)) => {
                    let (usual, other) = (installed(&usual)?, installed(&other)?);
                    packets
                        .iter()
                        .try_for_each(|packet| agree(&usual, &other, packet))
                }
                // An order may take more tests in a row than another, or refuse another verdict first.
                (Err(_), _) | (_, Err(Refused::TooDeep { .. })) => Ok(()),
                (_, Err(other)) => Err(other.to_string()),
            }
        },
    );
}

#[test]
fn the_tables_of_a_node_decide_as_all_tables_about_what_enters_there() {
    let environment = environment();
    let values = (
        policies(Kind::Writable),
        prop::collection::vec(packets(&environment, "shop"), 8),
    );
    let smaller = std::cell::Cell::new(0);
    for_all("specialised = full", 500, &values, |(body, packets)| {
        let policy = policy_of(body);
        let mut fdd = compile(&policy, &Options::for_policy(&policy)).map_err(|e| e.to_string())?;
        let capacity = Capacity::default();
        let full = match lower(&fdd, &policy, &capacity) {
            Ok(full) => full,
            Err(Refused::TooManyCopies { .. }) => return Ok(()),
            Err(other) => return Err(other.to_string()),
        };
        let all = installed(&full)?;
        for packet in &packets {
            let sender = environment
                .endpoints
                .iter()
                .find(|e| e.number == packet.port);
            let sender = sender.ok_or("packets come from endpoints")?;
            let own = HostedEndpoint {
                number: sender.number,
                addresses: sender.addresses.iter().map(|a| (*a).into()).collect(),
            };
            for endpoints in [None, Some(vec![own])] {
                let hosted = Hosted {
                    node: packet.node,
                    endpoints,
                };
                let tables = specialise(&mut fdd, &policy, &hosted, &capacity)
                    .map_err(|error: Unspecialised| error.to_string())?;
                let (some, whole) = (tables.size(), full.size());
                if some.nodes > whole.nodes || some.prefixes > whole.prefixes {
                    return Err(format!("{some:?} is larger than {whole:?}"));
                }
                smaller.set(smaller.get() + usize::from(some.nodes < whole.nodes));
                agree(&all, &installed(&tables)?, packet)?;
            }
        }
        Ok(())
    });
    assert!(smaller.get() > 0, "no tables ever became smaller");
}

#[test]
fn a_fat_tree_is_taken_apart_by_switches() {
    let tree = FatTree::new(4, Uplinks::PodPairs);
    let environment = tree.environment();
    let whole = resolved(&tree.text(), &environment);
    let options = Options::for_policy(&whole);
    assert_eq!(options.order.0[0], Field::Node);
    let mut fdd = compile(&whole, &options).unwrap();
    for node in 1..=tree.switches() {
        let hosted = Hosted {
            node,
            endpoints: None,
        };
        let tables = specialise(&mut fdd, &whole, &hosted, &Capacity::default()).unwrap();
        let own = resolved(&tree.switch_text(node), &environment);
        let own = compile(&own, &Options::default()).unwrap();
        let own = lower(&own, &whole, &Capacity::default()).unwrap();
        assert_eq!(tables.size().depth, own.size().depth, "switch {node}");
        assert!(tables.size().edges <= own.size().edges, "switch {node}");
    }
}

#[test]
fn the_generator_makes_as_many_rules_as_its_formula_says() {
    for pods in [4, 8, 16] {
        let cubed = (pods as usize).pow(3);
        let squared = (pods as usize).pow(2);
        let pairs = FatTree::new(pods, Uplinks::PodPairs).rules();
        assert_eq!(pairs, cubed * 5 / 4);
        let paths = FatTree::new(pods, Uplinks::ShortestPaths).rules();
        assert_eq!(paths, 2 * cubed - squared * 3 / 2);
    }
}

fn size_of(text: &str) -> sunwire_policy::tables::size::Size {
    let policy = resolved(text, &environment());
    let fdd = compile(&policy, &Options::for_policy(&policy)).expect("it compiles");
    lower(&fdd, &policy, &Capacity::default())
        .expect("it fits")
        .size()
}

#[test]
fn a_hundred_thousand_arms_need_no_stack_and_no_more_tests() {
    let mut text = "network shop\nlet r(p) = tcp and tcpDstPort = p\npolicy main =\n".to_owned();
    for arm in 0..100_000 {
        let _ = writeln!(text, "if r({}) then forward \"a\" else", 1 + arm % 60_000);
    }
    text += "drop";
    let many = size_of(&text);
    assert!(many.depth <= 4, "{many:?}");
}

#[test]
fn a_sequence_of_a_hundred_thousand_steps_is_one_action() {
    let mut text = "network shop\npolicy main =\n".to_owned();
    for step in 0..100_000 {
        let _ = writeln!(text, "dscp := {};", step % 64);
    }
    text += "forward";
    assert_eq!(size_of(&text).leaves, 1);
}

#[test]
fn stars_over_many_values_end() {
    // Every assigned value is one more copy, so the closure is as large as the values, not the field.
    let mut walk = "network shop\npolicy main = (drop".to_owned();
    for port in 0..200 {
        let _ = write!(walk, " + tcpDstPort = {port}; tcpDstPort := {}", port + 1);
    }
    walk += ")*; tcpDstPort = 200; forward";
    assert!(size_of(&walk).depth <= 3);
    let nested = "network shop\npolicy main = ((((dscp := 1)* + dscp := 2)*; tcpDstPort := 7)*)*; \
                  dscp = 2; tcpDstPort = 7; forward";
    assert!(size_of(nested).leaves <= 4);
    let endless = "network shop\npolicy main = (while true do dscp := 1) + forward";
    assert!(size_of(endless).leaves >= 1);
}

#[test]
fn what_takes_too_long_is_refused_and_not_done() {
    let mut text = "network shop\npolicy main = (".to_owned();
    for bit in 0..40 {
        let _ = write!(text, "(id + tcpSrcPort := {bit}; tcpDstPort := {bit}); ");
    }
    text += "id)*; forward";
    let policy = resolved(&text, &environment());
    let options = Options {
        max_steps: 1_000,
        ..Options::for_policy(&policy)
    };
    assert!(compile(&policy, &options).is_err());
}
