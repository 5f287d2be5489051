//! What the tests of the services share: a directory with two networks that have the same
//! addresses.

mod dhcp4;
mod dhcp6;
mod dns;
mod forward;
mod hostile;
mod listening;
mod router;
mod stack;

use std::{collections::BTreeMap, net::IpAddr};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use sunwire_dataplane_common::address::{Address, Mac};

use super::{
    directory::{Asker, Directory},
    ring::Punt,
};
use crate::state::{Desired, Endpoint, Network, kernel_address};

/// VNI of `shop`; `other` has the next.
pub(super) const SHOP: u32 = 100;
pub(super) const OTHER: u32 = 101;
pub(super) const GATEWAY_MAC: [u8; 6] = [0x02, 0x53, 0x57, 0, 0, 1];
pub(super) const WEB_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x11];
/// ifindex of the device of endpoint 1, `web1`.
pub(super) const WEB: u32 = 7;

pub(super) fn address(text: &str) -> Address {
    match text {
        "" => Address::ZERO,
        text => kernel_address(text.parse::<IpAddr>().expect("an address")),
    }
}

pub(super) fn endpoint(name: &str, vni: u32, last: u8, v4: &str, v6: &str) -> Endpoint {
    Endpoint {
        name: name.to_owned(),
        vni,
        device: format!("sw-{name}"),
        mac: Mac::new([2, 0, 0, 0, 0, last]),
        ipv4: address(v4),
        ipv6: address(v6),
        node: 1,
        other: 0,
        moving: false,
        epoch: 1,
    }
}

/// The desired state: `shop` has `web1` with both addresses, `four1` and `six1` with one each;
/// `other` has `secret1` with the address of `web1`, and `db1`.
pub(super) fn desired() -> Desired {
    let mut desired = Desired::default();
    for (vni, name) in [(SHOP, "shop"), (OTHER, "other")] {
        let network = Network {
            outbound: 0,
            encryption: Default::default(),
            relayed: false,
            enforced: false,
            checksum: false,
            port: sunwire_dataplane_common::vxlan::PORT,
            peers: Vec::new(),
            name: name.to_owned(),
            mtu: 1300,
            gateway_v4: address("10.20.0.1"),
            gateway_v6: address("fd00:20::1"),
            gateway_mac: Mac::new(GATEWAY_MAC),
            prefix_v4: 16,
            prefix_v6: 64,
        };
        desired.networks.insert(vni, network);
    }
    desired.endpoints.extend([
        (1, endpoint("web1", SHOP, 0x11, "10.20.0.11", "fd00:20::11")),
        (2, endpoint("four1", SHOP, 0x12, "10.20.0.12", "")),
        (3, endpoint("six1", SHOP, 0x13, "", "fd00:20::13")),
        (
            4,
            endpoint("secret1", OTHER, 0x11, "10.20.0.11", "fd00:20::11"),
        ),
        (5, endpoint("db1", OTHER, 0x15, "10.20.0.15", "fd00:20::15")),
    ]);
    desired
}

/// What is made of it where `web1`, `four1`, `six1` and `secret1` are attached, in this order.
pub(super) fn directory() -> Directory {
    let here: BTreeMap<u32, u32> = (WEB..).zip(1..=4).collect();
    Directory::new(&desired(), here)
}

/// The endpoint with a number.
pub(super) fn asker(directory: &Directory, number: u32) -> Asker<'_> {
    let asker = directory.at(WEB + number - 1);
    asker.expect("the endpoint is here")
}

/// The payload of a UDP datagram in a frame, and who it is from and to: MAC address, address, port.
pub(super) fn datagram(frame: &[u8]) -> (String, String, Vec<u8>) {
    let packet = SlicedPacket::from_ethernet(frame).expect("the frame can be read");
    let link = packet.link.as_ref().and_then(|link| link.to_header());
    let link = link.and_then(|link| link.ethernet2()).expect("Ethernet");
    let (src, dst, checksum_ok) = match (&packet.net, &packet.transport) {
        (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Udp(udp))) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            let expected = udp.to_header().calc_checksum_ipv4(&header, udp.payload());
            (
                IpAddr::V4(header.source.into()),
                IpAddr::V4(header.destination.into()),
                expected.ok() == Some(udp.checksum()),
            )
        }
        (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Udp(udp))) => {
            let header = ip.header().to_header();
            let expected = udp.to_header().calc_checksum_ipv6(&header, udp.payload());
            (
                IpAddr::V6(header.source.into()),
                IpAddr::V6(header.destination.into()),
                expected.ok() == Some(udp.checksum()),
            )
        }
        _ => panic!("no UDP datagram"),
    };
    assert!(checksum_ok, "the checksum is right");
    let Some(TransportSlice::Udp(udp)) = &packet.transport else {
        unreachable!("it was one above")
    };
    let end = |mac: [u8; 6], ip: IpAddr, port: u16| {
        let mac: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{} {ip} {port}", mac.join(":"))
    };
    (
        end(link.source, src, udp.source_port()),
        end(link.destination, dst, udp.destination_port()),
        udp.payload().to_vec(),
    )
}

/// The bytes of hexadecimal digits; everything else in the text means nothing.
pub(super) fn bytes(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pairs = digits.chunks_exact(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn punt(endpoint: u32, ifindex: u32, network: u32) -> Punt<'static> {
    Punt {
        kind: sunwire_dataplane_common::punt::Kind::DnsUdp,
        ifindex,
        endpoint,
        network,
        frame: &[],
    }
}

#[test]
fn an_endpoint_is_known_only_behind_its_own_device() {
    let directory = directory();
    assert!(directory.asker(&punt(1, WEB, SHOP)).is_some());
    assert!(
        directory.asker(&punt(1, WEB + 1, SHOP)).is_none(),
        "another device"
    );
    assert!(
        directory.asker(&punt(1, WEB, OTHER)).is_none(),
        "another network"
    );
    assert!(
        directory.asker(&punt(5, WEB + 4, OTHER)).is_none(),
        "not here"
    );
}

#[test]
fn a_directory_reflects_its_own_state_and_no_other() {
    let (desired, directory) = (desired(), directory());
    let here: BTreeMap<u32, u32> = (WEB..).zip(1..=4).collect();
    assert!(directory.reflects(&desired, &here));
    assert!(!directory.reflects(&desired, &BTreeMap::new()));
    for change in [
        |desired: &mut Desired| drop(desired.endpoints.remove(&1)),
        |desired: &mut Desired| drop(desired.networks.remove(&OTHER)),
        |desired: &mut Desired| desired.networks.get_mut(&SHOP).expect("it is there").mtu = 1400,
        |desired: &mut Desired| {
            let endpoint = desired.endpoints.get_mut(&2).expect("it is there");
            endpoint.ipv6 = address("fd00:20::12");
        },
    ] {
        let mut changed = desired.clone();
        change(&mut changed);
        assert!(!directory.reflects(&changed, &here));
        assert!(Directory::new(&changed, here.clone()).reflects(&changed, &here));
    }
}
