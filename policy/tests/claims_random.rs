//! Claims about random policies: what is proved no packet breaks, what is refuted its packet breaks.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::select;
use sunwire_policy::environment::{Endpoint, Environment};
use sunwire_policy::packet::{Packet, Place};
use sunwire_policy::plan::{ChangeKind, plan};
use sunwire_policy::prove::{Verdict, prove};
use sunwire_policy::term::Resolved;
use sunwire_policy::testing::{Kind, document, environment, for_all, packets, policies};
use sunwire_policy::verify::options::Options;
use sunwire_policy::{ast::Expr, evaluate, parse, resolve};

/// Groups of the test network, by name.
const GROUPS: [&str; 3] = ["web", "clients", "db1"];

fn resolved(body: &Expr, claims: &str) -> Result<Resolved, String> {
    let text = format!("{}\n{claims}", document(body.clone()));
    resolve(&parse(&text).0, &environment()).map_err(|d| format!("{text}\n{d:?}"))
}

fn members(environment: &Environment, group: &str) -> BTreeSet<u32> {
    let is = |endpoint: &Endpoint| match group {
        "web" => matches!(endpoint.name.as_str(), "web1" | "web2"),
        "clients" => endpoint
            .labels
            .get("tier")
            .is_some_and(|tier| tier == "client"),
        other => endpoint.name == other,
    };
    let own = environment.endpoints.iter().filter(|e| e.network == "shop");
    own.filter(|e| is(e)).map(|e| e.number).collect()
}

/// Whether a packet of a group is sent to a member of another, by the evaluator alone.
fn crosses(
    policy: &Resolved,
    environment: &Environment,
    to: &BTreeSet<u32>,
    packet: &Packet,
) -> bool {
    let outcome = evaluate(policy, packet).expect("few packets");
    outcome.copies.keys().any(|copy| match copy.place(packet) {
        Place::Entry => false,
        Place::Endpoint(number) => to.contains(&number),
        Place::Owner => {
            let owner = environment.owner("shop", copy);
            owner.is_some_and(|owner| to.contains(&owner.number))
        }
    })
}

#[test]
fn isolation_is_what_no_packet_crosses() {
    let environment = environment();
    let values = (
        policies(Kind::Any),
        select(&GROUPS[..]),
        select(&GROUPS[..]),
        prop::collection::vec(packets(&environment, "shop"), 64),
    );
    let (held, failed) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    for_all("isolation", 400, &values, |(body, left, right, packets)| {
        let policy = resolved(&body, &format!("assert isolated both({left}, {right})"))?;
        let sides = [members(&environment, left), members(&environment, right)];
        let breaks = |packet: &Packet| {
            (sides[0].contains(&packet.port) && crosses(&policy, &environment, &sides[1], packet))
                || (sides[1].contains(&packet.port)
                    && crosses(&policy, &environment, &sides[0], packet))
        };
        match &prove(&policy, &environment, &Options::default())[0].verdict {
            Verdict::Holds => {
                held.set(held.get() + 1);
                match packets.iter().find(|packet| breaks(packet)) {
                    Some(packet) => Err(format!("proved, and broken by {packet:?}")),
                    None => Ok(()),
                }
            }
            Verdict::Fails(failure) if breaks(&failure.packet) => {
                failed.set(failed.get() + 1);
                Ok(())
            }
            Verdict::Fails(failure) => Err(format!(
                "{body}
{left} {right}
refuted by {failure}, which does not"
            )),
            Verdict::Undecided(limit) => Err(limit.to_string()),
        }
    });
    assert!(
        held.get() > 20 && failed.get() > 20,
        "{held:?} held, {failed:?} failed"
    );
}

#[test]
fn a_plan_names_every_packet_that_is_treated_differently_and_no_other() {
    let environment = environment();
    let values = (
        policies(Kind::Any),
        policies(Kind::Any),
        prop::collection::vec(packets(&environment, "shop"), 64),
    );
    let different = std::cell::Cell::new(0);
    for_all("plan", 300, &values, |(old, new, packets)| {
        let (old, new) = (resolved(&old, "")?, resolved(&new, "")?);
        let plan = plan(Some(&old), &new, &environment, &Options::default())
            .map_err(|limit| limit.to_string())?;
        let sent = |policy: &Resolved, packet: &Packet| -> BTreeSet<Packet> {
            let outcome = evaluate(policy, packet).expect("few packets");
            let copies = outcome.copies.into_keys();
            copies
                .filter(|copy| copy.place(packet) != Place::Entry)
                .collect()
        };
        for packet in &packets {
            let (before, after) = (sent(&old, packet), sent(&new, packet));
            if before != after {
                different.set(different.get() + 1);
                let kind = match (before.is_empty(), after.is_empty()) {
                    (true, _) => ChangeKind::Allowed,
                    (_, true) => ChangeKind::Denied,
                    _ => ChangeKind::Changed,
                };
                let named = plan.more || plan.changes.iter().any(|c| c.kind == kind);
                // Where a policy looks at the port, what stays where it entered counts as sent.
                if !named && plan.is_empty() {
                    return Err(format!("{packet:?} is {kind:?} and the plan is empty"));
                }
            }
        }
        Ok(())
    });
    assert!(different.get() > 200, "{different:?}");
}
