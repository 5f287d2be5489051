//! One packet to several endpoints: a clone to each member here, one to each node that has members.
//!
//! ```text
//! from an endpoint: wrap for the tunnel once, but first the members here, as the frame is
//! from a tunnel:    unwrap, and the members here; never on to another node (split horizon)
//!                   but from another region, and asked to: on to the members' nodes of this one
//! ```
//!
//! The node where the packet entered has decided who gets it; nothing is decided anew here, and a
//! node that gets a copy sends none to other nodes, but for what a region is asked to spread. So there are as many copies as members beside
//! the sender, one tunnel packet per node, and no loop, whatever the tables of other nodes say.

use core::ffi::c_void;

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_loop};
use sunwire_dataplane_common::{
    address::Address,
    drop_reason::DropReason,
    entries::{EndpointEntry, LocationEntry},
    group::{
        EACH_ITS_OWN, GroupChunk, GroupKey, ListenerKey, MAX_CHUNKS, NODE, RELAY, RELAYED, TagKey,
        copies, is_listened_for,
    },
    headers::{ETHERNET_BYTES, Family, Headers},
    vxlan::{OUTER_BYTES, OUTER_BYTES_V6, Vxlan},
};

use crate::{
    Handled, counters, deliver, enforce,
    frame::Skb,
    maps::{CAST, GROUP_TAGS, GROUPS, LISTENERS, NETWORKS},
    tunnel, underlay,
};

/// Marks a copy that enters again by the underlay device for the members after the first: the
/// number of the part of the group is in the lowest bits.
const CHUNK_MARK: u32 = 0xb << 28;
const CHUNK_MARK_MASK: u32 = 0xf << 28;
const CHUNK_MASK: u32 = MAX_CHUNKS as u32 - 1;
const _: () = assert!(MAX_CHUNKS.is_power_of_two());

/// A packet for several endpoints, in memory of each CPU: the functions that go through a group are
/// global ones, which the verifier looks at once and not anew for every way that leads to them, and
/// which can be handed little.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Cast {
    /// The part of the group at hand.
    key: GroupKey,
    /// VXLAN network identifier.
    network: u32,
    /// Number of the endpoint that sent it.
    from: u32,
    /// Number of the node where that one is.
    origin: u32,
    /// The destination address, if only those get it who listen to it.
    address: Address,
    /// Not zero: only they do.
    listened: u32,
    /// Not zero: its frame has no group address of its own, and each member gets its own address.
    each: u32,
    /// Whether its network is encrypted wherever it goes, or nowhere: see [`tunnel::wish`].
    wish: u32,
    /// UDP port of its network, network order.
    port: u32,
    /// Not zero: its network has outer checksums.
    summed: u32,
    /// Not zero: it came from another region, and goes on within this one.
    relaying: u32,
    /// Not zero: some of the nodes are reached over the other family than it is wrapped for.
    others: u32,
}

/// Notes what a packet with these headers is and where it goes; returns whether each member gets
/// its own MAC address.
#[inline(never)]
fn prepare(group: u32, chunk: u32, network: u32, from: u32, headers: &Headers) -> bool {
    let Some(cast) = CAST.get_ptr_mut(0) else {
        return false;
    };
    let each = headers.eth_dst == EACH_ITS_OWN || !headers.eth_dst.is_group();
    let listened = is_listened_for(headers) && is_snooped(network, headers.family);
    let location = deliver::location(from, network);
    let origin = location.map_or(0, |location| location.node);
    let wish = location.map_or(0, tunnel::wish);
    let port = location.map_or(0, |location| location.port);
    let summed = location.is_some_and(tunnel::has_checksum);
    // SAFETY: a program runs to its end on one CPU before another one of ours starts there.
    unsafe {
        (*cast).key = GroupKey { group, chunk };
        (*cast).network = network;
        (*cast).from = from;
        (*cast).origin = origin;
        (*cast).address = headers.dst;
        (*cast).listened = listened as u32;
        (*cast).each = each as u32;
        (*cast).wish = wish;
        (*cast).port = u32::from(port);
        (*cast).summed = summed as u32;
        (*cast).relaying = 0;
        (*cast).others = 0;
    }
    each
}

/// The packet that was noted.
#[inline(always)]
fn cast() -> Option<&'static Cast> {
    CAST.get(0)
}

/// Whether listeners to addresses of a family are asked for in a network.
#[inline(never)]
fn is_snooped(network: u32, family: Family) -> bool {
    let key = ListenerKey::asked(network, family as u32);
    // SAFETY: only whether there is a value matters.
    unsafe { LISTENERS.get(key) }.is_some()
}

#[inline(always)]
fn chunk_of(key: &GroupKey) -> Option<&'static GroupChunk> {
    // SAFETY: a part is replaced whole and freed only after a grace period.
    unsafe { GROUPS.get(key) }
}

/// Whether another part of the group follows.
#[inline(always)]
pub(crate) fn has_more(key: &GroupKey) -> bool {
    key.chunk + 1 < MAX_CHUNKS as u32 && chunk_of(key).is_some_and(|chunk| chunk.more != 0)
}

/// Sends a packet of an endpoint here, already rewritten, to the members of a part of its group.
#[inline(always)]
pub(crate) fn send(
    skb: &mut Skb,
    headers: &Headers,
    endpoint: &EndpointEntry,
    key: GroupKey,
) -> Result<(), DropReason> {
    let chunk = chunk_of(&key).ok_or(DropReason::UnknownGroup)?;
    if skb.is_traced() {
        // Where each copy goes is the group's to say: the verdict is what is asked for.
        return Ok(());
    }
    let port = tunnel::source_port(skb);
    let each = prepare(
        key.group,
        key.chunk,
        endpoint.network,
        endpoint.number,
        headers,
    );
    let raw = skb.raw();
    send_to_members(raw);
    if chunk.nodes == 0 {
        return Ok(());
    }
    if each {
        skb.window_mut::<6>(0)?.set_mac::<0>(EACH_ITS_OWN);
    }
    let header = Vxlan {
        vni: endpoint.network,
        hops: 0,
        tag: chunk.tag,
    };
    tunnel::wrap(skb, header, port)?;
    send_to_nodes(raw);
    if has_others() {
        tunnel::wrap_again(skb, (OUTER_BYTES_V6 - OUTER_BYTES) as u32, header, port)?;
        send_to_nodes_v6(raw);
    }
    Ok(())
}

/// Whether some nodes are reached over the other family than the packet was wrapped for.
#[inline(always)]
fn has_others() -> bool {
    cast().is_some_and(|cast| cast.others != 0)
}

/// Calls `each` for the numbers below `count`, in the kernel's own loop (Linux 5.17): the verifier looks
/// at it once, and not once for each number.
#[inline(always)]
fn for_each(
    count: u32,
    each: unsafe extern "C" fn(u32, *mut *mut __sk_buff) -> i64,
    mut context: *mut __sk_buff,
) {
    let each: *mut c_void = each as *mut c_void;
    // SAFETY: the verifier checks `each` with what it is handed: a number, and where the packet is.
    unsafe { bpf_loop(count, each, (&raw mut context).cast(), 0) };
}

/// Sends a copy to each member here but the sender.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn send_to_members(context: *mut __sk_buff) -> u32 {
    let locals = (cast().and_then(|cast| chunk_of(&cast.key))).map_or(0, |chunk| chunk.locals);
    for_each(locals, send_to_member, context);
    0
}

/// Sends a copy to one of them.
///
/// # Safety
/// `context` is where the packet of the program is.
unsafe extern "C" fn send_to_member(index: u32, context: *mut *mut __sk_buff) -> i64 {
    // SAFETY: the caller's promise.
    let mut skb = Skb::from_raw(unsafe { *context }, false);
    let Some(cast) = cast() else {
        return 1;
    };
    let member = chunk_of(&cast.key).and_then(|chunk| chunk.local.get(index as usize));
    let Some(&member) = member else {
        return 1;
    };
    let is_meant =
        member != cast.from && (cast.listened == 0 || listens(cast.network, member, &cast.address));
    if is_meant && let Some(location) = deliver::location(member, cast.network) {
        copy_to_member(&mut skb, location, cast.each);
    }
    0
}

#[inline(never)]
fn copy_to_member(skb: &mut Skb, location: &LocationEntry, each: u32) {
    if location.ifindex == 0 {
        // On its way here or away: its other node got a copy too.
        return;
    }
    if each != 0
        && let Ok(mut frame) = skb.window_mut::<6>(0)
    {
        frame.set_mac::<0>(location.mac);
    }
    if skb.send_copy(location.ifindex) {
        counters::copied(skb, copies::LOCAL);
    } else {
        counters::dropped(skb, DropReason::NotAttached);
    }
}

/// Sends a copy of a packet that is wrapped for IPv4 to each node with members that is reached over it.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn send_to_nodes(context: *mut __sk_buff) -> u32 {
    let nodes = (cast().and_then(|cast| chunk_of(&cast.key))).map_or(0, |chunk| chunk.nodes);
    for_each(nodes, send_to_node::<false>, context);
    0
}

/// The same over IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn send_to_nodes_v6(context: *mut __sk_buff) -> u32 {
    let nodes = (cast().and_then(|cast| chunk_of(&cast.key))).map_or(0, |chunk| chunk.nodes);
    for_each(nodes, send_to_node::<true>, context);
    0
}

/// Sends a copy to one of them.
///
/// # Safety
/// As [`send_to_member`].
unsafe extern "C" fn send_to_node<const V6: bool>(index: u32, context: *mut *mut __sk_buff) -> i64 {
    // SAFETY: the caller's promise.
    let mut skb = Skb::from_raw(unsafe { *context }, false);
    let Some(cast) = cast() else {
        return 1;
    };
    let Some(chunk) = chunk_of(&cast.key) else {
        return 1;
    };
    let Some(&node) = chunk.node.get(index as usize) else {
        return 1;
    };
    // Nothing goes back to a node without an agent that it came from.
    if node & !RELAY == cast.origin || (cast.relaying != 0 && node & RELAY != 0) {
        return 0;
    }
    if cast.listened == 0 || has_listeners(cast.network, node, &cast.address) {
        copy_to_node::<V6>(&mut skb, node, cast, chunk.tag);
    }
    0
}

#[inline(never)]
fn copy_to_node<const V6: bool>(skb: &mut Skb, node: u32, cast: &Cast, tag: u32) {
    let tag = match node & RELAY {
        0 => tag,
        _ => tag | RELAYED,
    };
    let (wish, port) = (cast.wish, cast.port as u16);
    let summed = cast.summed != 0;
    match tunnel::send_copy::<V6>(skb, node & !RELAY, wish, port, summed, tag) {
        Ok(true) => counters::copied(skb, copies::TUNNEL),
        Ok(false) => note_others(),
        Err(reason) => counters::dropped(skb, reason),
    }
}

#[inline(always)]
fn note_others() {
    if let Some(cast) = CAST.get_ptr_mut(0) {
        // SAFETY: as in `prepare`.
        unsafe { (*cast).others = 1 };
    }
}

// Functions of their own: the key is large.
#[inline(never)]
fn listens(network: u32, who: u32, address: &Address) -> bool {
    let key = ListenerKey {
        network,
        who,
        address: *address,
    };
    // SAFETY: only whether there is a value matters.
    unsafe { LISTENERS.get(key) }.is_some()
}

/// Whether a node has listeners, or does not tell.
#[inline(always)]
fn has_listeners(network: u32, node: u32, address: &Address) -> bool {
    listens(network, node | NODE, address) || !listens(0, node | NODE, &Address::ZERO)
}

/// Sends a wrapped packet on to the nodes with members in this region.
#[inline(always)]
fn send_on<const V6: bool>(skb: &mut Skb) {
    let Some(cast) = CAST.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: as in `prepare`.
    unsafe {
        (*cast).relaying = 1;
    }
    if V6 {
        send_to_nodes_v6(skb.raw());
    } else {
        send_to_nodes(skb.raw());
    }
}

/// Sends a packet, whose outer headers were taken off, on to the nodes that [`send_on`] left out.
#[inline(never)]
fn send_on_to_others<const V6: bool>(skb: &mut Skb, vni: u32, port: u16) -> Result<(), DropReason> {
    let Some(cast) = cast() else {
        return Ok(());
    };
    if cast.others == 0 {
        return Ok(());
    }
    if cast.each != 0 {
        skb.window_mut::<6>(0)?.set_mac::<0>(EACH_ITS_OWN);
    }
    let header = Vxlan {
        vni,
        hops: 0,
        tag: 0,
    };
    if V6 {
        tunnel::wrap_plain(skb, header, port)?;
        send_to_nodes(skb.raw());
    } else {
        tunnel::wrap_again(skb, OUTER_BYTES_V6 as u32, header, port)?;
        send_to_nodes_v6(skb.raw());
    }
    Ok(())
}

/// The group with a tag, or zero, which is none.
// A function of its own: the key is on the stack.
#[inline(never)]
fn tagged(network: u32, tag: u32) -> u32 {
    let key = TagKey { network, tag };
    // SAFETY: the value is a plain number, replaced whole.
    unsafe { GROUP_TAGS.get(key) }.copied().unwrap_or(0)
}

/// A frame to a group address that came by a tunnel: to the members here and, where it is asked to
/// be sent on, to the nodes with members in this region.
#[inline(always)]
pub(crate) fn receive<const V6: bool>(
    skb: &mut Skb,
    headers: &Headers,
    header: Vxlan,
    plain: bool,
) -> Result<Handled, DropReason> {
    let from = underlay::sender::<V6>(skb, header.vni, plain)?;
    underlay::count_received::<V6>(skb);
    let Some(from) = from else {
        return Ok(Handled::Pass);
    };
    let mut group = tagged(header.vni, header.tag & !RELAYED);
    if deliver::location(from, header.vni).is_some_and(enforce::is_on) {
        group = enforce::group(skb, from, group)?;
    }
    let mut chunk = 0;
    let mark = skb.mark();
    if mark & CHUNK_MARK_MASK == CHUNK_MARK {
        chunk = mark & CHUNK_MASK;
    }
    let key = GroupKey { group, chunk };
    chunk_of(&key).ok_or(DropReason::UnknownGroup)?;
    // SAFETY: a network is replaced whole and freed only after a grace period.
    let network = unsafe { NETWORKS.get(header.vni) }.ok_or(DropReason::UnknownNetwork)?;
    let bytes = skb.len() - (tunnel::outer_bytes(V6) + ETHERNET_BYTES) as u32;
    if skb.gso_size() == 0 && bytes > network.mtu {
        return Err(DropReason::TooBig);
    }
    if skb.is_traced() {
        return Ok(Handled::Consumed);
    }
    if has_more(&key) {
        skb.set_mark(CHUNK_MARK | (chunk + 1));
        skb.reenter()?;
    }
    skb.set_mark(0);
    prepare(key.group, key.chunk, header.vni, from, headers);
    let port = tunnel::source_port(skb);
    if header.tag & RELAYED != 0 && underlay::is_far::<V6>(skb) {
        send_on::<V6>(skb);
    }
    tunnel::decapsulate::<V6>(skb, headers.family)?;
    send_to_members(skb.raw());
    send_on_to_others::<V6>(skb, header.vni, port)?;
    Ok(Handled::Consumed)
}
