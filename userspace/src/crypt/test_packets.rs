//! Packets for the tests of this module: VXLAN over IPv4 with TCP or UDP inside.

use sunwire_dataplane_common::{
    headers::{PROTOCOL_TCP, PROTOCOL_UDP},
    vxlan,
};

use super::packet::{
    INNER_ETHERNET, INNER_IP, OUTER_UDP, be16, fold, pseudo_sum, put16, set_ip_length,
    set_outer_lengths, sum,
};

/// A whole TCP packet and the offset of its TCP header.
pub(super) fn tcp(v6: bool, sequence: u32, flags: u8, payload: &[u8]) -> (Vec<u8>, usize) {
    let mut header = [0; 20];
    header[0..2].copy_from_slice(&40_000u16.to_be_bytes());
    header[2..4].copy_from_slice(&80u16.to_be_bytes());
    header[4..8].copy_from_slice(&sequence.to_be_bytes());
    header[12] = 5 << 4;
    header[13] = flags;
    around(v6, PROTOCOL_TCP, 16, &header, payload)
}

/// A whole UDP packet over IPv4 and the offset of its UDP header.
pub(super) fn udp(payload: &[u8]) -> (Vec<u8>, usize) {
    let mut header = [0; 8];
    header[0..2].copy_from_slice(&40_000u16.to_be_bytes());
    header[2..4].copy_from_slice(&7000u16.to_be_bytes());
    put16(&mut header, 4, 8 + payload.len() as u16);
    around(false, PROTOCOL_UDP, 6, &header, payload)
}

fn around(
    v6: bool,
    protocol: u8,
    checksum: usize,
    header: &[u8],
    payload: &[u8],
) -> (Vec<u8>, usize) {
    let mut packet = vec![0; INNER_IP];
    packet[0] = 0x45;
    packet[8] = 64;
    packet[9] = PROTOCOL_UDP;
    packet[12..16].copy_from_slice(&[198, 18, 0, 1]);
    packet[16..20].copy_from_slice(&[198, 18, 1, 1]);
    put16(&mut packet, OUTER_UDP + 2, vxlan::PORT);
    packet[OUTER_UDP + 8] = vxlan::FLAG_VNI;
    let ether_type: u16 = if v6 { 0x86dd } else { 0x0800 };
    put16(&mut packet, INNER_ETHERNET + 12, ether_type);
    if v6 {
        packet.extend([0x60, 0, 0, 0, 0, 0, protocol, 64]);
        packet.extend([0xfd; 32]);
    } else {
        packet.extend([
            0x45, 0, 0, 0, 0, 7, 0x40, 0, 64, protocol, 0, 0, 10, 20, 0, 11, 10, 20, 0, 12,
        ]);
    }
    let transport = packet.len();
    packet.extend_from_slice(header);
    packet.extend_from_slice(payload);
    let length = packet.len();
    set_ip_length(&mut packet, INNER_IP, length - INNER_IP);
    let whole =
        pseudo_sum(&packet, INNER_IP, protocol, length - transport) + sum(&packet[transport..]);
    put16(&mut packet, transport + checksum, !fold(whole));
    set_outer_lengths(&mut packet);
    (packet, transport)
}

/// Whether all checksums of a packet hold.
pub(super) fn checksums_hold(packet: &[u8]) -> bool {
    let v6 = packet[INNER_IP] >> 4 == 6;
    let (transport, protocol) = match v6 {
        true => (INNER_IP + 40, packet[INNER_IP + 6]),
        false => (INNER_IP + 20, packet[INNER_IP + 9]),
    };
    let outer = fold(sum(&packet[..20])) == 0xffff;
    let inner = v6 || fold(sum(&packet[INNER_IP..INNER_IP + 20])) == 0xffff;
    let length = packet.len() - transport;
    let whole = pseudo_sum(packet, INNER_IP, protocol, length) + sum(&packet[transport..]);
    outer && inner && fold(whole) == 0xffff && be16(packet, OUTER_UDP + 6) == 0
}
