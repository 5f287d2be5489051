//! One node's hops of a trace, in the words of the API.

use std::net::{IpAddr, Ipv4Addr};

use etherparse::{
    IpFragOffset, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, PacketBuilder, PacketBuilderStep,
};
use sunwire_api::{
    FlowVerdict, TraceEntry, TraceHop, TraceRequest, TraceRewrite, from_hex, to_hex,
};
use sunwire_dataplane_common::{
    address::{Address, Mac},
    drop_reason::DropReason,
    event::{Event, program, verdict},
    headers::{ETHERNET_BYTES, Family, Headers},
    vxlan,
};

use super::{
    decode,
    names::{self, Names},
    step::{Arrival, Step, StepOutcome},
};
use crate::{
    dataplane::{Dataplane, chain},
    state::{Desired, Endpoint, Network, kernel_address},
};

/// Source port of a packet that does not say.
const SOURCE_PORT: u16 = 40_000;
const SYN: u8 = 0x02;

/// What a node knows that a trace needs.
pub(crate) struct Around<'a> {
    pub(crate) desired: &'a Desired,
    pub(crate) names: &'a Names,
    /// ifindex of the underlay device.
    pub(crate) underlay: u32,
    /// ifindex of a device that packets come from that were encrypted.
    pub(crate) tunnel: Option<u32>,
    /// What this node is called within encrypted tunnels: its IPv4 address on the underlay, if it has one.
    pub(crate) address: Ipv4Addr,
    /// ifindex of an endpoint's device, while it is attached.
    pub(crate) attached: &'a dyn Fn(u32) -> Option<u32>,
}

/// What this node does with a packet; one hop for each copy.
///
/// # Errors
/// In words: the packet is none, or does not enter here.
pub(crate) fn hops(
    dataplane: &mut Dataplane,
    around: &Around<'_>,
    entry: &TraceEntry,
) -> Result<Vec<TraceHop>, String> {
    let (frame, ifindex, source) = match entry {
        TraceEntry::Endpoint(request) => entering(around, request)?,
        TraceEntry::Tunnel { frame } => {
            let mut frame = from_hex(frame).ok_or("the frame is not hexadecimal")?;
            let ifindex = if was_encrypted(&frame) {
                from_key_addresses(around, &mut frame);
                around.tunnel.unwrap_or(around.underlay)
            } else {
                around.underlay
            };
            (frame, ifindex, None)
        }
    };
    let arrival = Arrival {
        ifindex,
        underlay: source.is_none(),
        frame: &frame,
        gso_size: 0,
    };
    let steps = dataplane.trace_copies(around.desired, &arrival);
    let steps = steps.map_err(|error| chain(&error))?;
    let hops = steps.iter().map(|step| hop(around, &arrival, source, step));
    Ok(hops.collect())
}

/// Whether a tunnelled frame was encrypted on its way: what encrypts has no use for Ethernet addresses,
/// and gets none.
fn was_encrypted(frame: &[u8]) -> bool {
    frame.first_chunk() == Some(&[0u8; 12])
}

/// Gives a frame that the kernel's WireGuard carries the addresses that it would have without.
fn from_key_addresses(around: &Around<'_>, frame: &mut [u8]) {
    const ADDRESSES: usize = vxlan::IPV4_OFFSET + 12;
    let Some(addresses) = frame.get_mut(ADDRESSES..ADDRESSES + 8) else {
        return;
    };
    let source = [addresses[0], addresses[1], addresses[2], addresses[3]];
    let node = vxlan::node_of(u32::from_ne_bytes(source));
    let is_key_address = (0..2).any(|slot| vxlan::key_address(node, slot) == source);
    if let Some(node) = around.desired.nodes.get(&node).filter(|_| is_key_address) {
        addresses[..4].copy_from_slice(&node.address.octets());
        addresses[4..].copy_from_slice(&around.address.octets());
    }
}

/// The frame of a packet, the device that it enters by, and the endpoint with its network.
type Entering = (Vec<u8>, u32, Option<(u32, u32)>);

fn entering(around: &Around<'_>, request: &TraceRequest) -> Result<Entering, String> {
    let name = request.from.as_str();
    let mut endpoints = around.desired.endpoints.iter();
    let (number, endpoint) = endpoints
        .find(|(_, endpoint)| endpoint.name == name)
        .ok_or_else(|| format!("there is no endpoint {name}"))?;
    let ifindex = (around.attached)(*number)
        .ok_or_else(|| format!("endpoint {name} has no device on this node"))?;
    let frame = match &request.frame {
        Some(frame) => match from_hex(frame).ok_or("the frame is not hexadecimal")? {
            // The kernel would say of it that an argument is invalid.
            short if short.len() < ETHERNET_BYTES => {
                return Err("a frame begins with an Ethernet header of 14 bytes".into());
            }
            frame => frame,
        },
        None => build(around.desired, endpoint, request)?,
    };
    Ok((frame, ifindex, Some((*number, endpoint.vni))))
}

/// The packet as the endpoint would send it.
fn build(desired: &Desired, from: &Endpoint, packet: &TraceRequest) -> Result<Vec<u8>, String> {
    let of_network = |endpoint: &&Endpoint| endpoint.vni == from.vni;
    let mut others = desired.endpoints.values().filter(of_network);
    let own = |family| match family {
        Family::V4 => names::ip(family, from.ipv4).filter(|_| from.ipv4 != Address::ZERO),
        _ => names::ip(family, from.ipv6).filter(|_| from.ipv6 != Address::ZERO),
    };
    let (target, mac) = match packet.to.parse::<IpAddr>() {
        Ok(address) => {
            let key = kernel_address(address);
            let owner = others.find(|other| match address {
                IpAddr::V4(_) => other.ipv4 == key,
                IpAddr::V6(_) => other.ipv6 == key,
            });
            (address, owner.map(|owner| owner.mac))
        }
        Err(_) => {
            let to = others
                .find(|other| other.name == packet.to)
                .ok_or_else(|| {
                    format!(
                        "{:?} is neither an address nor an endpoint of the network",
                        packet.to
                    )
                })?;
            let v4 = to.ipv4 != Address::ZERO && from.ipv4 != Address::ZERO;
            let address = if v4 {
                names::ip(Family::V4, to.ipv4)
            } else {
                names::ip(Family::V6, to.ipv6).filter(|_| to.ipv6 != Address::ZERO)
            };
            let address = address.ok_or_else(|| {
                format!(
                    "{} and {} have no addresses of one family",
                    from.name, to.name
                )
            })?;
            (address, Some(to.mac))
        }
    };
    let family = if target.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    };
    let source = match packet.source {
        Some(source) => source,
        None => own(family)
            .ok_or_else(|| format!("{} has no address of the family of {target}", from.name))?,
    };
    // What nobody owns is sent to the gateway, as a workload would.
    let network = desired.networks.get(&from.vni);
    let gateway = network.map(|network| network.gateway_mac);
    let several = group_mac(target, network);
    let mac = several.or(mac).or(gateway).unwrap_or_default();
    let ethernet = PacketBuilder::ethernet2(from.mac.to_bytes(), mac.to_bytes());
    if packet.dscp > 63 {
        return Err(format!("the DSCP is {}: it has 6 bits", packet.dscp));
    }
    let ip = match (source, target) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            let mut header = Ipv4Header {
                source: source.octets(),
                destination: target.octets(),
                time_to_live: 64,
                dont_fragment: true,
                fragment_offset: IpFragOffset::ZERO,
                ..Ipv4Header::default()
            };
            header.dscp = packet
                .dscp
                .try_into()
                .map_err(|_| "the DSCP is too large")?;
            ethernet.ip(etherparse::IpHeaders::Ipv4(header, Default::default()))
        }
        (IpAddr::V6(source), IpAddr::V6(target)) => {
            let header = Ipv6Header {
                traffic_class: packet.dscp << 2,
                flow_label: Ipv6FlowLabel::ZERO,
                hop_limit: 64,
                source: source.octets(),
                destination: target.octets(),
                ..Ipv6Header::default()
            };
            ethernet.ip(etherparse::IpHeaders::Ipv6(header, Default::default()))
        }
        _ => return Err("source and destination are not of one family".to_owned()),
    };
    transport(ip, packet, target.is_ipv4())
}

/// The MAC address of what is for several: broadcast, or multicast (RFC 1112, 6.4; RFC 2464, 7). `None` for
/// an address that is one endpoint's.
fn group_mac(address: IpAddr, network: Option<&Network>) -> Option<Mac> {
    match address {
        IpAddr::V4(address) => {
            let [_, b, c, d] = address.octets();
            let host_bits = network
                .filter(|network| (1..31).contains(&network.prefix_v4))
                .map(|network| (network.gateway_v4, u32::MAX >> network.prefix_v4));
            let is_of_subnet = host_bits.is_some_and(|(gateway, host)| {
                u32::from(address) == u32::from_be(gateway.0[0]) | host
            });
            if address.is_broadcast() || is_of_subnet {
                Some(Mac::new([0xff; 6]))
            } else {
                let mac = Mac::new([0x01, 0, 0x5e, b & 0x7f, c, d]);
                address.is_multicast().then_some(mac)
            }
        }
        IpAddr::V6(address) => {
            let [.., a, b, c, d] = address.octets();
            let mac = Mac::new([0x33, 0x33, a, b, c, d]);
            address.is_multicast().then_some(mac)
        }
    }
}

fn transport(
    ip: PacketBuilderStep<etherparse::IpHeaders>,
    packet: &TraceRequest,
    is_v4: bool,
) -> Result<Vec<u8>, String> {
    let payload = vec![0; usize::from(packet.payload_bytes)];
    let mut frame = Vec::new();
    let source_port = packet.source_port.unwrap_or(SOURCE_PORT);
    let port = || {
        let port = packet.destination_port;
        port.ok_or("TCP and UDP need a destination port")
    };
    let icmp = if is_v4 { "icmp" } else { "icmpv6" };
    let protocol = packet.protocol.as_deref().unwrap_or(icmp);
    let written = match (protocol, is_v4) {
        ("tcp", _) => {
            let flags = packet.tcp_flags.unwrap_or(SYN);
            let mut header = etherparse::TcpHeader::new(source_port, port()?, 1, 65_000);
            header.fin = flags & 0x01 != 0;
            header.syn = flags & 0x02 != 0;
            header.rst = flags & 0x04 != 0;
            header.psh = flags & 0x08 != 0;
            header.ack = flags & 0x10 != 0;
            header.urg = flags & 0x20 != 0;
            ip.tcp_header(header).write(&mut frame, &payload)
        }
        ("udp", _) => ip.udp(source_port, port()?).write(&mut frame, &payload),
        ("icmp", true) => {
            let (kind, code) = packet.icmp.unwrap_or((8, 0));
            ip.icmpv4_raw(kind, code, [0, 1, 0, 1])
                .write(&mut frame, &payload)
        }
        ("icmpv6", false) => {
            let (kind, code) = packet.icmp.unwrap_or((128, 0));
            ip.icmpv6_raw(kind, code, [0, 1, 0, 1])
                .write(&mut frame, &payload)
        }
        ("icmp" | "icmpv6", _) => {
            return Err(format!("{protocol} is not of the family of the addresses"));
        }
        (number, _) => {
            let number: u8 = number
                .parse()
                .map_err(|_| "a protocol is tcp, udp, icmp, icmpv6 or 0 to 255")?;
            ip.write(&mut frame, IpNumber(number), &payload)
        }
    };
    written.map_err(|error| error.to_string())?;
    Ok(frame)
}

fn hop(
    around: &Around<'_>,
    arrival: &Arrival<'_>,
    source: Option<(u32, u32)>,
    step: &Step,
) -> TraceHop {
    let (kind, reason) = match step.outcome {
        StepOutcome::Dropped(reason) => (verdict::DROPPED, Some(reason)),
        StepOutcome::Consumed => (verdict::CONSUMED, None),
        StepOutcome::Passed | StepOutcome::Forwarded { .. } => (verdict::FORWARDED, None),
    };
    let (node, destination) = match step.outcome {
        StepOutcome::Forwarded { node, destination } => (node, destination),
        _ => (0, 0),
    };
    let event = Event {
        time_ns: decode::now_ns(),
        verdict: kind,
        reason: reason.map_or(0, |reason| reason as u32),
        program: match source {
            Some(_) => program::ENDPOINT,
            None => program::UNDERLAY,
        },
        ifindex: arrival.ifindex,
        network: source.map_or(step.network, |(_, vni)| vni),
        source: source.map_or(0, |(number, _)| number),
        destination,
        node,
        label: step.label.map_or(0, |slot| slot + 1),
        connection: step.connection,
        length: arrival.frame.len() as u32,
        segments: 1,
        outer: u16::from(source.is_none()),
        wire: u32::from(step.wire),
        ..Event::default()
    };
    let mut flow = decode::flow(&event, arrival.frame, around.names);
    if step.outcome == StepOutcome::Passed {
        flow.verdict = FlowVerdict::Passed;
    }
    if step.remark.is_some() {
        // It ended here and was no question to the node.
        flow.verdict = FlowVerdict::Forwarded;
    }
    let endpoint = around.desired.endpoints.get(&destination);
    let device = endpoint
        .filter(|_| node == 0)
        .map(|endpoint| endpoint.device.clone());
    let before = decode::inner(&event, arrival.frame);
    let after = if step.outer {
        let outer = Event { outer: 1, ..event };
        decode::inner(&outer, &step.frame)
    } else {
        &step.frame
    };
    let answered = flow.verdict == FlowVerdict::Answered;
    TraceHop {
        after: None,
        description: reason
            .map(|reason: DropReason| reason.description())
            .or(step.remark)
            .map(str::to_owned),
        // An answer is another packet than the one that came.
        rewrites: if answered {
            Vec::new()
        } else {
            rewrites(before, after)
        },
        device,
        flow,
        frame: to_hex(&step.frame),
    }
}

/// The fields that differ.
fn rewrites(before: &[u8], after: &[u8]) -> Vec<TraceRewrite> {
    let (Ok(before), Ok(after)) = (Headers::parse(&before), Headers::parse(&after)) else {
        return Vec::new();
    };
    let (before, after) = (before.headers, after.headers);
    let mac = |mac: Mac| sunwire_api::MacAddress(mac.to_bytes()).to_string();
    let ip = |headers: &Headers, address| {
        names::ip(headers.family, address).map_or_else(String::new, |ip| ip.to_string())
    };
    let values = |headers: &Headers| {
        [
            ("ethSrc", mac(headers.eth_src)),
            ("ethDst", mac(headers.eth_dst)),
            ("ipSrc", ip(headers, headers.src)),
            ("ipDst", ip(headers, headers.dst)),
            ("ipDscp", headers.dscp.to_string()),
            ("tcpSrcPort", headers.src_port.to_string()),
            ("tcpDstPort", headers.dst_port.to_string()),
        ]
    };
    let pairs = values(&before).into_iter().zip(values(&after));
    pairs
        .filter(|((_, before), (_, after))| before != after)
        .map(|((field, before), (_, after))| TraceRewrite {
            field: field.to_owned(),
            before,
            after,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_several_has_a_group_address() {
        let network = Network {
            gateway_v4: Address::v4([10, 20, 0, 1]),
            prefix_v4: 16,
            ..Network::for_tests()
        };
        let of = |text: &str| {
            let mac = group_mac(text.parse().unwrap(), Some(&network));
            mac.map(Mac::to_bytes)
        };
        assert_eq!(of("255.255.255.255"), Some([0xff; 6]));
        assert_eq!(of("10.20.255.255"), Some([0xff; 6]));
        assert_eq!(of("239.129.2.3"), Some([1, 0, 0x5e, 1, 2, 3]));
        assert_eq!(of("ff15::1:2"), Some([0x33, 0x33, 0, 1, 0, 2]));
        for one in ["10.20.255.254", "10.21.255.255", "fd00::1"] {
            assert_eq!(of(one), None, "{one}");
        }
    }
}
