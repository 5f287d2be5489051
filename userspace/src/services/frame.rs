//! Frames to datagrams and back.
//!
//! Lengths are checked where a frame is read; checksums above IP are not, since between a machine
//! and its own devices they are left for a network card to fill in.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use etherparse::{
    EtherType, Ethernet2Header, Icmpv6Type, IpHeaders, NetSlice, PacketBuilder, PacketBuilderStep,
    SlicedPacket, TransportSlice,
};

use sunwire_dataplane_common::headers::{ETHERNET_BYTES, IPV6_BYTES};

use super::{directory::Asker, handler::Malformed};

/// Hop limit of what goes to a workload; for control messages of IPv6 it must be this one
/// (RFC 4861, 6.1.2).
const HOP_LIMIT: u8 = 255;
/// MAC address of every machine.
pub(crate) const BROADCAST: [u8; 6] = [0xff; 6];

/// A UDP datagram that a workload sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Datagram<'a> {
    /// Where from.
    pub(crate) src: SocketAddr,
    /// Where to.
    pub(crate) dst: SocketAddr,
    /// What.
    pub(crate) payload: &'a [u8],
}

/// An ICMPv6 message that a workload sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Control<'a> {
    /// Where from.
    pub(crate) src: Ipv6Addr,
    /// Hop limit that it came with.
    pub(crate) hop_limit: u8,
    /// Code.
    pub(crate) code: u8,
    /// What follows the checksum.
    pub(crate) body: &'a [u8],
}

/// Reads a UDP datagram.
pub(crate) fn datagram(frame: &[u8]) -> Result<Datagram<'_>, Malformed> {
    let packet = SlicedPacket::from_ethernet(frame).map_err(|_| Malformed("headers"))?;
    let (src, dst) = match &packet.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header();
            let (src, dst) = (header.source_addr(), header.destination_addr());
            (IpAddr::V4(src), IpAddr::V4(dst))
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header();
            let (src, dst) = (header.source_addr(), header.destination_addr());
            (IpAddr::V6(src), IpAddr::V6(dst))
        }
        _ => return Err(Malformed("no IP packet")),
    };
    match packet.transport {
        Some(TransportSlice::Udp(udp)) => Ok(Datagram {
            src: SocketAddr::new(src, udp.source_port()),
            dst: SocketAddr::new(dst, udp.destination_port()),
            payload: udp.payload(),
        }),
        _ => Err(Malformed("no UDP datagram")),
    }
}

/// Reads an ICMPv6 message.
pub(crate) fn control(frame: &[u8]) -> Result<Control<'_>, Malformed> {
    let packet = SlicedPacket::from_ethernet(frame).map_err(|_| Malformed("headers"))?;
    let Some(NetSlice::Ipv6(ip)) = &packet.net else {
        return Err(Malformed("no IPv6 packet"));
    };
    let (src, hop_limit) = (ip.header().source_addr(), ip.header().hop_limit());
    match packet.transport {
        Some(TransportSlice::Icmpv6(icmp)) => Ok(Control {
            src,
            hop_limit,
            code: icmp.code_u8(),
            body: &icmp.slice()[4..],
        }),
        _ => Err(Malformed("no ICMPv6 message")),
    }
}

/// The IP packet in a frame, without what only fills the frame up.
pub(crate) fn ip_packet(frame: &[u8]) -> Result<&[u8], Malformed> {
    let packet = SlicedPacket::from_ethernet(frame).map_err(|_| Malformed("headers"))?;
    let length = match &packet.net {
        Some(NetSlice::Ipv4(ip)) => usize::from(ip.header().total_len()),
        Some(NetSlice::Ipv6(ip)) => IPV6_BYTES + usize::from(ip.header().payload_length()),
        _ => return Err(Malformed("no IP packet")),
    };
    let rest = frame.get(ETHERNET_BYTES..).unwrap_or_default();
    rest.get(..length).ok_or(Malformed("lengths"))
}

/// An IP packet from the gateway to a workload, as a frame.
pub(crate) fn ethernet(asker: &Asker<'_>, packet: &[u8]) -> Vec<u8> {
    let is_v6 = packet.first().is_some_and(|byte| byte >> 4 == 6);
    let header = Ethernet2Header {
        source: asker.network.gateway_mac,
        destination: asker.member.mac,
        ether_type: if is_v6 {
            EtherType::IPV6
        } else {
            EtherType::IPV4
        },
    };
    [&header.to_bytes()[..], packet].concat()
}

/// A UDP datagram from the gateway to a workload, as a frame.
pub(crate) fn udp(
    asker: &Asker<'_>,
    eth_dst: [u8; 6],
    src: SocketAddr,
    dst: SocketAddr,
    payload: &[u8],
) -> Vec<u8> {
    let builder = ip(asker, eth_dst, src.ip(), dst.ip()).udp(src.port(), dst.port());
    let mut frame = Vec::with_capacity(builder.size(payload.len()));
    let written = builder.write(&mut frame, payload);
    written.expect("a vector takes everything, and answers fit into a datagram");
    frame
}

/// An ICMPv6 message from the gateway to a workload, as a frame: `body` is what follows the
/// checksum.
pub(crate) fn icmpv6(
    asker: &Asker<'_>,
    eth_dst: [u8; 6],
    dst: Ipv6Addr,
    kind: u8,
    body: &[u8],
) -> Vec<u8> {
    let (head, rest) = body
        .split_first_chunk::<4>()
        .expect("the messages sent here have four bytes after the checksum");
    let message = Icmpv6Type::Unknown {
        type_u8: kind,
        code_u8: 0,
        bytes5to8: *head,
    };
    let src = asker.network.gateway_local;
    let builder = ip(asker, eth_dst, src.into(), dst.into()).icmpv6(message);
    let mut frame = Vec::with_capacity(builder.size(rest.len()));
    let written = builder.write(&mut frame, rest);
    written.expect("a vector takes everything, and messages fit into a packet");
    frame
}

fn ip(
    asker: &Asker<'_>,
    eth_dst: [u8; 6],
    src: IpAddr,
    dst: IpAddr,
) -> PacketBuilderStep<IpHeaders> {
    let ethernet = PacketBuilder::ethernet2(asker.network.gateway_mac, eth_dst);
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => ethernet.ipv4(src.octets(), dst.octets(), HOP_LIMIT),
        (IpAddr::V6(src), IpAddr::V6(dst)) => ethernet.ipv6(src.octets(), dst.octets(), HOP_LIMIT),
        _ => unreachable!("both addresses are of the question's family"),
    }
}
