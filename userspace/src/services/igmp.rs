//! IGMP (RFC 2236, RFC 3376): the reports of workloads, and queries to them.
//!
//! Queries are those of version 3, which a host of an earlier version takes for its own: it reads the
//! first eight bytes, and answers with a report of its version.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use super::{directory::Asker, frame, handler::Malformed};
use crate::groups::membership::{Change, QUERY_EVERY, ROBUSTNESS};

/// Types of messages (RFC 3376, 4).
const QUERY: u8 = 0x11;
const REPORT_V1: u8 = 0x12;
const REPORT_V2: u8 = 0x16;
const LEAVE_V2: u8 = 0x17;
const REPORT_V3: u8 = 0x22;
/// Protocol number.
const PROTOCOL: u8 = 2;
/// The option by which routers look at a packet that is not addressed to them (RFC 2113).
const ROUTER_ALERT: [u8; 4] = [0x94, 4, 0, 0];
/// What general queries are sent to.
const ALL_HOSTS: (Ipv4Addr, [u8; 6]) = (Ipv4Addr::new(224, 0, 0, 1), [1, 0, 0x5e, 0, 0, 1]);

/// What a frame reports: groups, and what of each. A query, and a message of a kind that is not
/// known, reports nothing.
pub(crate) fn reports(frame: &[u8]) -> Result<Vec<(IpAddr, Change)>, Malformed> {
    let packet = frame::ip_packet(frame)?;
    let header = packet
        .first()
        .map_or(0, |first| usize::from(first & 0xf) * 4);
    let message = packet.get(header..).ok_or(Malformed("too short"))?;
    if message.len() < 8 {
        return Err(Malformed("too short"));
    }
    if checksum(message) != 0 {
        return Err(Malformed("checksum"));
    }
    let group = IpAddr::from([message[4], message[5], message[6], message[7]]);
    match message[0] {
        REPORT_V1 | REPORT_V2 => Ok(vec![(group, Change::Exclude)]),
        LEAVE_V2 => Ok(vec![(group, Change::Include(BTreeSet::new()))]),
        REPORT_V3 => records::<4>(message),
        _ => Ok(Vec::new()),
    }
}

/// The records of a report with addresses of `N` bytes; they are alike in IGMPv3 (RFC 3376, 4.2) and
/// MLDv2 (RFC 3810, 5.2).
pub(super) fn records<const N: usize>(message: &[u8]) -> Result<Vec<(IpAddr, Change)>, Malformed>
where
    IpAddr: From<[u8; N]>,
{
    let short = Malformed("too short for its records");
    let count = message.get(6..8).ok_or(short)?;
    let count = usize::from(u16::from_be_bytes([count[0], count[1]]));
    let mut rest = &message[8..];
    let mut reports = Vec::new();
    for _ in 0..count {
        let (head, body) = rest.split_first_chunk::<4>().ok_or(short)?;
        let (group, body) = body.split_first_chunk::<N>().ok_or(short)?;
        let count = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let (sources, body) = body.split_at_checked(count * N).ok_or(short)?;
        rest = body.get(usize::from(head[1]) * 4..).ok_or(short)?;
        let sources = sources.as_chunks::<N>().0.iter();
        let sources = sources.map(|bytes| IpAddr::from(*bytes)).collect();
        let change = match head[0] {
            1 | 3 => Change::Include(sources),
            2 | 4 => Change::Exclude,
            5 => Change::Allow(sources),
            6 => Change::Block(sources),
            // Of an unknown kind: to be ignored (RFC 3376, 4.2.12).
            _ => continue,
        };
        reports.push((IpAddr::from(*group), change));
    }
    Ok(reports)
}

/// What asks an endpoint what it listens to, to be answered within tenths of a second; `None` where
/// its network has no gateway.
pub(crate) fn query(asker: &Asker<'_>, within_ds: u8) -> Option<Vec<u8>> {
    let gateway = asker.network.v4?.gateway;
    let mut message = [0; 12];
    message[0] = QUERY;
    message[1] = within_ds;
    message[8] = ROBUSTNESS as u8;
    message[9] = QUERY_EVERY.as_secs() as u8;
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());

    let (dst, mac) = ALL_HOSTS;
    let mut packet = vec![0x46, 0xc0, 0, 36, 0, 0, 0, 0, 1, PROTOCOL, 0, 0];
    packet.extend(gateway.octets());
    packet.extend(dst.octets());
    packet.extend(ROUTER_ALERT);
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(message);
    let mut frame = frame::ethernet(asker, &packet);
    frame[..6].copy_from_slice(&mac);
    Some(frame)
}

/// The checksum of RFC 1071; zero over what has a right one.
pub(super) fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([
            pair[0],
            pair.get(1).copied().unwrap_or(0),
        ]));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
