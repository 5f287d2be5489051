//! Router advertisements: what they say, and when.

use std::{
    net::Ipv6Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use etherparse::{Icmpv6Type, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};

use super::{WEB, WEB_MAC, asker, directory, hex};
use crate::services::{
    directory::Directory,
    handler::{Answer, Handler as _, Malformed, Node},
    router::{Router, answer},
};

const LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x11);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

fn solicitation(src: Ipv6Addr, hop_limit: u8, code: u8, options: &[u8]) -> Vec<u8> {
    let icmp = Icmpv6Type::Unknown {
        type_u8: 133,
        code_u8: code,
        bytes5to8: [0; 4],
    };
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(WEB_MAC, [0x33, 0x33, 0, 0, 0, 2])
        .ipv6(src.octets(), ALL_ROUTERS.octets(), hop_limit)
        .icmpv6(icmp)
        .write(&mut frame, options)
        .unwrap();
    frame
}

fn source_option() -> Vec<u8> {
    [&[1, 1][..], &WEB_MAC].concat()
}

#[test]
fn an_advertisement_is_these_bytes() {
    let directory = directory();
    let asked = solicitation(LOCAL, 255, 0, &source_option());
    let frame = answer(&asker(&directory, 1), &asked).unwrap().unwrap();
    let expected = concat!(
        // Ethernet and IPv6, from the gateway's link-local address with hop limit 255.
        "020000000011",
        "025357000001",
        "86dd",
        "60000000",
        "0070",
        "3a",
        "ff",
        "fe80000000000000005357fffe000001",
        "fe800000000000000000000000000011",
        // Advertisement: hop limit 64, managed and other, lifetime 65535 s.
        "8600",
        "CSUM",
        "40c0ffff",
        "0000000000000000",
        // The gateway's MAC address, the MTU.
        "0101025357000001",
        "0501000000000514",
        // The prefix: on link, not for autonomous addresses.
        "0304408000278d0000278d0000000000",
        "fd000020000000000000000000000000",
        // The name server and where names are searched.
        "190300000000ffff",
        "fd000020000000000000000000000001",
        "1f0300000000ffff",
        "0473686f7008696e7465726e616c0000",
    );
    let checksum = hex(&frame[56..58]);
    assert_eq!(hex(&frame), expected.replace("CSUM", &checksum));
    let packet = SlicedPacket::from_ethernet(&frame).unwrap();
    let (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Icmpv6(icmp))) =
        (&packet.net, &packet.transport)
    else {
        panic!("no ICMPv6 message");
    };
    let (src, dst) = (ip.header().source(), ip.header().destination());
    assert!(icmp.is_checksum_valid(src, dst));
}

#[test]
fn who_has_no_address_yet_is_answered_with_all() {
    let directory = directory();
    let asked = solicitation(Ipv6Addr::UNSPECIFIED, 255, 0, &[]);
    let frame = answer(&asker(&directory, 1), &asked).unwrap().unwrap();
    assert_eq!(hex(&frame[..6]), "333300000001");
    assert_eq!(hex(&frame[38..54]), "ff020000000000000000000000000001");
}

#[test]
fn what_no_neighbour_can_have_sent_is_refused() {
    let directory = directory();
    let web = asker(&directory, 1);
    let refused = |frame: Vec<u8>| answer(&web, &frame).unwrap_err();
    let far = Malformed("no neighbour's solicitation");
    assert_eq!(refused(solicitation(LOCAL, 254, 0, &[])), far);
    assert_eq!(refused(solicitation(LOCAL, 255, 1, &[])), far);
    let nobody = Ipv6Addr::UNSPECIFIED;
    assert_eq!(
        refused(solicitation(nobody, 255, 0, &source_option())),
        Malformed("a link-layer address without an address")
    );
    let options = Malformed("options");
    assert_eq!(
        refused(solicitation(LOCAL, 255, 0, &[1, 0, 0, 0, 0, 0, 0, 0])),
        options
    );
    assert_eq!(
        refused(solicitation(LOCAL, 255, 0, &[1, 2, 0, 0, 0, 0, 0, 0])),
        options
    );
    assert_eq!(refused(solicitation(LOCAL, 255, 0, &[1])), options);
}

/// What is due at a time, by device.
fn due(router: &mut Router, directory: &Arc<Directory>, now: Instant) -> Vec<u32> {
    let mut answers: Vec<Answer> = Vec::new();
    router.tick(&mut Node {
        directory,
        now,
        answers: &mut answers,
    });
    answers.iter().map(|answer| answer.ifindex).collect()
}

#[test]
fn who_is_attached_hears_soon_and_then_now_and_then() {
    let directory = Arc::new(directory());
    let everybody: Vec<u32> = (WEB..WEB + 4).collect();
    let mut router = Router::default();
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    assert_eq!(due(&mut router, &directory, at(0)), everybody);
    assert_eq!(due(&mut router, &directory, at(0)), [0; 0], "once");
    assert_eq!(due(&mut router, &directory, at(16)), everybody);
    assert_eq!(due(&mut router, &directory, at(32)), everybody);
    let mut heard = std::collections::BTreeMap::new();
    for seconds in 33..7_233 {
        for ifindex in due(&mut router, &directory, at(seconds)) {
            *heard.entry(ifindex).or_insert(0) += 1;
        }
    }
    // Within two hours: every five to ten minutes.
    assert!(heard.keys().eq(&everybody), "{heard:?}");
    assert!(
        heard.values().all(|count| (11..=24).contains(count)),
        "{heard:?}"
    );
}

#[test]
fn who_comes_back_is_greeted_again() {
    let whole = Arc::new(directory());
    let nobody = Arc::new(Directory::default());
    let mut router = Router::default();
    let now = Instant::now();
    assert_eq!(due(&mut router, &whole, now).len(), 4);
    assert_eq!(due(&mut router, &nobody, now), [0; 0]);
    assert_eq!(due(&mut router, &whole, now).len(), 4);
}
