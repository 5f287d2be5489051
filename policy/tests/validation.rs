//! Translation validation accepts what the compiler makes and finds every change of it.

use std::collections::BTreeMap;

use proptest::prelude::*;
use sunwire_policy::compile::Options;
use sunwire_policy::incremental::Session;
use sunwire_policy::lower::{Capacity, Refused};
use sunwire_policy::tables::{Digest, FlowTables};
use sunwire_policy::term::Resolved;
use sunwire_policy::testing::{Kind, document, environment, for_all, policies};
use sunwire_policy::validate::{Invalid, validate_classes};
use sunwire_policy::verify::options::Options as ProofOptions;
use sunwire_policy::{ast::Expr, compile, lower, parse, resolve, validate};

fn compiled(body: Expr) -> Result<Option<(Resolved, FlowTables)>, String> {
    let text = document(body).to_string();
    let policy = resolve(&parse(&text).0, &environment()).map_err(|d| format!("{d:?}"))?;
    let fdd = compile(&policy, &Options::default()).map_err(|e| e.to_string())?;
    match lower(&fdd, &policy, &Capacity::default()) {
        Ok(tables) => Ok(Some((policy, tables))),
        Err(Refused::TooManyCopies { .. }) => Ok(None),
        Err(other) => Err(other.to_string()),
    }
}

#[test]
fn what_the_compiler_makes_is_proved_to_be_what_the_policy_says() {
    for_all("tables = term", 500, &policies(Kind::Writable), |body| {
        let Some((policy, tables)) = compiled(body)? else {
            return Ok(());
        };
        validate(&policy, &tables, &ProofOptions::default()).map_err(|e| e.to_string())
    });
}

/// Tables with one edge led elsewhere, in a node that packets can reach.
fn damaged(
    tables: &FlowTables,
    at: prop::sample::Index,
    to: prop::sample::Index,
) -> Option<FlowTables> {
    let edges: Vec<(Digest, usize)> = tables
        .nodes
        .iter()
        .flat_map(|(digest, node)| (0..node.edges.len()).map(|edge| (*digest, edge)))
        .collect();
    let leaves: Vec<Digest> = tables.leaves.keys().copied().collect();
    if edges.is_empty() || leaves.len() < 2 {
        return None;
    }
    let (node, edge) = *at.get(&edges);
    let mut out = tables.clone();
    let child = &mut out.nodes.get_mut(&node)?.edges[edge].1;
    let target = *to.get(&leaves);
    if *child == target {
        return None;
    }
    *child = target;
    Some(out)
}

#[test]
fn an_edge_that_leads_elsewhere_is_found_with_a_packet_that_goes_wrong() {
    let found = std::cell::Cell::new(0);
    let values = (
        policies(Kind::Writable),
        any::<prop::sample::Index>(),
        any::<prop::sample::Index>(),
    );
    for_all("damaged tables", 500, &values, |(body, at, to)| {
        let Some((policy, tables)) = compiled(body)? else {
            return Ok(());
        };
        let Some(damaged) = damaged(&tables, at, to) else {
            return Ok(());
        };
        match validate(&policy, &damaged, &ProofOptions::default()) {
            // Leaves may differ by their labels alone, and edges may be for packets that no
            // network carries.
            Ok(()) => Ok(()),
            Err(Invalid::Differ { .. }) => {
                found.set(found.get() + 1);
                Ok(())
            }
            Err(other) => Err(other.to_string()),
        }
    });
    assert!(found.get() > 50, "only {} were found", found.get());
}

#[test]
fn tables_that_are_no_tables_are_refused() {
    let text = "network shop policy main = if tcp dst port 80 then forward else drop";
    let policy = resolve(&parse(text).0, &environment()).expect("a policy");
    let fdd = compile(&policy, &Options::default()).expect("a diagram");
    let tables = lower(&fdd, &policy, &Capacity::default()).expect("tables");
    let refused = |change: &dyn Fn(&mut FlowTables)| {
        let mut tables = tables.clone();
        change(&mut tables);
        validate(&policy, &tables, &ProofOptions::default()).expect_err("damaged")
    };
    for damage in [
        refused(&|tables| tables.root = Digest([7; 32])),
        refused(&|tables| tables.classes.clear()),
        refused(&|tables| tables.leaves = BTreeMap::new()),
        refused(&|tables| {
            let root = tables.root;
            tables.nodes.get_mut(&root).expect("a node").default = root;
        }),
    ] {
        assert!(matches!(damage, Invalid::Damaged(_)), "{damage:?}");
    }
}

#[test]
fn after_a_change_of_labels_the_changed_addresses_alone_are_proved() {
    let text = "network shop set clients = labels(tier = \"client\")
        policy main = if src in clients and tcp then forward else drop";
    let mut session = Session::new(environment(), Capacity::default());
    session.set_text(text).expect("a policy");
    let policy = |session: &Session| session.policy().expect("a policy").clone();
    validate(
        &policy(&session),
        session.tables(),
        &ProofOptions::default(),
    )
    .expect("proved");
    let mut changed = environment();
    for endpoint in &mut changed.endpoints {
        if endpoint.name == "web1" {
            endpoint
                .labels
                .insert("tier".to_owned(), "client".to_owned());
        }
    }
    let delta = session.set_environment(&changed).expect("a policy");
    assert!(!delta.prefixes.is_empty() && delta.root.is_none());
    let (policy, tables) = (policy(&session), session.tables());
    assert!(validate_classes(&policy, tables, &delta.prefixes));
    validate(&policy, tables, &ProofOptions::default()).expect("proved as a whole as well");
    // A changed address with the class of other addresses is found.
    let mut wrong = tables.clone();
    let other = wrong.class_none;
    for entry in &mut wrong.classes {
        if entry.address.to_string() == "10.20.0.1" {
            entry.class = other;
        }
    }
    assert!(!validate_classes(&policy, &wrong, &delta.prefixes));
    assert!(validate(&policy, &wrong, &ProofOptions::default()).is_err());
}
