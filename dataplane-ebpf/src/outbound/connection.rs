//! Where both nodes decide: the state of the connection of a packet that leaves the cloud here, as its
//! sender knows it. What the endpoint's flow says there, the node's own tables say here.

use sunwire_dataplane_common::{flow::seen, flow_key::Connection};

use super::{fill, port::set_port, port_of, scratch};
use crate::{
    frame::{self, Skb},
    maps::{INSIDE, OUTSIDE},
    related,
};

/// The state of the connection that the packet at hand belongs to, which endpoint `local` sends by a
/// tunnel, a [`Connection`].
// A function of its own: networks that trust the entry node have no use for it.
#[inline(never)]
pub(crate) fn connection(skb: &mut Skb, network: u32, local: u32) -> u32 {
    let (Some(parsed), Some(scratch)) = (frame::parsed(), scratch()) else {
        return Connection::New as u32;
    };
    if related::is_error(&parsed.headers) {
        return match related::read_in_tunnel(skb) && port_of(network, local) != 0 {
            true => Connection::Related as u32,
            false => Connection::New as u32,
        };
    }
    fill(&parsed.headers, scratch, network, local);
    // SAFETY: values are plain numbers, replaced whole.
    let Some(port) = (unsafe { INSIDE.get(&scratch.inside) }) else {
        return Connection::New as u32;
    };
    set_port(scratch, *port as u16);
    let Some(known) = OUTSIDE.get_ptr(&scratch.outside) else {
        return Connection::New as u32;
    };
    // SAFETY: as in `outbound_port`.
    let known = unsafe { &*known };
    // Asked both ways: the answer may not have arrived where the endpoint is.
    match known.is_of(&scratch.mapping) && known.received & seen::PACKET != 0 {
        true => Connection::Established as u32,
        false => Connection::New as u32,
    }
}
