//! From a node without an agent into the switch: a plain VXLAN peer, about whose packets nobody has
//! decided yet.
//!
//! ```text
//! underlay_ingress: the peer has no agent -> pass
//!     kernel: the device that holds the tunnel's port takes the packet out, and keeps from where
//! foreign_ingress: the peer -> who sends, by MAC address -> as if its device were here
//!                  answers (ARP, ND, too big) go out of the same device, into the tunnel back
//! ```
//!
//! The kernel's own VXLAN checks outer checksums and puts fragments together, which such peers may
//! send. What is decided is remembered as the sender's flow on this node. What was delivered to it
//! nobody here has seen: that a local endpoint has sent to it stands in for that.

use sunwire_dataplane_common::{
    address::Mac,
    bytes::Window,
    drop_reason::DropReason,
    entries::{AddressKey, Control, EndpointEntry, network as network_flags, peer},
    flow::{Direction, has_flow, seen},
    headers::Headers,
};

use crate::{
    Handled, deliver,
    endpoint::{self, COPY_MARK, COPY_MARK_MASK},
    flow,
    frame::{Skb, note},
    maps::{CONTROL, FOREIGN_ENDPOINTS, NETWORKS, PEER_ADDRESSES, PLAIN_PEERS},
    tunnel,
};

/// A packet that the device in external mode has taken out of its tunnel. `noted` is the network that
/// was noted in it: a copy that enters again has left its tunnel's data behind, and kept the notes.
#[inline(always)]
pub(crate) fn ingress(skb: &mut Skb, noted: u32) -> Result<Handled, DropReason> {
    let control = CONTROL.get(0).ok_or(DropReason::BadTables)?;
    skb.ensure_headers(0);
    skb.set_priority(0);
    sender(skb, control, noted)?;
    let number = skb.priority();
    if number == 0 {
        return Ok(Handled::Pass);
    }
    // SAFETY: an entry is replaced whole and freed only after a grace period.
    let endpoint = unsafe { FOREIGN_ENDPOINTS.get(number) }.ok_or(DropReason::SourceNotThere)?;
    skb.set_note::<{ note::NETWORK }>(endpoint.network);
    endpoint::enter(skb, endpoint, control, |headers| infer(headers, endpoint))
}

/// Finds the endpoint that sent a packet; its number is the packet's priority from here on. None when
/// it came from no node without an agent: the device may have other users, and the kernel puts
/// fragments of any node together.
///
/// Whatever is answered goes back to where the packet came from.
// A function of its own: what tells of a tunnel is large.
#[inline(never)]
fn sender(skb: &mut Skb, control: &Control, noted: u32) -> Result<(), DropReason> {
    if skb.mark() & COPY_MARK_MASK == COPY_MARK {
        skb.set_priority(number(skb, noted)?);
        return Ok(());
    }
    let Some((vni, source)) = skb.came_by_tunnel() else {
        return Ok(());
    };
    skb.set_note::<{ note::NETWORK }>(vni);
    // SAFETY: values are plain numbers, replaced whole.
    let Some(node) = (unsafe { PEER_ADDRESSES.get(source) }).copied() else {
        return Ok(());
    };
    let flags = tunnel::peer_flags(node);
    if flags & peer::FOREIGN == 0 {
        return Ok(());
    }
    if tunnel::must_be_encrypted(flags, vni) {
        return Err(DropReason::Unencrypted);
    }
    // SAFETY: a network is replaced whole and freed only after a grace period.
    let network = unsafe { NETWORKS.get(vni) }.ok_or(DropReason::UnknownNetwork)?;
    let summed = network.flags & network_flags::CHECKSUM != 0;
    let number = number(skb, vni)?;
    let location = deliver::location(number, vni).ok_or(DropReason::SourceNotThere)?;
    if location.node != node {
        return Err(DropReason::SourceNotThere);
    }
    skb.set_priority(number);
    // Of the ways to the node, the one in the clear: no other is believed of one without an agent.
    let is_v6 = PLAIN_PEERS
        .get(node)
        .is_some_and(|peer| peer.flags & peer::OVER_IPV6 != 0);
    let own = if is_v6 {
        &control.vtep_v6
    } else {
        &control.vtep
    };
    skb.set_tunnel(vni, is_v6, summed, own, &source)
}

/// The number of the endpoint with the packet's source MAC address.
#[inline(always)]
fn number(skb: &Skb, vni: u32) -> Result<u32, DropReason> {
    let ethernet = skb.window::<12>(0).ok_or(DropReason::Malformed)?;
    let mac = Mac {
        first: ethernet.word::<6>(),
        last: ethernet.half::<10>(),
        padding: 0,
    };
    deliver::owner(&AddressKey::mac(vni, mac)).ok_or(DropReason::SourceNotThere)
}

/// Notes in the sender's flow that packets of the local endpoint reached it: that endpoint has sent
/// them.
#[inline(never)]
fn infer(headers: &Headers, endpoint: &EndpointEntry) {
    if !has_flow(headers) {
        return;
    }
    let network = endpoint.network;
    let Some(theirs) = flow::find(network, headers, Direction::Received) else {
        return;
    };
    // An alias is there because of what the endpoint has sent.
    let received = if theirs.is_alias() {
        seen::PACKET
    } else {
        theirs.sent
    };
    match flow::find(network, headers, Direction::Sent) {
        Some(own) if own.local == endpoint.number => {
            if own.received != received {
                own.received = received;
            }
        }
        Some(_) => {}
        None if received != 0 => {
            let Some(own) = flow::scratch() else {
                return;
            };
            own.generation = 0;
            own.local = endpoint.number;
            own.remote = 0;
            own.seen = flow::now();
            own.tag = 0;
            own.sent = 0;
            own.received = received;
            flow::remember(network, headers, Direction::Sent);
        }
        None => {}
    }
}
