//! `sunwire policy eval`: what a policy makes of one packet, by the evaluator that says what the
//! language means.

use std::path::PathBuf;

use serde_json::Value;
use sunwire_policy::address::Address;
use sunwire_policy::diagnostic::Diagnostic;
use sunwire_policy::environment::Environment;
use sunwire_policy::packet::{Packet, Place};
use sunwire_policy::{evaluate, parse, resolve};

use super::foreign::{Syntax, Text};
use super::surroundings::Surroundings;
use super::{NamesFrom, eval_foreign, packet, read_bundle, refuse};
use crate::exit::{Outcome, Usage};
use crate::output;
use crate::rest::Connection;

/// What is evaluated.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A policy (.nk), or a program of Frenetic (.kat) or KATch (.nkpl).
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The packet: a JSON object by field name.
    #[arg(long, value_name = "JSON")]
    packet: String,
    /// How the file is written; by default as its name ends, else as a policy.
    #[arg(long, value_enum)]
    syntax: Option<Syntax>,
    /// Which definition of a program of KATch; `main` by default.
    #[arg(long, value_name = "NAME")]
    definition: Option<String>,
    #[command(flatten)]
    names: NamesFrom,
}

/// Prints what comes out of a program for one packet.
pub(super) fn run(connection: &Connection, args: &Args) -> anyhow::Result<Outcome> {
    let syntax = Syntax::of(&args.file, args.syntax).unwrap_or(Syntax::Nk);
    let definition = args.definition.as_deref();
    if syntax != Syntax::Nk {
        let text = Text::read(&args.file)?;
        return eval_foreign::run(&text, syntax, definition, &args.packet);
    }
    if definition.is_some() {
        let words = "--definition is for programs of KATch, which name their parts";
        return Err(Usage(words.to_owned()).into());
    }
    let bundle = read_bundle(&args.file)?;
    let text = bundle.text();
    let surroundings = Surroundings::find(connection, &args.names, &[text])?;
    surroundings.tell_assumed();
    let entered = packet::parse(&args.packet, &surroundings.environment)?;
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
