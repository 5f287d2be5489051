//! `sunwire policy eval`: what a policy makes of one packet, by the evaluator that says what the
//! language means.

use std::path::Path;

use serde_json::Value;
use sunwire_policy::address::Address;
use sunwire_policy::diagnostic::Diagnostic;
use sunwire_policy::environment::Environment;
use sunwire_policy::packet::{Packet, Place};
use sunwire_policy::{evaluate, parse, resolve};

use super::surroundings::Surroundings;
use super::{NamesFrom, packet, read_bundle, refuse};
use crate::exit::Outcome;
use crate::output;
use crate::rest::Connection;

/// Prints what comes out of `file` for one packet.
pub(super) fn run(
    connection: &Connection,
    names: &NamesFrom,
    file: &Path,
    packet: &str,
) -> anyhow::Result<Outcome> {
    let bundle = read_bundle(file)?;
    let text = bundle.text();
    let surroundings = Surroundings::find(connection, names, &[text])?;
    surroundings.tell_assumed();
    let entered = packet::parse(packet, &surroundings.environment)?;
    let (document, findings) = parse(text);
    if findings.iter().any(Diagnostic::is_error) {
        return Ok(refuse(&findings, &bundle));
    }
    let policy = match resolve(&document, &surroundings.environment) {
        Ok(policy) => policy,
        Err(findings) => return Ok(refuse(&findings, &bundle)),
    };
    let outcome = evaluate(&policy, &entered)?;
    let mut out = Vec::new();
    for copy in outcome.copies.keys() {
        let to_owner = copy.place(&entered) == Place::Owner;
        if to_owner && surroundings.is_known {
            // Without an owner it is dropped, whatever the policy says.
            let Some(number) = owner(&policy.network.name, copy, &surroundings.environment) else {
                continue;
            };
            let delivered = Packet {
                port: number,
                ..*copy
            };
            out.push(packet::object(&delivered, false));
        } else {
            out.push(packet::object(copy, to_owner));
        }
    }
    let is_dropped = out.is_empty();
    output::text(&format!("{}\n", Value::from(out)))?;
    let label = policy.label(outcome.label(), outcome.copies.is_empty());
    let verdict = match (is_dropped, outcome.copies.is_empty()) {
        (false, _) => "passes",
        (true, true) => "is dropped",
        (true, false) => "is dropped: its destination has no owner",
    };
    eprintln!("{verdict}, by {label:?}");
    Ok(if is_dropped {
        Outcome::Negative
    } else {
        Outcome::Done
    })
}

/// Number of the endpoint that has the packet's destination.
fn owner(network: &str, packet: &Packet, environment: &Environment) -> Option<u32> {
    let address = match packet.dst {
        Address::None => None,
        Address::V4(v4) => Some(v4.into()),
        Address::V6(v6) => Some(v6.into()),
    };
    let mut endpoints = environment
        .endpoints
        .iter()
        .filter(|e| e.network == network);
    let found = endpoints.find(|endpoint| match address {
        Some(address) => endpoint.addresses.contains(&address),
        None => {
            let [a, b, c, d, e, f] = endpoint.mac;
            u64::from_be_bytes([0, 0, a, b, c, d, e, f]) == packet.eth_dst
        }
    });
    found.map(|endpoint| endpoint.number)
}
