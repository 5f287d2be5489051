//! From the underlay into the switch: check who sent it, then deliver or forward.

use aya_ebpf::bindings::__sk_buff;
use sunwire_dataplane_common::{
    address::Address,
    bytes::Window,
    drop_reason::DropReason,
    entries::{AddressKey, LocationEntry, direction, location, peer},
    flow::{Direction, has_flow},
    headers::{ETHER_IPV4, ETHERNET_BYTES, Fragment, Headers, PROTOCOL_UDP},
    probe as probes,
    vxlan::{self, IPV4_OFFSET, MAX_HOPS, OUTER_BYTES, UDP_OFFSET, VXLAN_OFFSET, Vxlan},
    wire::WireHeader,
};

use crate::{
    Handled, counters, deliver, flow, fragment,
    frame::{self, Skb, note},
    group,
    maps::{CONTROL, ENCRYPTED_PEERS, NETWORKS, PEER_ADDRESSES, PEERS},
    probe, routes, tunnel, wire,
};

/// A packet that the kernel's WireGuard has decrypted, with an Ethernet header that says nothing.
#[inline(always)]
pub(crate) fn decrypted(skb: &mut Skb) -> Result<Handled, DropReason> {
    receive::<true>(skb)
}

/// A packet that comes in on the underlay device, or from the process that encrypts.
#[inline(always)]
pub(crate) fn ingress(skb: &mut Skb) -> Result<Handled, DropReason> {
    receive::<false>(skb)
}

/// `BY_KERNEL`: the kernel's WireGuard has decrypted it. The source is then the address of a node's
/// key ([`vxlan::node_of`]), which the kernel has proved, and so is the destination.
#[inline(always)]
fn receive<const BY_KERNEL: bool>(skb: &mut Skb) -> Result<Handled, DropReason> {
    if skb.protocol() != ETHER_IPV4 {
        return Ok(Handled::Pass);
    }
    skb.ensure_headers(0);
    let Some(ip) = skb.window::<20>(IPV4_OFFSET) else {
        return Ok(Handled::Pass);
    };
    let control = CONTROL.get(0).ok_or(DropReason::BadTables)?;
    let mut source = ip.word::<12>();
    // A tunnelled packet of ours never has IPv4 options; one that has is the stack's to refuse.
    if ip.byte::<0>() != 0x45
        || ip.byte::<9>() != PROTOCOL_UDP
        || (!BY_KERNEL && ip.word::<16>() != control.vtep.0[0])
    {
        return Ok(Handled::Pass);
    }
    // Of a fragmented datagram only the first fragment has a port: the stack takes them all, and
    // the idle tunnel device behind it drops them.
    if u16::from_be(ip.half::<6>()) & 0x3fff != 0 {
        return Ok(Handled::Pass);
    }
    let Some(udp) = skb.window::<8>(UDP_OFFSET) else {
        return Ok(Handled::Pass);
    };
    if u16::from_be(udp.half::<2>()) != vxlan::PORT {
        return Ok(Handled::Pass);
    }
    if BY_KERNEL {
        let node = ENCRYPTED_PEERS.get(vxlan::node_of(source));
        source = node.ok_or(DropReason::UnknownPeer)?.address;
    }
    skb.ensure_headers(OUTER_BYTES);
    let wire = skb.window::<8>(VXLAN_OFFSET).and_then(WireHeader::parse);
    if wire.is_some() {
        let plain = !BY_KERNEL && !tunnel::was_encrypted(skb, control);
        return wire::receive(skb, source, plain);
    }
    let header = skb.window::<8>(VXLAN_OFFSET).and_then(Vxlan::parse);
    let header = header.ok_or(DropReason::BadTunnel)?;
    skb.set_note::<{ note::NETWORK }>(header.vni);
    if header.vni == probes::NETWORK {
        return probe::receive(skb, source, BY_KERNEL);
    }

    if parse_inner(skb.raw()) == 0 {
        return Err(DropReason::Malformed);
    }
    let inner = frame::parsed().ok_or(DropReason::BadTables)?;
    if inner.fragment != Fragment::Whole {
        // Without its first part it belongs to no flow, and is still delivered to whom it is for.
        let _ = fragment::find_ports(skb, inner, header.vni);
    }
    let plain = !BY_KERNEL && !tunnel::was_encrypted(skb, control);
    if inner.headers.eth_dst.is_group() {
        return group::receive(skb, &inner.headers, header, source, plain);
    }
    let known = known(skb, &inner.headers, header, source, plain);
    let (from, to) = match &known {
        Some(flow) => (flow.remote, flow.local),
        None => {
            let found = identify(&inner.headers, header.vni, header.hops, source, plain);
            let (from, to) = (found as u32, (found >> 32) as u32);
            if to == 0 {
                if from == UNDECIDED {
                    count_received(skb, source);
                    return Ok(Handled::Pass);
                }
                return Err(unidentified(from));
            }
            count_received(skb, source);
            (from, to)
        }
    };
    skb.set_note::<{ note::DESTINATION }>(to);
    let location = deliver::location(to, header.vni).ok_or(DropReason::NotHere)?;
    if plain && tunnel::is_encrypted(location) {
        return Err(DropReason::Unencrypted);
    }
    if location.ifindex != 0 {
        let bytes = skb.len() - (OUTER_BYTES + ETHERNET_BYTES) as u32;
        if skb.gso_size() == 0 && bytes > location.mtu {
            // redirect_peer would drop it without a word.
            return Err(DropReason::TooBig);
        }
        let told = tunnel::decapsulate(skb, inner.headers.family)?;
        match known {
            Some(flow) => deliver::receive_in(skb, inner, header.vni, flow)?,
            None => deliver::receive(skb, inner, header.vni, to, from)?,
        }
        return Ok(Handled::Redirect(deliver::to_device(skb, told, location)));
    }
    let node = next_home(location, control.node, header.hops)?;
    if header.hops >= MAX_HOPS {
        return Err(DropReason::HopLimit);
    }
    let by_process = !plain && !BY_KERNEL;
    send_on(skb, location, node, by_process).map(Handled::Redirect)
}

/// Reads the inner headers into the memory of this CPU for them; tells whether they are well-formed.
///
/// A global function, which the verifier looks at once, and not anew for every way that leads here.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn parse_inner(context: *mut __sk_buff) -> u32 {
    let skb = Skb::from_raw(context, false);
    let Some(inner) = frame::parsed() else {
        return 0;
    };
    let Ok(parsed) = Headers::parse(&skb.view(OUTER_BYTES)) else {
        return 0;
    };
    *inner = parsed;
    1
}

/// Sends a packet on to a node that its destination has moved to. Its headers were checked.
/// `by_process`: it came from the process that encrypts.
// A function of its own: what it needs of the stack the way of most packets has when it is over.
#[inline(never)]
fn send_on(
    skb: &mut Skb,
    location: &LocationEntry,
    node: u32,
    by_process: bool,
) -> Result<i32, DropReason> {
    let header = skb.window::<8>(VXLAN_OFFSET).and_then(Vxlan::parse);
    let header = header.ok_or(DropReason::BadTunnel)?;
    let header = Vxlan {
        hops: header.hops + 1,
        ..header
    };
    if skb.gso_size() != 0 && by_process {
        // What came whole out of the process that encrypts is not marked as being within one: it is
        // wrapped anew, for the way that it goes on.
        let inner = frame::parsed().ok_or(DropReason::BadTables)?;
        let port = tunnel::source_port(skb);
        tunnel::decapsulate(skb, inner.headers.family)?;
        return tunnel::encapsulate(skb, node, header, location, port);
    }
    tunnel::forward(skb, node, header, location)
}

/// The flow of a packet, if what an earlier one has shown of who sends to whom still holds: the
/// source lives at the node that the packet comes from, and the destination here.
#[inline(always)]
fn known(
    skb: &Skb,
    inner: &Headers,
    header: Vxlan,
    address: u32,
    plain: bool,
) -> Option<flow::Entry> {
    if !has_flow(inner) || header.hops != 0 {
        return None;
    }
    let flow = flow::find(header.vni, inner, Direction::Received)?;
    let from = deliver::location(flow.remote, header.vni)?;
    let peer = PEERS.get(from.node)?;
    let to = deliver::location(flow.local, header.vni)?;
    let holds = peer.address == address
        && !(plain && peer.flags & peer::ENCRYPTED != 0)
        && from.mac == inner.eth_src
        && to.ifindex != 0
        && to.mac == inner.eth_dst;
    if !holds {
        return None;
    }
    counters::tunnelled(skb, from.node, direction::RECEIVED);
    Some(flow)
}

/// Counts a packet of a node by its address. A function of its own, for the key's sake.
#[inline(never)]
pub(crate) fn count_received(skb: &Skb, address: u32) {
    // SAFETY: values are plain numbers, replaced whole.
    if let Some(node) = unsafe { PEER_ADDRESSES.get(Address([address, 0, 0, 0])) } {
        counters::tunnelled(skb, *node, direction::RECEIVED);
    }
}

/// In place of a drop reason: nobody has decided about the packet yet. The device that holds the port
/// takes it out of its tunnel, and `foreign` asks the policy.
const UNDECIDED: u32 = u32::MAX;

/// Finds out who sends to whom: their numbers, the destination's in the upper half. With an upper
/// half of zero, the lower one is the number of a drop reason.
#[inline(never)]
fn identify(inner: &Headers, vni: u32, hops: u8, address: u32, plain: bool) -> u64 {
    let found = peer(address, plain)
        .and_then(|peer| look_up(inner, vni, hops, peer).map_err(|reason| reason as u32));
    match found {
        Ok((from, to)) => u64::from(to) << 32 | u64::from(from),
        Err(code) => u64::from(code),
    }
}

/// The number of the node that a packet comes from, or the number of a drop reason, or [`UNDECIDED`].
#[inline(always)]
fn peer(address: u32, plain: bool) -> Result<u32, u32> {
    let address = Address([address, 0, 0, 0]);
    // SAFETY: values are plain numbers, replaced whole.
    let Some(peer) = (unsafe { PEER_ADDRESSES.get(address) }).copied() else {
        return Err(DropReason::UnknownPeer as u32);
    };
    let flags = tunnel::peer_flags(peer);
    if plain && flags & peer::ENCRYPTED != 0 {
        return Err(DropReason::Unencrypted as u32);
    }
    if flags & peer::FOREIGN != 0 {
        return Err(UNDECIDED);
    }
    Ok(peer)
}

/// The reasons that [`identify`] gives.
#[inline(always)]
fn unidentified(code: u32) -> DropReason {
    match code {
        code if code == DropReason::UnknownPeer as u32 => DropReason::UnknownPeer,
        code if code == DropReason::Unencrypted as u32 => DropReason::Unencrypted,
        code if code == DropReason::UnknownNetwork as u32 => DropReason::UnknownNetwork,
        code if code == DropReason::NotHere as u32 => DropReason::NotHere,
        _ => DropReason::SourceNotThere,
    }
}

#[inline(always)]
fn look_up(inner: &Headers, vni: u32, hops: u8, peer: u32) -> Result<(u32, u32), DropReason> {
    // SAFETY: a network is replaced whole and freed only after a grace period.
    unsafe { NETWORKS.get(vni) }.ok_or(DropReason::UnknownNetwork)?;
    // The entry node decided and put the destination's MAC address; deliver to whom it says, even
    // where a policy sends a packet to another endpoint than the owner of its address.
    let to = deliver::owner(&AddressKey::mac(vni, inner.eth_dst)).ok_or(DropReason::NotHere)?;
    let location = deliver::location(to, vni).ok_or(DropReason::NotHere)?;
    let from = match source(inner, vni) {
        Some(from) => from,
        // It has crossed: the gateway is who sends it, and its address is a peer's endpoint's.
        None => routes::sender(inner, vni),
    };
    // The inner source lives at the peer (or is moving to or from it), or the peer forwards for a
    // destination that lived there.
    let lives_there = routes::location(from).is_some_and(|source| {
        lives_at(source, peer) || source.network == vni && is_foreign(source)
    });
    if lives_there || (hops > 0 && lives_at(location, peer)) {
        Ok((from, to))
    } else {
        Err(DropReason::SourceNotThere)
    }
}

/// Number of the endpoint that sent a packet for several, which has to live at the node that the
/// packet comes from, or to be moving to or from it. `None`: nobody has decided about it yet.
#[inline(always)]
pub(crate) fn sender(
    inner: &Headers,
    vni: u32,
    address: u32,
    plain: bool,
) -> Result<Option<u32>, DropReason> {
    match find_sender(inner, vni, address, plain) {
        found if found >> 32 != 0 => Ok(Some(found as u32)),
        code if code as u32 == UNDECIDED => Ok(None),
        code => Err(unidentified(code as u32)),
    }
}

/// As [`identify`]: a number in the lower half, and whether it is the sender's in the upper one.
#[inline(never)]
fn find_sender(inner: &Headers, vni: u32, address: u32, plain: bool) -> u64 {
    let found = peer(address, plain)
        .and_then(|peer| look_up_sender(inner, vni, peer, plain).map_err(|reason| reason as u32));
    match found {
        Ok(from) => 1 << 32 | u64::from(from),
        Err(code) => u64::from(code),
    }
}

#[inline(always)]
fn look_up_sender(inner: &Headers, vni: u32, peer: u32, plain: bool) -> Result<u32, DropReason> {
    // SAFETY: a network is replaced whole and freed only after a grace period.
    unsafe { NETWORKS.get(vni) }.ok_or(DropReason::UnknownNetwork)?;
    let from = source(inner, vni).ok_or(DropReason::SourceNotThere)?;
    let location = deliver::location(from, vni).ok_or(DropReason::SourceNotThere)?;
    let comes_from = lives_at(location, peer) || is_foreign(location) || is_relayed(location, peer);
    if !comes_from {
        return Err(DropReason::SourceNotThere);
    }
    if plain && tunnel::is_encrypted(location) {
        return Err(DropReason::Unencrypted);
    }
    Ok(from)
}

/// Whether what an endpoint of another region sent to several may come from this node: one of this
/// region, which sends it on.
#[inline(always)]
fn is_relayed(source: &LocationEntry, peer: u32) -> bool {
    source.flags & location::RELAYED != 0 && tunnel::is_near(peer) && !tunnel::is_near(source.node)
}

/// Whether a node is another region's.
#[inline(always)]
pub(crate) fn is_far(address: u32) -> bool {
    let address = Address([address, 0, 0, 0]);
    // SAFETY: values are plain numbers, replaced whole.
    unsafe { PEER_ADDRESSES.get(address) }.is_some_and(|peer| !tunnel::is_near(*peer))
}

/// Number of the endpoint that sent a packet.
#[inline(always)]
fn source(inner: &Headers, vni: u32) -> Option<u32> {
    let owner =
        deliver::by_address(inner.family, inner.src, vni).and_then(|key| deliver::owner(&key));
    match owner {
        Some(number) => Some(number),
        // A policy may rewrite the source address to one that nobody owns; the MAC address is left.
        None => deliver::owner(&AddressKey::mac(vni, inner.eth_src)),
    }
}

#[inline(always)]
pub(crate) fn lives_at(location: &LocationEntry, node: u32) -> bool {
    location.node == node || location.other == node
}

/// What an endpoint at a node without an agent sends enters by whichever node of ours it was sent to.
#[inline(always)]
fn is_foreign(location: &LocationEntry) -> bool {
    location.flags & location::FOREIGN != 0
}

/// Where a packet goes on to whose destination has no device here.
#[inline(always)]
pub(crate) fn next_home(
    location: &LocationEntry,
    own_node: u32,
    hops: u8,
) -> Result<u32, DropReason> {
    if location.node == own_node {
        // Released here, on its way to the other node.
        return if location.other != 0 {
            Ok(location.other)
        } else {
            Err(DropReason::NotAttached)
        };
    }
    if location.other != own_node {
        return Err(DropReason::NotHere);
    }
    if hops > 0 {
        // The node it leaves has sent this here already, and the device has not arrived yet.
        return Err(DropReason::InTransit);
    }
    Ok(location.node)
}
