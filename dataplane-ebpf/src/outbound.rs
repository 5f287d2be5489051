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
        __sk_buff, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS,
        bpf_fib_lookup as FibLookup, bpf_redir_neigh as NextHop,
    },
    helpers::{bpf_fib_lookup, bpf_redirect_neigh},
};
use sunwire_dataplane_common::{
    address::Address,
    drop_reason::DropReason,
    entries::{LocationEntry, NetworkEntry, location, network as network_flags},
    event::program,
    headers::{Family, Fragment, Headers, Parsed},
    outbound::{self, EGRESS, InsideKey, Mapping, Outbound, OutsideKey, by, is_outside, ports_out},
    tables::{Copied, OUT_OWNER, set},
    vxlan::Vxlan,
};

pub(crate) use back::{come_back, is_asked};
pub(crate) use connection::connection;
use error::{outbound_error, port_of};
use port::{fill, note_time, outbound_port};
use refusal::{note_refusal, refuse};

mod back;
mod connection;
mod error;
mod port;
mod refusal;

use crate::{
    Handled, deliver,
    deliver::Way,
    fragment,
    frame::{self, Skb, note},
    maps::{CONTROL, INSIDE, NETWORKS, OUTBOUND, OUTBOUND_SCRATCH, OUTSIDE, PEER_ADDRESSES},
    related, rewrite, routes, tunnel,
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
    /// Address family of the next router, as the kernel numbers it; zero when the kernel is to find it.
    next_family: u32,
    /// Its address.
    next_hop: Address,
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
    if copied.set & set::IP6_DST != 0 && headers.family == Family::V6 {
        address = copied.ip6_dst;
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
    if network.flags & network_flags::PLAIN != 0 {
        flags |= location::PLAIN;
    }
    if network.flags & network_flags::OTHER_PORT != 0 {
        flags |= location::OTHER_PORT;
    }
    if network.flags & network_flags::CHECKSUM != 0 {
        flags |= location::CHECKSUM;
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
        outcome = match frame::parsed() {
            Some(parsed) if related::is_error(&parsed.headers) => {
                outbound_error(skb.raw(), network, from)
            }
            _ => outbound_translate(skb.raw(), network, from, u32::from(skb.is_traced())),
        };
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
    let own = settings.address(headers.family);
    if own == Address::ZERO {
        return Err(DropReason::OutboundAddress);
    }
    if ports_out(headers).is_none() && !related::is_error(headers) {
        return Err(DropReason::OutboundProtocol);
    }
    // To another node, it would look as if this node itself had sent it: what is in tunnels included.
    // SAFETY: values are plain numbers, replaced whole.
    let is_node = unsafe { PEER_ADDRESSES.get(headers.dst) }.is_some();
    if is_node || headers.dst == own || !is_outside(headers.family, &headers.dst) {
        return Err(DropReason::OutboundForbidden);
    }
    if rewrite::hops_left(skb, parsed)? <= 1 {
        return Err(DropReason::Expired);
    }
    scratch.ifindex = settings.ifindex;
    scratch.next_family = 0;
    let (family, asks_by) = match headers.family {
        Family::V4 => (AF_INET, settings.asks_by),
        _ => (AF_INET6, settings.asks_by_v6),
    };
    if asks_by == 0 {
        return Ok(());
    }
    let mut asked = fib_lookup(headers, family, asks_by, &own);
    let size = size_of::<FibLookup>() as i32;
    // SAFETY: the context is valid, and the pointer and size are those of `asked`.
    let found = unsafe { bpf_fib_lookup(skb.context_for_helper(), &raw mut asked, size, 0) };
    let is_found = found == i64::from(BPF_FIB_LKUP_RET_SUCCESS)
        || found == i64::from(BPF_FIB_LKUP_RET_NO_NEIGH);
    // What leaves by another device would be answered there, where nobody knows it.
    if !is_found || asked.ifindex != settings.ifindex || asked.family != family {
        return Err(DropReason::NoRoute);
    }
    scratch.next_family = u32::from(family);
    // SAFETY: all of it has been written, whichever family it is of.
    let next = unsafe { asked.__bindgen_anon_4.ipv6_dst };
    scratch.next_hop = Address(next);
    Ok(())
}

/// Address families as the kernel numbers them.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

#[inline(always)]
fn fib_lookup(headers: &Headers, family: u8, asks_by: u32, own: &Address) -> FibLookup {
    // SAFETY: plain numbers, for all of which zero is a value.
    let mut asked: FibLookup = unsafe { core::mem::zeroed() };
    asked.family = family;
    asked.l4_protocol = headers.protocol;
    asked.ifindex = asks_by;
    // An IPv4 address has the first word alone, here as there.
    asked.__bindgen_anon_3.ipv6_src = own.0;
    asked.__bindgen_anon_4.ipv6_dst = headers.dst.0;
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
    if scratch.next_family == 0 {
        // SAFETY: no pointers are passed.
        return unsafe { bpf_redirect_neigh(scratch.ifindex, core::ptr::null_mut(), 0, 0) as i32 };
    }
    // SAFETY: plain numbers, for all of which zero is a value.
    let mut next: NextHop = unsafe { core::mem::zeroed() };
    next.nh_family = scratch.next_family;
    next.__bindgen_anon_1.ipv6_nh = scratch.next_hop.0;
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
    outcome_of(rewrite_out(&mut skb, parsed, settings, Some(port as u16)))
}

#[inline(always)]
fn rewrite_out(
    skb: &mut Skb,
    parsed: &mut Parsed,
    settings: &Outbound,
    port: Option<u16>,
) -> Result<(), DropReason> {
    rewrite::count_hop(skb, parsed)?;
    let own = settings.address(parsed.headers.family);
    rewrite::outside_source(skb, parsed, &own, port)
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
        let family = frame::parsed().map_or(Family::V4, |parsed| parsed.headers.family);
        return Ok(Handled::Redirect(deliver::to_device(skb, family, location)));
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
