//! A wire: what one end sends comes out of the other end unchanged, and nothing else does.
//!
//! ```text
//! endpoint_ingress, from an end:  WIRES -> size -> location of the other end
//!                                    -> here:      redirect, as it is
//!                                    -> elsewhere: tags back into the frame, wrap, redirect
//! underlay_ingress, a wire's:     peer -> WIRES -> the sending end lives there -> location of the other end
//!                                    -> here:      unwrap, tag as the kernel has it, redirect
//!                                    -> moved:     on to its new node
//! ```
//!
//! No header of the frame is looked at: it may be anything. What says whose it is is the device that
//! it came in by, or the tunnel header.
//!
//! The kernel keeps a frame's outermost VLAN tag beside the frame, where outer headers would come
//! between the two. So it is written into the frame on the way into a tunnel, and taken out of it
//! behind one: then the packet's headers are where the kernel believes them to be, which matters for
//! super-packets.

use aya_ebpf::bindings::{__sk_buff, TC_ACT_OK};
use sunwire_dataplane_common::{
    bytes::Window,
    drop_reason::DropReason,
    entries::{LocationEntry, PeerEntry, direction, peer},
    headers::{
        ETHER_IPV4, ETHER_IPV6, ETHER_QINQ, ETHER_VLAN, ETHERNET_BYTES, Family, IPV6_BYTES,
        PROTOCOL_TCP, UDP_BYTES,
    },
    vxlan::{MAX_HOPS, OUTER_BYTES, OUTER_BYTES_V6, UDP_OFFSET},
    wire::{TAG_BYTES, WireEntry, WireHeader, counter_key, wired},
};

use crate::{
    Handled, counters, deliver,
    frame::{Skb, note},
    maps::{CONTROL, ENDPOINTS, PEER_ADDRESSES, WIRE_COUNTERS, WIRES},
    tunnel::{self, Ethernet, outer_bytes, vxlan_offset},
    underlay,
};

/// Where the EtherType or the first tag is in a tunnelled frame.
const fn inner_type(v6: bool) -> usize {
    outer_bytes(v6) + 12
}
/// The kernel's own stack goes on with it.
const PASS: i32 = TC_ACT_OK;
/// Added to the number of a drop reason.
const DROPPED: u32 = 1 << 31;

/// A packet of an endpoint that is an end of a wire.
#[inline(always)]
pub(crate) fn enter(skb: &mut Skb) -> Result<Handled, DropReason> {
    let traced = skb.is_traced() as u32;
    outcome(wire_enter(skb.raw(), traced))
}

/// A tunnelled packet of a wire; `plain` if it was not encrypted.
#[inline(always)]
pub(crate) fn receive<const V6: bool>(skb: &mut Skb, plain: bool) -> Result<Handled, DropReason> {
    let (traced, plain) = (skb.is_traced() as u32, plain as u32);
    outcome(if V6 {
        wire_receive_v6(skb.raw(), traced, plain)
    } else {
        wire_receive(skb.raw(), traced, plain)
    })
}

#[inline(always)]
fn outcome(code: u32) -> Result<Handled, DropReason> {
    if code == PASS as u32 {
        return Ok(Handled::Pass);
    }
    if code & DROPPED == 0 {
        return Ok(Handled::Redirect(code as i32));
    }
    // Each of the reasons there are here, one by one: it is a number of the kernel's.
    Err(match code & !DROPPED {
        code if code == DropReason::NoWire as u32 => DropReason::NoWire,
        code if code == DropReason::TooBig as u32 => DropReason::TooBig,
        code if code == DropReason::NotAttached as u32 => DropReason::NotAttached,
        code if code == DropReason::NoRoute as u32 => DropReason::NoRoute,
        code if code == DropReason::NoTunnel as u32 => DropReason::NoTunnel,
        code if code == DropReason::Vlan as u32 => DropReason::Vlan,
        code if code == DropReason::Resize as u32 => DropReason::Resize,
        code if code == DropReason::Malformed as u32 => DropReason::Malformed,
        code if code == DropReason::UnknownPeer as u32 => DropReason::UnknownPeer,
        code if code == DropReason::Unencrypted as u32 => DropReason::Unencrypted,
        code if code == DropReason::SourceNotThere as u32 => DropReason::SourceNotThere,
        code if code == DropReason::NotHere as u32 => DropReason::NotHere,
        code if code == DropReason::InTransit as u32 => DropReason::InTransit,
        code if code == DropReason::HopLimit as u32 => DropReason::HopLimit,
        code if code == DropReason::NoChecksum as u32 => DropReason::NoChecksum,
        _ => DropReason::BadTables,
    })
}

#[inline(always)]
fn coded(outcome: Result<i32, DropReason>) -> u32 {
    match outcome {
        Ok(action) => action as u32,
        Err(reason) => DROPPED | reason as u32,
    }
}

// Global functions, which the verifier looks at once and by themselves.

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn wire_enter(context: *mut __sk_buff, traced: u32) -> u32 {
    let mut skb = Skb::from_raw(context, traced != 0);
    coded(send(&mut skb))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn wire_receive(context: *mut __sk_buff, traced: u32, plain: u32) -> u32 {
    let mut skb = Skb::from_raw(context, traced != 0);
    coded(deliver::<false>(&mut skb, plain != 0))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn wire_receive_v6(context: *mut __sk_buff, traced: u32, plain: u32) -> u32 {
    let mut skb = Skb::from_raw(context, traced != 0);
    coded(deliver::<true>(&mut skb, plain != 0))
}

#[inline(always)]
fn find(number: u32) -> Option<&'static WireEntry> {
    // SAFETY: a wire is replaced whole, and one that is gone reads as it was.
    unsafe { WIRES.get(number) }
}

#[inline(always)]
fn send(skb: &mut Skb) -> Result<i32, DropReason> {
    let ifindex = skb.ifindex();
    let endpoint = ENDPOINTS.get(ifindex).ok_or(DropReason::NotAttached)?;
    let control = CONTROL.get(0).ok_or(DropReason::BadTables)?;
    let number = endpoint.wire;
    skb.flag(note::WIRE);
    let wire = find(number).filter(|wire| wire.network == endpoint.network);
    let wire = wire.ok_or(DropReason::NoWire)?;
    let (to, from_b) = match endpoint.number {
        own if own == wire.ends[0] => (wire.ends[1], false),
        own if own == wire.ends[1] => (wire.ends[0], true),
        _ => return Err(DropReason::NoWire),
    };
    skb.set_note::<{ note::DESTINATION }>(to);
    if !fits(skb, endpoint.mtu)? {
        return Err(DropReason::TooBig);
    }
    let network = wired(endpoint.network);
    let location = deliver::location(to, network).ok_or(DropReason::NoWire)?;
    let (segments, bytes) = (skb.segments(), skb.len());
    let action = if location.ifindex != 0 {
        // By its queue, and not past it: what a frame is to its receiver (for it, for all, for another
        // one) is found out there.
        skb.redirect(location.ifindex)
    } else {
        let node = if location.node != control.node {
            location.node
        } else if location.other != 0 {
            // Released here and on its way: what is sent now waits at the other end, if anywhere.
            location.other
        } else {
            return Err(DropReason::NotAttached);
        };
        let header = WireHeader {
            vni: endpoint.network,
            number,
            from_b,
            hops: 0,
        };
        encapsulate(skb, node, header, location)?
    };
    count(skb, counter_key(number, from_b), segments, bytes);
    Ok(action)
}

#[inline(always)]
fn deliver<const V6: bool>(skb: &mut Skb, plain: bool) -> Result<i32, DropReason> {
    let control = CONTROL.get(0).ok_or(DropReason::BadTables)?;
    let header = skb.window::<8>(vxlan_offset(V6));
    let header = header.and_then(WireHeader::parse);
    let header = header.ok_or(DropReason::Malformed)?;
    let address = underlay::outer_source::<V6>(skb);
    skb.set_note::<{ note::NETWORK }>(header.vni);
    skb.flag(note::WIRE);
    // SAFETY: values are plain numbers, replaced whole.
    let peer = *unsafe { PEER_ADDRESSES.get(address) }.ok_or(DropReason::UnknownPeer)?;
    let flags = tunnel::peer_flags(peer);
    if flags & peer::FOREIGN != 0 {
        // It knows no wires: the bit means nothing.
        return Ok(PASS);
    }
    if plain && tunnel::must_be_encrypted(flags, header.vni) {
        return Err(DropReason::Unencrypted);
    }
    let wire = find(header.number).filter(|wire| wire.network == header.vni);
    let wire = wire.ok_or(DropReason::NoWire)?;
    let (from, to) = match header.from_b {
        false => (wire.ends[0], wire.ends[1]),
        true => (wire.ends[1], wire.ends[0]),
    };
    skb.set_note::<{ note::DESTINATION }>(to);
    let network = wired(header.vni);
    let sender = deliver::location(from, network).ok_or(DropReason::SourceNotThere)?;
    let location = deliver::location(to, network).ok_or(DropReason::NotHere)?;
    // As for everything else: the sender lives at the peer or moves to or from it, or the peer forwards
    // for who lived there.
    let forwards = header.hops > 0 && underlay::lives_at(location, peer);
    if !underlay::lives_at(sender, peer) && !forwards {
        return Err(DropReason::SourceNotThere);
    }
    if plain && tunnel::is_encrypted(location) {
        return Err(DropReason::Unencrypted);
    }
    counters::tunnelled(skb, peer, direction::RECEIVED, outer_bytes(V6));
    if location.ifindex != 0 {
        let frame = skb.len() - outer_bytes(V6) as u32;
        let largest = location.mtu + (ETHERNET_BYTES + TAG_BYTES) as u32;
        if skb.gso_size() == 0 && frame > largest {
            return Err(DropReason::TooBig);
        }
        decapsulate::<V6>(skb)?;
        return Ok(skb.redirect(location.ifindex));
    }
    let node = underlay::next_home(location, control.node, header.hops)?;
    if header.hops >= MAX_HOPS {
        return Err(DropReason::HopLimit);
    }
    let header = WireHeader {
        hops: header.hops + 1,
        ..header
    };
    let is_crossing = tunnel::is_over_ipv6(node, location) != V6;
    if (skb.gso_size() != 0 && !plain) || is_crossing {
        // As in `underlay`.
        decapsulate::<V6>(skb)?;
        return encapsulate(skb, node, header, location);
    }
    tunnel::forward::<V6>(skb, node, header.last_word(), location)
}

/// Counts a frame that went into a wire, where the agent wants it counted.
#[inline(always)]
fn count(skb: &Skb, key: u32, segments: u64, bytes: u32) {
    if skb.is_traced() {
        return;
    }
    if let Some(counter) = WIRE_COUNTERS.get_ptr_mut(key) {
        // SAFETY: the value is this CPU's own, and a TC program is not preempted by another one that
        // would count on the same CPU.
        unsafe { counters::add_to(counter, segments, bytes) };
    }
}

/// Whether a frame, or each segment of a super-packet, is within the network's MTU. One tag is not
/// counted in.
#[inline(never)]
fn fits(skb: &mut Skb, mtu: u32) -> Result<bool, DropReason> {
    let in_frame = !skb.is_tagged() && is_vlan(skb.protocol());
    let link = match in_frame {
        true => ETHERNET_BYTES + TAG_BYTES,
        false => ETHERNET_BYTES,
    };
    let gso_size = skb.gso_size();
    if gso_size == 0 {
        return Ok(skb.len() - link as u32 <= mtu);
    }
    let [version] = skb.load::<1>(link).ok_or(DropReason::Malformed)?;
    let (ip, protocol_at) = match version >> 4 {
        6 => (IPV6_BYTES, link + 6),
        _ => (usize::from(version & 0xf) * 4, link + 9),
    };
    let [protocol] = skb.load::<1>(protocol_at).ok_or(DropReason::Malformed)?;
    let transport = if protocol == PROTOCOL_TCP {
        let [offset] = skb.load::<1>(link + ip + 12).ok_or(DropReason::Malformed)?;
        usize::from(offset >> 4) * 4
    } else {
        UDP_BYTES
    };
    Ok((ip + transport) as u32 + gso_size <= mtu)
}

#[inline(always)]
fn is_vlan(ether_type: u16) -> bool {
    matches!(ether_type, ETHER_VLAN | ETHER_QINQ)
}

/// Tags of a frame, as they stand in it: words in memory order, the outermost first.
struct Tags {
    count: usize,
    first: u32,
    second: u32,
}

/// Takes the tags off that the kernel keeps beside the frame.
#[inline(always)]
fn take_tags(skb: &mut Skb) -> Result<Tags, DropReason> {
    let mut tags = Tags {
        count: 0,
        first: 0,
        second: 0,
    };
    if skb.is_tagged() {
        tags.first = skb.tag();
        skb.pop_tag()?;
        tags.count = 1;
        // The next one takes its place.
        if skb.is_tagged() {
            tags.second = skb.tag();
            skb.pop_tag()?;
            tags.count = 2;
            if skb.is_tagged() {
                return Err(DropReason::Vlan);
            }
        }
    }
    Ok(tags)
}

/// Wraps a frame for a node and sends it there.
#[inline(never)]
fn encapsulate(
    skb: &mut Skb,
    node: u32,
    header: WireHeader,
    location: &LocationEntry,
) -> Result<i32, DropReason> {
    skb.set_note::<{ note::NODE }>(node);
    let peer = tunnel::reachable(node, tunnel::wish(location))?;
    let words = [header.first_word(), header.last_word()];
    if peer.flags & peer::OVER_IPV6 != 0 {
        wrap::<true>(skb, node, words, peer, location.port)?;
        counters::tunnelled(skb, node, direction::SENT, OUTER_BYTES_V6);
    } else {
        wrap::<false>(skb, node, words, peer, location.port)?;
        counters::tunnelled(skb, node, direction::SENT, OUTER_BYTES);
    }
    tunnel::send_out(skb, peer, tunnel::has_checksum(location))
}

/// Wraps a frame for a node, over IPv6 or over IPv4; the words are those of the header, the port is the
/// network's.
// A function of its own for each: one after the other they use the same stack.
#[inline(never)]
fn wrap<const V6: bool>(
    skb: &mut Skb,
    node: u32,
    words: [u32; 2],
    peer: &PeerEntry,
    port: u16,
) -> Result<(), DropReason> {
    let tags = take_tags(skb)?;
    tunnel::fill_up(skb)?;
    skb.ensure_bytes(ETHERNET_BYTES as u32);
    let port = tunnel::destination_port(peer, port);
    let ports = tunnel::ports(tunnel::source_port(skb), port);
    let is_ip = matches!(skb.protocol(), ETHER_IPV4 | ETHER_IPV6);
    let inner = Ethernet::read(skb, 0)?;
    let tag_bytes = tags.count * TAG_BYTES;
    tunnel::make_room::<V6>(skb, peer, is_ip, tag_bytes)?;
    skb.flag(note::OUTER);

    if V6 {
        tunnel::write_outer_v6(skb, node, words, ports, &inner)?;
    } else {
        let length = skb.len();
        let mut outer = skb.window_mut::<{ OUTER_BYTES + 14 }>(0)?;
        tunnel::write_until_udp(&mut outer, peer, length);
        let udp_bytes = (length - UDP_OFFSET as u32) as u16;
        tunnel::write_from_udp(&mut outer, ports, udp_bytes, words, &inner);
    }
    // Tags stand where the type of a frame without stands, and it behind them.
    match tags.count {
        0 => {}
        1 => {
            let mut rest = skb.window_mut::<6>(inner_type(V6))?;
            rest.set_word::<0>(tags.first);
            rest.set_half::<4>(inner.ether_type);
        }
        _ => {
            let mut rest = skb.window_mut::<10>(inner_type(V6))?;
            rest.set_word::<0>(tags.first);
            rest.set_word::<4>(tags.second);
            rest.set_half::<8>(inner.ether_type);
        }
    }
    Ok(())
}

/// Takes the outer headers off, and the frame's tags to where the kernel keeps them.
#[inline(never)]
fn decapsulate<const V6: bool>(skb: &mut Skb) -> Result<(), DropReason> {
    let inner = skb.window::<14>(outer_bytes(V6));
    let inner = inner.ok_or(DropReason::Malformed)?;
    let (a, b, c) = (inner.word::<0>(), inner.word::<4>(), inner.word::<8>());
    let mut ether_type = inner.half::<12>();
    let mut tags = Tags {
        count: 0,
        first: 0,
        second: 0,
    };
    if is_vlan(u16::from_be(ether_type)) {
        let tag = skb
            .window::<6>(inner_type(V6))
            .ok_or(DropReason::Malformed)?;
        (tags.first, ether_type, tags.count) = (tag.word::<0>(), tag.half::<4>(), 1);
        if is_vlan(u16::from_be(ether_type)) {
            let tag = skb.window::<6>(inner_type(V6) + TAG_BYTES);
            let tag = tag.ok_or(DropReason::Malformed)?;
            (tags.second, ether_type, tags.count) = (tag.word::<0>(), tag.half::<4>(), 2);
        }
    }
    let family = match u16::from_be(ether_type) {
        ETHER_IPV4 => Family::V4,
        ETHER_IPV6 => Family::V6,
        _ => Family::None,
    };
    tunnel::take_room::<V6>(skb, family, tags.count * TAG_BYTES)?;
    let mut frame = skb.window_mut::<14>(0)?;
    frame.set_word::<0>(a);
    frame.set_word::<4>(b);
    frame.set_word::<8>(c);
    frame.set_half::<12>(ether_type);
    if tags.count == 2 {
        skb.push_tag(tags.second)?;
    }
    if tags.count != 0 {
        skb.push_tag(tags.first)?;
    }
    Ok(())
}
