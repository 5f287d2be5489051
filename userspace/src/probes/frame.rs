//! A probe as it leaves: the outer headers that the kernel's programs write, and a question.

use sunwire_dataplane_common::{
    entries::PeerEntry,
    probe,
    vxlan::{
        IPV4_OFFSET, OUTER_BYTES, SOURCE_PORT_BASE, SOURCE_PORT_MASK, UDP_OFFSET, fold_checksum,
    },
};

/// Bytes of a probe.
const BYTES: usize = OUTER_BYTES + probe::INNER_BYTES;

/// The question `number` to a peer.
///
/// Source ports differ as those of flows do, so that over a minute all ways on which the underlay spreads
/// flows are tried: one of them that is broken shows as loss.
pub(super) fn question(peer: &PeerEntry, number: u32, slot: u32, token: u64) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    let template = peer.template.iter().flat_map(|word| word.to_ne_bytes());
    for (byte, value) in bytes[..OUTER_BYTES].iter_mut().zip(template) {
        *byte = value;
    }
    let mut put = |at: usize, value: u16| {
        bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
    };
    let length = (BYTES - IPV4_OFFSET) as u16;
    put(IPV4_OFFSET + 2, length);
    put(
        IPV4_OFFSET + 10,
        fold_checksum(peer.checksum + u32::from(length)),
    );
    let spread = number.wrapping_mul(0x9e37_79b9) >> 18 & SOURCE_PORT_MASK;
    put(UDP_OFFSET, SOURCE_PORT_BASE | spread as u16);
    put(UDP_OFFSET + 4, (BYTES - UDP_OFFSET) as u16);
    bytes[OUTER_BYTES..].copy_from_slice(&probe::question(slot, token));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use sunwire_dataplane_common::vxlan;

    #[test]
    fn a_question_is_vxlan_of_no_network_with_a_valid_header() {
        let (template, checksum) = vxlan::template([2; 6], [4; 6], [10, 1, 0, 2], [10, 2, 0, 2]);
        let peer = PeerEntry {
            ifindex: 3,
            checksum,
            template,
            ..PeerEntry::default()
        };
        let bytes = question(&peer, 1, 5, 77);
        let whole = bytes[14..34]
            .chunks_exact(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        assert_eq!(fold_checksum(whole), 0);
        assert_eq!(bytes[30..34], [10, 2, 0, 2]);
        assert_eq!(bytes[36..38], vxlan::PORT.to_be_bytes());
        assert_eq!(bytes[42..50], [8, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[50..], probe::question(5, 77));
        let port = |number| question(&peer, number, 0, 0)[34..36].to_vec();
        let ports: std::collections::BTreeSet<_> = (0..60).map(port).collect();
        assert_eq!(ports.len(), 60);
        assert!(ports.iter().all(|port| port[0] >= 0xc0));
    }
}
