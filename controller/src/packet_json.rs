//! Packets as JSON objects by field name; absent fields read as zero.

use std::net::IpAddr;

use serde_json::{Map, Value};
use sunwire_api::MacAddress;
use sunwire_policy::address::Address;
use sunwire_policy::environment::Environment;
use sunwire_policy::field::{Field, Subject};
use sunwire_policy::packet::Packet;

/// A member that is none of a packet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field:?}: {reason}")]
pub struct PacketError {
    /// The member's name.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Reads a packet. Numbers may be written as strings, also in hexadecimal; `endpoint` and `node`
/// also by name.
///
/// # Errors
/// A member that is no field, or has a value that the field cannot have.
pub fn packet_of_json(
    object: &Map<String, Value>,
    environment: &Environment,
) -> Result<Packet, PacketError> {
    let mut packet = Packet::default();
    for (name, value) in object {
        set(&mut packet, name, value, environment).map_err(|reason| PacketError {
            field: name.clone(),
            reason,
        })?;
    }
    Ok(packet)
}

fn set(
    packet: &mut Packet,
    name: &str,
    value: &Value,
    environment: &Environment,
) -> Result<(), String> {
    let subject = Subject::named(name).ok_or("there is no such field")?;
    let field = subject.field();
    if matches!(field, Field::Source | Field::Destination) {
        let text = value.as_str().ok_or("write the address as a string")?;
        let address: IpAddr = text
            .parse()
            .map_err(|_| format!("{text:?} is no address"))?;
        if !subject.admits(address) {
            return Err(format!("{address} is of the other family"));
        }
        packet.set_address(field, Address::from(address));
        return Ok(());
    }
    let number = match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => number(field, text, environment),
        _ => None,
    };
    let number = number.ok_or_else(|| format!("{value} is no value of it"))?;
    if number > field.max() {
        return Err(format!("{number} exceeds {}", field.max()));
    }
    packet.set_number(field, number);
    Ok(())
}

fn number(field: Field, text: &str, environment: &Environment) -> Option<u64> {
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok();
    }
    match field {
        Field::EthSource | Field::EthDestination => {
            let MacAddress([a, b, c, d, e, f]) = text.parse().ok()?;
            Some(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
        }
        Field::Port => {
            let found = environment.endpoints.iter().find(|e| e.name == text)?;
            Some(found.number.into())
        }
        Field::Node => {
            let found = environment.nodes.iter().find(|n| n.name == text)?;
            Some(found.number.into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Packet, PacketError> {
        packet_of_json(
            &serde_json::from_str(text).unwrap(),
            &Environment::default(),
        )
    }

    #[test]
    fn members_are_fields_and_absent_ones_are_zero() {
        let text = r#"{"ethTyp":"0x800","ip4Src":"10.0.0.2","ip4Dst":"10.0.0.1","port":9,
            "ipProto":6,"dstPort":80,"ethDst":"02:00:00:00:00:01"}"#;
        let packet = parse(text).unwrap();
        assert_eq!((packet.port, packet.eth_dst), (9, 0x0200_0000_0001));
        assert_eq!(
            (packet.eth_type, packet.dst_port, packet.src_port),
            (0x800, 80, 0)
        );
    }

    #[test]
    fn a_value_that_a_field_cannot_have_is_refused_by_name() {
        for (text, word) in [
            (r#"{"dstPort":65536}"#, "dstPort"),
            (r#"{"dstport":1}"#, "dstport"),
            (r#"{"ip4Dst":"fd00::1"}"#, "family"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
