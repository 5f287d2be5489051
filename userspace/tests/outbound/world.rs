//! Two tenants at a node that lets packets leave the cloud, with a router beyond it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    process::Command,
    sync::Arc,
};

use sunwire_dataplane_common::{drop_reason::DropReason, outbound::by};
use sunwire_policy::{compile_text, environment::Environment, testing::environment};
use sunwire_userspace::{dataplane::WayOut, maps::Capacity, state::Desired};

use crate::fixture::{
    desired::{endpoint, network, node},
    devices::{UNDERLAY, UNDERLAY_MAC},
    node::{Fate, OWN, TestNode, VTEP},
    policy::install,
    shrunk::tells_what_is_left,
    wire::{Frame, Transport, assert_valid},
    world::by_family,
};

pub(crate) const SHOP: u32 = 100;
/// Another tenant with the same addresses.
pub(crate) const RIVAL: u32 = 101;
pub(crate) const WEB: u32 = 1;
pub(crate) const DB: u32 = 3;
/// The rival's endpoint with the addresses of [`WEB`]; its device is the sixth here.
pub(crate) const TWIN: u32 = 21;
pub(crate) const TWIN_DEVICE: u32 = 6;
pub(crate) const TWIN_MAC: [u8; 6] = [2, 0, 0, 0, 21, 1];
pub(crate) const OTHER: u32 = 2;
pub(crate) const OTHER_VTEP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub(crate) const OTHER_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];
pub(crate) const GATEWAY: [u8; 6] = [2, 0x53, 0x57, 0, 0, 1];
pub(crate) const GATEWAY_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 20, 255, 254);
pub(crate) const MTU: u32 = 1300;
/// The node's own gateway.
pub(crate) const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
pub(crate) const ROUTER_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 0xfe];
pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
/// The same over IPv6.
pub(crate) const VTEP_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
pub(crate) const OTHER_VTEP_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);
pub(crate) const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0xfe);
pub(crate) const OUTSIDE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 7);
/// Where the node has no route to.
pub(crate) const LOST_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 0, 0, 0, 0, 7);
pub(crate) const GATEWAY_ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x14, 0, 0, 0, 0, 0, 0xfffe);
/// A range of which no port is that of a test's packet.
pub(crate) const FIRST_PORT: u16 = 61_001;
pub(crate) const PORTS: u16 = 4000;

pub(crate) const OPEN: &str = "policy main = forward";
pub(crate) const WEB_ONLY: &str = "policy main = if dst = internet and tcp and dst port 443 then forward \"out\" else drop \"no\"";

pub(crate) struct World {
    pub(crate) node: TestNode,
    pub(crate) environment: Environment,
    /// Where [`DB`] is.
    pub(crate) db_at: u32,
    pub(crate) outbound: u32,
    /// Whether receivers decide, too.
    pub(crate) enforced: bool,
    pub(crate) way: WayOut,
}

pub(crate) fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    assert!(status.unwrap().success(), "ip {arguments}");
}

pub(crate) fn world(test: &str) -> Option<World> {
    world_with(test, Capacity::default())
}

pub(crate) fn world_with(test: &str, capacity: Capacity) -> Option<World> {
    let mut node = TestNode::new(test, TWIN_DEVICE as usize, capacity)?;
    // The node's own way out, and a device by which the kernel tells of it.
    ip("link add asks type bridge");
    std::fs::write("/proc/sys/net/ipv4/conf/asks/forwarding", "1").unwrap();
    ip(&format!("address add {VTEP}/24 dev {UNDERLAY}"));
    ip(&format!("route add default via {ROUTER}"));
    ip("route add unreachable 203.0.113.0/24");
    let mac = ROUTER_MAC.map(|byte| format!("{byte:02x}")).join(":");
    ip(&format!(
        "neigh add {ROUTER} lladdr {mac} nud permanent dev {UNDERLAY}"
    ));
    std::fs::write("/proc/sys/net/ipv6/conf/asks/forwarding", "1").unwrap();
    // The kernel itself has no address: it would speak of it on the device.
    let settings = format!("/proc/sys/net/ipv6/conf/{UNDERLAY}");
    for (name, value) in [
        ("addr_gen_mode", "1"),
        ("accept_ra", "0"),
        ("disable_ipv6", "0"),
    ] {
        std::fs::write(format!("{settings}/{name}"), value).unwrap();
    }
    ip(&format!("-6 route add {ROUTER_V6}/128 dev {UNDERLAY}"));
    ip(&format!("-6 route add default via {ROUTER_V6}"));
    ip(&format!("-6 route add unreachable {LOST_V6}/48"));
    ip(&format!(
        "-6 neigh add {ROUTER_V6} lladdr {mac} nud permanent dev {UNDERLAY}"
    ));
    node.at_addresses(Some(VTEP), Some(VTEP_V6));
    node.devices.refresh();
    node.resolve(OTHER_VTEP, OTHER_MAC);
    let way = WayOut {
        ifindex: node.ifindex(UNDERLAY),
        asks_by: Some(node.ifindex("asks")),
        asks_by_v6: Some(node.ifindex("asks")),
        first_port: FIRST_PORT,
        ports: PORTS,
    };
    Some(World {
        node,
        environment: environment(),
        db_at: OWN,
        outbound: by::LOCAL,
        enforced: false,
        way,
    })
}

impl World {
    /// Both networks have this policy.
    pub(crate) fn apply(&mut self, policy: &str) {
        let mut desired = Desired::default();
        desired.nodes.insert(OWN, node("own", VTEP));
        desired.nodes.insert(OTHER, node("other", OTHER_VTEP));
        desired.nodes.get_mut(&OTHER).unwrap().address_v6 = Some(OTHER_VTEP_V6);
        let gateway_v6 = GATEWAY_ADDRESS_V6;
        for (vni, name) in [(SHOP, "shop"), (RIVAL, "rival")] {
            let mut one = network(name, MTU, GATEWAY_ADDRESS, gateway_v6, GATEWAY);
            one.outbound = self.outbound;
            one.enforced = self.enforced;
            desired.networks.insert(vni, one);
        }
        for one in self.environment.endpoints.clone() {
            if one.network != "shop" {
                continue;
            }
            let addresses = by_family(&one.addresses);
            let at = if one.number == DB { self.db_at } else { OWN };
            let made = endpoint((SHOP, one.number), one.number, one.mac, addresses, at);
            desired.endpoints.insert(one.number, made);
            if one.number == WEB {
                let twin = endpoint((RIVAL, TWIN), TWIN_DEVICE, TWIN_MAC, addresses, OWN);
                desired.endpoints.insert(TWIN, twin);
            }
        }
        let text = format!("network shop\n{policy}");
        for network in &mut self.environment.networks {
            if network.name == "shop" {
                network.policy = Some(Arc::from(text.as_str()));
            }
        }
        let compiled = compile_text(&text, &self.environment).unwrap();
        for vni in [SHOP, RIVAL] {
            install(&compiled.tables, vni, &mut desired);
        }
        self.node.let_out(self.way);
        self.node.apply(&desired).unwrap();
    }

    pub(crate) fn address(&self, number: u32) -> IpAddr {
        self.address_towards(number, OUTSIDE.into())
    }

    /// The endpoint's address of the family that another one is of.
    pub(crate) fn address_towards(&self, number: u32, other: IpAddr) -> IpAddr {
        let number = if number == TWIN { WEB } else { number };
        let mut all = self.environment.endpoints.iter();
        let one = all.find(|one| one.number == number).unwrap();
        let mut addresses = one.addresses.iter();
        let is_it = |address: &&IpAddr| address.is_ipv4() == other.is_ipv4();
        *addresses.find(is_it).unwrap()
    }

    pub(crate) fn mac(&self, number: u32) -> [u8; 6] {
        let mut all = self.environment.endpoints.iter();
        all.find(|one| one.number == number)
            .map_or(TWIN_MAC, |one| one.mac)
    }

    /// A frame to outside, as the endpoint sends it to its gateway.
    pub(crate) fn frame(&self, from: u32, to: impl Into<IpAddr>, transport: Transport) -> Frame {
        let to = to.into();
        Frame {
            eth_src: self.mac(from),
            eth_dst: GATEWAY,
            src: self.address_towards(from, to),
            dst: to,
            dscp: 0,
            transport,
            payload: 40,
        }
    }

    /// A frame from outside to the node.
    pub(crate) fn back(&self, from: impl Into<IpAddr>, transport: Transport) -> Frame {
        let from = from.into();
        Frame {
            eth_src: ROUTER_MAC,
            eth_dst: UNDERLAY_MAC,
            src: from,
            dst: own_address(from),
            dscp: 0,
            transport,
            payload: 30,
        }
    }

    pub(crate) fn send(&mut self, from: u32, frame: &[u8]) -> Fate {
        self.node.send(&device_of(from), frame)
    }

    pub(crate) fn receive(&mut self, frame: &[u8]) -> Fate {
        self.node.send(UNDERLAY, frame)
    }

    /// Sends a frame out, which has to leave as it is but for hops, addresses and port; returns the port.
    pub(crate) fn out(&mut self, from: u32, frame: &Frame) -> u16 {
        let fate = self.send(from, &frame.bytes());
        let sent = only(&fate, UNDERLAY);
        assert_valid(&sent);
        let at = transport_of(&sent);
        let port = u16::from_be_bytes([sent[at], sent[at + 1]]);
        let expected = Frame {
            eth_src: UNDERLAY_MAC,
            eth_dst: ROUTER_MAC,
            src: own_address(frame.dst),
            transport: with_source(frame.transport, port),
            ..*frame
        };
        assert_eq!(sent, with_hops(expected.bytes(), 63));
        port
    }
}

/// The node's address of the family that another one is of.
pub(crate) fn own_address(other: IpAddr) -> IpAddr {
    match other {
        IpAddr::V4(_) => VTEP.into(),
        IpAddr::V6(_) => VTEP_V6.into(),
    }
}

/// Where a frame's transport header begins.
pub(crate) fn transport_of(frame: &[u8]) -> usize {
    if frame[12..14] == [8, 0] { 34 } else { 54 }
}

pub(crate) fn device_of(number: u32) -> String {
    format!("ep{}", if number == TWIN { TWIN_DEVICE } else { number })
}

pub(crate) fn with_source(transport: Transport, port: u16) -> Transport {
    match transport {
        Transport::Tcp(_, to) => Transport::Tcp(port, to),
        Transport::Udp(_, to) => Transport::Udp(port, to),
        Transport::UdpUnsummed(_, to) => Transport::UdpUnsummed(port, to),
        other => other,
    }
}

/// The frame with another time to live, or hop limit.
pub(crate) fn with_hops(mut frame: Vec<u8>, hops: u8) -> Vec<u8> {
    if transport_of(&frame) == 54 {
        frame[21] = hops;
        return frame;
    }
    frame[22] = hops;
    frame[24..26].copy_from_slice(&[0, 0]);
    let sum = sum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// The Internet checksum (RFC 1071).
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2);
    let mut sum: u32 = words
        .map(|w| u32::from(u16::from_be_bytes([w[0], *w.get(1).unwrap_or(&0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The one frame that came out, by the device that is expected.
pub(crate) fn only(fate: &Fate, device: &str) -> Vec<u8> {
    assert_eq!(fate.drops.len(), 0, "{:?}", fate.drops);
    let [(by, frame)] = &fate.out[..] else {
        panic!("{:?}", fate.out);
    };
    assert_eq!(by, device);
    frame.clone()
}

/// Whether what goes outside leaves here when it came by the tunnel, which is one over IPv4. If not, sees that it
/// was dropped for the reason that the guide says.
pub(crate) fn leaves_out_of_tunnel(outside: IpAddr, fate: &Fate) -> bool {
    if outside.is_ipv4() || tells_what_is_left() {
        return true;
    }
    assert_eq!(dropped(fate), Some(DropReason::Resize));
    assert!(fate.out.is_empty());
    false
}

pub(crate) fn dropped(fate: &Fate) -> Option<DropReason> {
    let mut drops = fate.drops.keys().copied();
    let reason = drops.next();
    assert_eq!(drops.next(), None);
    reason
}

/// Type and code of the one ICMP message that came out to an endpoint from its gateway.
pub(crate) fn told(fate: &Fate, device: &str) -> (u8, u8) {
    let [(by, frame)] = &fate.out[..] else {
        panic!("{:?}", fate.out);
    };
    assert_eq!(by, device);
    assert_valid(frame);
    if transport_of(frame) == 54 {
        assert_eq!(frame[20], 58);
        assert_eq!(frame[22..38], GATEWAY_ADDRESS_V6.octets());
        return (frame[54], frame[55]);
    }
    assert_eq!(frame[23], 1);
    assert_eq!(frame[26..30], GATEWAY_ADDRESS.octets());
    assert_eq!(sum(&frame[34..]), 0, "ICMP checksum");
    (frame[34], frame[35])
}

/// Gives an ICMP frame another identifier, and the checksum for it.
pub(crate) fn with_identifier(mut frame: Vec<u8>, id: u16) -> Vec<u8> {
    let at = transport_of(&frame) + 4;
    frame[at..at + 2].copy_from_slice(&id.to_be_bytes());
    with_icmp_checksum(frame)
}

/// The ICMP frame with its checksum made anew (RFC 792; RFC 8200, 8.1).
pub(crate) fn with_icmp_checksum(mut frame: Vec<u8>) -> Vec<u8> {
    let at = transport_of(&frame);
    frame[at + 2..at + 4].copy_from_slice(&[0, 0]);
    let mut covered = Vec::new();
    if at == 54 {
        covered.extend(&frame[22..54]);
        covered.extend(((frame.len() - at) as u32).to_be_bytes());
        covered.extend(58u32.to_be_bytes());
    }
    covered.extend(&frame[at..]);
    let checksum = sum(&covered);
    frame[at + 2..at + 4].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// An ICMP error about a frame, of whose packet `quoted` bytes behind the IP header are in it; `word` is
/// what stands behind the checksum.
pub(crate) fn error_about(about: &[u8], outer: Frame, word: u32, quoted: usize) -> Vec<u8> {
    let mut frame = outer.bytes_with(&about[14..transport_of(about) + quoted]);
    let at = transport_of(&frame) + 4;
    frame[at..at + 4].copy_from_slice(&word.to_be_bytes());
    with_icmp_checksum(frame)
}
