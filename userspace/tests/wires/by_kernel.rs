//! Frames of wires into a device of the kernel's WireGuard, which takes IP packets without Ethernet headers.
//! A TUN device stands for it: it shows such packets and what the kernel takes them for.

use std::{io::Read as _, net::Ipv4Addr};

use sunwire_api::{EncryptionMode, PublicKey};
use sunwire_dataplane_common::headers::ETHER_IPV4;
use sunwire_userspace::{crypt::kernel::Way, maps::Capacity};

use crate::{
    LONG, desired,
    fixture::{node::TestNode, tap::tun_with_protocols, wire::with_fixed_tunnel_port},
    frames, tunnelled,
};

/// Addresses of this node and the other one within the tunnel.
const INSIDE: [Ipv4Addr; 2] = [Ipv4Addr::new(240, 0, 0, 2), Ipv4Addr::new(240, 0, 0, 4)];
/// What a TUN device puts before a packet: flags, and the protocol.
const INFORMATION_BYTES: usize = 4;
const ETHERNET_BYTES: usize = 14;
/// Where the outer addresses are in a frame, behind its IP header's checksum.
const CHECKSUM_AND_ADDRESSES: std::ops::Range<usize> = 24..34;

#[test]
fn kernel_every_frame_of_a_wire_goes_into_the_kernels_tunnel_unchanged() {
    let test = "kernel_every_frame_of_a_wire_goes_into_the_kernels_tunnel_unchanged";
    let Some(mut node) = TestNode::new(test, 5, Capacity::default()) else {
        return;
    };
    let Some(mut tunnel) = tun_with_protocols(test, "wg") else {
        return;
    };
    node.devices.refresh();
    let mut state = desired();
    state.encryption = EncryptionMode::Always;
    for number in [1, 2] {
        let of_node = state.nodes.get_mut(&number).unwrap();
        of_node.public_keys = vec![PublicKey([number as u8; 32])];
    }
    let [source, destination] = INSIDE;
    let way = Way {
        ifindex: node.ifindex("wg"),
        source,
        destination,
    };
    node.go_by(2, way);
    node.apply(&state).unwrap();
    let mut buffer = vec![0; 1 << 16];
    for (name, frame) in frames() {
        let fate = node.send("ep1", &frame);
        assert!(fate.drops.is_empty(), "{name}: {fate:?}");
        let length = tunnel.read(&mut buffer).expect(name);
        let (information, packet) = buffer[..length].split_at(INFORMATION_BYTES);
        let protocol = u16::from_be_bytes([information[2], information[3]]);
        assert_eq!(protocol, ETHER_IPV4, "{name}");
        // As on the underlay, but for who sends to whom.
        let mut expected = tunnelled((1, 2), LONG, false, 0, &frame);
        let addresses = [source.octets(), destination.octets()].concat();
        let mut came = with_fixed_tunnel_port([&expected[..ETHERNET_BYTES], packet].concat());
        assert_eq!(came[26..34], addresses, "{name}");
        assert_eq!(sum(&came[14..34]), 0xffff, "{name}");
        came[CHECKSUM_AND_ADDRESSES].fill(0);
        expected[CHECKSUM_AND_ADDRESSES].fill(0);
        assert_eq!(came, expected, "{name}");
    }
}

/// The sum of the Internet checksum (RFC 1071).
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2);
    let mut sum: u32 = words.map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
