//! One packet of a set: as plain as possible, and as the network would carry it.

use super::traffic::hosts;
use super::translate::Translation;
use crate::address::Address;
use crate::environment::{Endpoint, Environment};
use crate::field::Field;
use crate::packet::Packet;
use crate::verify::cubes::Cube;
use crate::verify::options::Limit;
use crate::verify::program::{FieldId, Kind, NodeId, Value};
use crate::verify::set::Set;
use crate::verify::symbolic::Symbolic;

/// What a packet that is shown should be, in the order of importance.
pub(crate) fn preferences(to: &mut Translation, environment: &Environment) -> Vec<NodeId> {
    let addresses = environment.endpoints.iter().flat_map(|e| &e.addresses);
    let owned = hosts(addresses.copied());
    vec![
        to.address(Field::Source, &owned),
        to.address(Field::Destination, &owned),
        to.number(Field::Protocol, &[(6, 6), (17, 17)]),
        to.equals(Field::Protocol, 6),
        to.kind(Field::Source, Kind::V4),
        to.equals(Field::Connection, 0),
        // Clients send from an ephemeral port (RFC 6056).
        to.equals(Field::SourcePort, 49_152),
        to.equals(Field::Dscp, 0),
    ]
}

/// A packet of a set that is not empty, with the place where it enters and MAC addresses that fit
/// its addresses where the set leaves them open.
pub(crate) fn packet(
    to: &Translation,
    environment: &Environment,
    preferred: &[NodeId],
    engine: &mut Symbolic<'_>,
    set: Set,
) -> Packet {
    let set = narrowed(preferred, engine, set).unwrap_or(set);
    let cube = engine.cubes(set).next();
    let cube = cube.unwrap_or(Cube { fields: Vec::new() });
    let mut packet = to.packet(&values(&cube));
    let open = |field: Field| {
        let id = to.field(field);
        !cube.fields.iter().any(|(named, _)| *named == id)
    };
    let allowed = |field: Field, value: u64| {
        let id = to.field(field);
        let value = Value::number(value);
        cube.fields
            .iter()
            .filter(|(named, _)| *named == id)
            .all(|(_, ranges)| ranges.iter().any(|(a, b)| (*a..=*b).contains(&value)))
    };
    let at = environment
        .endpoints
        .iter()
        .find(|e| e.number == packet.port);
    if let Some(sender) = owner(environment, packet.src).or(at) {
        if allowed(Field::Port, sender.number.into()) {
            packet.port = sender.number;
        }
        if open(Field::EthSource) {
            packet.eth_src = sender.mac_number();
        }
    }
    if let Some(receiver) = owner(environment, packet.dst)
        && open(Field::EthDestination)
    {
        packet.eth_dst = receiver.mac_number();
    }
    packet
}

/// The endpoint that has an address.
fn owner(environment: &Environment, address: Address) -> Option<&Endpoint> {
    environment.endpoints.iter().find(|endpoint| {
        let mut own = endpoint.addresses.iter();
        own.any(|own| Address::from(*own) == address)
    })
}

/// The part of a set with the packets that people know best.
fn narrowed(preferred: &[NodeId], engine: &mut Symbolic<'_>, mut set: Set) -> Result<Set, Limit> {
    for node in preferred {
        let wanted = engine.set_of(*node)?;
        let narrower = engine.diagrams.sets.intersection(set, wanted)?;
        if !narrower.is_empty() {
            set = narrower;
        }
    }
    Ok(set)
}

/// One value for each field that a product names: the smallest.
fn values(cube: &Cube) -> Vec<(FieldId, Value)> {
    let fields = cube.fields.iter();
    fields
        .filter_map(|(field, ranges)| Some((*field, ranges.first()?.0)))
        .collect()
}
