//! What the emulator reads of a frame, and the answers it writes: ARP replies and neighbour
//! advertisements. Pure.
//!
//! The emulator looks no deeper than Ethernet, the fields of questions and the IP
//! destination. It does not lower the TTL: every gateway is one and the same
//! router, which a traceroute does not see.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::super::mac::Mac;

const ETHERNET: usize = 14;
const ARP: usize = 28;
const IPV4_MIN: usize = 20;
const IPV6: usize = 40;
/// A neighbour solicitation or advertisement with a link-layer address (RFC 4861, 4.3, 4.4).
const NEIGHBOUR: usize = 32;
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Longest frame forwarded: MTU 1500 and the Ethernet header.
pub(crate) const FRAME_MAX: usize = 1514;
/// MTU of the underlay.
pub(crate) const UNDERLAY_MTU: u32 = 1500;

/// The parts of a frame that decide where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// Someone asks for the hardware address of `target`.
    ArpRequest { sender: Ipv4Addr, target: Ipv4Addr },
    /// An IPv4 packet.
    Ipv4 { destination: Ipv4Addr },
    /// Someone asks for the hardware address of `target` over IPv6.
    Solicitation { sender: Ipv6Addr, target: Ipv6Addr },
    /// An IPv6 packet for one receiver.
    Ipv6 { destination: Ipv6Addr },
    /// Another IPv6 packet that is of the link alone: a report of what the node listens to.
    OfTheLink,
    /// Anything else, also truncated.
    Other,
}

/// Reads a frame.
pub(crate) fn parse(frame: &[u8]) -> Frame {
    let Some((ethernet, rest)) = frame.split_at_checked(ETHERNET) else {
        return Frame::Other;
    };
    match (ethernet[12], ethernet[13]) {
        // Ethernet/IPv4 request (RFC 826): hardware 1, protocol 0x0800, 6, 4, operation 1.
        (0x08, 0x06) if rest.len() >= ARP && rest[..8] == [0, 1, 8, 0, 6, 4, 0, 1] => {
            Frame::ArpRequest {
                sender: address(&rest[14..18]),
                target: address(&rest[24..28]),
            }
        }
        (0x08, 0x00) if rest.len() >= IPV4_MIN && rest[0] >> 4 == 4 => Frame::Ipv4 {
            destination: address(&rest[16..20]),
        },
        (0x86, 0xdd) if rest.len() >= IPV6 && rest[0] >> 4 == 6 => {
            let destination = address_v6(&rest[24..40]);
            let target = rest.get(IPV6 + 8..IPV6 + 24);
            match (rest[6], rest.get(IPV6), target) {
                (ICMPV6, Some(&SOLICITATION), Some(target)) => Frame::Solicitation {
                    sender: address_v6(&rest[8..24]),
                    target: address_v6(target),
                },
                _ if destination.is_multicast() || destination.is_unicast_link_local() => {
                    Frame::OfTheLink
                }
                _ => Frame::Ipv6 { destination },
            }
        }
        _ => Frame::Other,
    }
}

fn address_v6(bytes: &[u8]) -> Ipv6Addr {
    let bytes: [u8; 16] = bytes.try_into().expect("the callers hand over 16 bytes");
    Ipv6Addr::from(bytes)
}

fn address(bytes: &[u8]) -> Ipv4Addr {
    Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])
}

/// The hardware address that a frame is for.
pub(crate) fn destination(frame: &[u8]) -> Option<Mac> {
    Some(Mac(*frame.first_chunk()?))
}

/// The hardware address that sent a frame.
pub(crate) fn source(frame: &[u8]) -> Option<Mac> {
    Some(Mac(frame.get(6..12)?.try_into().ok()?))
}

/// Readdresses a frame of at least an Ethernet header for its next hop.
pub(crate) fn readdress(frame: &mut [u8], source: Mac, destination: Mac) {
    frame[..6].copy_from_slice(&destination.0);
    frame[6..12].copy_from_slice(&source.0);
}

/// The reply "`owner` is at `mac`" to `asker`.
pub(crate) fn arp_reply(
    mac: Mac,
    owner: Ipv4Addr,
    asker_mac: Mac,
    asker: Ipv4Addr,
) -> [u8; ETHERNET + ARP] {
    let mut frame = [0; ETHERNET + ARP];
    readdress(&mut frame, mac, asker_mac);
    frame[12..22].copy_from_slice(&[0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 2]);
    frame[22..28].copy_from_slice(&mac.0);
    frame[28..32].copy_from_slice(&owner.octets());
    frame[32..38].copy_from_slice(&asker_mac.0);
    frame[38..42].copy_from_slice(&asker.octets());
    frame
}

/// The advertisement "`owner` is at `mac`" to `asker`.
pub(crate) fn advertisement(
    mac: Mac,
    owner: Ipv6Addr,
    asker_mac: Mac,
    asker: Ipv6Addr,
) -> [u8; ETHERNET + IPV6 + NEIGHBOUR] {
    let mut frame = [0; ETHERNET + IPV6 + NEIGHBOUR];
    readdress(&mut frame, mac, asker_mac);
    frame[12..15].copy_from_slice(&[0x86, 0xdd, 0x60]);
    frame[18..22].copy_from_slice(&[0, NEIGHBOUR as u8, ICMPV6, 255]);
    frame[22..38].copy_from_slice(&owner.octets());
    frame[38..54].copy_from_slice(&asker.octets());
    // From a router, asked for, and overriding what was known.
    frame[54..59].copy_from_slice(&[ADVERTISEMENT, 0, 0, 0, 0xe0]);
    frame[62..78].copy_from_slice(&owner.octets());
    frame[78..80].copy_from_slice(&[2, 1]);
    frame[80..86].copy_from_slice(&mac.0);
    let checksum = icmpv6_checksum(&frame);
    frame[56..58].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// The checksum of a frame's ICMPv6 message, whose own field is zero (RFC 8200, 8.1).
fn icmpv6_checksum(frame: &[u8; ETHERNET + IPV6 + NEIGHBOUR]) -> u16 {
    let words = frame[22..].chunks_exact(2);
    let sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    let mut sum = sum + NEIGHBOUR as u32 + u32::from(ICMPV6);
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GATEWAY: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const NODE: Mac = Mac([2, 0, 0, 0, 0, 2]);

    #[test]
    fn arp_reply_is_the_request_mirrored() {
        let reply = arp_reply(
            GATEWAY,
            Ipv4Addr::new(10, 200, 1, 1),
            NODE,
            Ipv4Addr::new(10, 200, 1, 2),
        );
        assert_eq!(destination(&reply), Some(NODE));
        assert_eq!(source(&reply), Some(GATEWAY));
        assert_eq!(reply[20..22], [0, 2]);
        assert_eq!(reply[28..32], [10, 200, 1, 1]);
        let mut request = reply;
        request[21] = 1;
        assert_eq!(
            parse(&request),
            Frame::ArpRequest {
                sender: Ipv4Addr::new(10, 200, 1, 1),
                target: Ipv4Addr::new(10, 200, 1, 2),
            }
        );
    }

    #[test]
    fn ipv4_goes_by_its_destination() {
        let mut frame = [0; 34];
        frame[12] = 0x08;
        frame[14] = 0x45;
        frame[30..34].copy_from_slice(&[10, 200, 2, 2]);
        let destination = Ipv4Addr::new(10, 200, 2, 2);
        assert_eq!(parse(&frame), Frame::Ipv4 { destination });
        assert_eq!(parse(&frame[..33]), Frame::Other);
    }

    #[test]
    fn an_advertisement_is_whole_and_answers_a_solicitation() {
        let owner: Ipv6Addr = "2001:db8::1".parse().unwrap();
        let asker: Ipv6Addr = "2001:db8::2".parse().unwrap();
        let mut frame = advertisement(GATEWAY, owner, NODE, asker);
        assert_eq!(destination(&frame), Some(NODE));
        {
            let read = etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
            let Some(etherparse::TransportSlice::Icmpv6(icmp)) = read.transport else {
                panic!("{read:?}");
            };
            assert!(icmp.is_checksum_valid(owner.octets(), asker.octets()));
        }
        frame[54] = SOLICITATION;
        let asked = Frame::Solicitation {
            sender: owner,
            target: owner,
        };
        assert_eq!(parse(&frame), asked);
        frame[20] = PROTOCOL_UDP;
        assert_eq!(parse(&frame), Frame::Ipv6 { destination: asker });
        frame[38] = 0xff;
        assert_eq!(parse(&frame), Frame::OfTheLink);
        assert_eq!(parse(&frame[..53]), Frame::Other);
    }

    const PROTOCOL_UDP: u8 = 17;

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            parse(&bytes);
            source(&bytes);
            destination(&bytes);
        }
    }
}
