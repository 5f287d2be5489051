//! Out of the cloud and back: an endpoint without an address of its own outside goes by that of a node.
//!
//! ```text
//! endpoint -> policy -> nobody owns the address, and it is in no subnet
//!          -> the node that the network leaves by: this one | tunnel to it
//! there    -> route -> port of the node -> source rewritten -> the node's next hop
//!
//! underlay -> no tunnel -> to one of our ports, from where a connection of it goes? no: the host's
//!          -> destination rewritten -> where the endpoint is now: here | tunnel to it
//! ```
//!
//! A node where packets leave stands in frames by a MAC address of its own ([`outbound::mac_of`]), and in
//! flows by a number ([`EGRESS`]), so that the receiving node checks both as it does for endpoints. A
//! connection goes on by the node that it began by, wherever its endpoint moves: its address outside
//! stays. What comes back is let in where the endpoint has sent what it answers, and nothing else is:
//! first where it comes in, by the node's own table, then where the endpoint is, by its flows, which go
//! when the policy forbids them.

use core::mem::size_of;

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, BPF_NOEXIST,
        bpf_fib_lookup as FibLookup, bpf_redir_neigh as NextHop,
    },
    helpers::{bpf_fib_lookup, bpf_redirect_neigh},
};
use sunwire_dataplane_common::{
    drop_reason::DropReason,
    entries::{LocationEntry, NetworkEntry, location, network as network_flags},
    event::program,
    flow::{SEEN_EVERY, events},
    headers::{Family, Fragment, Headers, Parsed},
    outbound::{self, EGRESS, InsideKey, Mapping, Outbound, OutsideKey, by, is_outside, ports_out},
    tables::{Copied, OUT_OWNER, set},
    vxlan::Vxlan,
};

pub(crate) use back::{come_back, is_asked};

mod back;

use crate::{
    Handled, counters, deliver,
    deliver::Way,
    event, flow, fragment,
    frame::{self, Skb, note},
    maps::{CONTROL, INSIDE, NETWORKS, OUTBOUND, OUTBOUND_SCRATCH, OUTSIDE, PEER_ADDRESSES},
    related, rewrite, routes, too_big, tunnel,
};

/// Memory of this CPU for a packet that leaves or comes back.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Scratch {
    inside: InsideKey,
    outside: OutsideKey,
    mapping: Mapping,
    /// ifindex of the device that the packet leaves by.
    ifindex: u32,
    /// IPv4 address of the next router, memory order; zero when the kernel is to find it.
    next_hop: u32,
}

#[inline(always)]
fn scratch() -> Option<&'static mut Scratch> {
    let scratch = OUTBOUND_SCRATCH.get_ptr_mut(0)?;
    // SAFETY: a program runs to its end on one CPU before another one of ours starts there.
    Some(unsafe { &mut *scratch })
}

/// How packets leave at this node, if they do.
#[inline(always)]
fn settings() -> Option<&'static Outbound> {
    OUTBOUND.get(0).filter(|settings| settings.ports != 0)
}

/// The number of the egress that the packet at hand leaves by, as the copy is written, or zero: when it
/// is for somebody, or its network does not let packets out. `kept` is the egress that its
/// connection has, or zero.
// A function of its own: few packets come here, and the stack is short.
#[inline(never)]
pub(crate) fn egress(copied: &Copied, headers: &Headers, network: u32, kept: u32) -> u32 {
    if copied.out != OUT_OWNER || copied.set & set::ETH_DST != 0 || headers.eth_dst.is_group() {
        return 0;
    }
    // SAFETY: a network is replaced whole and freed only after a grace period.
    let Some(entry) = (unsafe { NETWORKS.get(network) }) else {
        return 0;
    };
    if entry.outbound == by::NOBODY {
        return 0;
    }
    let mut address = headers.dst;
    if copied.set & set::IP4_DST != 0 && headers.family == Family::V4 {
        address.0[0] = copied.ip4_dst;
    }
    if !is_outside(headers.family, &address) || routes::is_inside(network, headers.family, &address)
    {
        return 0;
    }
    if outbound::is_egress(kept) && tunnel::is_known(kept & !EGRESS) {
        return kept;
    }
    match entry.outbound {
        by::LOCAL => CONTROL.get(0).map_or(0, |control| EGRESS | control.node),
        node => EGRESS | node,
    }
}

/// A network that lets packets out: what flows remember may be of before it ceased to.
#[inline(always)]
fn letting_out(network: u32) -> Result<&'static NetworkEntry, DropReason> {
    // SAFETY: a network is replaced whole and freed only after a grace period.
    let entry = unsafe { NETWORKS.get(network) }.ok_or(DropReason::UnknownNetwork)?;
    match entry.outbound {
        by::NOBODY => Err(DropReason::NoOwner),
        _ => Ok(entry),
    }
}

/// Has a packet leave the cloud by the egress that `way` leads to.
///
/// # Errors
/// Why it does not.
// A function of its own: the stack is short, and most packets stay.
#[inline(never)]
pub(crate) fn leave(skb: &mut Skb, way: &Way) -> Result<Handled, DropReason> {
    let node = way.to & !EGRESS;
    let network = letting_out(way.network)?;
    if node == way.own_node {
        return go_out(skb, way.network, way.from, program::ENDPOINT);
    }
    skb.window_mut::<6>(0)?.set_mac::<0>(outbound::mac_of(node));
    let header = Vxlan {
        vni: way.network,
        hops: 0,
        tag: 0,
    };
    let mut flags = 0;
    if network.flags & network_flags::ENCRYPTED != 0 {
        flags |= location::ENCRYPTED;
    }
    if network.flags & network_flags::OTHER_PORT != 0 {
        flags |= location::OTHER_PORT;
    }
    let there = LocationEntry {
        flags,
        port: network.port,
        ..LocationEntry::default()
    };
    tunnel::encapsulate(skb, node, header, &there, way.tunnel_port).map(Handled::Redirect)
}

/// Has a packet that came by the tunnel leave the cloud here. `from` is who sent it, who was checked;
/// `plain` whether it came in the clear.
///
/// # Errors
/// Why it does not.
#[inline(never)]
pub(crate) fn pass_on<const V6: bool>(
    skb: &mut Skb,
    network: u32,
    ends: (u32, u32),
    plain: bool,
) -> Result<Handled, DropReason> {
    let (from, to) = ends;
    let own_node = CONTROL.get(0).map_or(0, |control| control.node);
    if to != EGRESS | own_node {
        return Err(DropReason::NotHere);
    }
    let entry = letting_out(network)?;
    if plain && entry.flags & network_flags::ENCRYPTED != 0 {
        return Err(DropReason::Unencrypted);
    }
    let parsed = frame::parsed().ok_or(DropReason::BadTables)?;
    if parsed.fragment == Fragment::Later {
        fragment::find_ports(skb, parsed, network)?;
    }
    if tunnel::decapsulate::<V6>(skb, parsed.headers.family)? != parsed.headers.family {
        // The kernel would not know what it sends to the next router.
        return Err(DropReason::Resize);
    }
    go_out(skb, network, from, program::UNDERLAY)
}

/// Gives the packet at hand a port of this node and sends it out.
#[inline(always)]
fn go_out(skb: &mut Skb, network: u32, from: u32, program: u32) -> Result<Handled, DropReason> {
    let mut outcome = outbound_route(skb.raw());
    if outcome == 0 {
        let traced = u32::from(skb.is_traced());
        outcome = outbound_translate(skb.raw(), network, from, traced);
    }
    if outcome != 0 {
        return refuse(skb, network, from, outcome, program);
    }
    Ok(Handled::Redirect(outbound_send()))
}

/// The reasons that the functions below give, each by its number plus one.
#[inline(always)]
fn reason_of(outcome: u32) -> DropReason {
    match outcome.wrapping_sub(1) {
        code if code == DropReason::OutboundProtocol as u32 => DropReason::OutboundProtocol,
        code if code == DropReason::OutboundForbidden as u32 => DropReason::OutboundForbidden,
        code if code == DropReason::OutboundAddress as u32 => DropReason::OutboundAddress,
        code if code == DropReason::OutboundPorts as u32 => DropReason::OutboundPorts,
        code if code == DropReason::OutboundFull as u32 => DropReason::OutboundFull,
        code if code == DropReason::NoRoute as u32 => DropReason::NoRoute,
        code if code == DropReason::Expired as u32 => DropReason::Expired,
        code if code == DropReason::Malformed as u32 => DropReason::Malformed,
        _ => DropReason::BadTables,
    }
}

/// What came of a step: zero, or the number of the reason plus one.
#[inline(always)]
fn outcome_of(result: Result<(), DropReason>) -> u32 {
    match result {
        Ok(()) => 0,
        Err(reason) => reason as u32 + 1,
    }
}

/// Finds the way of the packet at hand out of this node.
///
/// A global function, which the verifier looks at once, and not anew for every way that leads here.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn outbound_route(context: *mut __sk_buff) -> u32 {
    let skb = Skb::from_raw(context, false);
    let (Some(parsed), Some(scratch)) = (frame::parsed(), scratch()) else {
        return outcome_of(Err(DropReason::BadTables));
    };
    let Some(settings) = settings() else {
        return outcome_of(Err(DropReason::OutboundAddress));
    };
    outcome_of(route(&skb, parsed, settings, scratch))
}

#[inline(always)]
fn route(
    skb: &Skb,
    parsed: &Parsed,
    settings: &Outbound,
    scratch: &mut Scratch,
) -> Result<(), DropReason> {
    let headers = &parsed.headers;
    if headers.family != Family::V4 || settings.address_v4 == 0 {
        return Err(DropReason::OutboundAddress);
    }
    if ports_out(headers).is_none() {
        return Err(DropReason::OutboundProtocol);
    }
    // To another node, it would look as if this node itself had sent it: what is in tunnels included.
    // SAFETY: values are plain numbers, replaced whole.
    let is_node = unsafe { PEER_ADDRESSES.get(headers.dst) }.is_some();
    if is_node
        || headers.dst.0[0] == settings.address_v4
        || !is_outside(headers.family, &headers.dst)
    {
        return Err(DropReason::OutboundForbidden);
    }
    if rewrite::hops_left(skb, parsed)? <= 1 {
        return Err(DropReason::Expired);
    }
    scratch.ifindex = settings.ifindex;
    scratch.next_hop = 0;
    if settings.asks_by == 0 {
        return Ok(());
    }
    let mut asked = fib_lookup(headers, settings);
    let size = size_of::<FibLookup>() as i32;
    // SAFETY: the context is valid, and the pointer and size are those of `asked`.
    let found = unsafe { bpf_fib_lookup(skb.context_for_helper(), &raw mut asked, size, 0) };
    let is_found = found == i64::from(BPF_FIB_LKUP_RET_SUCCESS)
        || found == i64::from(BPF_FIB_LKUP_RET_NO_NEIGH);
    // What leaves by another device would be answered there, where nobody knows it.
    if !is_found || asked.ifindex != settings.ifindex || asked.family != AF_INET {
        return Err(DropReason::NoRoute);
    }
    // SAFETY: the family says that it is this one.
    scratch.next_hop = unsafe { asked.__bindgen_anon_4.ipv4_dst };
    Ok(())
}

/// Address family of IPv4, as the kernel numbers it.
const AF_INET: u8 = 2;

#[inline(always)]
fn fib_lookup(headers: &Headers, settings: &Outbound) -> FibLookup {
    // SAFETY: plain numbers, for all of which zero is a value.
    let mut asked: FibLookup = unsafe { core::mem::zeroed() };
    asked.family = AF_INET;
    asked.l4_protocol = headers.protocol;
    asked.ifindex = settings.asks_by;
    asked.__bindgen_anon_3.ipv4_src = settings.address_v4;
    asked.__bindgen_anon_4.ipv4_dst = headers.dst.0[0];
    asked
}

/// Sends the packet at hand where [`outbound_route`] has found that it goes.
///
/// A global function, as that one.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn outbound_send() -> i32 {
    let Some(scratch) = scratch() else {
        return aya_ebpf::bindings::TC_ACT_SHOT;
    };
    if scratch.next_hop == 0 {
        // SAFETY: no pointers are passed.
        return unsafe { bpf_redirect_neigh(scratch.ifindex, core::ptr::null_mut(), 0, 0) as i32 };
    }
    // SAFETY: plain numbers, for all of which zero is a value.
    let mut next: NextHop = unsafe { core::mem::zeroed() };
    next.nh_family = u32::from(AF_INET);
    next.__bindgen_anon_1.ipv4_nh = scratch.next_hop;
    let size = size_of::<NextHop>() as i32;
    // SAFETY: pointer and size are those of `next`.
    unsafe { bpf_redirect_neigh(scratch.ifindex, &raw mut next, size, 0) as i32 }
}

/// Gives the packet at hand, which endpoint `local` sends, the address and a port of this node.
///
/// A global function, as [`outbound_route`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn outbound_translate(
    context: *mut __sk_buff,
    network: u32,
    local: u32,
    traced: u32,
) -> u32 {
    let mut skb = Skb::from_raw(context, traced != 0);
    let (Some(parsed), Some(scratch)) = (frame::parsed(), scratch()) else {
        return outcome_of(Err(DropReason::BadTables));
    };
    let Some(settings) = settings() else {
        return outcome_of(Err(DropReason::OutboundAddress));
    };
    fill(&parsed.headers, scratch, network, local);
    let port = outbound_port(traced);
    if port > u32::from(u16::MAX) {
        return port >> 16;
    }
    outcome_of(rewrite_out(&mut skb, parsed, settings, port as u16))
}

#[inline(always)]
fn rewrite_out(
    skb: &mut Skb,
    parsed: &mut Parsed,
    settings: &Outbound,
    port: u16,
) -> Result<(), DropReason> {
    rewrite::count_hop(skb, parsed)?;
    rewrite::outside_source(skb, parsed, settings.address_v4, port)
}

/// Says in scratch whose connection the packet that leaves is of.
#[inline(never)]
fn fill(headers: &Headers, scratch: &mut Scratch, network: u32, local: u32) {
    let (port, remote_port) = ports_out(headers).unwrap_or((0, 0));
    let Scratch {
        inside,
        outside,
        mapping,
        ..
    } = scratch;
    inside.network_protocol = network << 8 | u32::from(headers.protocol);
    inside.ports = u32::from(port) << 16 | u32::from(remote_port);
    outside.family_protocol = (headers.family as u32) << 8 | u32::from(headers.protocol);
    outside.ports = u32::from(remote_port);
    for index in 0..4 {
        inside.local.0[index] = headers.src.0[index];
        inside.remote.0[index] = headers.dst.0[index];
        outside.remote.0[index] = headers.dst.0[index];
        mapping.address.0[index] = headers.src.0[index];
    }
    mapping.network = network;
    mapping.local = local;
    mapping.seen = flow::now();
    mapping.port = port;
    mapping.sent = events(headers);
    mapping.received = 0;
}

/// Ports that are tried, first at random, then one after the other: towards one address and port, a
/// range of [`SCANNED`] ports is used up, and of a larger one almost all.
const DRAWN: u32 = 32;
const SCANNED: u32 = 64;

/// The port of the node that the connection in scratch has or gets; or, in the upper half, the number
/// of a reason plus one.
///
/// A global function, as [`outbound_route`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn outbound_port(traced: u32) -> u32 {
    let (Some(settings), Some(scratch), Some(parsed)) = (settings(), scratch(), frame::parsed())
    else {
        return outcome_of(Err(DropReason::BadTables)) << 16;
    };
    // SAFETY: values are plain numbers, replaced whole.
    if let Some(port) = unsafe { INSIDE.get(&scratch.inside) } {
        let port = *port as u16;
        set_port(scratch, port);
        if settings.has(port)
            && let Some(known) = OUTSIDE.get_ptr_mut(&scratch.outside)
        {
            // SAFETY: the map's value stays valid memory until the program ends, and its fields are
            // plain numbers.
            let known = unsafe { &mut *known };
            if known.is_of(&scratch.mapping) {
                if traced == 0 {
                    note_sent(known, &parsed.headers);
                }
                return u32::from(port);
            }
        }
    }
    let own = scratch.mapping.port;
    let mut seed = outbound::seed(scratch.inside.network_protocol, &scratch.inside.local, own);
    let mut port = match settings.has(own) {
        true => own,
        false => settings.port(seed),
    };
    for attempt in 0..DRAWN + SCANNED {
        set_port(scratch, port);
        match take(scratch, traced) {
            Taken::Ours => return u32::from(port),
            Taken::Full => return outcome_of(Err(DropReason::OutboundFull)) << 16,
            Taken::Others => {}
        }
        if attempt < DRAWN {
            seed = outbound::mix(seed.wrapping_add(0x9e37_79b9));
            port = settings.port(seed);
        } else {
            port = settings.next(port);
        }
    }
    outcome_of(Err(DropReason::OutboundPorts)) << 16
}

#[inline(always)]
fn set_port(scratch: &mut Scratch, port: u16) {
    scratch.outside.ports = u32::from(port) << 16 | scratch.outside.ports & 0xffff;
}

/// What became of a port that was tried.
enum Taken {
    /// It is that of the connection.
    Ours,
    /// It is another one's.
    Others,
    /// There is no room.
    Full,
}

/// `-EEXIST`.
const EXISTS: i32 = -17;

/// Takes the port in scratch for the connection there, if it is free.
#[inline(always)]
fn take(scratch: &mut Scratch, traced: u32) -> Taken {
    if traced != 0 {
        return match OUTSIDE.get_ptr(&scratch.outside) {
            Some(_) => Taken::Others,
            None => Taken::Ours,
        };
    }
    match OUTSIDE.insert(&scratch.outside, &scratch.mapping, u64::from(BPF_NOEXIST)) {
        Ok(()) => {}
        Err(EXISTS) => {
            // What INSIDE has forgotten, or what ended: its late packets are nobody's any more.
            let is_ours = OUTSIDE
                .get_ptr(&scratch.outside)
                // SAFETY: as in `outbound_port`.
                .is_some_and(|there| unsafe { (*there).is_of(&scratch.mapping) });
            if !is_ours {
                return Taken::Others;
            }
        }
        Err(_) => return Taken::Full,
    }
    let port = scratch.outside.ports >> 16;
    if INSIDE.insert(&scratch.inside, &port, 0).is_err() {
        let _ = OUTSIDE.remove(&scratch.outside);
        return Taken::Full;
    }
    Taken::Ours
}

/// Notes a packet that the endpoint sent.
#[inline(always)]
fn note_sent(mapping: &mut Mapping, headers: &Headers) {
    let events = events(headers);
    if mapping.entry().begins_anew(headers) {
        mapping.sent = 0;
        mapping.received = 0;
    }
    if mapping.sent & events != events {
        mapping.sent |= events;
    }
    note_time(mapping);
}

#[inline(always)]
fn note_time(mapping: &mut Mapping) {
    let now = flow::now();
    if now.wrapping_sub(mapping.seen) >= SEEN_EVERY {
        mapping.seen = now;
    }
}

/// What the sender of a packet is told that does not leave, as far as anybody is (RFC 792; RFC 1812,
/// 4.3.3 and 5.3; RFC 6888, REQ-8): type and code.
#[inline(always)]
fn message_of(reason: DropReason) -> Option<[u8; 2]> {
    match reason {
        // Net unreachable.
        DropReason::NoRoute | DropReason::OutboundAddress => Some([3, 0]),
        // Host unreachable.
        DropReason::OutboundPorts | DropReason::OutboundFull => Some([3, 1]),
        // Communication administratively prohibited.
        DropReason::OutboundForbidden => Some([3, 13]),
        // Time to live exceeded in transit.
        DropReason::Expired => Some([11, 0]),
        _ => None,
    }
}

/// Counts a packet that does not leave, and tells its sender why.
///
/// # Errors
/// The reason, where nobody is told.
#[inline(never)]
fn refuse(
    skb: &mut Skb,
    network: u32,
    local: u32,
    outcome: u32,
    program: u32,
) -> Result<Handled, DropReason> {
    let reason = reason_of(outcome);
    let parsed = frame::parsed().ok_or(reason)?;
    // SAFETY: a network is replaced whole and freed only after a grace period.
    let entry = unsafe { NETWORKS.get(network) }.ok_or(reason)?;
    let Some(kind) = message_of(reason) else {
        return Err(reason);
    };
    let is_told = parsed.headers.family == Family::V4
        && !related::is_error(&parsed.headers)
        && parsed.fragment != Fragment::Later
        && !parsed.has_options()
        && entry.gateway_v4.0[0] != 0
        && !skb.is_traced();
    if !is_told {
        return Err(reason);
    }
    note_refusal(skb, reason, program);
    let about = u32::from(kind[0]) << 8 | u32::from(kind[1]);
    match answer(skb, network, local, about)? {
        Handled::Redirect(action) => Ok(Handled::Told(action)),
        other => Ok(other),
    }
}

// Functions of their own, one after the other: the stack is short.

/// Counts and tells the drop while the packet is what it was.
#[inline(never)]
fn note_refusal(skb: &mut Skb, reason: DropReason, program: u32) {
    let refused = Err(reason);
    event::end(skb, &refused, program);
    counters::dropped(skb, reason);
}

/// Makes of the packet at hand the ICMP message to its sender, of a type and code, and sends it there.
#[inline(always)]
fn answer(skb: &mut Skb, network: u32, local: u32, about: u32) -> Result<Handled, DropReason> {
    write_answer(skb, network, about)?;
    let own_node = CONTROL.get(0).map_or(0, |control| control.node);
    hand_over(skb, network, local, own_node)
}

// A function of its own: what it needs of the stack `hand_over` has when it is over.
#[inline(never)]
fn write_answer(skb: &mut Skb, network: u32, about: u32) -> Result<(), DropReason> {
    let parsed = frame::parsed().ok_or(DropReason::BadTables)?;
    // SAFETY: a network is replaced whole and freed only after a grace period.
    let entry = unsafe { NETWORKS.get(network) }.ok_or(DropReason::UnknownNetwork)?;
    let kind = [(about >> 8) as u8, about as u8];
    too_big::message_v4(skb, &parsed.headers, entry.gateway_v4, kind, 0)
}

/// Sends a packet, whose addresses are the endpoint's already, to where that is.
// A function of its own: the stack is short.
#[inline(never)]
fn hand_over(
    skb: &mut Skb,
    network: u32,
    local: u32,
    own_node: u32,
) -> Result<Handled, DropReason> {
    let location = deliver::location(local, network).ok_or(DropReason::NoOwner)?;
    skb.set_note::<{ note::DESTINATION }>(local);
    let mut ethernet = skb.window_mut::<12>(0)?;
    ethernet.set_mac::<0>(location.mac);
    ethernet.set_mac::<6>(outbound::mac_of(own_node));
    if location.ifindex != 0 {
        return Ok(Handled::Redirect(deliver::to_device(
            skb,
            Family::V4,
            location,
        )));
    }
    let node = deliver::home(location, own_node)?;
    let header = Vxlan {
        vni: location.network,
        hops: 0,
        tag: 0,
    };
    let port = tunnel::source_port(skb);
    tunnel::encapsulate(skb, node, header, location, port).map(Handled::Redirect)
}

/// Forgets a connection that leaves here, for the agent's programs.
#[inline(never)]
pub(crate) fn forget(key: &OutsideKey, mapping: &Mapping) {
    let mut inside = InsideKey {
        network_protocol: mapping.network << 8 | key.family_protocol & 0xff,
        ports: u32::from(mapping.port) << 16 | key.ports & 0xffff,
        ..InsideKey::default()
    };
    for index in 0..4 {
        inside.local.0[index] = mapping.address.0[index];
        inside.remote.0[index] = key.remote.0[index];
    }
    // A packet that comes in between finds that one of the two is gone, and has both made anew.
    let _ = OUTSIDE.remove(key);
    // SAFETY: values are plain numbers, replaced whole.
    let port = unsafe { INSIDE.get(&inside) }.copied();
    // The connection may have another port meanwhile.
    if port == Some(key.ports >> 16) {
        let _ = INSIDE.remove(&inside);
    }
}
