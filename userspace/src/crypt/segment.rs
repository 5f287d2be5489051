//! Super-packets into the packets that they stand for, and checksums completed.
//!
//! A network card would do this when it sends; here each packet is encrypted by itself, so it is
//! done before. What comes out is what the kernel's own segmentation would have made
//! (Linux `net/ipv4/tcp_offload.c`, `udp_offload.c`), with whole checksums.

use sunwire_dataplane_common::headers::{PROTOCOL_TCP, PROTOCOL_UDP};

use super::packet::{
    self, ETHERNET_BYTES, SuperPacket, VnetHeader, be16, be32, fold, pseudo_sum, put16,
    set_ip_length, set_outer_lengths, sum,
};

/// A packet that contradicts what the kernel says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Contradiction;

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;
/// Offset of the flags in a TCP header.
const TCP_FLAGS: usize = 13;

/// Calls `each` with every packet that a packet of a TAP device stands for; `packet` begins with
/// the outer IP header. Returns how many there were.
///
/// # Errors
/// [`Contradiction`]; `each` was not called then.
pub(super) fn split(
    packet: &mut [u8],
    about: VnetHeader,
    scratch: &mut Vec<u8>,
    mut each: impl FnMut(&[u8]),
) -> Result<usize, Contradiction> {
    let Some(kind) = about.super_packet else {
        if about.needs_checksum {
            complete_checksum(packet, about)?;
        }
        // The kernel may have split a super-packet that is too long for one, and counts our outer
        // headers as bytes of the link's.
        set_outer_lengths(packet);
        each(packet);
        return Ok(1);
    };
    let transport = usize::from(about.checksum_start)
        .checked_sub(ETHERNET_BYTES)
        .ok_or(Contradiction)?;
    let (protocol, checksum, minimum) = match kind {
        SuperPacket::TcpV4 | SuperPacket::TcpV6 => (PROTOCOL_TCP, 16, 20),
        SuperPacket::Udp => (PROTOCOL_UDP, 6, 8),
    };
    let inner_ip = packet::inner_ip(packet);
    let version = packet.get(inner_ip).ok_or(Contradiction)? >> 4;
    let segment = usize::from(about.segment_bytes);
    let family_fits = match kind {
        SuperPacket::TcpV4 => version == 4,
        SuperPacket::TcpV6 => version == 6,
        SuperPacket::Udp => version == 4 || version == 6,
    };
    let ip_bytes = if version == 4 { 20 } else { 40 };
    if !family_fits
        || segment == 0
        || transport < inner_ip + ip_bytes
        || packet.len() < transport + minimum
    {
        return Err(Contradiction);
    }
    let header = match kind {
        SuperPacket::Udp => transport + 8,
        _ => transport + usize::from(packet[transport + 12] >> 4) * 4,
    };
    if header < transport + minimum || header > packet.len() {
        return Err(Contradiction);
    }

    let (headers, payload) = packet.split_at(header);
    let count = payload.len().div_ceil(segment).max(1);
    for index in 0..count {
        let from = index * segment;
        let to = payload.len().min(from + segment);
        scratch.clear();
        scratch.extend_from_slice(headers);
        scratch.extend_from_slice(&payload[from..to]);
        if version == 4 {
            // Receivers and middle boxes may want the identifications to differ.
            let identification = be16(headers, inner_ip + 4).wrapping_add(index as u16);
            put16(scratch, inner_ip + 4, identification);
        }
        let length = scratch.len();
        set_ip_length(scratch, inner_ip, length - inner_ip);
        match kind {
            SuperPacket::Udp => put16(scratch, transport + 4, (length - transport) as u16),
            _ => {
                let sequence = be32(headers, transport + 4).wrapping_add(from as u32);
                scratch[transport + 4..transport + 8].copy_from_slice(&sequence.to_be_bytes());
                if index > 0 {
                    scratch[transport + TCP_FLAGS] &= !CWR;
                }
                if index + 1 < count {
                    scratch[transport + TCP_FLAGS] &= !(FIN | PSH);
                }
            }
        }
        put16(scratch, transport + checksum, 0);
        let whole = pseudo_sum(scratch, inner_ip, protocol, length - transport)
            + sum(&scratch[transport..]);
        put16(scratch, transport + checksum, finished(whole, protocol));
        set_outer_lengths(scratch);
        each(scratch);
    }
    Ok(count)
}

/// The checksum of a sum; a UDP checksum of zero would mean that there is none (RFC 768).
fn finished(sum: u64, protocol: u8) -> u16 {
    match !fold(sum) {
        0 if protocol == PROTOCOL_UDP => 0xffff,
        checksum => checksum,
    }
}

/// Completes a checksum that the kernel left to the device. The field holds the sum of the
/// pseudo-header.
fn complete_checksum(packet: &mut [u8], about: VnetHeader) -> Result<(), Contradiction> {
    let start = usize::from(about.checksum_start)
        .checked_sub(ETHERNET_BYTES)
        .ok_or(Contradiction)?;
    let field = start + usize::from(about.checksum_offset);
    if field + 2 > packet.len() {
        return Err(Contradiction);
    }
    let checksum = match !fold(sum(&packet[start..])) {
        // Right for UDP, and for TCP the same number.
        0 => 0xffff,
        checksum => checksum,
    };
    packet::put16(packet, field, checksum);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::packet::INNER_IP;
    use super::super::test_packets::{checksums_hold, tcp, udp};
    use super::*;

    fn parts(packet: &[u8], about: VnetHeader) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        let mut scratch = Vec::new();
        let count = split(&mut packet.to_vec(), about, &mut scratch, |packet| {
            packets.push(packet.to_vec());
        })
        .unwrap();
        assert_eq!(count, packets.len());
        packets
    }

    #[test]
    fn tcp_super_packets_become_segments_in_sequence() {
        for v6 in [false, true] {
            let payload: Vec<u8> = (0..3000u32).map(|at| at as u8).collect();
            let (packet, transport) = tcp(v6, 1000, FIN | PSH | CWR | 0x10, &payload);
            let about = VnetHeader {
                needs_checksum: true,
                super_packet: Some(if v6 {
                    SuperPacket::TcpV6
                } else {
                    SuperPacket::TcpV4
                }),
                header_bytes: 0,
                segment_bytes: 1200,
                checksum_start: (transport + ETHERNET_BYTES) as u16,
                checksum_offset: 16,
            };
            let segments = parts(&packet, about);
            assert_eq!(segments.len(), 3);
            let mut rebuilt = Vec::new();
            for (index, segment) in segments.iter().enumerate() {
                assert!(checksums_hold(segment), "segment {index}, IPv6 {v6}");
                assert_eq!(be16(segment, 2) as usize, segment.len());
                let sequence = be32(segment, transport + 4);
                assert_eq!(sequence, 1000 + rebuilt.len() as u32);
                rebuilt.extend_from_slice(&segment[transport + 20..]);
                let flags = segment[transport + TCP_FLAGS];
                assert_eq!(flags & CWR != 0, index == 0);
                assert_eq!(flags & (FIN | PSH) != 0, index == 2);
            }
            assert_eq!(rebuilt, payload);
        }
    }

    #[test]
    fn super_packets_behind_tags_become_segments() {
        let (packet, transport) = tcp(false, 1000, 0x10, &[5; 2500]);
        let tags = [0x88, 0xa8, 0, 8, 0x81, 0, 0, 7];
        for count in 1..=2 {
            let tags = &tags[8 - 4 * count..];
            let at = INNER_IP - 2;
            let tagged = [&packet[..at], tags, &packet[at..]].concat();
            let about = VnetHeader {
                needs_checksum: true,
                super_packet: Some(SuperPacket::TcpV4),
                header_bytes: 0,
                segment_bytes: 1000,
                checksum_start: (transport + tags.len() + ETHERNET_BYTES) as u16,
                checksum_offset: 16,
            };
            let segments = parts(&tagged, about);
            assert_eq!(segments.len(), 3);
            for segment in segments {
                assert_eq!(segment[at..at + tags.len()], *tags);
                let mut plain = segment.clone();
                plain.drain(at..at + tags.len());
                set_outer_lengths(&mut plain);
                assert!(checksums_hold(&plain));
            }
        }
    }

    #[test]
    fn udp_super_packets_become_datagrams() {
        let payload = vec![7; 250];
        let (packet, transport) = udp(&payload);
        let about = VnetHeader {
            needs_checksum: true,
            super_packet: Some(SuperPacket::Udp),
            header_bytes: 0,
            segment_bytes: 100,
            checksum_start: (transport + ETHERNET_BYTES) as u16,
            checksum_offset: 6,
        };
        let datagrams = parts(&packet, about);
        let lengths: Vec<u16> = datagrams.iter().map(|d| be16(d, transport + 4)).collect();
        assert_eq!(lengths, [108, 108, 58]);
        assert!(datagrams.iter().all(|datagram| checksums_hold(datagram)));
    }

    #[test]
    fn a_checksum_left_to_the_device_is_completed() {
        let (mut packet, transport) = udp(b"numbered");
        let length = packet.len() - transport;
        let pseudo = fold(pseudo_sum(&packet, INNER_IP, PROTOCOL_UDP, length));
        put16(&mut packet, transport + 6, pseudo);
        assert!(!checksums_hold(&packet));
        let about = VnetHeader {
            needs_checksum: true,
            checksum_start: (transport + ETHERNET_BYTES) as u16,
            checksum_offset: 6,
            ..VnetHeader::default()
        };
        let packets = parts(&packet, about);
        assert!(checksums_hold(&packets[0]));
    }

    #[test]
    fn contradictions_are_refused_whatever_they_say() {
        let (packet, transport) = tcp(false, 1, 0x10, &[1; 100]);
        let good = VnetHeader {
            needs_checksum: true,
            super_packet: Some(SuperPacket::TcpV4),
            header_bytes: 0,
            segment_bytes: 50,
            checksum_start: (transport + ETHERNET_BYTES) as u16,
            checksum_offset: 16,
        };
        let refused = |packet: &[u8], about| {
            let outcome = split(&mut packet.to_vec(), about, &mut Vec::new(), |_| {});
            assert_eq!(outcome, Err(Contradiction), "{about:?}");
        };
        refused(
            &packet,
            VnetHeader {
                segment_bytes: 0,
                ..good
            },
        );
        refused(
            &packet,
            VnetHeader {
                checksum_start: 3,
                ..good
            },
        );
        refused(
            &packet,
            VnetHeader {
                checksum_start: 60_000,
                ..good
            },
        );
        refused(
            &packet,
            VnetHeader {
                super_packet: Some(SuperPacket::TcpV6),
                ..good
            },
        );
        refused(&packet[..transport + 10], good);
        let checksum_alone = VnetHeader {
            super_packet: None,
            checksum_offset: 999,
            ..good
        };
        refused(&packet, checksum_alone);
        let mut short_header = packet.clone();
        short_header[transport + 12] = 0x10;
        refused(&short_header, good);
    }
}
