//! Compilations that follow one another make the tables that one compilation makes.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use sunwire_policy::ast::Expr;
use sunwire_policy::compile_text;
use sunwire_policy::diagnostic::Diagnostic;
use sunwire_policy::environment::{Endpoint, Environment};
use sunwire_policy::incremental::{Delta, EndpointChange, Session};
use sunwire_policy::lower::Capacity;
use sunwire_policy::tables::{AddressClass, FlowTables};
use sunwire_policy::testing::{Kind, document, environment, for_all, policies};

#[derive(Clone, Debug)]
enum Step {
    /// Another text.
    Text(Box<Expr>),
    /// The text before, with another word in front that moves all places.
    Comment(u8),
    /// An endpoint gets another label.
    Label(Index, &'static str),
    /// An endpoint goes.
    Remove(Index),
    /// An endpoint comes, or comes back, or gets another address and number.
    Add(&'static str, u8),
    /// Another subnet.
    Subnet(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let names = select(&["web1", "web2", "db1", "extra1", "extra2"][..]);
    let step = prop_oneof![
        3 => policies(Kind::Writable).prop_map(|body| Step::Text(Box::new(body))),
        1 => any::<u8>().prop_map(Step::Comment),
        4 => (any::<Index>(), select(&["web", "db", "client"][..]))
            .prop_map(|(index, tier)| Step::Label(index, tier)),
        1 => any::<Index>().prop_map(Step::Remove),
        3 => (names, 1..30u8).prop_map(|(name, host)| Step::Add(name, host)),
        1 => (16..20u8).prop_map(Step::Subnet),
    ];
    (policies(Kind::Writable), prop::collection::vec(step, 1..8)).prop_map(|(body, mut steps)| {
        steps.insert(0, Step::Text(Box::new(body)));
        steps
    })
}

fn endpoint(name: &str, host: u8) -> Endpoint {
    Endpoint {
        name: name.to_owned(),
        number: u32::from(host),
        network: "shop".to_owned(),
        addresses: vec![std::net::IpAddr::from([10, 20, 0, host])],
        mac: [2, 0, 0, 0, 20, host],
        labels: BTreeMap::from([("tier".to_owned(), "client".to_owned())]),
    }
}

/// The tables before, changed by what the session says changes.
fn changed(before: &FlowTables, delta: &Delta, after: &FlowTables) -> FlowTables {
    let mut tables = before.clone();
    for digest in &delta.nodes_removed {
        assert!(tables.nodes.remove(digest).is_some(), "there was no node");
    }
    for digest in &delta.leaves_removed {
        assert!(tables.leaves.remove(digest).is_some(), "there was no leaf");
    }
    for digest in &delta.nodes_added {
        let known = tables.nodes.insert(*digest, after.nodes[digest].clone());
        assert!(known.is_none(), "there was that node");
    }
    for digest in &delta.leaves_added {
        let known = tables.leaves.insert(*digest, after.leaves[digest].clone());
        assert!(known.is_none(), "there was that leaf");
    }
    tables.root = delta.root.unwrap_or(tables.root);
    tables.class_none = delta.class_none.unwrap_or(tables.class_none);
    tables.bucket = delta.bucket.unwrap_or(tables.bucket);
    let place = |class: &AddressClass| (class.address.is_ipv6(), class.address, class.prefix);
    let mut classes: BTreeMap<_, AddressClass> = tables
        .classes
        .drain(..)
        .map(|class| (place(&class), class))
        .collect();
    for change in &delta.prefixes {
        let class = AddressClass {
            address: change.prefix.family.address(change.prefix.first),
            prefix: change.prefix.length,
            class: change.after.or(change.before).expect("one of both"),
        };
        let known = match change.after {
            Some(_) => classes.insert(place(&class), class),
            None => classes.remove(&place(&class)),
        };
        assert_eq!(known.map(|class| class.class), change.before);
    }
    tables.classes = classes.into_values().collect();
    tables
}

/// A policy for the network whatever its subnets are.
fn text_of(body: &Expr) -> String {
    let text = document(body.clone()).to_string();
    text.replace(" { subnet 10.20.0.0/16, fd00:14::/64 }", "")
}

fn run(steps: &[Step]) -> Result<usize, String> {
    let mut world: Environment = environment();
    let mut session = Session::new(world.clone(), Capacity::default());
    let mut text = String::new();
    let mut compiled = 0;
    for (at, step) in steps.iter().enumerate() {
        let before = session.tables().clone();
        let mut new_text = None;
        let mut changes = Vec::new();
        match step {
            Step::Text(body) => new_text = Some(text_of(body)),
            Step::Comment(words) => {
                new_text = Some(format!(
                    "-- {}\n{text}",
                    "word ".repeat(usize::from(*words))
                ));
            }
            Step::Label(..) | Step::Remove(_) if world.endpoints.is_empty() => {}
            Step::Label(index, tier) => {
                let mut endpoint = index.get(&world.endpoints).clone();
                endpoint
                    .labels
                    .insert("tier".to_owned(), (*tier).to_owned());
                changes.push(EndpointChange::Set(endpoint));
            }
            Step::Remove(index) => {
                let name = index.get(&world.endpoints).name.clone();
                changes.push(EndpointChange::Remove(name));
            }
            Step::Add(name, host) => changes.push(EndpointChange::Set(endpoint(name, *host))),
            Step::Subnet(length) => world.networks[0].subnets[0].1 = *length,
        }
        for change in &changes {
            match change {
                EndpointChange::Set(endpoint) => {
                    world.endpoints.retain(|e| e.name != endpoint.name);
                    world.endpoints.push(endpoint.clone());
                }
                EndpointChange::Remove(name) => world.endpoints.retain(|e| e.name != *name),
            }
        }
        let outcome = match (&new_text, step) {
            (Some(text), _) => session.set_text(text),
            (None, Step::Subnet(_)) => session.set_environment(&world),
            _ => session.change(&changes),
        };
        let tried = new_text.clone().unwrap_or_else(|| text.clone());
        if tried.is_empty() {
            // Nothing was ever right, so there is no policy.
            continue;
        }
        let fresh = compile_text(&tried, &world);
        match (outcome, fresh) {
            (Ok(delta), Ok(fresh)) => {
                text = tried;
                compiled += 1;
                if *session.tables() != fresh.tables {
                    return Err(format!(
                        "step {at}:\n{text}\nsession {:#?}\nfresh {:#?}",
                        session.tables(),
                        fresh.tables
                    ));
                }
                if changed(&before, &delta, &fresh.tables) != fresh.tables {
                    return Err(format!("step {at}:\n{text}\nthe difference is another"));
                }
            }
            (Err(found), Err(expected)) => {
                // Which of several verdicts is refused first is not said.
                let places = |list: &[Diagnostic]| -> Vec<_> {
                    list.iter().map(|d| (d.code, d.span)).collect()
                };
                if places(&found) != places(&expected) {
                    return Err(format!("step {at}: {found:?}\nand {expected:?}"));
                }
                if *session.tables() != before {
                    return Err(format!("step {at}: {step:?}: a refusal changed the tables"));
                }
            }
            (found, expected) => {
                return Err(format!(
                    "step {at}:\n{tried}\nsession {found:?}\nfresh {:?}",
                    expected.map(|compiled| compiled.tables.root)
                ));
            }
        }
    }
    Ok(compiled)
}

#[test]
fn tables_after_any_changes_are_those_of_a_fresh_compilation() {
    let compiled = std::cell::Cell::new(0);
    for_all(
        "incremental = fresh",
        600,
        &steps().prop_map(Steps),
        |Steps(steps)| {
            compiled.set(compiled.get() + run(&steps)?);
            Ok(())
        },
    );
    assert!(compiled.get() > 0, "nothing ever compiled");
}

#[test]
fn what_no_compilation_uses_is_thrown_away() {
    let rules = |changed: usize| {
        let mut text = "network shop\npolicy main =\n".to_owned();
        for rule in 0..200 {
            let port = if rule == changed % 200 {
                9000 + changed
            } else {
                rule + 1
            };
            text +=
                &format!("if src = web1 and tcp dst port {port} then forward \"r{rule}\" else\n");
        }
        text + "drop"
    };
    let mut session = Session::new(environment(), Capacity::default());
    session.set_text(&rules(0)).expect("it compiles");
    let first = session.statistics().kept;
    let (mut most, mut collected) = (first, 0);
    for change in 1..600 {
        session.set_text(&rules(change)).expect("it compiles");
        most = most.max(session.statistics().kept);
        collected += usize::from(session.statistics().collected);
    }
    assert!(
        collected > 0,
        "nothing was ever collected: {most} from {first}"
    );
    // Several times what is in use, and what is too little to care about.
    assert!(most < 8 * first + (1 << 17), "{most} from {first}");
    let fresh = compile_text(&rules(599), &environment()).expect("it compiles");
    assert_eq!(*session.tables(), fresh.tables);
}

#[test]
fn a_label_moves_prefixes_and_touches_no_rule() {
    let text = "network shop\nset w = labels(tier = \"web\")\nset d = labels(tier = \"db\")\n\
                policy main = if src in w and dst in d and tcp then forward else drop";
    let mut session = Session::new(environment(), Capacity::default());
    session.set_text(text).expect("it compiles");
    let mut moved = session.environment().endpoints[1].clone();
    moved.labels.insert("tier".to_owned(), "db".to_owned());
    let change = [EndpointChange::Set(moved)];
    let delta = session.change(&change).expect("it compiles");
    assert_eq!(delta.prefixes.len(), 2, "one of each family");
    let statistics = session.statistics();
    assert!(
        !statistics.resolved && statistics.steps == 0,
        "{statistics:?}"
    );
    let rest = Delta {
        prefixes: Vec::new(),
        ..delta
    };
    assert!(rest.is_empty(), "{rest:?}");
    assert!(session.change(&change).expect("it compiles").is_empty());
}

/// Steps, shown as the texts that they set.
struct Steps(Vec<Step>);

impl std::fmt::Debug for Steps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for step in &self.0 {
            match step {
                Step::Text(body) => writeln!(f, "Text {}", text_of(body))?,
                other => writeln!(f, "{other:?}")?,
            }
        }
        Ok(())
    }
}
