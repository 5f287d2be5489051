//! MLD (RFC 2710, RFC 3810): the reports of workloads, and queries to them.
//!
//! As with IGMP, queries are those of the last version, which hosts of the first one understand.

use std::{collections::BTreeSet, net::IpAddr, net::Ipv6Addr};

use super::{
    directory::Asker,
    frame,
    handler::Malformed,
    igmp::{checksum, records},
};
use crate::groups::membership::{Change, QUERY_EVERY, ROBUSTNESS};

/// Types of messages (RFC 3810, 5).
const QUERY: u8 = 130;
const REPORT_V1: u8 = 131;
const DONE_V1: u8 = 132;
const REPORT_V2: u8 = 143;
/// Next headers.
const HOP_BY_HOP: u8 = 0;
const ICMPV6: u8 = 58;
const IPV6_BYTES: usize = 40;
/// Hop-by-hop options: ICMPv6 follows; the router alert that MLD has to have (RFC 2711), and
/// padding.
const ROUTER_ALERT: [u8; 8] = [ICMPV6, 0, 5, 2, 0, 0, 1, 0];
/// What general queries are sent to.
const ALL_NODES: (Ipv6Addr, [u8; 6]) = (
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
    [0x33, 0x33, 0, 0, 0, 1],
);

/// What a frame reports: groups, and what of each. A query, and a message of a kind that is not
/// known, reports nothing.
pub(crate) fn reports(frame: &[u8]) -> Result<Vec<(IpAddr, Change)>, Malformed> {
    let packet = frame::ip_packet(frame)?;
    let (header, rest) = packet
        .split_at_checked(IPV6_BYTES)
        .ok_or(Malformed("too short"))?;
    if header[6] != HOP_BY_HOP || header[7] != 1 {
        return Err(Malformed("no MLD message"));
    }
    let [next, units, ..] = *rest else {
        return Err(Malformed("too short"));
    };
    let message = rest.get(usize::from(units) * 8 + 8..);
    let message = message.ok_or(Malformed("too short"))?;
    if next != ICMPV6 || message.len() < 8 {
        return Err(Malformed("no MLD message"));
    }
    // An MLDv1 message is 24 bytes long.
    let group = || {
        let group = message
            .get(8..24)
            .and_then(|group| group.first_chunk::<16>());
        group
            .map(|group| IpAddr::from(*group))
            .ok_or(Malformed("too short"))
    };
    match message[0] {
        REPORT_V1 => Ok(vec![(group()?, Change::Exclude)]),
        DONE_V1 => Ok(vec![(group()?, Change::Include(BTreeSet::new()))]),
        REPORT_V2 => records::<16>(message),
        _ => Ok(Vec::new()),
    }
}

/// What asks an endpoint what it listens to, to be answered within some milliseconds; `None` where
/// its network has no gateway.
pub(crate) fn query(asker: &Asker<'_>, within_ms: u16) -> Option<Vec<u8>> {
    asker.network.v6?;
    let src = asker.network.gateway_local;
    let (dst, mac) = ALL_NODES;
    let mut message = [0; 28];
    message[0] = QUERY;
    message[4..6].copy_from_slice(&within_ms.to_be_bytes());
    message[24] = ROBUSTNESS as u8;
    message[25] = QUERY_EVERY.as_secs() as u8;
    // Of the pseudo header (RFC 8200, 8.1), and of the message.
    let mut summed = [src.octets(), dst.octets()].concat();
    summed.extend([0, 0, 0, message.len() as u8, 0, 0, 0, ICMPV6]);
    summed.extend(message);
    message[2..4].copy_from_slice(&checksum(&summed).to_be_bytes());

    let length = (ROUTER_ALERT.len() + message.len()) as u8;
    let mut packet = vec![0x60, 0, 0, 0, 0, length, HOP_BY_HOP, 1];
    packet.extend(src.octets());
    packet.extend(dst.octets());
    packet.extend(ROUTER_ALERT);
    packet.extend(message);
    let mut frame = frame::ethernet(asker, &packet);
    frame[..6].copy_from_slice(&mac);
    Some(frame)
}
