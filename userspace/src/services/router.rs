//! Router advertisements (RFC 4861, RFC 8106): where the gateway is, and that addresses come by
//! DHCPv6.
//!
//! A solicitation is answered at once and to its sender alone, which RFC 4861, 6.2.6 allows. What
//! is here also hears of its router when it is attached, twice more soon after, and then every few
//! minutes. Lifetimes are long, because a workload must not lose its route while an agent is away.

use std::{
    collections::BTreeMap,
    net::Ipv6Addr,
    time::{Duration, Instant},
};

use super::{
    directory::{Asker, Subnet},
    frame,
    handler::{Answer, Handler, Malformed, Node},
    ring::Punt,
};

const ADVERTISEMENT: u8 = 134;
/// All nodes of the link and their MAC address (RFC 2464, 7).
const ALL_NODES: (Ipv6Addr, [u8; 6]) = (
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
    [0x33, 0x33, 0, 0, 0, 1],
);
/// Hop limit that workloads are to use.
const HOP_LIMIT: u8 = 64;
/// Addresses and everything else come by DHCPv6 (RFC 4861, 4.2: M and O).
const MANAGED_OTHER: u8 = 0xc0;
/// The prefix is on the link (L), and nobody makes addresses of it (no A) (RFC 4861, 4.6.2).
const ON_LINK: u8 = 0x80;
/// Lifetime of the router in seconds, the longest there is (RFC 8319, 4).
const ROUTER_S: u16 = u16::MAX;
/// Lifetime of the prefix in seconds (RFC 4861, 6.2.1).
const PREFIX_S: u32 = 2_592_000;
/// Lifetime of names and name servers in seconds: as long as the router's.
const NAMES_S: u32 = ROUTER_S as u32;
/// Options (RFC 4861, 4.6; RFC 8106, 5).
const SOURCE_LINK_LAYER: u8 = 1;
const PREFIX: u8 = 3;
const MTU: u8 = 5;
const NAME_SERVERS: u8 = 25;
const SEARCH_LIST: u8 = 31;

/// How many come soon after an endpoint is attached, and how soon (RFC 4861, 10).
const INITIAL: u32 = 3;
const INITIAL_EVERY: Duration = Duration::from_secs(16);
/// How often they come then: so often, and up to so much later (RFC 4861, 6.2.1).
const EVERY_MIN: Duration = Duration::from_secs(300);
const SPREAD_S: u32 = 300;

/// Says where the router is.
#[derive(Debug, Default)]
pub(crate) struct Router {
    /// By endpoint: the device, how many it was sent, and when the next is due.
    due: BTreeMap<u32, (u32, u32, Instant)>,
}

impl Handler for Router {
    fn asked(&mut self, punt: &Punt<'_>, node: &mut Node<'_>) -> Result<(), Malformed> {
        let Some(asker) = node.directory.asker(punt) else {
            return Ok(());
        };
        let frame = answer(&asker, punt.frame)?;
        node.answers
            .extend(frame.map(|frame| Answer::to(&asker, frame)));
        Ok(())
    }

    fn tick(&mut self, node: &mut Node<'_>) {
        let directory = node.directory;
        self.due.retain(|number, (ifindex, ..)| {
            let asker = directory.at(*ifindex);
            asker.is_some_and(|asker| asker.number == *number)
        });
        for asker in directory.here() {
            let first = (asker.ifindex, 0, node.now);
            let (_, sent, due) = self.due.entry(asker.number).or_insert(first);
            if *due > node.now {
                continue;
            }
            let Some(frame) = advertise(&asker, ALL_NODES) else {
                continue;
            };
            node.answers.push(Answer::to(&asker, frame));
            *sent = sent.saturating_add(1);
            *due = node.now + pause(asker.number, *sent);
        }
    }
}

/// How long until the next, so spread that endpoints are not all served at once.
fn pause(number: u32, sent: u32) -> Duration {
    if sent < INITIAL {
        return INITIAL_EVERY;
    }
    // Fibonacci hashing (Knuth, TAOCP 3, 6.4): neighbouring numbers end up far apart.
    let spread = number.wrapping_add(sent).wrapping_mul(0x9e37_79b9) >> 16;
    EVERY_MIN + Duration::from_secs(u64::from(spread % SPREAD_S))
}

/// The frame that answers a router solicitation; `None` when it is not to be answered.
pub(crate) fn answer(asker: &Asker<'_>, solicitation: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
    let asked = frame::control(solicitation)?;
    // RFC 4861, 6.1.1.
    if asked.hop_limit != 255 || asked.code != 0 {
        return Err(Malformed("no neighbour's solicitation"));
    }
    let options = asked.body.get(4..).ok_or(Malformed("too short"))?;
    let is_anonymous = asked.src == Ipv6Addr::UNSPECIFIED;
    for kind in options_of(options) {
        if kind? == SOURCE_LINK_LAYER && is_anonymous {
            return Err(Malformed("a link-layer address without an address"));
        }
    }
    let to = if is_anonymous {
        ALL_NODES
    } else {
        (asked.src, asker.member.mac)
    };
    Ok(advertise(asker, to))
}

/// The kinds of a message's options.
fn options_of(mut rest: &[u8]) -> impl Iterator<Item = Result<u8, Malformed>> {
    std::iter::from_fn(move || {
        let [kind, units, ..] = rest else {
            let is_over = std::mem::take(&mut rest).is_empty();
            return (!is_over).then_some(Err(Malformed("options")));
        };
        let kind = *kind;
        match rest.get(usize::from(*units) * 8..) {
            Some(next) if *units != 0 => {
                rest = next;
                Some(Ok(kind))
            }
            _ => {
                rest = &[];
                Some(Err(Malformed("options")))
            }
        }
    })
}

/// An advertisement; `None` in a network without IPv6.
pub(crate) fn advertise(asker: &Asker<'_>, (dst, mac): (Ipv6Addr, [u8; 6])) -> Option<Vec<u8>> {
    let Subnet { gateway, prefix } = asker.network.v6?;
    let mut body = vec![HOP_LIMIT, MANAGED_OTHER];
    body.extend(ROUTER_S.to_be_bytes());
    // Reachable and retransmission time: no opinion.
    body.extend([0; 8]);

    body.extend([SOURCE_LINK_LAYER, 1]);
    body.extend(asker.network.gateway_mac);

    body.extend([MTU, 1, 0, 0]);
    body.extend(u32::from(asker.network.mtu).to_be_bytes());

    body.extend([PREFIX, 4, prefix, ON_LINK]);
    body.extend(PREFIX_S.to_be_bytes());
    body.extend(PREFIX_S.to_be_bytes());
    body.extend([0; 4]);
    let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
    body.extend((u128::from(gateway) & mask).to_be_bytes());

    body.extend([NAME_SERVERS, 3, 0, 0]);
    body.extend(NAMES_S.to_be_bytes());
    body.extend(gateway.octets());

    let mut names = Vec::new();
    for label in asker.network.domain().split('.') {
        names.push(label.len() as u8);
        names.extend(label.bytes());
    }
    names.push(0);
    names.resize(names.len().next_multiple_of(8), 0);
    body.extend([SEARCH_LIST, 1 + (names.len() / 8) as u8, 0, 0]);
    body.extend(NAMES_S.to_be_bytes());
    body.extend(names);

    Some(frame::icmpv6(asker, mac, dst, ADVERTISEMENT, &body))
}
