//! What an endpoint may send, and where it goes when the policy forwards it.

use etherparse::{
    Icmpv4Type, Icmpv6Type, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, PacketBuilder, icmpv4,
};
use sunwire_dataplane_common::drop_reason::DropReason;

use super::{
    Case, Expect,
    world::{
        ABROAD_10, AWAY_3, COMING_6, DB, DB_2, GATEWAY, GATEWAY_MAC, GOING_7, LAWLESS_ONE, LEFT_5,
        MISSING_4, MOVED_9, MTU, NOBODY, NOBODY_99, OTHER_MAC, SHOP, TWIN, TWIN_DB, TWIN_WEB,
        UNREACHABLE_8, WEB, WEB_1, ether_type, port, to_node, v4, v6,
    },
};
use crate::fixture::{
    test_run::Metadata,
    wire::{Frame, Transport, ethernet_frame, fragment, fragment_v6},
};

const UDP: Transport = Transport::Udp(5000, 6000);
const TCP: Transport = Transport::Tcp(5000, 6000);
const PING: Transport = Transport::Icmp(8, 0);
const PING_V6: Transport = Transport::Icmp(128, 0);

pub(super) fn cases() -> Vec<Case> {
    [
        who_it_is(),
        what_it_may_say(),
        where_it_goes(),
        two_tenants(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn who_it_is() -> Vec<Case> {
    let good = v4(WEB_1, DB_2, UDP);
    let good_v6 = v6(WEB_1, DB_2, UDP);
    let spoofed = DropReason::SpoofedSource;
    let bare = |src| ethernet_frame(src, DB_2.mac(), ether_type::PLAIN, &[0; 40]);
    vec![
        Case::drops(
            "a device that belongs to no endpoint may say nothing",
            NOBODY,
            good.bytes(),
            DropReason::NotAttached,
        ),
        Case::drops(
            "another endpoint's MAC address may not be used",
            WEB,
            Frame {
                eth_src: DB_2.mac(),
                ..good
            }
            .bytes(),
            spoofed,
        ),
        Case::drops(
            "another endpoint's IPv4 address may not be used",
            WEB,
            Frame {
                src: DB_2.v4().into(),
                ..good
            }
            .bytes(),
            spoofed,
        ),
        Case::drops(
            "the unspecified IPv4 address may not be used",
            WEB,
            Frame {
                src: "0.0.0.0".parse().unwrap(),
                ..good
            }
            .bytes(),
            spoofed,
        ),
        Case::drops(
            "another endpoint's IPv6 address may not be used",
            WEB,
            Frame {
                src: DB_2.v6().into(),
                ..good_v6
            }
            .bytes(),
            spoofed,
        ),
        Case::drops(
            "the unspecified IPv6 address may not be used",
            WEB,
            Frame {
                src: "::".parse().unwrap(),
                ..good_v6
            }
            .bytes(),
            spoofed,
        ),
        Case::drops(
            "a link-local IPv6 address may not be used toward others",
            WEB,
            Frame {
                src: WEB_1.link_local().into(),
                ..good_v6
            }
            .bytes(),
            spoofed,
        ),
        Case::drops(
            "a frame that is no IP packet needs the endpoint's MAC address",
            WEB,
            bare(OTHER_MAC),
            spoofed,
        ),
        Case::drops(
            "a network without a policy forwards nothing",
            LAWLESS_ONE,
            good.bytes(),
            DropReason::NoPolicy,
        ),
        Case::drops(
            "a network without a policy forwards no IPv6",
            LAWLESS_ONE,
            good_v6.bytes(),
            DropReason::NoPolicy,
        ),
        Case::drops(
            "a network without a policy forwards no other frames",
            LAWLESS_ONE,
            bare(WEB_1.mac()),
            DropReason::NoPolicy,
        ),
    ]
}

fn what_it_may_say() -> Vec<Case> {
    let good = v4(WEB_1, DB_2, UDP);
    let good_v6 = v6(WEB_1, DB_2, UDP);
    let tagged = |ether_type: u16| {
        let mut frame = good.bytes();
        frame.splice(12..12, [(ether_type >> 8) as u8, ether_type as u8, 0, 7]);
        frame
    };
    let with = |change: fn(&mut Vec<u8>)| {
        let mut frame = good.bytes();
        change(&mut frame);
        frame
    };
    let mut ipv6_fragment = Frame {
        transport: Transport::Other(44),
        ..good_v6
    }
    .bytes();
    ipv6_fragment[54..62].copy_from_slice(&[17, 0, 0, 1, 0, 0, 0, 1]);
    // With its 20 bytes of IPv4 and 8 of UDP a packet of exactly the MTU, and one byte more.
    let largest = Frame {
        payload: MTU as usize - 28,
        ..good
    };
    let too_large = Frame {
        payload: MTU as usize - 27,
        ..good
    };
    let too_large_v6 = Frame {
        payload: MTU as usize - 47,
        ..good_v6
    };
    let segmented = |gso_size| Metadata {
        gso_size,
        ..Metadata::default()
    };
    // With its 20 bytes of TCP header.
    let super_packet = Frame {
        transport: TCP,
        payload: 3000,
        ..good
    };
    vec![
        Case::drops(
            "an 802.1Q tag is refused",
            WEB,
            tagged(0x8100),
            DropReason::Vlan,
        ),
        Case::drops(
            "an 802.1ad tag is refused",
            WEB,
            tagged(0x88a8),
            DropReason::Vlan,
        ),
        Case::drops(
            "a later fragment whose first one was not seen is refused",
            WEB,
            fragment(good.bytes(), 100, false),
            DropReason::Fragment,
        ),
        Case::comes_out(
            "a first fragment is forwarded",
            WEB,
            fragment(good.bytes(), 0, true),
            vec![(DB, fragment(good.bytes(), 0, true))],
        ),
        Case::comes_out(
            "a later fragment goes the way of its first one",
            WEB,
            fragment(good.bytes(), 101, false),
            vec![(DB, fragment(good.bytes(), 101, false))],
        ),
        Case::comes_out(
            "an IPv6 fragment is forwarded",
            WEB,
            ipv6_fragment.clone(),
            vec![(DB, ipv6_fragment)],
        ),
        Case::drops(
            "broadcast is refused",
            WEB,
            Frame {
                eth_dst: [0xff; 6],
                ..good
            }
            .bytes(),
            DropReason::Multicast,
        ),
        Case::drops(
            "multicast is refused",
            WEB,
            Frame {
                eth_dst: [1, 0, 0x5e, 0, 0, 1],
                ..good
            }
            .bytes(),
            DropReason::Multicast,
        ),
        Case::drops(
            "an IPv4 packet may not call itself IPv6",
            WEB,
            with(|frame| frame[12..14].copy_from_slice(&[0x86, 0xdd])),
            DropReason::Malformed,
        ),
        Case::drops(
            "an IPv4 header is not shorter than 20 bytes",
            WEB,
            with(|frame| frame[14] = 0x44),
            DropReason::Malformed,
        ),
        Case::drops(
            "an IPv4 header does not reach beyond the frame",
            WEB,
            with(|frame| {
                frame[14] = 0x4f;
                frame.truncate(14 + 60 + 3);
            }),
            DropReason::Malformed,
        ),
        Case::comes_out(
            "a packet as large as the MTU is forwarded",
            WEB,
            largest.bytes(),
            vec![(DB, largest.bytes())],
        ),
        Case::new(
            "a packet larger than the MTU is dropped, and its sender told",
            WEB,
            too_large.bytes(),
            Expect::OutAndDrop(
                vec![(WEB, too_big_v4(&too_large.bytes()))],
                DropReason::TooBig,
            ),
        ),
        Case::new(
            "an IPv6 packet larger than the MTU is dropped, and its sender told",
            WEB,
            too_large_v6.bytes(),
            Expect::OutAndDrop(
                vec![(WEB, too_big_v6(&too_large_v6.bytes()))],
                DropReason::TooBig,
            ),
        ),
        Case::new(
            "of fragments larger than the MTU the first is told about",
            WEB,
            fragment(too_large.bytes(), 0, true),
            Expect::OutAndDrop(
                vec![(WEB, too_big_v4(&fragment(too_large.bytes(), 0, true)))],
                DropReason::TooBig,
            ),
        ),
        Case::new(
            "of IPv6 fragments larger than the MTU the first is told about",
            WEB,
            fragment_v6(too_large_v6.bytes(), 0, true),
            Expect::OutAndDrop(
                vec![(WEB, too_big_v6(&fragment_v6(too_large_v6.bytes(), 0, true)))],
                DropReason::TooBig,
            ),
        ),
        Case::drops(
            "a later fragment larger than the MTU is dropped without a word",
            WEB,
            fragment(too_large.bytes(), 1, true),
            DropReason::TooBig,
        ),
        Case::comes_out(
            "a super-packet whose segments fit the MTU is forwarded whole",
            WEB,
            super_packet.bytes(),
            vec![(DB, super_packet.bytes())],
        )
        .with(segmented(MTU - 40)),
        Case::new(
            "a super-packet whose segments do not fit the MTU is dropped, and its sender told",
            WEB,
            super_packet.bytes(),
            Expect::OutAndDrop(
                vec![(WEB, too_big_v4(&super_packet.bytes()))],
                DropReason::TooBig,
            ),
        )
        .with(segmented(MTU - 39)),
        Case::drops(
            "a mark that names no verdict leads to none",
            WEB,
            good.bytes(),
            DropReason::BadTables,
        )
        .with(Metadata {
            mark: 0xa7ff_ffff,
            ..Metadata::default()
        }),
        Case::drops(
            "a copy that meets another generation than its own is dropped",
            WEB,
            good.bytes(),
            DropReason::Superseded,
        )
        .with(Metadata {
            mark: 0xa7f0_0001,
            ..Metadata::default()
        }),
    ]
}

fn where_it_goes() -> Vec<Case> {
    let away = |frame: Vec<u8>, node| vec![("underlay0", to_node(node, SHOP, &frame))];
    let mut cases = vec![
        Case::drops(
            "an address that nobody owns is nowhere",
            WEB,
            v4(WEB_1, NOBODY_99, UDP).bytes(),
            DropReason::NoOwner,
        )
        .counted("forward"),
        Case::drops(
            "a MAC address that nobody owns is nowhere",
            WEB,
            ethernet_frame(WEB_1.mac(), OTHER_MAC, ether_type::PLAIN, &[0; 40]),
            DropReason::NoOwner,
        ),
        Case::drops(
            "an endpoint that is here without its device gets nothing",
            WEB,
            v4(WEB_1, MISSING_4, UDP).bytes(),
            DropReason::NotAttached,
        ),
        Case::drops(
            "a node whose next hop is not resolved gets nothing",
            WEB,
            v4(WEB_1, UNREACHABLE_8, UDP).bytes(),
            DropReason::NoRoute,
        ),
        Case::drops(
            "a node in another cloud gets nothing in the clear",
            WEB,
            v4(WEB_1, ABROAD_10, UDP).bytes(),
            DropReason::NoTunnel,
        ),
        Case::drops(
            "the policy's drop is counted under its label",
            WEB,
            v4(WEB_1, DB_2, Transport::Tcp(5000, port::DENIED)).bytes(),
            DropReason::Policy,
        )
        .counted("denied"),
        Case::drops(
            "a packet that is let through and sent nowhere is dropped",
            WEB,
            v4(WEB_1, DB_2, Transport::Tcp(5000, port::STAYS)).bytes(),
            DropReason::NotForwarded,
        )
        .counted("stays"),
        Case::drops(
            "a policy cannot send to an endpoint of another network",
            WEB,
            v4(WEB_1, DB_2, Transport::Tcp(5000, port::TO_ANOTHER_NETWORK)).bytes(),
            DropReason::NoOwner,
        )
        .counted("to twin"),
    ];
    let bare = ethernet_frame(WEB_1.mac(), DB_2.mac(), ether_type::PLAIN, &[7; 40]);
    let local = [
        (
            "UDP over IPv4 is delivered here",
            v4(WEB_1, DB_2, UDP).bytes(),
        ),
        (
            "TCP over IPv4 is delivered here",
            v4(WEB_1, DB_2, TCP).bytes(),
        ),
        ("ICMP is delivered here", v4(WEB_1, DB_2, PING).bytes()),
        (
            "UDP over IPv6 is delivered here",
            v6(WEB_1, DB_2, UDP).bytes(),
        ),
        (
            "TCP over IPv6 is delivered here",
            v6(WEB_1, DB_2, TCP).bytes(),
        ),
        (
            "an IPv6 ping is delivered here",
            v6(WEB_1, DB_2, PING_V6).bytes(),
        ),
        (
            "an unknown protocol is delivered here",
            v4(WEB_1, DB_2, Transport::Other(47)).bytes(),
        ),
        ("a frame that is no IP packet is delivered here", bare),
    ];
    cases.extend(local.map(|(name, frame)| {
        Case::comes_out(name, WEB, frame.clone(), vec![(DB, frame)]).counted("forward")
    }));
    // A sender that learned the gateway's MAC address, say.
    let odd = Frame {
        eth_dst: OTHER_MAC,
        ..v4(WEB_1, DB_2, UDP)
    };
    cases.push(Case::comes_out(
        "the destination's own MAC address is put in",
        WEB,
        odd.bytes(),
        vec![(
            DB,
            Frame {
                eth_dst: DB_2.mac(),
                ..odd
            }
            .bytes(),
        )],
    ));
    let tunnelled = [
        ("UDP over IPv4 is tunnelled", v4(WEB_1, AWAY_3, UDP)),
        ("TCP over IPv4 is tunnelled", v4(WEB_1, AWAY_3, TCP)),
        ("ICMP is tunnelled", v4(WEB_1, AWAY_3, PING)),
        ("UDP over IPv6 is tunnelled", v6(WEB_1, AWAY_3, UDP)),
        ("TCP over IPv6 is tunnelled", v6(WEB_1, AWAY_3, TCP)),
        ("an IPv6 ping is tunnelled", v6(WEB_1, AWAY_3, PING_V6)),
        (
            "a packet as large as the MTU is tunnelled",
            Frame {
                payload: MTU as usize - 28,
                ..v4(WEB_1, AWAY_3, UDP)
            },
        ),
        (
            "an endpoint that moved away is reached where it is",
            v4(WEB_1, LEFT_5, UDP),
        ),
        (
            "an endpoint on its way here is still where it was",
            v4(WEB_1, COMING_6, UDP),
        ),
        (
            "an endpoint that was let go is where it goes",
            v4(WEB_1, GOING_7, UDP),
        ),
    ];
    cases.extend(tunnelled.map(|(name, frame)| {
        Case::comes_out(name, WEB, frame.bytes(), away(frame.bytes(), 2)).counted("forward")
    }));
    let bare = ethernet_frame(WEB_1.mac(), AWAY_3.mac(), ether_type::PLAIN, &[7; 40]);
    cases.push(
        Case::comes_out(
            "a frame that is no IP packet goes to another node",
            WEB,
            bare.clone(),
            away(bare, 2),
        )
        .counted("forward"),
    );
    let frame = v4(WEB_1, MOVED_9, UDP).bytes();
    cases.push(Case::comes_out(
        "an endpoint that moved between others is reached at its new home",
        WEB,
        frame.clone(),
        away(frame, 3),
    ));
    cases
}

/// The addresses are the same in both networks, the destinations and the policies are not.
fn two_tenants() -> Vec<Case> {
    let http = v4(WEB_1, DB_2, Transport::Tcp(5000, 80)).bytes();
    let denied_in_shop = v4(WEB_1, DB_2, Transport::Tcp(5000, port::DENIED)).bytes();
    let away = v4(WEB_1, AWAY_3, UDP).bytes();
    vec![
        Case::comes_out(
            "the first tenant's web reaches the first tenant's db",
            WEB,
            http.clone(),
            vec![(DB, http.clone())],
        ),
        Case::drops(
            "the second tenant's policy is its own",
            TWIN_WEB,
            http,
            DropReason::Policy,
        )
        .counted_in(TWIN, "denied"),
        Case::comes_out(
            "the second tenant's web reaches the second tenant's db",
            TWIN_WEB,
            denied_in_shop.clone(),
            vec![(TWIN_DB, denied_in_shop)],
        )
        .counted_in(TWIN, "forward"),
        Case::comes_out(
            "the second tenant's tunnels have its own VNI and destination",
            TWIN_WEB,
            away.clone(),
            vec![("underlay0", to_node(3, TWIN, &away))],
        ),
    ]
}

/// What the gateway answers to a packet of `web` that is too big: the size that fits, and the
/// packet's beginning.
fn too_big_v4(frame: &[u8]) -> Vec<u8> {
    let header = icmpv4::DestUnreachableHeader::FragmentationNeeded {
        next_hop_mtu: MTU as u16,
    };
    let mut ip = Ipv4Header::new(
        0,
        64,
        IpNumber::ICMP,
        GATEWAY.v4().octets(),
        WEB_1.v4().octets(),
    )
    .unwrap();
    ip.dont_fragment = false;
    let mut answer = Vec::new();
    PacketBuilder::ethernet2(GATEWAY_MAC, WEB_1.mac())
        .ip(IpHeaders::Ipv4(ip, Ipv4Extensions::default()))
        .icmpv4(Icmpv4Type::DestinationUnreachable(header))
        .write(&mut answer, &frame[14..14 + 40])
        .unwrap();
    answer
}

/// As [`too_big_v4`], for IPv6.
fn too_big_v6(frame: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    PacketBuilder::ethernet2(GATEWAY_MAC, WEB_1.mac())
        .ipv6(GATEWAY.v6().octets(), WEB_1.v6().octets(), 64)
        .icmpv6(Icmpv6Type::PacketTooBig { mtu: MTU })
        .write(&mut answer, &frame[14..14 + 60])
        .unwrap();
    answer
}
