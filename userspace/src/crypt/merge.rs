//! Consecutive segments of a TCP stream into one super-packet, before the kernel gets them.
//!
//! What crosses a network card is merged there (GRO); what comes out of a tunnel is merged here, so
//! that the way through the kernel is gone once for many packets. Only segments whose checksums
//! hold are merged, and only such that splitting the super-packet gives the same segments again.
//! Packets of one stream keep their order.

use sunwire_dataplane_common::{headers::PROTOCOL_TCP, vxlan};

use super::packet::{
    ETHERNET_BYTES, INNER_ETHERNET, INNER_IP, OUTER_UDP, SuperPacket, VnetHeader, be16, be32, fold,
    pseudo_sum, put16, set_ip_length, set_outer_lengths, sum,
};

/// Streams that are merged at a time.
const STREAMS_MAX: usize = 8;
/// A super-packet grows no longer: an IP packet has at most 65,535 bytes.
const BYTES_MAX: usize = 64_000;
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;

/// What is merged and not handed on yet.
#[derive(Default)]
pub(super) struct Merger {
    waiting: Vec<Stream>,
    /// Buffers to be used again.
    spare: Vec<Vec<u8>>,
}

/// The segments of a stream so far.
struct Stream {
    packet: Vec<u8>,
    shape: Shape,
    /// Payload bytes of the first segment, and of all but the last.
    segment_bytes: usize,
    segments: usize,
    next_sequence: u32,
    /// A short or pushed segment came: nothing may follow.
    is_closed: bool,
}

/// Where the parts of a TCP packet are.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Shape {
    transport: usize,
    header: usize,
    v6: bool,
}

impl Merger {
    /// Takes a packet, from the outer IP header on; `out` gets what is complete.
    pub(super) fn take(&mut self, packet: &[u8], out: &mut impl FnMut(VnetHeader, &[u8])) {
        let Some(shape) = mergeable(packet) else {
            self.flush(out);
            out(VnetHeader::default(), packet);
            return;
        };
        let found = self
            .waiting
            .iter()
            .position(|stream| is_same_stream(&stream.packet, packet, stream.shape, shape));
        if let Some(at) = found {
            if self.waiting[at].append(packet, shape) {
                return;
            }
            let stream = self.waiting.remove(at);
            self.hand_on(stream, out);
        } else if self.waiting.len() == STREAMS_MAX {
            let stream = self.waiting.remove(0);
            self.hand_on(stream, out);
        }
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(packet);
        self.waiting.push(Stream::new(buffer, shape));
    }

    /// Hands everything on.
    pub(super) fn flush(&mut self, out: &mut impl FnMut(VnetHeader, &[u8])) {
        for stream in std::mem::take(&mut self.waiting) {
            self.hand_on(stream, out);
        }
    }

    fn hand_on(&mut self, mut stream: Stream, out: &mut impl FnMut(VnetHeader, &[u8])) {
        let about = stream.finish();
        out(about, &stream.packet);
        self.spare.push(stream.packet);
    }
}

impl Stream {
    fn new(packet: Vec<u8>, shape: Shape) -> Self {
        let payload = packet.len() - shape.header;
        let sequence = be32(&packet, shape.transport + 4);
        Stream {
            is_closed: packet[shape.transport + 13] & PSH != 0,
            next_sequence: sequence.wrapping_add(payload as u32),
            segment_bytes: payload,
            segments: 1,
            packet,
            shape,
        }
    }

    /// Appends a segment, when it is the next one.
    fn append(&mut self, packet: &[u8], shape: Shape) -> bool {
        let payload = &packet[shape.header..];
        let follows = be32(packet, shape.transport + 4) == self.next_sequence;
        if self.is_closed
            || !follows
            || payload.len() > self.segment_bytes
            || self.packet.len() + payload.len() > BYTES_MAX
            || !is_same_header(&self.packet, packet, shape)
        {
            return false;
        }
        let flags = packet[shape.transport + 13];
        self.packet[shape.transport + 13] |= flags & PSH;
        self.is_closed = payload.len() < self.segment_bytes || flags & PSH != 0;
        self.next_sequence = self.next_sequence.wrapping_add(payload.len() as u32);
        self.segments += 1;
        self.packet.extend_from_slice(payload);
        true
    }

    /// Makes the lengths and checksums those of the super-packet.
    fn finish(&mut self) -> VnetHeader {
        if self.segments == 1 {
            return VnetHeader::default();
        }
        let Shape {
            transport,
            header,
            v6,
        } = self.shape;
        let packet = &mut self.packet;
        let length = packet.len();
        set_ip_length(packet, INNER_IP, length - INNER_IP);
        let pseudo = pseudo_sum(packet, INNER_IP, PROTOCOL_TCP, length - transport);
        put16(packet, transport + 16, fold(pseudo));
        set_outer_lengths(packet);
        VnetHeader {
            needs_checksum: true,
            super_packet: Some(if v6 {
                SuperPacket::TcpV6
            } else {
                SuperPacket::TcpV4
            }),
            header_bytes: (header + ETHERNET_BYTES) as u16,
            segment_bytes: self.segment_bytes as u16,
            checksum_start: (transport + ETHERNET_BYTES) as u16,
            checksum_offset: 16,
        }
    }
}

/// Where the parts of a packet are that may be merged: plain TCP with payload, whose checksum holds.
fn mergeable(packet: &[u8]) -> Option<Shape> {
    let ether_type = packet.get(INNER_ETHERNET + 12..INNER_ETHERNET + 14)?;
    let v6 = match ether_type {
        [0x08, 0x00] => false,
        [0x86, 0xdd] => true,
        _ => return None,
    };
    let transport = INNER_IP + if v6 { 40 } else { 20 };
    if packet.len() < transport + 20 || packet[OUTER_UDP + 8] != vxlan::FLAG_VNI {
        return None;
    }
    let ip_fits = if v6 {
        packet[INNER_IP] >> 4 == 6
            && packet[INNER_IP + 6] == PROTOCOL_TCP
            && usize::from(be16(packet, INNER_IP + 4)) == packet.len() - transport
    } else {
        // No options, no fragment, the length of the frame without padding.
        packet[INNER_IP] == 0x45
            && packet[INNER_IP + 9] == PROTOCOL_TCP
            && be16(packet, INNER_IP + 6) & 0x3fff == 0
            && usize::from(be16(packet, INNER_IP + 2)) == packet.len() - INNER_IP
    };
    let header = transport + usize::from(packet[transport + 12] >> 4) * 4;
    let flags = packet[transport + 13];
    if !ip_fits
        || header < transport + 20
        || header >= packet.len()
        || flags & !(ACK | PSH) != 0
        || packet[transport + 12] & 0xf != 0
    {
        return None;
    }
    let whole = pseudo_sum(packet, INNER_IP, PROTOCOL_TCP, packet.len() - transport)
        + sum(&packet[transport..]);
    if fold(whole) != 0xffff {
        return None;
    }
    Some(Shape {
        transport,
        header,
        v6,
    })
}

/// Same tunnel, same addresses, same ports.
fn is_same_stream(ours: &[u8], theirs: &[u8], our_shape: Shape, their_shape: Shape) -> bool {
    let addresses = if our_shape.v6 {
        INNER_IP + 8..INNER_IP + 40
    } else {
        INNER_IP + 12..INNER_IP + 20
    };
    let ports = our_shape.transport..our_shape.transport + 4;
    our_shape.v6 == their_shape.v6
        && ours[12..20] == theirs[12..20]
        && ours[OUTER_UDP + 8..INNER_IP] == theirs[OUTER_UDP + 8..INNER_IP]
        && ours[addresses.clone()] == theirs[addresses]
        && ours[ports.clone()] == theirs[ports]
}

/// Equal in everything that all segments of a super-packet share.
fn is_same_header(ours: &[u8], theirs: &[u8], shape: Shape) -> bool {
    let Shape {
        transport,
        header,
        v6,
    } = shape;
    let ip = if v6 {
        ours[INNER_IP..INNER_IP + 4] == theirs[INNER_IP..INNER_IP + 4]
            && ours[INNER_IP + 6..INNER_IP + 8] == theirs[INNER_IP + 6..INNER_IP + 8]
    } else {
        ours[INNER_IP + 1] == theirs[INNER_IP + 1]
            && ours[INNER_IP + 6..INNER_IP + 10] == theirs[INNER_IP + 6..INNER_IP + 10]
    };
    // Acknowledgement and header length; window, urgent pointer and options.
    ip && theirs.len() > header
        && ours[1] == theirs[1]
        && ours[transport + 8..transport + 13] == theirs[transport + 8..transport + 13]
        && ours[transport + 14..transport + 16] == theirs[transport + 14..transport + 16]
        && ours[transport + 18..header] == theirs[transport + 18..header]
}

#[cfg(test)]
mod tests {
    use super::super::segment::split;
    use super::super::test_packets::{checksums_hold, tcp, udp};
    use super::*;
    use proptest::prelude::*;

    fn merged(packets: &[Vec<u8>]) -> Vec<(VnetHeader, Vec<u8>)> {
        let mut merger = Merger::default();
        let mut out = Vec::new();
        let mut collect = |about, packet: &[u8]| out.push((about, packet.to_vec()));
        for packet in packets {
            merger.take(packet, &mut collect);
        }
        merger.flush(&mut collect);
        out
    }

    /// Merged packets split again.
    fn there_and_back(packets: &[Vec<u8>]) -> (usize, Vec<Vec<u8>>) {
        let merged = merged(packets);
        let mut again = Vec::new();
        for (about, packet) in &merged {
            let mut packet = packet.clone();
            split(&mut packet, *about, &mut Vec::new(), |packet| {
                again.push(packet.to_vec());
            })
            .unwrap();
        }
        (merged.len(), again)
    }

    fn stream(v6: bool, sizes: &[usize]) -> Vec<Vec<u8>> {
        let mut sequence = 0u32.wrapping_sub(2000);
        let packets = sizes.iter().map(|size| {
            let payload: Vec<u8> = (0..*size)
                .map(|at| sequence.wrapping_add(at as u32) as u8)
                .collect();
            let packet = tcp(v6, sequence, ACK, &payload).0;
            sequence = sequence.wrapping_add(*size as u32);
            packet
        });
        packets.collect()
    }

    /// Identifications are the sender's: segments of one packet count up from its own.
    fn numbered(packets: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        let renumber = |(at, mut packet): (usize, Vec<u8>)| {
            if packet[INNER_IP] >> 4 == 4 {
                put16(&mut packet, INNER_IP + 4, 7 + at as u16);
                let length = packet.len();
                set_ip_length(&mut packet, INNER_IP, length - INNER_IP);
            }
            packet
        };
        packets.into_iter().enumerate().map(renumber).collect()
    }

    #[test]
    fn a_stream_becomes_one_super_packet_and_splits_into_itself() {
        for v6 in [false, true] {
            let packets = numbered(stream(v6, &[1200, 1200, 1200, 1200, 300]));
            let (count, again) = there_and_back(&packets);
            assert_eq!(count, 1, "IPv6 {v6}");
            assert_eq!(again, packets);
        }
    }

    #[test]
    fn nothing_follows_a_short_segment() {
        let packets = stream(false, &[1200, 300, 1200]);
        assert_eq!(merged(&packets).len(), 2);
    }

    #[test]
    fn a_gap_a_flag_or_another_window_ends_a_super_packet() {
        let pair = stream(false, &[1000, 1000, 1000]);
        assert_eq!(
            merged(&[pair[0].clone(), pair[2].clone()]).len(),
            2,
            "a gap"
        );
        let fin = tcp(false, 0u32.wrapping_sub(1000), ACK | 1, &[0; 1000]).0;
        assert_eq!(merged(&[pair[0].clone(), fin]).len(), 2, "FIN");
        let (mut window, transport) = tcp(false, 0u32.wrapping_sub(1000), ACK, &[0; 1000]);
        window[transport + 15] ^= 4;
        let checksum = be16(&window, transport + 16) - 4;
        put16(&mut window, transport + 16, checksum);
        assert!(checksums_hold(&window));
        assert_eq!(merged(&[pair[0].clone(), window]).len(), 2, "the window");
    }

    #[test]
    fn a_wrong_checksum_is_passed_on_as_it_is() {
        let mut packets = stream(false, &[1000, 1000]);
        *packets[1].last_mut().unwrap() ^= 1;
        let out = merged(&packets);
        assert_eq!(out.len(), 2);
        assert_eq!(out[1], (VnetHeader::default(), packets[1].clone()));
    }

    #[test]
    fn other_packets_do_not_overtake() {
        let mut packets = stream(false, &[1000, 1000]);
        packets.insert(1, udp(b"between").0);
        let (count, again) = there_and_back(&packets);
        assert_eq!((count, again), (3, packets));
    }

    proptest! {
        #[test]
        fn merging_changes_no_stream(v6: bool, sizes in prop::collection::vec(1usize..1400, 1..60)) {
            let packets = stream(v6, &sizes);
            let (count, again) = there_and_back(&packets);
            prop_assert!(count <= packets.len());
            prop_assert_eq!(again.len(), packets.len());
            for (ours, theirs) in again.iter().zip(&packets) {
                prop_assert!(checksums_hold(ours));
                // All but the identification, and its checksum.
                prop_assert_eq!(&ours[INNER_IP + 12..], &theirs[INNER_IP + 12..]);
            }
        }

        #[test]
        fn bytes_that_are_no_packets_are_passed_on(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let out = merged(std::slice::from_ref(&bytes));
            prop_assert_eq!(out, vec![(VnetHeader::default(), bytes)]);
        }
    }
}
