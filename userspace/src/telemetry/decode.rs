//! Events into flows: headers parsed, names found.

use std::net::{Ipv4Addr, Ipv6Addr};

use nix::time::{ClockId, clock_gettime};
use sunwire_api::{Flow, FlowCause, FlowConnection, FlowEnd, FlowEntry, FlowVerdict, MacAddress};
use sunwire_dataplane_common::{
    drop_reason::DropReason,
    event::{Event, connection, program, verdict, why},
    headers::{
        ETHER_IPV4, ETHER_IPV6, ETHERNET_BYTES, Family, Fragment, Headers, IPV4_BYTES, IPV6_BYTES,
        PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP, Parsed,
    },
    outbound,
};

use super::names::{self, Names};

/// UDP and VXLAN headers.
const UDP_AND_VXLAN: usize = 16;

/// What an event says.
#[must_use]
pub fn flow(event: &Event, frame: &[u8], names: &Names) -> Flow {
    let (previous_node, inner) = if event.outer != 0 {
        behind_tunnel(frame, names)
    } else {
        (None, frame)
    };
    // Of what is cut off within the outer headers nobody can say how long they are.
    let outer_bytes = match inner.len() {
        0 => 0,
        inner_bytes => frame.len() - inner_bytes,
    };
    let parsed = Headers::parse(&inner).ok();
    let causes = [
        (why::DROP, FlowCause::Drop),
        (why::NEW, FlowCause::New),
        (why::SAMPLE, FlowCause::Sample),
        (why::CAPTURE, FlowCause::Capture),
        (why::LOG, FlowCause::Log),
    ];
    let causes = causes.iter().filter(|(bit, _)| event.why & bit != 0);
    let verdict = match event.verdict {
        verdict::DROPPED => FlowVerdict::Dropped,
        verdict::CONSUMED => FlowVerdict::Answered,
        _ => FlowVerdict::Forwarded,
    };
    // What goes back to where it came from is an answer that the node made.
    let answered = verdict == FlowVerdict::Forwarded && event.destination == 0 && event.node == 0;
    let verdict = if answered {
        FlowVerdict::Answered
    } else {
        verdict
    };
    let reason = (verdict == FlowVerdict::Dropped).then(|| reason_name(event.reason));
    let entry = if event.program == program::UNDERLAY {
        FlowEntry::Tunnel
    } else {
        FlowEntry::Endpoint
    };
    let mut flow = Flow {
        time_unix_ns: unix_ns(event.time_ns),
        node: names.own.clone(),
        causes: causes.map(|(_, cause)| *cause).collect(),
        verdict,
        reason,
        label: event
            .label
            .checked_sub(1)
            .and_then(|slot| names.label(slot)),
        log: event.log.checked_sub(1).and_then(|slot| names.label(slot)),
        // Of an end that is in no wire any more it is not said which it was.
        wire: (event.wire != 0)
            .then(|| {
                names
                    .wire_of(event.destination)
                    .or_else(|| names.wire_of(event.source))
            })
            .flatten(),
        network: names.network(event.network),
        entry,
        from: FlowEnd::default(),
        to: FlowEnd::default(),
        ether_type: None,
        protocol: None,
        tcp_flags: None,
        icmp: None,
        connection: match event.connection {
            connection::NEW => Some(FlowConnection::New),
            connection::ESTABLISHED => Some(FlowConnection::Established),
            _ => None,
        },
        destination: names.endpoint(event.destination),
        egress: outbound::is_egress(event.destination)
            .then(|| names.node(event.destination & !outbound::EGRESS))
            .flatten(),
        next_node: names.node(event.node),
        previous_node,
        tunnel_rtt_s: None,
        bytes: event.length.saturating_sub(outer_bytes as u32),
        packets: event.segments,
    };
    if let Some(parsed) = parsed {
        fill(&mut flow, &parsed, inner, event, names);
    }
    if let (Some(name), 1..) = (names.endpoint(event.source), event.source)
        && flow.from.endpoint.is_none()
        && reason_is_not_spoofing(event)
    {
        flow.from.endpoint = Some(name);
    }
    flow
}

/// The frame without the headers of a tunnel.
#[must_use]
pub fn inner<'a>(event: &Event, frame: &'a [u8]) -> &'a [u8] {
    if event.outer != 0 {
        behind_tunnel(frame, &Names::default()).1
    } else {
        frame
    }
}

/// A forged source address is shown as what it is, not as the endpoint that forged it.
fn reason_is_not_spoofing(event: &Event) -> bool {
    event.verdict != verdict::DROPPED || event.reason != DropReason::SpoofedSource as u32
}

/// The node that sent a tunnelled frame, and the frame inside.
fn behind_tunnel<'a>(frame: &'a [u8], names: &Names) -> (Option<String>, &'a [u8]) {
    let ether_type = frame
        .get(12..14)
        .map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    let (node, ip_bytes) = match ether_type {
        Some(ETHER_IPV4) => {
            let source = frame
                .get(26..30)
                .and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
            let source = source.map(Ipv4Addr::from);
            (
                source.and_then(|source| names.node_at(source.into())),
                IPV4_BYTES,
            )
        }
        Some(ETHER_IPV6) => {
            let source = frame
                .get(22..38)
                .and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
            let source = source.map(Ipv6Addr::from);
            (
                source.and_then(|source| names.node_at(source.into())),
                IPV6_BYTES,
            )
        }
        _ => return (None, &[]),
    };
    let inner = frame.get(ETHERNET_BYTES + ip_bytes + UDP_AND_VXLAN..);
    (node, inner.unwrap_or_default())
}

fn fill(flow: &mut Flow, parsed: &Parsed, frame: &[u8], event: &Event, names: &Names) {
    let headers = &parsed.headers;
    let (vni, family) = (event.network, headers.family);
    if family == Family::None {
        flow.ether_type = Some(headers.ether_type);
        for (end, mac) in [
            (&mut flow.from, headers.eth_src),
            (&mut flow.to, headers.eth_dst),
        ] {
            end.mac = Some(MacAddress(mac.to_bytes()));
            end.endpoint = names.owner_of_mac(vni, mac);
        }
        return;
    }
    let has_ports = matches!(headers.protocol, PROTOCOL_TCP | PROTOCOL_UDP)
        && parsed.fragment != Fragment::Later;
    for (end, address, port) in [
        (&mut flow.from, headers.src, headers.src_port),
        (&mut flow.to, headers.dst, headers.dst_port),
    ] {
        end.address = names::ip(family, address);
        end.endpoint = names.owner(vni, family, address);
        if end.endpoint.is_none()
            && let Some((endpoint, network)) = names.peers_owner(vni, family, address)
        {
            (end.endpoint, end.network) = (Some(endpoint), Some(network));
        }
        end.port = has_ports.then_some(port);
    }
    flow.protocol = Some(headers.protocol);
    if headers.protocol == PROTOCOL_TCP && parsed.fragment != Fragment::Later {
        flow.tcp_flags = frame.get(parsed.transport as usize + 13).copied();
    }
    let is_icmp = match family {
        Family::V4 => headers.protocol == PROTOCOL_ICMP,
        _ => headers.protocol == PROTOCOL_ICMPV6,
    };
    flow.icmp = (is_icmp && parsed.fragment != Fragment::Later)
        .then_some((headers.icmp_type, headers.icmp_code));
}

/// The name of a reason; a number that a newer program gave stays a number.
fn reason_name(number: u32) -> String {
    let reason = DropReason::ALL.get(number as usize);
    reason.map_or_else(|| number.to_string(), |reason| reason.name().to_owned())
}

/// The kernel's monotonic time.
pub(super) fn now_ns() -> u64 {
    now(ClockId::CLOCK_MONOTONIC)
}

fn now(clock: ClockId) -> u64 {
    let now = clock_gettime(clock).map_or(0, |time| {
        i128::from(time.tv_sec()) * 1_000_000_000 + i128::from(time.tv_nsec())
    });
    u64::try_from(now).unwrap_or(0)
}

/// The kernel's monotonic time as Unix time.
fn unix_ns(monotonic_ns: u64) -> u64 {
    let since = now(ClockId::CLOCK_MONOTONIC).saturating_sub(monotonic_ns);
    now(ClockId::CLOCK_REALTIME).saturating_sub(since)
}
