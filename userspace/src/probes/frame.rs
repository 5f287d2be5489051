//! A probe as it leaves: the outer headers that the kernel's programs write, and a question.

use sunwire_dataplane_common::{
    probe,
    vxlan::{
        self, IPV4_OFFSET, IPV6_OFFSET, OUTER_BYTES, OUTER_BYTES_V6, SOURCE_PORT_BASE,
        SOURCE_PORT_MASK, UDP_OFFSET, UDP_OFFSET_V6, VXLAN_OFFSET_V6, fold_checksum,
    },
};

use super::Target;

/// The question `number` to a peer.
///
/// Source ports differ as those of flows do, so that over a minute all ways on which the underlay spreads
/// flows are tried: one of them that is broken shows as loss.
pub(super) fn question(target: &Target, number: u32, slot: u32, token: u64) -> Vec<u8> {
    let spread = number.wrapping_mul(0x9e37_79b9) >> 18 & SOURCE_PORT_MASK;
    let port = SOURCE_PORT_BASE | spread as u16;
    let mut bytes = match target.is_over_ipv6() {
        true => outer_v6(target, port),
        false => outer(target, port),
    };
    bytes.extend(probe::question(slot, token));
    bytes
}

/// The outer headers over IPv4.
fn outer(target: &Target, port: u16) -> Vec<u8> {
    const BYTES: usize = OUTER_BYTES + probe::INNER_BYTES;
    let mut bytes = beginning(&target.peer.template, OUTER_BYTES);
    let length = (BYTES - IPV4_OFFSET) as u16;
    put(&mut bytes, IPV4_OFFSET + 2, length);
    let checksum = fold_checksum(target.peer.checksum + u32::from(length));
    put(&mut bytes, IPV4_OFFSET + 10, checksum);
    put(&mut bytes, UDP_OFFSET, port);
    put(&mut bytes, UDP_OFFSET + 4, (BYTES - UDP_OFFSET) as u16);
    bytes
}

/// The outer headers over IPv6.
fn outer_v6(target: &Target, port: u16) -> Vec<u8> {
    const UDP_BYTES: u16 = (OUTER_BYTES_V6 + probe::INNER_BYTES - UDP_OFFSET_V6) as u16;
    let mut bytes = beginning(&target.v6.template, OUTER_BYTES_V6);
    // The flow label: see `vxlan`.
    put(&mut bytes, IPV6_OFFSET + 2, port);
    put(&mut bytes, IPV6_OFFSET + 4, UDP_BYTES);
    put(&mut bytes, UDP_OFFSET_V6, port);
    put(&mut bytes, UDP_OFFSET_V6 + 2, vxlan::PORT);
    put(&mut bytes, UDP_OFFSET_V6 + 4, UDP_BYTES);
    bytes[VXLAN_OFFSET_V6] = vxlan::FLAG_VNI;
    bytes
}

/// As many bytes as are there of a template.
fn beginning(template: &[u32], length: usize) -> Vec<u8> {
    let bytes = template.iter().flat_map(|word| word.to_ne_bytes());
    let mut bytes: Vec<u8> = bytes.take(length).collect();
    bytes.resize(length, 0);
    bytes
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use sunwire_dataplane_common::entries::{PeerEntry, PeerEntryV6, peer};

    #[test]
    fn a_question_is_vxlan_of_no_network_with_a_valid_header() {
        let (template, checksum) = vxlan::template([2; 6], [4; 6], [10, 1, 0, 2], [10, 2, 0, 2]);
        let peer = PeerEntry {
            ifindex: 3,
            checksum,
            template,
            ..PeerEntry::default()
        };
        let peer = Target {
            peer,
            v6: PeerEntryV6::default(),
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

    #[test]
    fn a_question_over_ipv6_has_the_same_in_it() {
        let (from, to) = ([0x20; 16], [0x21; 16]);
        let target = Target {
            peer: PeerEntry {
                ifindex: 3,
                flags: peer::OVER_IPV6,
                ..PeerEntry::default()
            },
            v6: PeerEntryV6 {
                template: vxlan::template_v6([2; 6], [4; 6], from, to),
                ..PeerEntryV6::default()
            },
        };
        let bytes = question(&target, 1, 5, 77);
        assert_eq!(bytes[12..15], [0x86, 0xdd, 0x60]);
        assert_eq!(
            usize::from(bytes[18]) << 8 | usize::from(bytes[19]),
            bytes.len() - 54
        );
        assert_eq!(bytes[18..20], bytes[58..60]);
        assert_eq!((&bytes[22..38], &bytes[38..54]), (&from[..], &to[..]));
        assert_eq!(bytes[56..58], vxlan::PORT.to_be_bytes());
        assert_eq!(bytes[60..70], [0, 0, 8, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[70..], probe::question(5, 77));
    }
}
