//! What the emulator reads of a frame, and the ARP replies it writes. Pure.
//!
//! The emulator looks no deeper than Ethernet, the ARP fields and the IPv4
//! destination. It does not lower the TTL: every gateway is one and the same
//! router, which a traceroute does not see.

use std::net::Ipv4Addr;

use super::super::mac::Mac;

const ETHERNET: usize = 14;
const ARP: usize = 28;
const IPV4_MIN: usize = 20;
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
        _ => Frame::Other,
    }
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

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            parse(&bytes);
            source(&bytes);
            destination(&bytes);
        }
    }
}
