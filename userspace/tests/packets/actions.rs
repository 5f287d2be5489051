//! What a verdict does to a packet: fields rewritten with checksums kept right, and copies.

use sunwire_dataplane_common::drop_reason::DropReason;

use super::{
    Case, Expect,
    world::{
        AWAY_3, DB, DB_2, NEW_DSCP, NEW_DST_PORT, NEW_SRC_PORT, NOBODY_99, OTHER_ADDRESS,
        OTHER_MAC, SHOP, WEB, WEB_1, dscp, ether_type, port, to_node, v4, v6,
    },
};
use crate::fixture::wire::{Frame, Transport, ethernet_frame};

/// How a transport header is made from its two ports.
type Kind = fn(u16, u16) -> Transport;

const KINDS: [(&str, Kind); 3] = [
    ("TCP", Transport::Tcp),
    ("UDP", Transport::Udp),
    ("UDP without checksum", Transport::UdpUnsummed),
];
const FROM: u16 = 5000;

pub(super) fn cases() -> Vec<Case> {
    let tables = [
        rewritten_v4(),
        rewritten_v6(),
        not_rewritable(),
        zero_where_nothing_is(),
        copies(),
    ];
    tables.into_iter().flatten().collect()
}

fn rewritten_v4() -> Vec<Case> {
    let mut cases = Vec::new();
    for (_, kind) in KINDS {
        let to = |port| Frame {
            dscp: 3,
            ..v4(WEB_1, DB_2, kind(FROM, port))
        };
        let away = |port| Frame {
            dscp: 3,
            ..v4(WEB_1, AWAY_3, kind(FROM, port))
        };
        let mut here = |name, frame: Frame, expected: Frame| {
            cases.push(Case::comes_out(
                name,
                WEB,
                frame.bytes(),
                vec![(DB, expected.bytes())],
            ));
        };
        let frame = to(port::SETS_DSCP);
        here(
            "DSCP over IPv4",
            frame,
            Frame {
                dscp: NEW_DSCP,
                ..frame
            },
        );
        let frame = to(port::SETS_SRC_PORT);
        let transport = kind(NEW_SRC_PORT, port::SETS_SRC_PORT);
        here("source port over IPv4", frame, Frame { transport, ..frame });
        let frame = to(port::SETS_DST_PORT);
        let transport = kind(FROM, NEW_DST_PORT);
        here(
            "destination port over IPv4",
            frame,
            Frame { transport, ..frame },
        );
        let frame = to(port::SETS_IP4_SRC);
        here(
            "IPv4 source",
            frame,
            Frame {
                src: OTHER_ADDRESS.into(),
                ..frame
            },
        );
        let frame = away(port::SETS_IP4_DST);
        here(
            "the owner of the rewritten IPv4 destination gets the packet",
            frame,
            Frame {
                dst: DB_2.v4().into(),
                eth_dst: DB_2.mac(),
                ..frame
            },
        );
        let frame = Frame {
            dst: NOBODY_99.v4().into(),
            ..to(port::SETS_IP4_DST)
        };
        here(
            "nobody need own the IPv4 destination before it is rewritten",
            frame,
            Frame {
                dst: DB_2.v4().into(),
                ..frame
            },
        );
        let frame = to(port::SETS_ETH_SRC);
        here(
            "source MAC address",
            frame,
            Frame {
                eth_src: OTHER_MAC,
                ..frame
            },
        );
        let frame = to(port::SETS_ETH_DST);
        here(
            "destination MAC address",
            frame,
            Frame {
                eth_dst: OTHER_MAC,
                ..frame
            },
        );
        let frame = away(port::SETS_ALL);
        here(
            "all fields at once",
            frame,
            Frame {
                eth_src: OTHER_MAC,
                eth_dst: OTHER_MAC,
                src: OTHER_ADDRESS.into(),
                dst: DB_2.v4().into(),
                dscp: NEW_DSCP,
                transport: kind(NEW_SRC_PORT, NEW_DST_PORT),
                ..frame
            },
        );
        let frame = away(port::SETS_DST_PORT);
        let transport = kind(FROM, NEW_DST_PORT);
        let inner = Frame { transport, ..frame }.bytes();
        cases.push(Case::comes_out(
            "rewritten before it is tunnelled",
            WEB,
            frame.bytes(),
            vec![("underlay0", to_node(2, SHOP, &inner))],
        ));
    }
    cases
}

fn rewritten_v6() -> Vec<Case> {
    let mut cases = Vec::new();
    for (_, kind) in &KINDS[..2] {
        let to = |port| Frame {
            dscp: 3,
            ..v6(WEB_1, DB_2, kind(FROM, port))
        };
        let mut here = |name, frame: Frame, expected: Frame| {
            cases.push(Case::comes_out(
                name,
                WEB,
                frame.bytes(),
                vec![(DB, expected.bytes())],
            ));
        };
        let frame = to(port::SETS_DSCP);
        here(
            "DSCP over IPv6",
            frame,
            Frame {
                dscp: NEW_DSCP,
                ..frame
            },
        );
        let frame = to(port::SETS_SRC_PORT);
        let transport = kind(NEW_SRC_PORT, port::SETS_SRC_PORT);
        here("source port over IPv6", frame, Frame { transport, ..frame });
        let frame = to(port::SETS_DST_PORT);
        let transport = kind(FROM, NEW_DST_PORT);
        here(
            "destination port over IPv6",
            frame,
            Frame { transport, ..frame },
        );
        let frame = to(port::SETS_ETH_DST);
        here(
            "destination MAC address of IPv6",
            frame,
            Frame {
                eth_dst: OTHER_MAC,
                ..frame
            },
        );
    }
    let ping = Frame {
        dscp: dscp::SETS_DSCP,
        ..v6(WEB_1, DB_2, Transport::Icmp(128, 0))
    };
    let expected = Frame {
        dscp: NEW_DSCP,
        ..ping
    }
    .bytes();
    cases.push(Case::comes_out(
        "DSCP of a ping",
        WEB,
        ping.bytes(),
        vec![(DB, expected)],
    ));
    // The owner is looked up by the MAC address as it is after rewriting.
    let frame = |dst| ethernet_frame(WEB_1.mac(), dst, ether_type::SETS_ETH_DST, &[1; 46]);
    cases.push(Case::comes_out(
        "the owner of the rewritten MAC address gets a frame that is no IP packet",
        WEB,
        frame(AWAY_3.mac()),
        vec![(DB, frame(DB_2.mac()))],
    ));
    cases
}

fn not_rewritable() -> Vec<Case> {
    let ping = |dscp| {
        Frame {
            dscp,
            ..v4(WEB_1, DB_2, Transport::Icmp(8, 0))
        }
        .bytes()
    };
    let v6_to = |port| v6(WEB_1, DB_2, Transport::Tcp(FROM, port)).bytes();
    let bare = ethernet_frame(WEB_1.mac(), DB_2.mac(), ether_type::SETS_DSCP, &[0; 46]);
    [
        ("a ping has no ports", ping(dscp::SETS_PORTS)),
        (
            "an IPv6 packet has no IPv4 source",
            v6_to(port::SETS_IP4_SRC),
        ),
        (
            "an IPv6 packet has no IPv4 destination",
            v6_to(port::SETS_IP4_DST),
        ),
        ("a frame that is no IP packet has no DSCP", bare),
    ]
    .map(|(name, frame)| Case::drops(name, WEB, frame, DropReason::NotRewritable))
    .into()
}

/// Such a field reads as zero, so writing zero to it changes nothing.
fn zero_where_nothing_is() -> Vec<Case> {
    let ping = Frame {
        dscp: dscp::SETS_PORTS_TO_ZERO,
        ..v4(WEB_1, DB_2, Transport::Icmp(8, 0))
    };
    let bare = ethernet_frame(
        WEB_1.mac(),
        DB_2.mac(),
        ether_type::SETS_DSCP_TO_ZERO,
        &[0; 46],
    );
    [
        ("ports of a ping may be set to zero", ping.bytes()),
        (
            "the DSCP of a frame that is no IP packet may be set to zero",
            bare,
        ),
    ]
    .map(|(name, frame)| Case::comes_out(name, WEB, frame.clone(), vec![(DB, frame)]))
    .into()
}

fn copies() -> Vec<Case> {
    let frame = |port| v4(WEB_1, DB_2, Transport::Udp(FROM, port));
    let to_away = |frame: Frame| {
        let inner = Frame {
            eth_dst: AWAY_3.mac(),
            ..frame
        }
        .bytes();
        ("underlay0", to_node(2, SHOP, &inner))
    };
    let here = |frame: Frame| (DB, frame.bytes());
    let marked = |frame: Frame| {
        (
            DB,
            Frame {
                dscp: NEW_DSCP,
                ..frame
            }
            .bytes(),
        )
    };
    let (two, four) = (frame(port::TWO_COPIES), frame(port::FOUR_COPIES));
    let one_stays = frame(port::COPIES_OF_WHICH_ONE_STAYS);
    vec![
        Case::comes_out(
            "two copies go different ways, one of them rewritten",
            WEB,
            two.bytes(),
            vec![to_away(two), marked(two)],
        )
        .counted("two"),
        Case::comes_out(
            "four copies, each rewritten for itself",
            WEB,
            four.bytes(),
            vec![here(four), marked(four), to_away(four), marked(four)],
        )
        .counted("four"),
        Case::new(
            "a copy that goes nowhere does not keep the other back",
            WEB,
            one_stays.bytes(),
            Expect::OutAndDrop(vec![here(one_stays)], DropReason::NotForwarded),
        )
        .counted("one stays"),
    ]
}
