//! What comes out of tunnels, and what is not for us.

use std::net::Ipv4Addr;

use sunwire_dataplane_common::{drop_reason::DropReason, probe};

use super::{
    Case, Expect,
    world::{
        ABROAD_10, AWAY_3, COMING_6, DB, DB_2, FOREIGN_15, GOING_7, LEFT_5, MISSING_4, MOVED_9,
        MTU, NOBODY_99, OTHER_ADDRESS, OTHER_MAC, SHOP, TWIN, TWIN_DB, UNREACHABLE_8, WEB_1,
        ether_type, from_node, node_mac, to_node, v4, v6, vtep,
    },
};
use crate::fixture::{
    devices::{UNDERLAY, UNDERLAY_MAC},
    node::VTEP,
    wire::{Arp, Frame, Transport, Tunnel, ethernet_frame, fragment},
};

const UDP: Transport = Transport::Udp(5000, 6000);
const TCP: Transport = Transport::Tcp(5000, 6000);

pub(super) fn cases() -> Vec<Case> {
    [delivered(), refused(), moved(), passed(), probed()]
        .into_iter()
        .flatten()
        .collect()
}

fn delivered() -> Vec<Case> {
    let bare = ethernet_frame(AWAY_3.mac(), DB_2.mac(), ether_type::PLAIN, &[7; 46]);
    let largest = Frame {
        payload: MTU as usize - 28,
        ..v4(AWAY_3, DB_2, UDP)
    };
    // A policy at the entry node rewrote the source to what nobody owns; the MAC address says who.
    let rewritten = Frame {
        src: OTHER_ADDRESS.into(),
        ..v4(AWAY_3, DB_2, UDP)
    };
    // A policy at the entry node sent it to another endpoint than the owner of its address.
    let diverted = Frame {
        dst: WEB_1.v4().into(),
        ..v4(AWAY_3, DB_2, UDP)
    };
    let mut cases: Vec<Case> = [
        (
            "UDP over IPv4 comes out of the tunnel",
            v4(AWAY_3, DB_2, UDP).bytes(),
        ),
        (
            "TCP over IPv4 comes out of the tunnel",
            v4(AWAY_3, DB_2, TCP).bytes(),
        ),
        (
            "UDP over IPv6 comes out of the tunnel",
            v6(AWAY_3, DB_2, UDP).bytes(),
        ),
        (
            "TCP over IPv6 comes out of the tunnel",
            v6(AWAY_3, DB_2, TCP).bytes(),
        ),
        (
            "a ping comes out of the tunnel",
            v4(AWAY_3, DB_2, Transport::Icmp(8, 0)).bytes(),
        ),
        ("a frame that is no IP packet comes out of the tunnel", bare),
        (
            "a packet as large as the MTU comes out of the tunnel",
            largest.bytes(),
        ),
        (
            "a source that nobody owns is known by its MAC address",
            rewritten.bytes(),
        ),
        (
            "the destination is the one that the entry node chose",
            diverted.bytes(),
        ),
    ]
    .map(|(name, inner)| {
        let frame = from_node(2, SHOP).wrap(&inner);
        Case::comes_out(name, UNDERLAY, frame, vec![(DB, inner)])
    })
    .into();
    let inner = v4(AWAY_3, DB_2, UDP).bytes();
    cases.push(Case::comes_out(
        "the second tenant's tunnel leads to the second tenant's endpoint",
        UNDERLAY,
        from_node(3, TWIN).wrap(&inner),
        vec![(TWIN_DB, inner.clone())],
    ));
    // A node of ours that it was sent to has decided about it and passes it on.
    let relayed = v4(FOREIGN_15, DB_2, UDP).bytes();
    cases.push(Case::comes_out(
        "what a peer without an agent has sent to another node of ours comes from there",
        UNDERLAY,
        from_node(2, SHOP).wrap(&relayed),
        vec![(DB, relayed)],
    ));
    // A checksum in the outer header is legal and not looked at.
    let mut summed = from_node(2, SHOP).wrap(&inner);
    summed[40..42].copy_from_slice(&[0x12, 0x34]);
    cases.push(Case::comes_out(
        "an outer UDP checksum does not matter",
        UNDERLAY,
        summed,
        vec![(DB, inner.clone())],
    ));
    // Reserved bits are ignored on receipt, but for those of a wire and of hops.
    let mut reserved = from_node(2, SHOP).wrap(&inner);
    reserved[43..46].copy_from_slice(&[0xff; 3]);
    reserved[49] = 0xf0;
    // The kernel takes headers off a packet that has room for an IPv4 header behind them.
    let short = ethernet_frame(AWAY_3.mac(), DB_2.mac(), ether_type::PLAIN, &[7; 19]);
    cases.push(Case::drops(
        "a frame that no node would have sent so short is refused",
        UNDERLAY,
        from_node(2, SHOP).wrap(&short),
        DropReason::Resize,
    ));
    cases.push(Case::comes_out(
        "reserved bits do not matter",
        UNDERLAY,
        reserved,
        vec![(DB, inner)],
    ));
    cases
}

fn probed() -> Vec<Case> {
    let question = probe::question(5, 0x0102_0304_0506_0708);
    let mut answer = question;
    answer[18..22].copy_from_slice(&probe::kind::ANSWER.to_be_bytes());
    let from_2 = from_node(2, probe::NETWORK);
    let stranger = Tunnel {
        src: Ipv4Addr::new(192, 0, 2, 99).into(),
        ..from_2
    };
    let changed = |at: usize, value: u8| {
        let mut question = question;
        question[at] = value;
        from_2.wrap(&question)
    };
    let short = from_2.wrap(&question[..30]);
    let unknown = DropReason::UnknownNetwork;
    let drops = |name, frame, reason| Case::drops(name, UNDERLAY, frame, reason);
    vec![
        Case::comes_out(
            "a probe goes back to the node that it came from, and changes in its kind alone",
            UNDERLAY,
            from_2.wrap(&question),
            vec![(UNDERLAY, to_node(2, probe::NETWORK, &answer))],
        ),
        Case::new(
            "an answer that nobody waits for ends here",
            UNDERLAY,
            from_2.wrap(&answer),
            Expect::Consumed,
        ),
        drops(
            "a stranger's probe is not answered",
            stranger.wrap(&question),
            DropReason::UnknownPeer,
        ),
        drops("network 0 has nothing but probes", changed(13, 0), unknown),
        drops("a probe begins as probes do", changed(14, 0), unknown),
        drops("a probe of another kind is none", changed(21, 3), unknown),
        drops("a probe is not short", short, unknown),
    ]
}

fn refused() -> Vec<Case> {
    let good = v4(AWAY_3, DB_2, UDP);
    let from_2 = from_node(2, SHOP);
    let flags = |flags: u8| {
        let mut frame = from_2.wrap(&good.bytes());
        frame[42] = flags;
        frame
    };
    let broken_inner = |change: fn(&mut Vec<u8>)| {
        let mut inner = good.bytes();
        change(&mut inner);
        from_2.wrap(&inner)
    };
    let to = |frame: Frame| from_2.wrap(&frame.bytes());
    let drops = |name, frame, reason| Case::drops(name, UNDERLAY, frame, reason);
    let stranger = Tunnel {
        src: Ipv4Addr::new(192, 0, 2, 99).into(),
        ..from_2
    };
    let ourselves = Tunnel {
        src: VTEP.into(),
        ..from_2
    };
    let too_large = Frame {
        payload: MTU as usize - 27,
        ..good
    };
    let not_there = DropReason::SourceNotThere;
    vec![
        drops(
            "a tunnel needs the VNI flag",
            flags(0),
            DropReason::BadTunnel,
        ),
        drops(
            "a tunnel may set no other flag",
            flags(0x0c),
            DropReason::BadTunnel,
        ),
        drops(
            "a tunnel comes from a node of the mesh",
            stranger.wrap(&good.bytes()),
            DropReason::UnknownPeer,
        ),
        drops(
            "a tunnel does not come from this node itself",
            ourselves.wrap(&good.bytes()),
            DropReason::UnknownPeer,
        ),
        drops(
            "a tunnel is of a network that is known",
            from_node(2, 999).wrap(&good.bytes()),
            DropReason::UnknownNetwork,
        ),
        drops(
            "VNI 0 is no network",
            from_node(2, 0).wrap(&good.bytes()),
            DropReason::UnknownNetwork,
        ),
        drops(
            "the inner IP version agrees with the EtherType",
            broken_inner(|inner| inner[14] = 0x65),
            DropReason::Malformed,
        ),
        drops(
            "a destination that lives elsewhere is not here",
            to(v4(AWAY_3, MOVED_9, UDP)),
            DropReason::NotHere,
        ),
        drops(
            "a destination that nobody knows is not here",
            to(v4(AWAY_3, NOBODY_99, UDP)),
            DropReason::NotHere,
        ),
        drops(
            "a broadcast from a tunnel for no set of endpoints is not spread",
            to(Frame {
                eth_dst: [0xff; 6],
                ..good
            }),
            DropReason::UnknownGroup,
        ),
        drops(
            "an endpoint that is here without its device gets nothing",
            to(v4(AWAY_3, MISSING_4, UDP)),
            DropReason::NotAttached,
        ),
        drops(
            "a packet larger than the MTU is dropped",
            to(too_large),
            DropReason::TooBig,
        ),
        drops(
            "an endpoint of ours does not speak from elsewhere",
            to(v4(WEB_1, DB_2, UDP)),
            not_there,
        ),
        drops(
            "a node in another cloud is not heard in the clear",
            from_node(5, SHOP).wrap(&v4(ABROAD_10, DB_2, UDP).bytes()),
            DropReason::Unencrypted,
        ),
        drops(
            "an endpoint of a third node does not speak from the second",
            from_node(2, SHOP).wrap(&v4(UNREACHABLE_8, DB_2, UDP).bytes()),
            not_there,
        ),
        drops(
            "an IPv6 source lives at the peer too",
            from_node(3, SHOP).wrap(&v6(AWAY_3, DB_2, UDP).bytes()),
            not_there,
        ),
        drops(
            "a frame that is no IP packet is known by its source MAC address",
            from_2.wrap(&ethernet_frame(
                OTHER_MAC,
                DB_2.mac(),
                ether_type::PLAIN,
                &[0; 46],
            )),
            not_there,
        ),
        drops(
            "a source that nobody owns by any address is refused",
            to(Frame {
                src: OTHER_ADDRESS.into(),
                eth_src: OTHER_MAC,
                ..good
            }),
            not_there,
        ),
        drops(
            "another tenant's endpoint at the peer is no excuse",
            from_node(2, TWIN).wrap(&good.bytes()),
            not_there,
        ),
        drops(
            "a hop count alone is no excuse either",
            Tunnel {
                hops: 1,
                ..from_node(3, SHOP)
            }
            .wrap(&good.bytes()),
            not_there,
        ),
    ]
}

/// Packets of senders that do not know yet where an endpoint is.
fn moved() -> Vec<Case> {
    let drops = |name, frame, reason| Case::drops(name, UNDERLAY, frame, reason);
    let hops = |node, hops| Tunnel {
        hops,
        ..from_node(node, SHOP)
    };
    let onward = |hops, inner: &[u8]| {
        let tunnel = Tunnel {
            eth_src: UNDERLAY_MAC,
            eth_dst: node_mac(2),
            src: VTEP.into(),
            dst: vtep(2).into(),
            vni: SHOP,
            hops,
        };
        vec![(UNDERLAY, tunnel.wrap(inner))]
    };
    let to_left = v4(MOVED_9, LEFT_5, UDP).bytes();
    let to_left_v6 = v6(MOVED_9, LEFT_5, UDP).bytes();
    let to_going = v4(AWAY_3, GOING_7, UDP).bytes();
    let to_coming = v4(AWAY_3, COMING_6, UDP).bytes();
    let from_moved = v4(MOVED_9, DB_2, UDP).bytes();
    let forwarded = v4(UNREACHABLE_8, LEFT_5, UDP).bytes();
    let out = |name, frame, out| Case::comes_out(name, UNDERLAY, frame, out);
    vec![
        out(
            "a packet for an endpoint that left is forwarded to its new home",
            hops(3, 0).wrap(&to_left),
            onward(1, &to_left),
        ),
        out(
            "an IPv6 packet for an endpoint that left is forwarded to its new home",
            hops(3, 0).wrap(&to_left_v6),
            onward(1, &to_left_v6),
        ),
        out(
            "a packet for an endpoint that was let go is forwarded to where it goes",
            hops(2, 0).wrap(&to_going),
            onward(1, &to_going),
        ),
        out(
            "the hop count grows",
            hops(2, 6).wrap(&to_going),
            onward(7, &to_going),
        ),
        drops(
            "the hop count has an end",
            hops(2, 7).wrap(&to_going),
            DropReason::HopLimit,
        ),
        drops(
            "a forwarded packet whose endpoint has not arrived is in transit",
            hops(2, 1).wrap(&to_coming),
            DropReason::InTransit,
        ),
        out(
            "a packet for an endpoint that has not arrived goes back to where it is",
            hops(2, 0).wrap(&to_coming),
            onward(1, &to_coming),
        ),
        out(
            "an endpoint that moved may speak from its new home",
            hops(3, 0).wrap(&from_moved),
            vec![(DB, from_moved.clone())],
        ),
        out(
            "an endpoint that moved may speak from its previous home",
            hops(2, 0).wrap(&from_moved),
            vec![(DB, from_moved.clone())],
        ),
        drops(
            "an endpoint that moved may not speak from a third node",
            from_node(4, SHOP).wrap(&from_moved),
            DropReason::SourceNotThere,
        ),
        drops(
            "who did not forward must have the source",
            hops(2, 0).wrap(&forwarded),
            DropReason::SourceNotThere,
        ),
        drops(
            "the destination's other home may forward for anyone",
            hops(2, 1).wrap(&forwarded),
            DropReason::InTransit,
        ),
    ]
}

fn passed() -> Vec<Case> {
    let inner = v4(AWAY_3, DB_2, UDP).bytes();
    let good = from_node(2, SHOP).wrap(&inner);
    let with = |change: fn(&mut Vec<u8>)| {
        let mut frame = good.clone();
        change(&mut frame);
        frame
    };
    let ours = |transport| Frame {
        eth_src: node_mac(2),
        eth_dst: UNDERLAY_MAC,
        src: vtep(2).into(),
        dst: VTEP.into(),
        dscp: 0,
        transport,
        payload: 60,
    };
    let arp = Arp {
        eth_src: node_mac(2),
        eth_dst: [0xff; 6],
        operation: 1,
        sender: (node_mac(2), vtep(2)),
        target: ([0; 6], VTEP),
    };
    let over_v6 = Frame {
        src: "2001:db8::2".parse().unwrap(),
        dst: "2001:db8::1".parse().unwrap(),
        ..ours(Transport::Udp(49152, 4789))
    };
    let to_another = Tunnel {
        dst: vtep(9).into(),
        ..from_node(2, SHOP)
    };
    [
        ("ARP is the kernel's", arp.bytes()),
        (
            "TCP is the kernel's",
            ours(Transport::Tcp(40000, 22)).bytes(),
        ),
        (
            "TCP to the tunnel's port is the kernel's",
            ours(Transport::Tcp(40000, 4789)).bytes(),
        ),
        (
            "UDP to other ports is the kernel's",
            ours(Transport::Udp(4789, 53)).bytes(),
        ),
        ("ICMP is the kernel's", ours(Transport::Icmp(3, 4)).bytes()),
        ("IPv6 is the kernel's", over_v6.bytes()),
        (
            "a tunnel to another address is the kernel's",
            to_another.wrap(&inner),
        ),
        (
            "a fragment of a tunnel is the kernel's",
            fragment(good.clone(), 0, true),
        ),
        (
            "a later fragment is the kernel's",
            fragment(good.clone(), 90, false),
        ),
        (
            "an outer header with options is the kernel's",
            with(|frame| frame[14] = 0x46),
        ),
        (
            "an outer header of another version is the kernel's",
            with(|frame| frame[14] = 0x65),
        ),
        (
            "a frame of another EtherType is the kernel's",
            with(|frame| frame[12] = 0x88),
        ),
    ]
    .into_iter()
    .chain([(
        "a tunnel of a peer without an agent is the kernel's to take off",
        from_node(6, SHOP).wrap(&v4(FOREIGN_15, DB_2, UDP).bytes()),
    )])
    .map(|(name, frame)| Case::new(name, UNDERLAY, frame, Expect::Pass))
    .collect()
}
