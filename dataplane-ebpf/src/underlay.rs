//! From the underlay into the switch: check who sent it, then deliver or forward.

use aya_ebpf::bindings::__sk_buff;
use sunwire_dataplane_common::{
    address::Address,
    bytes::Window,
    drop_reason::DropReason,
    entries::{AddressKey, Control, LocationEntry, direction, location, peer},
    flow::{Direction, has_flow},
    headers::{ETHERNET_BYTES, Fragment, Headers, PROTOCOL_UDP},
    outbound::{EGRESS, is_egress, node_of},
    probe as probes,
    vxlan::{
        self, IPV4_OFFSET, IPV6_OFFSET, MAX_HOPS, OUTER_BYTES, OUTER_BYTES_V6, UDP_OFFSET,
        UDP_OFFSET_V6, Vxlan,
    },
    wire::WireHeader,
};

use crate::{
    Handled, counters, deliver, enforce, flow, fragment,
    frame::{self, Skb, note},
    group,
    maps::{CONTROL, ENCRYPTED_PEERS, NETWORKS, PEER_ADDRESSES, PEERS, PEERS_V6},
    outbound, probe, routes,
    tunnel::{self, outer_bytes, vxlan_offset},
    wire,
};

/// A packet that the kernel's WireGuard has decrypted, with an Ethernet header that says nothing.
#[inline(always)]
pub(crate) fn decrypted(skb: &mut Skb) -> Result<Handled, DropReason> {
    receive::<true, false>(skb)
}

/// A packet that comes in on the underlay device, over IPv6 or over IPv4, or from the process that
/// encrypts.
#[inline(always)]
pub(crate) fn ingress<const V6: bool>(skb: &mut Skb) -> Result<Handled, DropReason> {
    match receive::<false, V6>(skb) {
        Ok(Handled::Pass) => outbound::come_back::<V6>(skb),
        outcome => outcome,
    }
}

/// `BY_KERNEL`: the kernel's WireGuard has decrypted it. The source is then the address of a node's
/// key ([`vxlan::node_of`]), which the kernel has proved, and so is the destination.
#[inline(always)]
fn receive<const BY_KERNEL: bool, const V6: bool>(skb: &mut Skb) -> Result<Handled, DropReason> {
    skb.ensure_headers(0);
    let control = CONTROL.get(0).ok_or(DropReason::BadTables)?;
    let plain = !BY_KERNEL && !tunnel::was_encrypted(skb, control);
    let is_ours = if V6 {
        is_tunnelled_v6(skb, control)
    } else {
        is_tunnelled::<BY_KERNEL>(skb, control, plain)
    };
    if !is_ours {
        return Ok(Handled::Pass);
    }
    if BY_KERNEL {
        name_source(skb)?;
    }
    skb.ensure_headers(outer_bytes(V6));
    let wire = skb.window::<8>(vxlan_offset(V6));
    if wire.and_then(WireHeader::parse).is_some() {
        return wire::receive::<V6>(skb, plain);
    }
    let header = skb.window::<8>(vxlan_offset(V6)).and_then(Vxlan::parse);
    let header = header.ok_or(DropReason::BadTunnel)?;
    skb.set_note::<{ note::NETWORK }>(header.vni);
    if header.vni == probes::NETWORK {
        return probe::receive::<V6>(skb, plain);
    }

    let is_parsed = if V6 {
        parse_inner_v6(skb.raw())
    } else {
        parse_inner(skb.raw())
    };
    if is_parsed == 0 {
        return Err(DropReason::Malformed);
    }
    let inner = frame::parsed().ok_or(DropReason::BadTables)?;
    if inner.fragment != Fragment::Whole {
        // Without its first part it belongs to no flow, and is still delivered to whom it is for.
        let _ = fragment::find_ports(skb, inner, header.vni);
    }
    if inner.headers.eth_dst.is_group() {
        return group::receive::<V6>(skb, &inner.headers, header, plain);
    }
    let known = known::<V6>(skb, &inner.headers, header, plain);
    let (from, to) = match &known {
        Some(flow) => (flow.remote, flow.local),
        None => {
            let (vni, hops) = (header.vni, u32::from(header.hops));
            let found = if V6 {
                identify_v6(skb.raw(), vni, hops, u32::from(plain))
            } else {
                identify(skb.raw(), vni, hops, u32::from(plain))
            };
            let (from, to) = (found as u32, (found >> 32) as u32);
            if to == 0 {
                if from == UNDECIDED {
                    count_received::<V6>(skb);
                    return Ok(Handled::Pass);
                }
                return Err(unidentified(from));
            }
            count_received::<V6>(skb);
            (from, to)
        }
    };
    skb.set_note::<{ note::DESTINATION }>(to);
    if is_egress(to) {
        // It is for this node: where both decide, this one does, too.
        if deliver::location(from, header.vni).is_some_and(enforce::is_on) {
            enforce::check(skb, None, header.vni, from, to)?;
        }
        return outbound::pass_on::<V6>(skb, header.vni, (from, to), plain);
    }
    let location = deliver::location(to, header.vni).ok_or(DropReason::NotHere)?;
    if plain && tunnel::is_encrypted(location) {
        return Err(DropReason::Unencrypted);
    }
    if location.ifindex != 0 {
        let bytes = skb.len() - (outer_bytes(V6) + ETHERNET_BYTES) as u32;
        if skb.gso_size() == 0 && bytes > location.mtu {
            // redirect_peer would drop it without a word.
            return Err(DropReason::TooBig);
        }
        let mut admitted = 0;
        // Who is outside has no policy: that the endpoint has asked is what lets it in.
        if enforce::is_on(location) && !is_egress(from) {
            admitted = enforce::check(skb, known.as_deref(), header.vni, from, to)?;
        }
        let told = tunnel::decapsulate::<V6>(skb, inner.headers.family)?;
        match known {
            Some(flow) => deliver::receive_in(skb, inner, header.vni, flow)?,
            None => deliver::receive(skb, inner, header.vni, to, from)?,
        }
        if admitted != 0 {
            enforce::remember(skb, header.vni, to, admitted);
        }
        return Ok(Handled::Redirect(deliver::to_device(skb, told, location)));
    }
    let node = next_home(location, control.node, header.hops)?;
    if header.hops >= MAX_HOPS {
        return Err(DropReason::HopLimit);
    }
    let by_process = !plain && !BY_KERNEL;
    send_on::<V6>(skb, location, node, by_process).map(Handled::Redirect)
}

/// Writes what the node is called whose key's address is the source in place of that: from here on the
/// packet is like any that came out of an encrypted tunnel.
#[inline(always)]
fn name_source(skb: &mut Skb) -> Result<(), DropReason> {
    let source = skb.window::<4>(IPV4_OFFSET + 12);
    let source = source.ok_or(DropReason::Malformed)?.word::<0>();
    let node = ENCRYPTED_PEERS.get(vxlan::node_of(source));
    let called = node.ok_or(DropReason::UnknownPeer)?.address;
    let mut source = skb.window_mut::<4>(IPV4_OFFSET + 12)?;
    source.set_word::<0>(called);
    Ok(())
}

/// Whether a packet over IPv4 is one of a tunnel to this node. What is not is the stack's.
#[inline(always)]
fn is_tunnelled<const BY_KERNEL: bool>(skb: &Skb, control: &Control, plain: bool) -> bool {
    let Some(ip) = skb.window::<20>(IPV4_OFFSET) else {
        return false;
    };
    // A tunnelled packet of ours never has IPv4 options; one that has is the stack's to refuse. So is
    // one from nowhere, which is what entries without an address have, and outside of an encrypted
    // tunnel one from the reserved range, where nodes without an IPv4 address are called so.
    if ip.byte::<0>() != 0x45
        || ip.byte::<9>() != PROTOCOL_UDP
        || (!BY_KERNEL && ip.word::<16>() != control.vtep.0[0])
        || ip.word::<12>() == 0
        || (plain && ip.byte::<12>() >= 0xf0)
    {
        return false;
    }
    // Of a fragmented datagram only the first fragment has a port: the stack takes them all, and
    // the idle tunnel device behind it drops them.
    if u16::from_be(ip.half::<6>()) & 0x3fff != 0 {
        return false;
    }
    let udp = skb.window::<8>(UDP_OFFSET);
    udp.is_some_and(|udp| is_port(udp.half::<2>(), control))
}

/// The same of a packet over IPv6. One with extension headers, a fragment too, is the stack's.
#[inline(always)]
fn is_tunnelled_v6(skb: &Skb, control: &Control) -> bool {
    let Some(ip) = skb.window::<40>(IPV6_OFFSET) else {
        return false;
    };
    let vtep = &control.vtep_v6.0;
    if ip.byte::<0>() >> 4 != 6
        || ip.byte::<6>() != PROTOCOL_UDP
        || ip.word::<24>() != vtep[0]
        || ip.word::<28>() != vtep[1]
        || ip.word::<32>() != vtep[2]
        || ip.word::<36>() != vtep[3]
        || ip.word::<8>() | ip.word::<12>() | ip.word::<16>() | ip.word::<20>() == 0
    {
        return false;
    }
    let udp = skb.window::<8>(UDP_OFFSET_V6);
    udp.is_some_and(|udp| is_port(udp.half::<2>(), control))
}

/// Whether tunnels are received on a UDP port, in network order.
#[inline(always)]
fn is_port(port: u16, control: &Control) -> bool {
    if port == vxlan::PORT.to_be() {
        return true;
    }
    let [a, b, c, d, e, f, g, h] = control.ports;
    let is_other = (port == a)
        | (port == b)
        | (port == c)
        | (port == d)
        | (port == e)
        | (port == f)
        | (port == g)
        | (port == h);
    is_other & (port != 0)
}

/// The underlay address that a packet comes from; it was found to be a tunnel's.
#[inline(always)]
pub(crate) fn outer_source<const V6: bool>(skb: &Skb) -> Address {
    // Word by word: the kernel's pointers into the packet do not outlive a loop over bytes.
    let (mut a, mut b, mut c, mut d) = (0, 0, 0, 0);
    if V6 {
        if let Some(ip) = skb.window::<16>(IPV6_OFFSET + 8) {
            (a, b) = (ip.word::<0>(), ip.word::<4>());
            (c, d) = (ip.word::<8>(), ip.word::<12>());
        }
    } else if let Some(ip) = skb.window::<4>(IPV4_OFFSET + 12) {
        a = ip.word::<0>();
    }
    Address([a, b, c, d])
}

/// Reads the inner headers into the memory of this CPU for them; tells whether they are well-formed.
///
/// A global function, which the verifier looks at once, and not anew for every way that leads here.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn parse_inner(context: *mut __sk_buff) -> u32 {
    parse_behind(context, OUTER_BYTES)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn parse_inner_v6(context: *mut __sk_buff) -> u32 {
    parse_behind(context, OUTER_BYTES_V6)
}

#[inline(always)]
fn parse_behind(context: *mut __sk_buff, offset: usize) -> u32 {
    let skb = Skb::from_raw(context, false);
    let Some(inner) = frame::parsed() else {
        return 0;
    };
    let Ok(parsed) = Headers::parse(&skb.view(offset)) else {
        return 0;
    };
    *inner = parsed;
    1
}

/// Sends a packet on to a node that its destination has moved to. Its headers were checked.
/// `by_process`: it came from the process that encrypts.
// A function of its own: what it needs of the stack the way of most packets has when it is over.
#[inline(never)]
fn send_on<const V6: bool>(
    skb: &mut Skb,
    location: &LocationEntry,
    node: u32,
    by_process: bool,
) -> Result<i32, DropReason> {
    let header = skb.window::<8>(vxlan_offset(V6)).and_then(Vxlan::parse);
    let header = header.ok_or(DropReason::BadTunnel)?;
    let header = Vxlan {
        hops: header.hops + 1,
        ..header
    };
    let is_crossing = tunnel::is_over_ipv6(node, location) != V6;
    if (skb.gso_size() != 0 && by_process) || is_crossing {
        // What came whole out of the process that encrypts is not marked as being within one: it is
        // wrapped anew, for the way that it goes on. So is what goes on over the other family; a
        // super-packet that is marked the kernel refuses to mark anew.
        let inner = frame::parsed().ok_or(DropReason::BadTables)?;
        let port = tunnel::source_port(skb);
        tunnel::decapsulate::<V6>(skb, inner.headers.family)?;
        return tunnel::encapsulate(skb, node, header, location, port);
    }
    tunnel::forward::<V6>(skb, node, header.last_word(), location)
}

/// The flow of a packet, if what an earlier one has shown of who sends to whom still holds: the
/// source lives at the node that the packet comes from, and the destination here.
#[inline(always)]
fn known<const V6: bool>(
    skb: &Skb,
    inner: &Headers,
    header: Vxlan,
    plain: bool,
) -> Option<flow::Entry> {
    if !has_flow(inner) || header.hops != 0 {
        return None;
    }
    let flow = flow::find(header.vni, inner, Direction::Received)?;
    let from = deliver::location(flow.remote, header.vni)?;
    let peer = PEERS.get(from.node)?;
    let to = deliver::location(flow.local, header.vni)?;
    let source = outer_source::<V6>(skb);
    let is_from = if V6 {
        PEERS_V6.get(from.node)?.address == source
    } else {
        peer.address == source.0[0]
    };
    let holds = is_from
        && !(plain && peer.flags & peer::ENCRYPTED != 0 && from.flags & location::PLAIN == 0)
        && from.mac == inner.eth_src
        && to.ifindex != 0
        && to.mac == inner.eth_dst;
    if !holds {
        return None;
    }
    counters::tunnelled(skb, from.node, direction::RECEIVED, outer_bytes(V6));
    Some(flow)
}

/// Counts a packet of a node by its address.
#[inline(always)]
pub(crate) fn count_received<const V6: bool>(skb: &mut Skb) {
    if skb.is_traced() {
        return;
    }
    if V6 {
        count_source_v6(skb.raw());
    } else {
        count_source(skb.raw());
    }
}

// Global functions, as `identify`, and for the same reason.

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn count_source(context: *mut __sk_buff) -> u32 {
    count_source_over::<false>(context)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn count_source_v6(context: *mut __sk_buff) -> u32 {
    count_source_over::<true>(context)
}

#[inline(always)]
fn count_source_over<const V6: bool>(context: *mut __sk_buff) -> u32 {
    let skb = Skb::from_raw(context, false);
    let address = outer_source::<V6>(&skb);
    // SAFETY: values are plain numbers, replaced whole.
    if let Some(node) = unsafe { PEER_ADDRESSES.get(address) } {
        counters::tunnelled(&skb, *node, direction::RECEIVED, outer_bytes(V6));
    }
    0
}

/// In place of a drop reason: nobody has decided about the packet yet. The device that holds the port
/// takes it out of its tunnel, and `foreign` asks the policy.
const UNDECIDED: u32 = u32::MAX;

/// Finds out who sends to whom: their numbers, the destination's in the upper half. With an upper
/// half of zero, the lower one is the number of a drop reason.
///
/// A global function for each family: the kernel's pointers into the packet cannot be handed over.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn identify(context: *mut __sk_buff, vni: u32, hops: u32, plain: u32) -> u64 {
    identify_over::<false>(context, vni, hops, plain)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn identify_v6(context: *mut __sk_buff, vni: u32, hops: u32, plain: u32) -> u64 {
    identify_over::<true>(context, vni, hops, plain)
}

#[inline(always)]
fn identify_over<const V6: bool>(context: *mut __sk_buff, vni: u32, hops: u32, plain: u32) -> u64 {
    let skb = Skb::from_raw(context, false);
    let Some(inner) = frame::parsed() else {
        return u64::from(DropReason::BadTables as u32);
    };
    let found = peer(outer_source::<V6>(&skb), vni, plain != 0)
        .and_then(|peer| look_up(&inner.headers, vni, hops, peer).map_err(|reason| reason as u32));
    match found {
        Ok((from, to)) => u64::from(to) << 32 | u64::from(from),
        Err(code) => u64::from(code),
    }
}

/// The number of the node that a packet of a network comes from, or the number of a drop reason, or [`UNDECIDED`].
#[inline(always)]
fn peer(address: Address, vni: u32, plain: bool) -> Result<u32, u32> {
    // SAFETY: values are plain numbers, replaced whole.
    let Some(peer) = (unsafe { PEER_ADDRESSES.get(address) }).copied() else {
        return Err(DropReason::UnknownPeer as u32);
    };
    let flags = tunnel::peer_flags(peer);
    if plain && tunnel::must_be_encrypted(flags, vni) {
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
fn look_up(inner: &Headers, vni: u32, hops: u32, peer: u32) -> Result<(u32, u32), DropReason> {
    // SAFETY: a network is replaced whole and freed only after a grace period.
    unsafe { NETWORKS.get(vni) }.ok_or(DropReason::UnknownNetwork)?;
    // The entry node decided and put the destination's MAC address; deliver to whom it says, even
    // where a policy sends a packet to another endpoint than the owner of its address.
    let to = match node_of(inner.eth_dst) {
        0 => deliver::owner(&AddressKey::mac(vni, inner.eth_dst)).ok_or(DropReason::NotHere)?,
        node => EGRESS | node,
    };
    let from = match source(inner, vni) {
        Some(from) if is_egress(from) => {
            return match from == EGRESS | peer && !is_egress(to) {
                true => Ok((from, to)),
                false => Err(DropReason::SourceNotThere),
            };
        }
        Some(from) => from,
        // It has crossed: the gateway is who sends it, and its address is a peer's endpoint's.
        None => routes::sender(inner, vni),
    };
    // The inner source lives at the peer (or is moving to or from it), or the peer forwards for a
    // destination that lived there.
    let lives_there = routes::location(from).is_some_and(|source| {
        lives_at(source, peer) || source.network == vni && is_foreign(source)
    });
    if lives_there {
        return Ok((from, to));
    }
    if is_egress(to) {
        return Err(DropReason::SourceNotThere);
    }
    let location = deliver::location(to, vni).ok_or(DropReason::NotHere)?;
    match hops > 0 && lives_at(location, peer) {
        true => Ok((from, to)),
        false => Err(DropReason::SourceNotThere),
    }
}

/// Number of the endpoint that sent a packet for several, which has to live at the node that the
/// packet comes from, or to be moving to or from it. `None`: nobody has decided about it yet.
#[inline(always)]
pub(crate) fn sender<const V6: bool>(
    skb: &mut Skb,
    vni: u32,
    plain: bool,
) -> Result<Option<u32>, DropReason> {
    let found = if V6 {
        find_sender_v6(skb.raw(), vni, u32::from(plain))
    } else {
        find_sender(skb.raw(), vni, u32::from(plain))
    };
    match found {
        found if found >> 32 != 0 => Ok(Some(found as u32)),
        code if code as u32 == UNDECIDED => Ok(None),
        code => Err(unidentified(code as u32)),
    }
}

/// As [`identify`]: a number in the lower half, and whether it is the sender's in the upper one.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn find_sender(context: *mut __sk_buff, vni: u32, plain: u32) -> u64 {
    find_sender_over::<false>(context, vni, plain)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn find_sender_v6(context: *mut __sk_buff, vni: u32, plain: u32) -> u64 {
    find_sender_over::<true>(context, vni, plain)
}

#[inline(always)]
fn find_sender_over<const V6: bool>(context: *mut __sk_buff, vni: u32, plain: u32) -> u64 {
    let skb = Skb::from_raw(context, false);
    let plain = plain != 0;
    let Some(inner) = frame::parsed() else {
        return u64::from(DropReason::BadTables as u32);
    };
    let found = peer(outer_source::<V6>(&skb), vni, plain).and_then(|peer| {
        look_up_sender(&inner.headers, vni, peer, plain).map_err(|reason| reason as u32)
    });
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

/// Whether the node that a packet comes from is another region's.
#[inline(always)]
pub(crate) fn is_far<const V6: bool>(skb: &Skb) -> bool {
    let address = outer_source::<V6>(skb);
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
        None if node_of(inner.eth_src) != 0 => Some(EGRESS | node_of(inner.eth_src)),
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
