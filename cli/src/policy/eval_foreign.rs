//! `sunwire policy eval` of programs of other tools, by the semantics of their papers.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde_json::{Map, Number, Value as Json};
use sunwire_api::MacAddress;
use sunwire_policy::import::nkpl::{Definition, Imported};
use sunwire_policy::import::{kat, nkpl};
use sunwire_policy::verify::program::{Domain, NodeId, Program, Value};
use sunwire_policy::verify::semantics::evaluate;

use super::foreign::{Syntax, Text};
use crate::exit::{Outcome, Usage};
use crate::output;

/// The fields of Frenetic's programs, and their greatest values.
const FRENETIC: [(&str, u64); 15] = [
    ("switch", u64::MAX),
    ("port", 0xffff_ffff),
    ("vswitch", u64::MAX),
    ("vport", u64::MAX),
    ("vfabric", u64::MAX),
    ("ethSrc", 0xffff_ffff_ffff),
    ("ethDst", 0xffff_ffff_ffff),
    ("vlanId", 0xffff),
    ("vlanPcp", 0xff),
    ("ethTyp", 0xffff),
    ("ipProto", 0xff),
    ("ip4Src", 0xffff_ffff),
    ("ip4Dst", 0xffff_ffff),
    ("tcpSrcPort", 0xffff),
    ("tcpDstPort", 0xffff),
];

/// Prints what comes out of a program for one packet.
pub(super) fn run(
    text: &Text,
    syntax: Syntax,
    definition: Option<&str>,
    packet: &str,
) -> anyhow::Result<Outcome> {
    let read = match syntax {
        Syntax::Nkpl => defined(text, definition)?,
        Syntax::Kat | Syntax::Nk => {
            if definition.is_some() {
                let words = "--definition is for programs of KATch, which name their parts";
                return Err(Usage(words.to_owned()).into());
            }
            kat::parse(&text.text)
                .map_err(|findings| text.show(&findings))
                .ok()
        }
    };
    let Some((program, node)) = read else {
        return Ok(Outcome::Failed);
    };
    let (input, other) = enter(&program, syntax, packet)?;
    let outputs = evaluate(&program, node, &input)?;
    let out: Vec<Json> = outputs
        .iter()
        .map(|output| object(&program, output, &other))
        .collect();
    let is_dropped = out.is_empty();
    output::text(&format!("{}\n", Json::from(out)))?;
    Ok(if is_dropped {
        Outcome::Negative
    } else {
        Outcome::Done
    })
}

/// A definition of a program of KATch: `main`, when none is named.
fn defined(text: &Text, name: Option<&str>) -> anyhow::Result<Option<(Program, NodeId)>> {
    let Some(name) = name else {
        let mut program = Program::new();
        let read = nkpl::parse_into(&mut program, &text.text, &mut text.loader());
        let node = read.map_err(|findings| text.show(&findings)).ok();
        return Ok(node.map(|node| (program, node)));
    };
    let read = nkpl::parse(&text.text, &mut text.loader());
    let Ok(imported) = read.map_err(|findings| text.show(&findings)) else {
        return Ok(None);
    };
    let Imported {
        program,
        definitions,
        ..
    } = imported;
    if let Some(Definition::Program(node)) = definitions.get(name) {
        return Ok(Some((program, *node)));
    }
    let programs = definitions.iter();
    let programs: Vec<&str> = programs
        .filter(|(_, kind)| matches!(kind, Definition::Program(_)))
        .map(|(name, _)| name.as_str())
        .collect();
    Err(Usage(format!(
        "{} defines no program {name:?}; it defines {}",
        text.file.display(),
        programs.join(", ")
    ))
    .into())
}

/// A value for every field of the program, and what it never mentions.
type Entered = (Vec<Value>, BTreeMap<String, Json>);

fn enter(program: &Program, syntax: Syntax, packet: &str) -> Result<Entered, Usage> {
    let object: Map<String, Json> = serde_json::from_str(packet)
        .map_err(|error| Usage(format!("--packet is no JSON object: {error}")))?;
    let mut input: Vec<Value> = program
        .fields()
        .iter()
        .map(|field| match field.domain {
            Domain::Integer => Value::integer(0),
            _ => Value::number(0),
        })
        .collect();
    let mut other = BTreeMap::new();
    for (name, value) in &object {
        let wrong = |reason: &str| Usage(format!("--packet: {name:?}: {reason}"));
        let known = program
            .fields()
            .iter()
            .position(|field| field.name == *name);
        let domain = match known {
            Some(at) => program.fields()[at].domain,
            None if syntax == Syntax::Nkpl => Domain::Integer,
            None => {
                let found = FRENETIC.iter().find(|(field, _)| field == name);
                let (_, max) = found.ok_or_else(|| wrong("there is no such field"))?;
                Domain::Number { max: *max }
            }
        };
        let value = match domain {
            Domain::Integer => integer(value).map(Value::integer),
            Domain::Number { max } => number(value).filter(|n| *n <= max).map(Value::number),
            Domain::Address => None,
        };
        let value = value.ok_or_else(|| wrong("it cannot have this value"))?;
        match known {
            Some(at) => input[at] = value,
            None => {
                other.extend(shown(name, domain, value).map(|shown| (name.clone(), shown)));
            }
        }
    }
    Ok((input, other))
}

/// A number, also as text: decimal, hexadecimal, an IPv4 or a MAC address.
fn number(value: &Json) -> Option<u64> {
    let text = match value {
        Json::Number(number) => return number.as_u64(),
        Json::String(text) => text,
        _ => return None,
    };
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok();
    }
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Some(address.to_bits().into());
    }
    if let Ok(MacAddress([a, b, c, d, e, f])) = text.parse() {
        return Some(u64::from_be_bytes([0, 0, a, b, c, d, e, f]));
    }
    text.parse().ok()
}

fn integer(value: &Json) -> Option<i64> {
    match value {
        Json::Number(number) => number.as_i64(),
        Json::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// A packet by field name; fields that are zero are left out, as are those of the program's own
/// making.
fn object(program: &Program, packet: &[Value], other: &BTreeMap<String, Json>) -> Json {
    let mut object: Map<String, Json> = other.clone().into_iter().collect();
    for (field, value) in program.fields().iter().zip(packet) {
        if !field.name.starts_with('`')
            && let Some(shown) = shown(&field.name, field.domain, *value)
        {
            object.insert(field.name.clone(), shown);
        }
    }
    Json::Object(object)
}

/// A value as it is printed; nothing for zero.
fn shown(name: &str, domain: Domain, value: Value) -> Option<Json> {
    if domain == Domain::Integer {
        let integer = domain.show(value).parse::<i64>().ok()?;
        return (integer != 0).then(|| Json::Number(Number::from(integer)));
    }
    let number = value.number as u64;
    if number == 0 {
        return None;
    }
    Some(match name {
        "ip4Src" | "ip4Dst" => Ipv4Addr::from_bits(number as u32).to_string().into(),
        "ethSrc" | "ethDst" => {
            let [_, _, bytes @ ..] = number.to_be_bytes();
            MacAddress(bytes).to_string().into()
        }
        _ => number.into(),
    })
}
