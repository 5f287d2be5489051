//! The evaluator, the decision diagram and the flow tables agree, also about labels.

use std::collections::BTreeSet;

use proptest::prelude::*;
use sunwire_policy::compile::Options;
use sunwire_policy::diagnostic::render_all;
use sunwire_policy::installed::Installed;
use sunwire_policy::lower::{Capacity, Refused};
use sunwire_policy::packet::{Note, Packet, Place};
use sunwire_policy::term::Resolved;
use sunwire_policy::testing::{Kind, document, environment, for_all, packets, policies, records};
use sunwire_policy::{ast::Expr, compile, evaluate, lower, parse, resolve};

fn resolved(body: Expr) -> Result<Resolved, String> {
    let text = document(body).to_string();
    let (document, diagnostics) = parse(&text);
    if diagnostics.iter().any(|d| d.is_error()) {
        return Err(format!("{text}\n{}", render_all(&diagnostics, &text)));
    }
    resolve(&document, &environment()).map_err(|d| format!("{text}\n{}", render_all(&d, &text)))
}

/// Where the copies go and what they are, for comparing records with emitted packets.
fn emitted(copies: impl Iterator<Item = Packet>, entered: &Packet) -> BTreeSet<(Packet, Place)> {
    copies
        .map(|copy| {
            let place = copy.place(entered);
            let mut copy = copy;
            copy.port = entered.port;
            (copy, place)
        })
        .collect()
}

#[test]
fn evaluator_and_diagram_agree_on_every_record() {
    let environment = environment();
    let values = (
        policies(Kind::Any),
        prop::collection::vec(records(&environment, "shop"), 8),
    );
    for_all("evaluator = diagram", 2000, &values, |(body, packets)| {
        let policy = resolved(body)?;
        let Ok(fdd) = compile(&policy, &Options::default()) else {
            return Err("the compiler gave up".to_owned());
        };
        for packet in packets {
            let expected = evaluate(&policy, &packet).map_err(|e| e.to_string())?;
            let found = fdd.evaluate(&packet);
            let leaf = fdd.store.copies(fdd.leaf(&packet)).count();
            if leaf != expected.copies.len() {
                return Err(format!(
                    "{leaf} actions for {} copies",
                    expected.copies.len()
                ));
            }
            if found != expected {
                return Err(format!(
                    "{packet:?}\nevaluator {expected:?}\ndiagram {found:?}"
                ));
            }
        }
        Ok(())
    });
}

#[test]
fn evaluator_and_tables_agree_on_every_packet() {
    let environment = environment();
    let values = (
        policies(Kind::Writable),
        prop::collection::vec(packets(&environment, "shop"), 8),
    );
    let refused = std::cell::Cell::new(0);
    let checked = std::cell::Cell::new(0);
    for_all(
        "evaluator = tables",
        2000,
        &values,
        |(body, mut packets)| {
            let policy = resolved(body)?;
            let fdd = compile(&policy, &Options::default()).map_err(|e| e.to_string())?;
            let tables = match lower(&fdd, &policy, &Capacity::default()) {
                Ok(tables) => tables,
                Err(Refused::TooManyCopies { .. }) => {
                    refused.set(refused.get() + 1);
                    return Ok(());
                }
                Err(other) => return Err(other.to_string()),
            };
            checked.set(checked.get() + 1);
            let installed = Installed::new(&tables).map_err(|e| e.to_string())?;
            // What is set before the policy goes with the rest: its values are few.
            for (at, packet) in packets.iter_mut().enumerate() {
                packet.connection = (at % 3) as u8;
            }
            for packet in packets {
                let outcome = evaluate(&policy, &packet).map_err(|e| e.to_string())?;
                let expected = emitted(outcome.copies.keys().copied(), &packet);
                let label = policy.label(outcome.label(), outcome.copies.is_empty());
                let verdict = installed.verdict(&packet).ok_or("the walk does not end")?;
                let found = verdict.emit(&packet);
                if found.len() != expected.len()
                    || found.into_iter().collect::<BTreeSet<_>>() != expected
                {
                    return Err(format!(
                        "{packet:?}\nevaluator {expected:?}\ntables {verdict:?}"
                    ));
                }
                let notes: BTreeSet<Note> = outcome.notes;
                let mut logs = notes.iter().filter_map(|note| match note {
                    Note::Log(text) => Some(text.to_string()),
                    Note::Count(_) => None,
                });
                let counts = notes.iter().filter_map(|note| match note {
                    Note::Count(name) => Some(name.to_string()),
                    Note::Log(_) => None,
                });
                if verdict.log != logs.next() || !counts.eq(verdict.counts.iter().cloned()) {
                    return Err(format!("{packet:?}: {notes:?}, but {verdict:?}"));
                }
                if verdict.label != label {
                    return Err(format!("{packet:?}: {label} and {}", verdict.label));
                }
            }
            Ok(())
        },
    );
    assert!(
        checked.get() > 4 * refused.get(),
        "too few policies fit the tables"
    );
}
