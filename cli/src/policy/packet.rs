//! Packets as JSON objects by field name; absent fields read as zero.

use serde_json::{Map, Value};
use sunwire_api::MacAddress;
use sunwire_controller::packet_of_json;
use sunwire_policy::address::Address;
use sunwire_policy::environment::Environment;
use sunwire_policy::field::{Field, Subject};
use sunwire_policy::packet::Packet;

use crate::exit::Usage;

/// Reads a packet.
pub(super) fn parse(text: &str, environment: &Environment) -> Result<Packet, Usage> {
    packet_of_json(&object_of(text)?, environment)
        .map_err(|error| Usage(format!("--packet: {error}")))
}

/// Reads the JSON object that a packet is written as.
pub(super) fn object_of(text: &str) -> Result<Map<String, Value>, Usage> {
    serde_json::from_str(text)
        .map_err(|error| Usage(format!("--packet is no JSON object: {error}")))
}

/// Writes a packet; `owner` in place of an endpoint's number says that its destination's owner is
/// meant and not known.
pub(super) fn object(packet: &Packet, to_unknown_owner: bool) -> Value {
    let mut object = Map::new();
    for field in Field::ALL {
        let (name, value) = match field {
            Field::Source | Field::Destination => match packet.address(field) {
                Address::None => continue,
                Address::V4(v4) => (Subject::Ip4(field).name(), v4.to_string().into()),
                Address::V6(v6) => (Subject::Ip6(field).name(), v6.to_string().into()),
            },
            Field::Port if to_unknown_owner => (field.name(), "owner".into()),
            Field::EthSource | Field::EthDestination => {
                let [_, _, bytes @ ..] = packet.number(field).to_be_bytes();
                (field.name(), MacAddress(bytes).to_string().into())
            }
            _ => (field.name(), packet.number(field).into()),
        };
        let is_zero = match field {
            Field::Source | Field::Destination => false,
            Field::Port if to_unknown_owner => false,
            _ => packet.number(field) == 0,
        };
        if !is_zero {
            object.insert(name.to_owned(), value);
        }
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_as_the_same_packet() {
        let text = r#"{"ethTyp":"0x800","ip4Src":"10.0.0.2","ip4Dst":"10.0.0.1","port":9,
            "ipProto":6,"dstPort":80,"ethDst":"02:00:00:00:00:01"}"#;
        let environment = Environment::default();
        let packet = parse(text, &environment).unwrap();
        assert_eq!((packet.port, packet.eth_dst), (9, 0x0200_0000_0001));
        let written = object(&packet, false).to_string();
        assert_eq!(parse(&written, &environment).unwrap(), packet);
        assert!(
            !written.contains("vlanId"),
            "zero fields are absent: {written}"
        );
    }

    #[test]
    fn a_value_that_a_field_cannot_have_is_refused_by_name() {
        for (text, word) in [
            (r#"{"dstPort":65536}"#, "dstPort"),
            (r#"{"dstport":1}"#, "dstport"),
            (r#"{"ip4Dst":"fd00::1"}"#, "family"),
            ("[]", "object"),
        ] {
            let error = parse(text, &Environment::default())
                .unwrap_err()
                .to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
