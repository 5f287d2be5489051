//! ARP and neighbour discovery, answered on the node.

use std::net::Ipv6Addr;

use sunwire_dataplane_common::drop_reason::DropReason;

use super::{
    Case, Expect,
    service::GATEWAY_LOCAL,
    world::{AWAY_3, DB_2, GATEWAY, GATEWAY_MAC, NOBODY_99, OTHER_MAC, TWIN_WEB, WEB, WEB_1, Who},
};
use crate::fixture::wire::{Arp, Neighbour};

const BROADCAST: [u8; 6] = [0xff; 6];

fn asks(target: Who) -> Arp {
    Arp {
        eth_src: WEB_1.mac(),
        eth_dst: BROADCAST,
        operation: 1,
        sender: (WEB_1.mac(), WEB_1.v4()),
        target: ([0; 6], target.v4()),
    }
}

fn answers(target: Who, mac: [u8; 6]) -> Arp {
    Arp {
        eth_src: mac,
        eth_dst: WEB_1.mac(),
        operation: 2,
        sender: (mac, target.v4()),
        target: (WEB_1.mac(), WEB_1.v4()),
    }
}

fn solicits(target: Who) -> Neighbour {
    let [.., a, b, c] = target.v6().octets();
    let group = Ipv6Addr::new(
        0xff02,
        0,
        0,
        0,
        0,
        1,
        0xff00 | u16::from(a),
        u16::from_be_bytes([b, c]),
    );
    Neighbour {
        eth_src: WEB_1.mac(),
        eth_dst: [0x33, 0x33, 0xff, a, b, c],
        src: WEB_1.v6(),
        dst: group,
        kind: 135,
        flags: 0,
        target: target.v6(),
        option: Some((1, WEB_1.mac())),
    }
}

fn advertises(target: Who, mac: [u8; 6]) -> Neighbour {
    Neighbour {
        eth_src: mac,
        eth_dst: WEB_1.mac(),
        src: target.v6(),
        dst: WEB_1.v6(),
        kind: 136,
        // Solicited, override.
        flags: 0x60,
        target: target.v6(),
        option: Some((2, mac)),
    }
}

pub(super) fn cases() -> Vec<Case> {
    [arp(), neighbour_discovery()]
        .into_iter()
        .flatten()
        .collect()
}

fn arp() -> Vec<Case> {
    let back = |arp: Arp| vec![(WEB, arp.bytes())];
    let probe = |target: Who| Arp {
        sender: (WEB_1.mac(), [0; 4].into()),
        ..asks(target)
    };
    let mut padded = (asks(DB_2).bytes(), answers(DB_2, DB_2.mac()).bytes());
    padded.0.resize(60, 0);
    padded.1.resize(60, 0);
    let with = |offset: usize, value: u8| {
        let mut frame = asks(DB_2).bytes();
        frame[offset] = value;
        frame
    };
    let spoofed = DropReason::SpoofedSource;
    let malformed = DropReason::Malformed;
    vec![
        Case::comes_out(
            "a question for an endpoint here is answered with its MAC address",
            WEB,
            asks(DB_2).bytes(),
            back(answers(DB_2, DB_2.mac())),
        ),
        Case::comes_out(
            "a question for an endpoint elsewhere is answered with its MAC address",
            WEB,
            asks(AWAY_3).bytes(),
            back(answers(AWAY_3, AWAY_3.mac())),
        ),
        Case::comes_out(
            "a question for the gateway is answered",
            WEB,
            asks(GATEWAY).bytes(),
            back(answers(GATEWAY, GATEWAY_MAC)),
        ),
        Case::comes_out(
            "a question to one station is answered too",
            WEB,
            Arp {
                eth_dst: DB_2.mac(),
                ..asks(DB_2)
            }
            .bytes(),
            back(answers(DB_2, DB_2.mac())),
        ),
        Case::comes_out(
            "padding does not matter",
            WEB,
            padded.0,
            vec![(WEB, padded.1)],
        ),
        Case::comes_out(
            "a question is answered in its own network",
            TWIN_WEB,
            asks(DB_2).bytes(),
            vec![(TWIN_WEB, answers(DB_2, DB_2.mac()).bytes())],
        ),
        Case::comes_out(
            "a probe for another's address is told that it is taken",
            WEB,
            probe(DB_2).bytes(),
            back(Arp {
                target: (WEB_1.mac(), [0; 4].into()),
                ..answers(DB_2, DB_2.mac())
            }),
        ),
        Case::new(
            "a probe for the endpoint's own address is met with silence",
            WEB,
            probe(WEB_1).bytes(),
            Expect::Consumed,
        ),
        Case::new(
            "an announcement ends here",
            WEB,
            asks(WEB_1).bytes(),
            Expect::Consumed,
        ),
        Case::new(
            "a reply ends here",
            WEB,
            Arp {
                operation: 2,
                ..asks(DB_2)
            }
            .bytes(),
            Expect::Consumed,
        ),
        Case::drops(
            "a question for an address that nobody owns is not answered",
            WEB,
            asks(NOBODY_99).bytes(),
            DropReason::NeighbourUnknown,
        ),
        Case::drops(
            "a question may not name another sender's MAC address",
            WEB,
            Arp {
                sender: (OTHER_MAC, WEB_1.v4()),
                ..asks(DB_2)
            }
            .bytes(),
            spoofed,
        ),
        Case::drops(
            "a question may not name another sender's address",
            WEB,
            Arp {
                sender: (WEB_1.mac(), DB_2.v4()),
                ..asks(AWAY_3)
            }
            .bytes(),
            spoofed,
        ),
        Case::drops(
            "a reply may not claim another's address",
            WEB,
            Arp {
                operation: 2,
                sender: (WEB_1.mac(), DB_2.v4()),
                ..asks(AWAY_3)
            }
            .bytes(),
            spoofed,
        ),
        Case::drops(
            "an unknown operation is refused",
            WEB,
            with(21, 3),
            malformed,
        ),
        Case::drops(
            "hardware other than Ethernet is refused",
            WEB,
            with(15, 6),
            malformed,
        ),
        Case::drops(
            "a protocol other than IPv4 is refused",
            WEB,
            with(16, 9),
            malformed,
        ),
        Case::drops(
            "another address length is refused",
            WEB,
            with(18, 8),
            malformed,
        ),
    ]
}

fn neighbour_discovery() -> Vec<Case> {
    let back = |neighbour: Neighbour| vec![(WEB, neighbour.bytes())];
    let other_kind = |kind| {
        Neighbour {
            kind,
            ..solicits(DB_2)
        }
        .bytes()
    };
    let unsolicited = DropReason::Unsolicited;
    let detection = |target: Who| Neighbour {
        src: Ipv6Addr::UNSPECIFIED,
        option: None,
        ..solicits(target)
    };
    vec![
        Case::comes_out(
            "a solicitation for an endpoint here is answered with its MAC address",
            WEB,
            solicits(DB_2).bytes(),
            back(advertises(DB_2, DB_2.mac())),
        ),
        Case::comes_out(
            "a solicitation for an endpoint elsewhere is answered with its MAC address",
            WEB,
            solicits(AWAY_3).bytes(),
            back(advertises(AWAY_3, AWAY_3.mac())),
        ),
        Case::comes_out(
            "a solicitation for the gateway is answered",
            WEB,
            solicits(GATEWAY).bytes(),
            back(advertises(GATEWAY, GATEWAY_MAC)),
        ),
        Case::comes_out(
            "a solicitation for the gateway's link-local address is answered",
            WEB,
            Neighbour {
                target: GATEWAY_LOCAL,
                ..solicits(GATEWAY)
            }
            .bytes(),
            back(Neighbour {
                src: GATEWAY_LOCAL,
                target: GATEWAY_LOCAL,
                ..advertises(GATEWAY, GATEWAY_MAC)
            }),
        ),
        Case::comes_out(
            "a solicitation without the sender's address in an option is answered",
            WEB,
            Neighbour {
                option: None,
                ..solicits(DB_2)
            }
            .bytes(),
            back(advertises(DB_2, DB_2.mac())),
        ),
        Case::comes_out(
            "a solicitation to one station is answered",
            WEB,
            Neighbour {
                eth_dst: DB_2.mac(),
                dst: DB_2.v6(),
                ..solicits(DB_2)
            }
            .bytes(),
            back(advertises(DB_2, DB_2.mac())),
        ),
        Case::comes_out(
            "a solicitation from the link-local address is answered to it",
            WEB,
            Neighbour {
                src: WEB_1.link_local(),
                ..solicits(DB_2)
            }
            .bytes(),
            back(Neighbour {
                dst: WEB_1.link_local(),
                ..advertises(DB_2, DB_2.mac())
            }),
        ),
        Case::new(
            "duplicate address detection is met with silence",
            WEB,
            detection(WEB_1).bytes(),
            Expect::Consumed,
        ),
        Case::new(
            "duplicate address detection of a link-local address is met with silence",
            WEB,
            Neighbour {
                target: WEB_1.link_local(),
                ..detection(WEB_1)
            }
            .bytes(),
            Expect::Consumed,
        ),
        Case::drops(
            "a solicitation for an address that nobody owns is not answered",
            WEB,
            solicits(NOBODY_99).bytes(),
            DropReason::NeighbourUnknown,
        ),
        Case::drops(
            "a solicitation may not come from another's address",
            WEB,
            Neighbour {
                src: DB_2.v6(),
                ..solicits(AWAY_3)
            }
            .bytes(),
            DropReason::SpoofedSource,
        ),
        Case::drops(
            "a solicitation may not come from another's MAC address",
            WEB,
            Neighbour {
                eth_src: OTHER_MAC,
                ..solicits(DB_2)
            }
            .bytes(),
            DropReason::SpoofedSource,
        ),
        Case::drops(
            "an advertisement is not listened to",
            WEB,
            other_kind(136),
            unsolicited,
        ),
        Case::drops(
            "a router solicitation is not listened to",
            WEB,
            other_kind(133),
            unsolicited,
        ),
        Case::drops(
            "a router advertisement is not passed on",
            WEB,
            other_kind(134),
            unsolicited,
        ),
        Case::drops(
            "a redirect is not passed on",
            WEB,
            other_kind(137),
            unsolicited,
        ),
        Case::drops(
            "a multicast listener report is no loss of traffic",
            WEB,
            other_kind(143),
            unsolicited,
        ),
    ]
}
