//! Into the tunnel and on through it: VXLAN over IPv4 or IPv6, with super-packets kept whole.
//!
//! Whether over IPv4 or IPv6 is the peer's. What is written is written once for each, because the headers
//! have nothing in common; all else is the same text, over a constant.

mod disguise;
mod onward;

use aya_ebpf::bindings::__sk_buff;
use sunwire_dataplane_common::{
    bytes::Window,
    drop_reason::DropReason,
    entries::{
        Control, LocationEntry, PeerEntry, PeerEntryV6, direction, location,
        network as network_flags, peer,
    },
    headers::{ETHER_IPV4, ETHER_IPV6, ETHERNET_BYTES, Family, IPV6_BYTES, UDP_BYTES},
    vxlan::{
        self, IPV4_OFFSET, IPV6_OFFSET, OUTER_BYTES, OUTER_BYTES_V6, UDP_OFFSET, UDP_OFFSET_V6,
        VXLAN_OFFSET, VXLAN_OFFSET_V6, Vxlan, fold_checksum,
    },
    wire::FRAME_BYTES_MIN,
};

use crate::{
    counters,
    frame::{PacketWindowMut, Skb, note},
    maps::{CONTROL, ENCRYPTED_PEERS, NETWORKS, PEERS, PEERS_V6, PLAIN_PEERS},
};

use onward::readdress;
pub(crate) use onward::{forward, send_back, send_out};

const BPF_F_ADJ_ROOM_FIXED_GSO: u64 = 1 << 0;
const BPF_F_ADJ_ROOM_ENCAP_L3_IPV4: u64 = 1 << 1;
const BPF_F_ADJ_ROOM_ENCAP_L3_IPV6: u64 = 1 << 2;
const BPF_F_ADJ_ROOM_ENCAP_L4_UDP: u64 = 1 << 4;
const BPF_F_ADJ_ROOM_ENCAP_L2_ETH: u64 = 1 << 6;
const BPF_F_ADJ_ROOM_DECAP_L3_IPV4: u64 = 1 << 7;
const BPF_F_ADJ_ROOM_DECAP_L3_IPV6: u64 = 1 << 8;
/// The inner Ethernet header without tags.
const INNER_L2_BYTES: u64 = 14;
/// The length of the inner Ethernet header goes into the upper 8 bits, so that segmentation knows where
/// the inner IP header is.
const ENCAP_FLAGS: u64 = BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | ENCAP_ANY;
const ENCAP_FLAGS_V6: u64 = BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 | ENCAP_ANY;
const ENCAP_ANY: u64 =
    BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L4_UDP | BPF_F_ADJ_ROOM_ENCAP_L2_ETH;

/// Bytes of the outer headers, over IPv6 or over IPv4.
#[inline(always)]
pub(crate) const fn outer_bytes(v6: bool) -> usize {
    if v6 { OUTER_BYTES_V6 } else { OUTER_BYTES }
}

/// Offset of the VXLAN header behind the outer ones.
#[inline(always)]
pub(crate) const fn vxlan_offset(v6: bool) -> usize {
    if v6 { VXLAN_OFFSET_V6 } else { VXLAN_OFFSET }
}

const fn encap_flags(v6: bool) -> u64 {
    if v6 { ENCAP_FLAGS_V6 } else { ENCAP_FLAGS }
}

/// An Ethernet header, to be put back after the packet grew or shrank behind the outer one.
pub(crate) struct Ethernet {
    pub(crate) words: [u32; 3],
    pub(crate) ether_type: u16,
}

impl Ethernet {
    #[inline(always)]
    pub(crate) fn read(skb: &Skb, offset: usize) -> Result<Self, DropReason> {
        let bytes = skb.window::<14>(offset).ok_or(DropReason::Malformed)?;
        Ok(Ethernet {
            words: [bytes.word::<0>(), bytes.word::<4>(), bytes.word::<8>()],
            ether_type: bytes.half::<12>(),
        })
    }
}

/// The outer source port of a packet, in network order.
#[inline(always)]
pub(crate) fn source_port(skb: &Skb) -> u16 {
    (vxlan::SOURCE_PORT_BASE | (skb.hash() & vxlan::SOURCE_PORT_MASK) as u16).to_be()
}

/// Wraps the packet for a node, where its destination at `location` is, and sends it out of the
/// underlay device, or to where it is encrypted.
///
/// The inner flow spreads over the underlay's paths by the outer source port (RFC 7348, 5), in
/// network order.
#[inline(always)]
pub(crate) fn encapsulate(
    skb: &mut Skb,
    node: u32,
    header: Vxlan,
    location: &LocationEntry,
    port: u16,
) -> Result<i32, DropReason> {
    skb.set_note::<{ note::NODE }>(node);
    if location.flags & (location::OTHER_PORT | location::CHECKSUM) != 0 {
        return encapsulate_elsewhere(skb, node, header, port, location);
    }
    let peer = reachable(node, wish(location))?;
    if peer.flags & peer::OVER_IPV6 != 0 {
        let ifindex = peer.ifindex;
        let (first, last) = (header.first_word(), header.last_word());
        if wrap_v6(skb.raw(), node, last, first, usual(port)) == 0 {
            return Err(DropReason::Resize);
        }
        skb.flag(note::OUTER);
        counters::tunnelled(skb, node, direction::SENT, OUTER_BYTES_V6);
        return Ok(skb.redirect(ifindex));
    }
    let is_ip = is_ip(skb);
    if !is_ip {
        fill_up(skb)?;
    }
    let inner = Ethernet::read(skb, 0)?;
    make_room::<false>(skb, peer, is_ip, 0)?;
    skb.flag(note::OUTER);

    let length = skb.len();
    let mut outer = skb.window_mut::<{ OUTER_BYTES + 14 }>(0)?;
    write_until_udp(&mut outer, peer, length);
    let udp_bytes = (length - UDP_OFFSET as u32) as u16;
    write_from_udp(
        &mut outer,
        usual(port),
        udp_bytes,
        [header.first_word(), header.last_word()],
        &inner,
    );
    counters::tunnelled(skb, node, direction::SENT, OUTER_BYTES);
    Ok(skb.redirect(peer.ifindex))
}

/// As [`encapsulate`], of a network with a port of its own, or with outer checksums.
#[inline(always)]
fn encapsulate_elsewhere(
    skb: &mut Skb,
    node: u32,
    header: Vxlan,
    port: u16,
    location: &LocationEntry,
) -> Result<i32, DropReason> {
    let mut node = node;
    if skb.is_traced() {
        node |= TRACED;
    }
    if has_checksum(location) {
        node |= SUMMED;
    }
    if location.flags & location::PLAIN != 0 {
        node |= IN_CLEAR;
    }
    let (first, last) = (header.first_word(), header.last_word());
    let code = wrap_elsewhere(skb.raw(), node, last, first, ports(port, location.port));
    if code & DROPPED == 0 {
        return Ok(code as i32);
    }
    Err(match code & !DROPPED {
        code if code == DropReason::NoTunnel as u32 => DropReason::NoTunnel,
        code if code == DropReason::Resize as u32 => DropReason::Resize,
        code if code == DropReason::Malformed as u32 => DropReason::Malformed,
        code if code == DropReason::NoChecksum as u32 => DropReason::NoChecksum,
        _ => DropReason::NoRoute,
    })
}

/// Added to the number of a drop reason.
const DROPPED: u32 = 1 << 31;
/// Added to the number of a node: the packet is traced, its network has outer checksums, and is encrypted
/// nowhere.
const TRACED: u32 = 1 << 31;
const SUMMED: u32 = 1 << 30;
const IN_CLEAR: u32 = 1 << 29;

/// Wraps and sends the packet.
///
/// A global function, as [`wrap_v6`]: few networks have a port of their own or checksums, and the way of
/// the others has no stack left.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn wrap_elsewhere(
    context: *mut __sk_buff,
    node: u32,
    last_word: u32,
    first_word: u32,
    ports: u32,
) -> u32 {
    let mut skb = Skb::from_raw(context, node & TRACED != 0);
    let words = [first_word, last_word];
    match send_elsewhere(&mut skb, node, words, ports) {
        Ok(action) => action as u32,
        Err(reason) => DROPPED | reason as u32,
    }
}

#[inline(always)]
fn send_elsewhere(
    skb: &mut Skb,
    node: u32,
    words: [u32; 2],
    network_ports: u32,
) -> Result<i32, DropReason> {
    let summed = node & SUMMED != 0;
    // Of a network that is encrypted wherever it goes, the port is the usual one.
    let wish = match node & IN_CLEAR {
        0 => 0,
        _ => location::PLAIN,
    };
    let node = node & !(TRACED | SUMMED | IN_CLEAR);
    let peer = reachable(node, wish)?;
    let port = destination_port(peer, (network_ports >> 16) as u16);
    let ports = ports(network_ports as u16, port);
    if peer.flags & peer::OVER_IPV6 != 0 {
        write_v6(skb, node, words, ports)?;
        skb.flag(note::OUTER);
        counters::tunnelled(skb, node, direction::SENT, OUTER_BYTES_V6);
        return send_out(skb, peer, summed);
    }
    let is_ip = is_ip(skb);
    if !is_ip {
        fill_up(skb)?;
    }
    let inner = Ethernet::read(skb, 0)?;
    make_room::<false>(skb, peer, is_ip, 0)?;
    skb.flag(note::OUTER);
    let length = skb.len();
    let mut outer = skb.window_mut::<{ OUTER_BYTES + 14 }>(0)?;
    write_until_udp(&mut outer, peer, length);
    let udp_bytes = (length - UDP_OFFSET as u32) as u16;
    write_from_udp(&mut outer, ports, udp_bytes, words, &inner);
    counters::tunnelled(skb, node, direction::SENT, OUTER_BYTES);
    send_out(skb, peer, summed)
}

/// The port that packets to a node are sent to whose network's is `port`; in network order. What is
/// encrypted has the usual one within its tunnel.
#[inline(always)]
pub(crate) fn destination_port(peer: &PeerEntry, port: u16) -> u16 {
    if peer.flags & peer::ENCRYPTED != 0 {
        vxlan::PORT.to_be()
    } else {
        port
    }
}

/// The UDP ports as they stand in a header, in memory order.
#[inline(always)]
pub(crate) fn ports(source: u16, destination: u16) -> u32 {
    u32::from(source) | u32::from(destination) << 16
}

/// The same with the destination port that most networks have.
#[inline(always)]
fn usual(source: u16) -> u32 {
    ports(source, vxlan::PORT.to_be())
}

/// Whether the kernel takes the packet for one of IP.
#[inline(always)]
fn is_ip(skb: &Skb) -> bool {
    matches!(skb.protocol(), ETHER_IPV4 | ETHER_IPV6)
}

/// Makes a frame long enough to be taken out of its tunnel.
#[inline(always)]
pub(crate) fn fill_up(skb: &mut Skb) -> Result<(), DropReason> {
    if skb.len() < FRAME_BYTES_MIN {
        skb.set_len(FRAME_BYTES_MIN)?;
        // The room may be outside of the linear part.
        skb.ensure_bytes(FRAME_BYTES_MIN);
    }
    Ok(())
}

/// Makes room for the outer headers, and for tags of the inner frame in bytes; `is_ip` if it has an IP
/// header behind these.
#[inline(always)]
pub(crate) fn make_room<const V6: bool>(
    skb: &mut Skb,
    peer: &PeerEntry,
    is_ip: bool,
    tag_bytes: usize,
) -> Result<(), DropReason> {
    let bytes = outer_bytes(V6) + tag_bytes;
    let mut is_ip = is_ip;
    if !is_ip && peer.flags & peer::KERNEL != 0 {
        // A device without Ethernet headers gets the packet from the IP header on that the kernel
        // knows of, and of a frame that is no IP packet it would know none.
        disguise::pass_for_ipv4(skb)?;
        is_ip = true;
    }
    if !is_ip || peer.flags & (peer::ENCRYPTED | peer::KERNEL) == peer::ENCRYPTED {
        // The kernel makes tunnels of IP packets alone. And a super-packet that is marked as one
        // within a tunnel would be split on its way into a device that knows nothing of tunnels: the
        // process that encrypts takes it whole, as one whose Ethernet header is just longer.
        return skb.push(bytes as u32);
    }
    let link = INNER_L2_BYTES + tag_bytes as u64;
    skb.adjust_room(bytes as i32, encap_flags(V6) | link << 56)
}

/// Takes away what [`make_room`] makes, around a packet of a family. Returns the family that
/// skb->protocol tells of now, or none where that is not the inner packet's.
#[inline(always)]
pub(crate) fn take_room<const V6: bool>(
    skb: &mut Skb,
    family: Family,
    tag_bytes: usize,
) -> Result<Family, DropReason> {
    let bytes = outer_bytes(V6) + tag_bytes;
    if V6 {
        return shed_v6(skb, family, bytes);
    }
    // Without the flag skb->protocol stays what the outer header is. Linux before 6.3 does not know the
    // flag, and refuses it before it changes anything.
    let flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_DECAP_L3_IPV6;
    if family == Family::V6 && skb.shed(bytes, flags).is_ok() {
        return Ok(Family::V6);
    }
    skb.shed(bytes, BPF_F_ADJ_ROOM_FIXED_GSO)?;
    match family {
        Family::V4 => Ok(Family::V4),
        Family::V6 | Family::None => Ok(Family::None),
    }
}

/// Wraps the packet for a node that is reached over IPv6; returns zero when the kernel refuses. The words
/// of the VXLAN header and the [`ports`] are in memory order.
///
/// What is encrypted never comes here: within its tunnel it is wrapped for IPv4, whatever that goes over.
///
/// A global function, which the verifier looks at once, and not anew for every way that leads here.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn wrap_v6(
    context: *mut __sk_buff,
    node: u32,
    last_word: u32,
    first_word: u32,
    ports: u32,
) -> u32 {
    let mut skb = Skb::from_raw(context, false);
    match write_v6(&mut skb, node, [first_word, last_word], ports) {
        Ok(()) => 1,
        Err(_) => 0,
    }
}

#[inline(always)]
fn write_v6(skb: &mut Skb, node: u32, words: [u32; 2], ports: u32) -> Result<(), DropReason> {
    let is_ip = is_ip(skb);
    if !is_ip {
        fill_up(skb)?;
    }
    let inner = Ethernet::read(skb, 0)?;
    let peer = reachable(node, location::PLAIN)?;
    make_room::<true>(skb, peer, is_ip, 0)?;
    write_outer_v6(skb, node, words, ports, &inner)
}

/// Writes everything in front of a frame's EtherType over IPv6, and that; the room is there.
#[inline(always)]
pub(crate) fn write_outer_v6(
    skb: &mut Skb,
    node: u32,
    words: [u32; 2],
    ports: u32,
    inner: &Ethernet,
) -> Result<(), DropReason> {
    let peer = PEERS_V6.get(node).ok_or(DropReason::NoRoute)?;
    let length = skb.len();
    let mut outer = skb.window_mut::<{ OUTER_BYTES_V6 + 14 }>(0)?;
    write_ipv6(&mut outer, peer, length, ports as u16);
    write_behind_ipv6(&mut outer, length, ports);
    outer.set_word::<VXLAN_OFFSET_V6>(words[0]);
    outer.set_word::<{ VXLAN_OFFSET_V6 + 4 }>(words[1]);
    outer.set_word::<OUTER_BYTES_V6>(inner.words[0]);
    outer.set_word::<{ OUTER_BYTES_V6 + 4 }>(inner.words[1]);
    outer.set_word::<{ OUTER_BYTES_V6 + 8 }>(inner.words[2]);
    outer.set_half::<{ OUTER_BYTES_V6 + 12 }>(inner.ether_type);
    Ok(())
}

/// Wraps the packet for nodes that are reached over IPv6 and are not told yet: see [`send_copy`]. What is
/// there of outer headers over IPv4 is written over: `grow` is how many bytes are missing.
///
/// It is wrapped as what goes to an encrypted node is, because a packet that was marked once as being
/// within a tunnel cannot be marked anew. So super-packets stay here.
#[inline(always)]
pub(crate) fn wrap_again(
    skb: &mut Skb,
    grow: u32,
    header: Vxlan,
    port: u16,
) -> Result<(), DropReason> {
    if skb.gso_size() != 0 {
        return Err(DropReason::Resize);
    }
    skb.push(grow)?;
    skb.flag(note::OUTER);
    let length = skb.len();
    let mut outer = skb.window_mut::<OUTER_BYTES_V6>(0)?;
    write_behind_ipv6(&mut outer, length, usual(port));
    outer.set_word::<VXLAN_OFFSET_V6>(header.first_word());
    outer.set_word::<{ VXLAN_OFFSET_V6 + 4 }>(header.last_word());
    Ok(())
}

/// As [`wrap_again`], for a packet without outer headers and nodes that are reached over IPv4.
#[inline(always)]
pub(crate) fn wrap_plain(skb: &mut Skb, header: Vxlan, port: u16) -> Result<(), DropReason> {
    if skb.gso_size() != 0 {
        return Err(DropReason::Resize);
    }
    skb.push(OUTER_BYTES as u32)?;
    skb.flag(note::OUTER);
    let udp_bytes = (skb.len() - UDP_OFFSET as u32) as u16;
    let mut outer = skb.window_mut::<OUTER_BYTES>(0)?;
    outer.set_half::<UDP_OFFSET>(port);
    outer.set_half::<{ UDP_OFFSET + 2 }>(vxlan::PORT.to_be());
    outer.set_half::<{ UDP_OFFSET + 4 }>(udp_bytes.to_be());
    outer.set_half::<{ UDP_OFFSET + 6 }>(0);
    outer.set_word::<VXLAN_OFFSET>(header.first_word());
    outer.set_word::<{ VXLAN_OFFSET + 4 }>(header.last_word());
    Ok(())
}

/// Writes the UDP header over IPv6, for a packet of `length` bytes.
#[inline(always)]
fn write_behind_ipv6<const N: usize>(outer: &mut PacketWindowMut<'_, N>, length: u32, ports: u32) {
    let udp_bytes = (length - UDP_OFFSET_V6 as u32) as u16;
    outer.set_half::<UDP_OFFSET_V6>(ports as u16);
    outer.set_half::<{ UDP_OFFSET_V6 + 2 }>((ports >> 16) as u16);
    outer.set_half::<{ UDP_OFFSET_V6 + 4 }>(udp_bytes.to_be());
    // No checksum: see `vxlan`.
    outer.set_half::<{ UDP_OFFSET_V6 + 6 }>(0);
}

/// Writes the outer Ethernet and IPv6 headers from the peer's template, for a packet of `length` bytes;
/// `port` is the flow label too.
#[inline(always)]
fn write_ipv6<const N: usize>(
    outer: &mut PacketWindowMut<'_, N>,
    peer: &PeerEntryV6,
    length: u32,
    port: u16,
) {
    outer.set_word::<0>(peer.template[0]);
    outer.set_word::<4>(peer.template[1]);
    outer.set_word::<8>(peer.template[2]);
    outer.set_word::<12>(peer.template[3]);
    outer.set_word::<16>(peer.template[4]);
    outer.set_word::<20>(peer.template[5]);
    outer.set_word::<24>(peer.template[6]);
    outer.set_word::<28>(peer.template[7]);
    outer.set_word::<32>(peer.template[8]);
    outer.set_word::<36>(peer.template[9]);
    outer.set_word::<40>(peer.template[10]);
    outer.set_word::<44>(peer.template[11]);
    outer.set_word::<48>(peer.template[12]);
    outer.set_half::<52>(peer.template[13] as u16);
    // RFC 6438: no more is asked of it than to be the flow's.
    outer.set_half::<{ IPV6_OFFSET + 2 }>(port);
    let payload = (length - UDP_OFFSET_V6 as u32) as u16;
    outer.set_half::<{ IPV6_OFFSET + 4 }>(payload.to_be());
}

/// Wraps the packet for nodes that are not told yet: see [`send_copy`].
///
/// What goes to an encrypted one is wrapped no other way: packets for several are hardly ever
/// super-packets, and the kernel splits those on their way into the device that encrypts.
#[inline(always)]
pub(crate) fn wrap(skb: &mut Skb, header: Vxlan, port: u16) -> Result<(), DropReason> {
    let is_ip = is_ip(skb);
    if !is_ip {
        fill_up(skb)?;
    }
    let inner = Ethernet::read(skb, 0)?;
    if !is_ip {
        // Some of the nodes may be behind a device of the kernel: see `make_room`.
        disguise::pass_for_ipv4(skb)?;
    }
    skb.adjust_room(OUTER_BYTES as i32, ENCAP_FLAGS | INNER_L2_BYTES << 56)?;
    skb.flag(note::OUTER);
    let udp_bytes = (skb.len() - UDP_OFFSET as u32) as u16;
    let mut outer = skb.window_mut::<{ OUTER_BYTES + 14 }>(0)?;
    write_from_udp(
        &mut outer,
        usual(port),
        udp_bytes,
        [header.first_word(), header.last_word()],
        &inner,
    );
    Ok(())
}

/// Sends a copy of a wrapped packet to a node; `wish` is what its network asks for ([`wish`]), `port`
/// is the network's, `summed` if it has outer checksums, and `tag` says to which endpoints there. A packet that is wrapped for the other family than the node is
/// reached over is not sent: returns whether the node's is the packet's.
#[inline(always)]
pub(crate) fn send_copy<const V6: bool>(
    skb: &mut Skb,
    node: u32,
    wish: u32,
    port: u16,
    summed: bool,
    tag: u32,
) -> Result<bool, DropReason> {
    let peer = reachable(node, wish)?;
    if (peer.flags & peer::OVER_IPV6 != 0) != V6 {
        return Ok(false);
    }
    readdress::<V6>(skb, node, peer)?;
    // The kernel's VXLAN refuses what others have put into reserved bits.
    let tag = match peer.flags & peer::FOREIGN {
        0 => tag,
        _ => 0,
    };
    let mut udp = skb.window_mut::<16>(vxlan_offset(V6) - UDP_BYTES)?;
    udp.set_half::<2>(destination_port(peer, port));
    udp.set_word::<UDP_BYTES>(vxlan::first_word(tag));
    if onward::send_copy_out(skb, peer, summed)? {
        counters::tunnelled(skb, node, direction::SENT, outer_bytes(V6));
        Ok(true)
    } else {
        Err(DropReason::NoRoute)
    }
}

/// Whether packets to a node, where their destination at `location` is, go over IPv6.
#[inline(always)]
pub(crate) fn is_over_ipv6(node: u32, location: &LocationEntry) -> bool {
    reachable(node, wish(location)).is_ok_and(|peer| peer.flags & peer::OVER_IPV6 != 0)
}

/// Takes the outer headers off; the inner Ethernet header takes their place. Returns the family that
/// skb->protocol tells of now, or none where that is not the inner packet's.
#[inline(always)]
pub(crate) fn decapsulate<const V6: bool>(
    skb: &mut Skb,
    family: Family,
) -> Result<Family, DropReason> {
    let inner = Ethernet::read(skb, outer_bytes(V6))?;
    let told = take_room::<V6>(skb, family, 0)?;
    let mut frame = skb.window_mut::<14>(0)?;
    frame.set_word::<0>(inner.words[0]);
    frame.set_word::<4>(inner.words[1]);
    frame.set_word::<8>(inner.words[2]);
    frame.set_half::<12>(inner.ether_type);
    Ok(told)
}

/// Takes outer headers over IPv6 off; returns as [`decapsulate`].
#[inline(always)]
fn shed_v6(skb: &mut Skb, family: Family, bytes: usize) -> Result<Family, DropReason> {
    // The kernel leaves an IPv6 header's bytes behind the Ethernet header, or with the flag an IPv4
    // header's. A shorter frame is filled up, as one on a wire is.
    let least = (bytes + ETHERNET_BYTES + IPV6_BYTES) as u32;
    if family != Family::V6 {
        let flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_DECAP_L3_IPV4;
        if skb.shed(bytes, flags).is_ok() {
            return Ok(family);
        }
        if skb.len() < least {
            skb.set_len(least)?;
        }
    }
    skb.shed(bytes, BPF_F_ADJ_ROOM_FIXED_GSO)?;
    match family {
        Family::V6 => Ok(Family::V6),
        Family::V4 | Family::None => Ok(Family::None),
    }
}

/// Writes the outer Ethernet and IPv4 headers from the peer's template, for a packet of `length`
/// bytes. A super-packet's length may not fit; segmentation sets it anew for each segment.
#[inline(always)]
pub(crate) fn write_until_udp<const N: usize>(
    outer: &mut PacketWindowMut<'_, N>,
    peer: &PeerEntry,
    length: u32,
) {
    let total = (length - IPV4_OFFSET as u32) as u16;
    let checksum = fold_checksum(peer.checksum + u32::from(total));
    outer.set_word::<0>(peer.template[0]);
    outer.set_word::<4>(peer.template[1]);
    outer.set_word::<8>(peer.template[2]);
    outer.set_word::<12>(peer.template[3]);
    outer.set_word::<16>(peer.template[4]);
    outer.set_word::<20>(peer.template[5]);
    outer.set_word::<24>(peer.template[6]);
    outer.set_word::<28>(peer.template[7]);
    outer.set_half::<32>(peer.template[8] as u16);
    outer.set_half::<{ IPV4_OFFSET + 2 }>(total.to_be());
    outer.set_half::<{ IPV4_OFFSET + 10 }>(checksum.to_be());
}

/// Writes the outer UDP header with its [`ports`] and the tunnel's, of which there are the words, and the
/// inner Ethernet header behind them.
#[inline(always)]
pub(crate) fn write_from_udp(
    outer: &mut PacketWindowMut<'_, { OUTER_BYTES + 14 }>,
    ports: u32,
    udp_bytes: u16,
    header: [u32; 2],
    inner: &Ethernet,
) {
    outer.set_half::<UDP_OFFSET>(ports as u16);
    outer.set_half::<{ UDP_OFFSET + 2 }>((ports >> 16) as u16);
    outer.set_half::<{ UDP_OFFSET + 4 }>(udp_bytes.to_be());
    // No checksum: the inner packet has its own (RFC 7348, 5).
    outer.set_half::<{ UDP_OFFSET + 6 }>(0);
    outer.set_word::<VXLAN_OFFSET>(header[0]);
    outer.set_word::<{ VXLAN_OFFSET + 4 }>(header[1]);
    outer.set_word::<OUTER_BYTES>(inner.words[0]);
    outer.set_word::<{ OUTER_BYTES + 4 }>(inner.words[1]);
    outer.set_word::<{ OUTER_BYTES + 8 }>(inner.words[2]);
    outer.set_half::<{ OUTER_BYTES + 12 }>(inner.ether_type);
}

/// Whether packets of an endpoint's network are encrypted wherever they go.
#[inline(always)]
pub(crate) fn is_encrypted(location: &LocationEntry) -> bool {
    location.flags & location::ENCRYPTED != 0
}

/// Whether packets of an endpoint's network have an outer UDP checksum.
#[inline(always)]
pub(crate) fn has_checksum(location: &LocationEntry) -> bool {
    location.flags & location::CHECKSUM != 0
}

/// What the network of an endpoint asks for, of [`location`]: [`ENCRYPTED`](location::ENCRYPTED) wherever
/// its packets go, [`PLAIN`](location::PLAIN) or, with neither, as the cloud has it.
#[inline(always)]
pub(crate) fn wish(location: &LocationEntry) -> u32 {
    location.flags & (location::ENCRYPTED | location::PLAIN)
}

/// Whether what comes in the clear from a node with these bits of [`peer`] is not believed: all between
/// the two is encrypted, but for networks that are so nowhere.
#[inline(always)]
pub(crate) fn must_be_encrypted(flags: u32, vni: u32) -> bool {
    // SAFETY: a network is replaced whole and freed only after a grace period.
    let network = || unsafe { NETWORKS.get(vni) };
    flags & peer::ENCRYPTED != 0
        && network().is_none_or(|network| network.flags & network_flags::PLAIN == 0)
}

/// How a node is reached with packets of a network that asks for this: see [`wish`].
#[inline(always)]
pub(crate) fn reachable(node: u32, wish: u32) -> Result<&'static PeerEntry, DropReason> {
    let peer = if wish & location::ENCRYPTED != 0 {
        ENCRYPTED_PEERS.get(node)
    } else if wish & location::PLAIN != 0 {
        PLAIN_PEERS.get(node)
    } else {
        PEERS.get(node)
    };
    match peer {
        Some(peer) if peer.ifindex != 0 => Ok(peer),
        Some(peer) if peer.flags & peer::ENCRYPTED != 0 => Err(DropReason::NoTunnel),
        _ => Err(DropReason::NoRoute),
    }
}

/// Whether the packet came through an encrypted tunnel.
#[inline(always)]
pub(crate) fn was_encrypted(skb: &Skb, control: &Control) -> bool {
    control.tunnel != 0 && skb.ifindex() == control.tunnel
}

/// Whether a node is there: this one, or one that packets are sent to.
#[inline(always)]
pub(crate) fn is_known(node: u32) -> bool {
    PEERS.get(node).is_some_and(|peer| peer.address != 0)
        || CONTROL.get(0).is_some_and(|control| control.node == node)
}

/// Whether a node is in the region of this one.
#[inline(always)]
pub(crate) fn is_near(node: u32) -> bool {
    PEERS
        .get(node)
        .is_some_and(|peer| peer.flags & peer::NEAR != 0)
}

/// Bits of [`peer`] that a node has.
#[inline(always)]
pub(crate) fn peer_flags(node: u32) -> u32 {
    PEERS.get(node).map_or(0, |peer| peer.flags)
}
