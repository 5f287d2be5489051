//! IGMP and MLD: what reports say, what queries are, and what is remembered.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use sunwire_dataplane_common::punt::Kind;
use tokio::sync::watch;

use super::{SHOP, WEB, WEB_MAC, asker, bytes, directory, hex};
use crate::{
    groups::{
        listeners::Groups,
        membership::{BELIEVED, Change, GROUPS_MAX, QUERY_EVERY},
    },
    services::{
        Directory,
        handler::{Answer, Handler as _, Malformed, Node},
        igmp,
        listening::{Listening, Refusals},
        mld,
        ring::Punt,
    },
};

const GROUP: &str = "239.1.2.3";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn set(texts: &[&str]) -> BTreeSet<IpAddr> {
    texts.iter().map(|text| ip(text)).collect()
}

/// A frame of `web1` with an IGMP message; its checksum is filled in.
fn igmp_frame(message: &str) -> Vec<u8> {
    let mut message = bytes(message);
    let sum = igmp::checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let length = hex(&(24 + message.len() as u16).to_be_bytes());
    let ip = format!("46c0 {length} 0000 4000 01 02 0000 0a14000b e0000016 94040000");
    let mut frame = [&[1, 0, 0x5e, 0, 0, 0x16][..], &WEB_MAC, &[8, 0]].concat();
    frame.extend(bytes(&ip));
    frame.extend(message);
    frame
}

/// A frame of `web1` with an MLD message; nobody checks its checksum.
fn mld_frame(message: &str) -> Vec<u8> {
    let message = bytes(message);
    let length = hex(&(8 + message.len() as u16).to_be_bytes());
    let ip = format!(
        "60000000 {length} 00 01 fe800000000000000000000000000011 \
         ff020000000000000000000000000016 3a00050200000100"
    );
    let mut frame = [&[0x33, 0x33, 0, 0, 0, 0x16][..], &WEB_MAC, &[0x86, 0xdd]].concat();
    frame.extend(bytes(&ip));
    frame.extend(message);
    frame
}

/// Reports of both versions that take apart most.
pub(super) fn frames() -> Vec<Vec<u8>> {
    let group = "ff150000000000000000000000000001";
    vec![
        igmp_frame("2200 0000 00000002 04010000 ef010203 deadbeef 05000001 ef010204 0a000001"),
        igmp_frame(JOIN),
        mld_frame(&format!(
            "8f00 0000 00000002 04000000 {group} 06000001 {group} {group}"
        )),
        mld_frame(&format!("8300 0000 00000000 {group}")),
    ]
}

#[test]
fn reports_of_all_versions_are_understood() {
    let join = |group: &str| vec![(ip(group), Change::Exclude)];
    let leave = |group: &str| vec![(ip(group), Change::Include(BTreeSet::new()))];
    let v4 = |message: &str| igmp::reports(&igmp_frame(message)).unwrap();
    assert_eq!(v4("1200 0000 ef010203"), join(GROUP));
    assert_eq!(v4("1600 0000 ef010203"), join(GROUP));
    assert_eq!(v4("1700 0000 ef010203"), leave(GROUP));
    // Of version 3: to anybody, with auxiliary data; from two sources; another kind.
    let three = "2200 0000 00000004 \
         04 01 0000 ef010203 deadbeef \
         05 00 0002 ef010204 0a000001 0a000002 \
         09 00 0000 ef010205 \
         03 00 0000 ef010206";
    let sources = set(&["10.0.0.1", "10.0.0.2"]);
    let mut expected = join(GROUP);
    expected.push((ip("239.1.2.4"), Change::Allow(sources)));
    expected.extend(leave("239.1.2.6"));
    assert_eq!(v4(three), expected);
    // Queries of others, and what is not known.
    assert_eq!(v4("1164 0000 00000000"), []);
    assert_eq!(v4("3000 0000 00000000"), []);

    let group = "ff150000000000000000000000000001";
    let v6 = |message: String| mld::reports(&mld_frame(&message)).unwrap();
    assert_eq!(v6(format!("8300 0000 00000000 {group}")), join("ff15::1"));
    assert_eq!(v6(format!("8400 0000 00000000 {group}")), leave("ff15::1"));
    let source = "fd000000000000000000000000000009";
    let two = format!("8f00 0000 00000002 04000000 {group} 06000001 {group} {source}");
    let mut expected = join("ff15::1");
    expected.push((ip("ff15::1"), Change::Block(set(&["fd00::9"]))));
    assert_eq!(v6(two), expected);
    assert_eq!(v6(format!("8200 0000 00000000 {group}")), []);
}

#[test]
fn reports_that_make_no_sense_are_refused() {
    let whole = igmp_frame("2200 0000 00000001 02000001 ef010203 0a000001");
    for cut in 14..whole.len() {
        assert!(igmp::reports(&whole[..cut]).is_err(), "{cut}");
    }
    let mut wrong = whole.clone();
    *wrong.last_mut().unwrap() ^= 1;
    assert_eq!(igmp::reports(&wrong), Err(Malformed("checksum")));
    for message in ["2200 0000 0000ffff", "2200 0000 00000001 020000ff ef010203"] {
        assert!(igmp::reports(&igmp_frame(message)).is_err(), "{message}");
    }
    let group = "ff150000000000000000000000000001";
    let whole = mld_frame(&format!("8f00 0000 00000001 04000000 {group}"));
    assert!(mld::reports(&whole).is_ok());
    for cut in 14..whole.len() {
        assert!(mld::reports(&whole[..cut]).is_err(), "{cut}");
    }
    assert!(mld::reports(&mld_frame("8300 0000 00000000 ff15")).is_err());
    // Something else behind hop-by-hop options.
    let mut other = whole;
    other[14 + 40] = 17;
    assert!(mld::reports(&other).is_err());
}

#[test]
fn queries_are_these_bytes() {
    let directory = directory();
    let asker = asker(&directory, 1);
    let v4 = "01005e000001 025357000001 0800 \
        46c00024 00000000 0102 CSUM 0a140001 e0000001 94040000 \
        1164 SUMM 00000000 02 7d 0000";
    let frame = igmp::query(&asker, 100).unwrap();
    let expected = v4.replace(' ', "");
    let expected = expected.replace("CSUM", &hex(&frame[24..26]));
    assert_eq!(hex(&frame), expected.replace("SUMM", &hex(&frame[40..42])));
    assert_eq!(
        (igmp::checksum(&frame[14..38]), igmp::checksum(&frame[38..])),
        (0, 0)
    );

    let v6 = "333300000001 025357000001 86dd \
        60000000 0024 00 01 fe80000000000000005357fffe000001 ff020000000000000000000000000001 \
        3a00050200000100 \
        8200 SUMM 2710 0000 00000000000000000000000000000000 02 7d 0000";
    let frame = mld::query(&asker, 10_000).unwrap();
    let expected = v6.replace(' ', "");
    assert_eq!(hex(&frame), expected.replace("SUMM", &hex(&frame[64..66])));
    // The pseudo header: addresses, length and next header.
    let pseudo = [&frame[22..54], &[0, 0, 0, 28, 0, 0, 0, 58], &frame[62..]].concat();
    assert_eq!(igmp::checksum(&pseudo), 0);
}

/// The handler, and what it says.
struct Rig {
    listening: Listening,
    directory: Arc<Directory>,
    seeds: watch::Sender<Arc<Groups>>,
    heard: watch::Receiver<Arc<Groups>>,
    refused: Arc<Refusals>,
    start: Instant,
}

impl Rig {
    fn new() -> Self {
        let (seeds, known) = watch::channel(Arc::default());
        let (telling, heard) = watch::channel(Arc::default());
        let refused = Arc::<Refusals>::default();
        Rig {
            listening: Listening::new(known, telling, Arc::clone(&refused)),
            directory: Arc::new(directory()),
            seeds,
            heard,
            refused,
            start: Instant::now(),
        }
    }

    /// Lets a time come; returns what is sent.
    fn tick(&mut self, after: Duration) -> Vec<Answer> {
        let mut answers = Vec::new();
        self.listening.tick(&mut Node {
            directory: &self.directory,
            now: self.start + after,
            answers: &mut answers,
        });
        answers
    }

    /// `web1` reports.
    fn report(&mut self, frame: &[u8], after: Duration) {
        let kind = if frame[12] == 8 {
            Kind::Igmp
        } else {
            Kind::Mld
        };
        let punt = Punt {
            kind,
            ifindex: WEB,
            endpoint: 1,
            network: SHOP,
            frame,
        };
        let mut answers = Vec::new();
        let mut node = Node {
            directory: &self.directory,
            now: self.start + after,
            answers: &mut answers,
        };
        self.listening.asked(&punt, &mut node).unwrap();
        assert_eq!(answers, []);
    }

    /// What `web1` listens to.
    fn heard(&self) -> BTreeSet<IpAddr> {
        self.heard.borrow()[&1].clone()
    }
}

const JOIN: &str = "1600 0000 ef010203";
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn what_is_reported_is_listened_to_until_it_is_left_or_silent() {
    let mut rig = Rig::new();
    rig.report(&igmp_frame(JOIN), Duration::ZERO);
    assert_eq!(rig.heard(), set(&[GROUP]));
    let group = "ff150000000000000000000000000001";
    rig.report(&mld_frame(&format!("8300 0000 00000000 {group}")), SECOND);
    assert_eq!(rig.heard(), set(&[GROUP, "ff15::1"]));
    rig.report(&igmp_frame("1700 0000 ef010203"), SECOND);
    assert_eq!(rig.heard(), set(&["ff15::1"]));
    rig.tick(BELIEVED);
    assert_eq!(rig.heard(), set(&["ff15::1"]));
    rig.tick(BELIEVED + SECOND);
    assert_eq!(rig.heard(), set(&[]));
}

#[test]
fn everybody_with_a_gateway_is_asked_soon_and_then_again_and_again() {
    let mut rig = Rig::new();
    // Two queries to each of the four.
    let first = rig.tick(Duration::ZERO);
    assert_eq!(first.len(), 8);
    assert!(first.iter().any(|answer| answer.endpoint == 4));
    assert_eq!(rig.tick(Duration::ZERO).len(), 0);
    let mut now = Duration::ZERO;
    for pause in [1, 4, 31, QUERY_EVERY.as_secs(), QUERY_EVERY.as_secs()] {
        let pause = Duration::from_secs(pause);
        assert_eq!(rig.tick(now + pause - SECOND / 2).len(), 0);
        now += pause;
        assert_eq!(rig.tick(now).len(), 8);
    }
}

#[test]
fn who_comes_listens_to_what_was_known_of_it_and_who_goes_is_forgotten() {
    let mut rig = Rig::new();
    let groups = Groups::from([(1, set(&[GROUP])), (5, set(&[GROUP]))]);
    rig.seeds.send_replace(Arc::new(groups));
    rig.tick(Duration::ZERO);
    assert_eq!(rig.heard(), set(&[GROUP]));
    assert_eq!(
        rig.heard.borrow().len(),
        4,
        "of no one but those who are here"
    );
    // What is known later is older than what it says itself.
    rig.seeds
        .send_replace(Arc::new(Groups::from([(1, set(&[]))])));
    rig.tick(SECOND);
    assert_eq!(rig.heard(), set(&[GROUP]));
    rig.directory = Arc::default();
    rig.tick(SECOND);
    assert!(rig.heard.borrow().is_empty());
}

#[test]
fn groups_beyond_what_an_endpoint_may_listen_to_are_refused_and_counted() {
    let mut rig = Rig::new();
    for number in 0..=GROUPS_MAX {
        let group = format!("1600 0000 ef02{number:04x}");
        rig.report(&igmp_frame(&group), Duration::ZERO);
    }
    assert_eq!(rig.heard().len(), GROUPS_MAX);
    assert_eq!(rig.refused.counter().packets, 1);
}
