//! What workloads ask of the node itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sunwire_dataplane_common::{drop_reason::DropReason, punt::Kind};

use super::{
    Case,
    world::{DB_2, GATEWAY, GATEWAY_MAC, LAWLESS_ONE, MTU, OTHER_MAC, WEB, WEB_1, v4, v6},
};
use crate::fixture::{
    test_run::Metadata,
    wire::{Frame, Neighbour, Transport},
};

const BROADCAST: [u8; 6] = [0xff; 6];
/// All DHCP servers and all routers, with their MAC addresses (RFC 2464, 7).
const ALL_SERVERS: (Ipv6Addr, [u8; 6]) = (
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2),
    [0x33, 0x33, 0, 1, 0, 2],
);
const ALL_ROUTERS: (Ipv6Addr, [u8; 6]) = (
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2),
    [0x33, 0x33, 0, 0, 0, 2],
);

/// The gateway's link-local address, of its MAC address.
pub(super) const GATEWAY_LOCAL: Ipv6Addr =
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0x0053, 0x57ff, 0xfe00, 0x00fe);

fn discover() -> Frame {
    Frame {
        eth_dst: BROADCAST,
        src: Ipv4Addr::UNSPECIFIED.into(),
        dst: Ipv4Addr::BROADCAST.into(),
        payload: 300,
        ..v4(WEB_1, GATEWAY, Transport::Udp(68, 67))
    }
}

fn solicit() -> Frame {
    Frame {
        eth_dst: ALL_SERVERS.1,
        src: WEB_1.link_local().into(),
        dst: ALL_SERVERS.0.into(),
        ..v6(WEB_1, GATEWAY, Transport::Udp(546, 547))
    }
}

fn router_solicitation(src: Ipv6Addr) -> Vec<u8> {
    Neighbour {
        eth_src: WEB_1.mac(),
        eth_dst: ALL_ROUTERS.1,
        src,
        dst: ALL_ROUTERS.0,
        kind: 133,
        flags: 0,
        target: Ipv6Addr::UNSPECIFIED,
        option: None,
    }
    .bytes()
}

/// To the gateway, as its address resolves.
fn to_gateway(frame: Frame) -> Frame {
    Frame {
        eth_dst: GATEWAY_MAC,
        ..frame
    }
}

fn query(transport: Transport) -> Frame {
    to_gateway(v4(WEB_1, GATEWAY, transport))
}

fn query_v6(transport: Transport) -> Frame {
    to_gateway(v6(WEB_1, GATEWAY, transport))
}

/// What comes back for an echo request: its mirror image.
fn echoed(frame: Frame, kind: u8) -> Vec<(&'static str, Vec<u8>)> {
    let reply = Frame {
        eth_src: GATEWAY_MAC,
        eth_dst: frame.eth_src,
        src: frame.dst,
        dst: frame.src,
        transport: Transport::Icmp(kind, 0),
        ..frame
    };
    vec![(WEB, reply.bytes())]
}

pub(super) fn cases() -> Vec<Case> {
    [addresses(), names(), echo()]
        .into_iter()
        .flatten()
        .collect()
}

fn addresses() -> Vec<Case> {
    let from = |src: IpAddr| Frame { src, ..discover() }.bytes();
    vec![
        Case::asks(
            "a DHCP client without an address is heard",
            WEB,
            discover().bytes(),
            Kind::Dhcp4,
        ),
        Case::asks(
            "a DHCP client with its address is heard",
            WEB,
            from(WEB_1.v4().into()),
            Kind::Dhcp4,
        ),
        Case::asks(
            "a DHCP client that renews asks the gateway",
            WEB,
            query(Transport::Udp(68, 67)).bytes(),
            Kind::Dhcp4,
        ),
        Case::asks(
            "no policy is needed to get an address",
            LAWLESS_ONE,
            discover().bytes(),
            Kind::Dhcp4,
        ),
        Case::drops(
            "a DHCP client may not have another's address",
            WEB,
            from(DB_2.v4().into()),
            DropReason::SpoofedSource,
        ),
        Case::drops(
            "a DHCP client may not have another's MAC address",
            WEB,
            Frame {
                eth_src: OTHER_MAC,
                ..discover()
            }
            .bytes(),
            DropReason::SpoofedSource,
        ),
        Case::drops(
            "a workload answers no DHCP client",
            WEB,
            Frame {
                src: WEB_1.v4().into(),
                transport: Transport::Udp(67, 68),
                ..discover()
            }
            .bytes(),
            DropReason::Multicast,
        ),
        Case::asks(
            "a DHCPv6 client is heard",
            WEB,
            solicit().bytes(),
            Kind::Dhcp6,
        ),
        Case::drops(
            "a DHCPv6 client may not have another's address",
            WEB,
            Frame {
                src: DB_2.v6().into(),
                ..solicit()
            }
            .bytes(),
            DropReason::SpoofedSource,
        ),
        Case::asks(
            "a router solicitation from the link-local address is heard",
            WEB,
            router_solicitation(WEB_1.link_local()),
            Kind::RouterSolicitation,
        ),
        Case::asks(
            "a router solicitation from no address is heard",
            WEB,
            router_solicitation(Ipv6Addr::UNSPECIFIED),
            Kind::RouterSolicitation,
        ),
        Case::drops(
            "a router solicitation may not come from another's address",
            WEB,
            router_solicitation(DB_2.v6()),
            DropReason::Unsolicited,
        ),
    ]
}

fn names() -> Vec<Case> {
    let udp = Transport::Udp(4242, 53);
    let long = Frame {
        payload: 2100,
        ..query(udp)
    };
    vec![
        Case::asks(
            "a query to the gateway is heard",
            WEB,
            query(udp).bytes(),
            Kind::DnsUdp,
        ),
        Case::asks(
            "a query to the gateway's IPv6 address is heard",
            WEB,
            query_v6(udp).bytes(),
            Kind::DnsUdp,
        ),
        Case::asks(
            "a query by TCP is heard",
            WEB,
            query(Transport::Tcp(4242, 53)).bytes(),
            Kind::DnsTcp,
        ),
        Case::asks(
            "a query by TCP over IPv6 is heard",
            WEB,
            query_v6(Transport::Tcp(4242, 53)).bytes(),
            Kind::DnsTcp,
        ),
        Case::asks(
            "no policy is needed to ask for a name",
            LAWLESS_ONE,
            query(udp).bytes(),
            Kind::DnsUdp,
        ),
        Case::comes_out(
            "a query to another endpoint is the policy's",
            WEB,
            v4(WEB_1, DB_2, udp).bytes(),
            vec![(super::world::DB, v4(WEB_1, DB_2, udp).bytes())],
        ),
        Case::drops(
            "a query from another's address is none",
            WEB,
            Frame {
                src: DB_2.v4().into(),
                ..query(udp)
            }
            .bytes(),
            DropReason::SpoofedSource,
        ),
        Case::drops(
            "a query that is longer than anything that is asked is refused",
            WEB,
            long.bytes(),
            DropReason::TooBig,
        )
        // No device here sends one.
        .with(Metadata::default()),
        Case::drops(
            "what else is sent to the gateway is the policy's, and nobody there",
            WEB,
            query(Transport::Udp(4242, 123)).bytes(),
            DropReason::NoOwner,
        ),
    ]
}

fn echo() -> Vec<Case> {
    let v4_echo = query(Transport::Icmp(8, 0));
    let v6_echo = query_v6(Transport::Icmp(128, 0));
    let large = Frame {
        payload: MTU as usize - 20 - 8,
        ..v4_echo
    };
    let local = Frame {
        src: WEB_1.link_local().into(),
        dst: GATEWAY_LOCAL.into(),
        ..v6_echo
    };
    vec![
        Case::comes_out(
            "the gateway answers an echo request",
            WEB,
            v4_echo.bytes(),
            echoed(v4_echo, 0),
        ),
        Case::comes_out(
            "the gateway answers the largest echo request",
            WEB,
            large.bytes(),
            echoed(large, 0),
        ),
        Case::comes_out(
            "the gateway answers an ICMPv6 echo request",
            WEB,
            v6_echo.bytes(),
            echoed(v6_echo, 129),
        ),
        Case::comes_out(
            "the gateway answers at its link-local address",
            WEB,
            local.bytes(),
            echoed(local, 129),
        ),
        Case::drops(
            "an echo request above the MTU is refused",
            WEB,
            Frame {
                payload: large.payload + 1,
                ..large
            }
            .bytes(),
            DropReason::TooBig,
        ),
        Case::drops(
            "the gateway answers nobody with another's address",
            WEB,
            Frame {
                src: DB_2.v4().into(),
                ..v4_echo
            }
            .bytes(),
            DropReason::SpoofedSource,
        ),
        Case::comes_out(
            "an echo request to an endpoint is the policy's",
            WEB,
            v4(WEB_1, DB_2, Transport::Icmp(8, 0)).bytes(),
            vec![(
                super::world::DB,
                v4(WEB_1, DB_2, Transport::Icmp(8, 0)).bytes(),
            )],
        ),
    ]
}
