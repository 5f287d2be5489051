//! The copies of a packet for several endpoints, for a trace.
//!
//! The programs say that a packet goes to a set; a trace has to say to whom. What is told here is what
//! `dataplane-ebpf/src/group.rs` does, by the same maps and in the same order: copies to the members here, one to
//! each other node that has members or sends on to such. Tests compare the two, copy by copy.

use std::collections::BTreeMap;

use sunwire_dataplane_common::{
    address::Address,
    drop_reason::DropReason,
    entries::{AddressKey, LocationEntry, PeerEntry, PeerEntryV6, location, peer},
    group::{
        EACH_ITS_OWN, GroupChunk, GroupKey, ListenerKey, MAX_CHUNKS, NODE, RELAY, RELAYED, TagKey,
        is_listened_for,
    },
    headers::{ETHER_IPV4, ETHER_IPV6, ETHERNET_BYTES, Family, Headers},
    tables::OUT_GROUP,
    vxlan::{
        self, IPV4_OFFSET, IPV6_OFFSET, OUTER_BYTES, OUTER_BYTES_V6, UDP_OFFSET, UDP_OFFSET_V6,
        Vxlan, fold_checksum,
    },
    wire::FRAME_BYTES_MIN,
};

use super::{Dataplane, DataplaneError};
use crate::{
    groups::sets::{self, Members},
    state::{Desired, Digest, Leaf},
    telemetry::step::{Arrival, Step, StepOutcome},
};

/// Nobody gets a copy.
const NOBODY: &str = "no copy is made: nobody else is in the set, or nobody of it listens";
/// More than one set may be meant.
const UNCLEAR: &str = "its copies are not told apart: several rules of the policy have this label and send to other sets";

/// A packet for several, as the programs note it.
struct Cast<'a> {
    vni: u32,
    group: u32,
    /// Number of the endpoint that sent it.
    from: u32,
    /// The frame without the headers of a tunnel.
    frame: &'a [u8],
    /// The outer source port, in host order.
    port: u16,
    /// It came from another region, to be sent on within this one.
    relaying: bool,
}

impl Dataplane {
    /// What this node's programs would do with a packet: as [`Dataplane::trace`], with one step for each
    /// copy to an endpoint or a node where it goes to a set of them.
    ///
    /// # Errors
    /// As [`Dataplane::trace`].
    pub fn trace_copies(
        &mut self,
        desired: &Desired,
        arrival: &Arrival<'_>,
    ) -> Result<Vec<Step>, DataplaneError> {
        let steps = self.trace(arrival)?;
        let count = steps.len();
        let mut all = Vec::with_capacity(count);
        for (number, step) in steps.into_iter().enumerate() {
            let copies = match step.outcome {
                StepOutcome::Consumed if arrival.underlay => self.received(desired, arrival.frame),
                StepOutcome::Consumed => {
                    self.sent(desired, arrival.ifindex, &step, (number, count))
                }
                _ => None,
            };
            let Some(copies) = copies else {
                all.push(step);
                continue;
            };
            let label = step.label;
            match copies {
                Ok(copies) if !copies.is_empty() => {
                    all.extend(copies.into_iter().map(|copy| Step { label, ..copy }));
                }
                Ok(_) => all.push(Step {
                    remark: Some(NOBODY),
                    ..step
                }),
                Err(remark) => all.push(Step {
                    remark: Some(remark),
                    ..step
                }),
            }
        }
        Ok(all)
    }

    /// The copies of what an endpoint here sends, if it is for several; `copy` is the number of the
    /// verdict's copy, and how many these are.
    fn sent(
        &self,
        desired: &Desired,
        ifindex: u32,
        step: &Step,
        copy: (usize, usize),
    ) -> Option<Result<Vec<Step>, &'static str>> {
        let endpoint = self.maps.endpoints.get(ifindex);
        let (vni, from) = (endpoint.network, endpoint.number);
        let labels = self.label_slots();
        let (_, label) = labels.get(&step.label?)?;
        let (number, count) = copy;
        let sets = sets_of(desired, vni, |(leaf, of)| {
            leaf.label == *label && of == number && leaf.copies.len() == count
        });
        let mut sets = sets.values();
        let members = sets.next()?;
        if sets.next().is_some() {
            return Some(Err(UNCLEAR));
        }
        let group = self.flow.sets.number(&self.maps, members)?;
        Some(Ok(self.copies(&Cast {
            vni,
            group,
            from,
            frame: &step.frame,
            port: vxlan::SOURCE_PORT_BASE,
            relaying: false,
        })))
    }

    /// The copies of what came by a tunnel, if it is for several.
    fn received(&self, desired: &Desired, outer: &[u8]) -> Option<Result<Vec<Step>, &'static str>> {
        let is_v6 = outer.get(12..ETHERNET_BYTES)? == ETHER_IPV6.to_be_bytes();
        let (source, udp) = match is_v6 {
            true => {
                let source: [u8; 16] = *outer.get(IPV6_OFFSET + 8..)?.first_chunk()?;
                (Address::v6(source), UDP_OFFSET_V6)
            }
            false => {
                let source: [u8; 4] = *outer.get(IPV4_OFFSET + 12..)?.first_chunk()?;
                (Address::v4(source), UDP_OFFSET)
            }
        };
        let header: &[u8; 8] = outer.get(udp + UDP_BYTES..)?.first_chunk()?;
        let header = Vxlan::parse(header)?;
        let frame = outer.get(udp + UDP_BYTES + 8..)?;
        let headers = Headers::parse(&frame).ok()?.headers;
        if !headers.eth_dst.is_group() {
            return None;
        }
        let key = TagKey {
            network: header.vni,
            tag: header.tag & !RELAYED,
        };
        let group = match self.maps.group_tags.content().get(&key) {
            Some(group) => *group,
            // A node that decides for itself takes its own policy's set for one that it does not know.
            None => match self.only_set(desired, header.vni)? {
                Ok(group) => group,
                Err(remark) => return Some(Err(remark)),
            },
        };
        let by = self.maps.peer_addresses.content().get(&source);
        let is_far = by.is_some_and(|peer| self.maps.peers.get(*peer).flags & peer::NEAR == 0);
        let port: [u8; 2] = *outer.get(udp..)?.first_chunk()?;
        let relaying = header.tag & RELAYED != 0 && is_far;
        let cast = Cast {
            vni: header.vni,
            group,
            from: self.sender(header.vni, &headers)?,
            frame,
            port: u16::from_be_bytes(port),
            relaying,
        };
        let mut copies = self.copies(&cast);
        // From a tunnel to endpoints only, but for what is to be sent on.
        copies.retain(|copy| relaying || !copy.outer);
        Some(Ok(copies))
    }

    /// The group of the only set that a network's policy sends to; `None` where it sends to none.
    fn only_set(&self, desired: &Desired, vni: u32) -> Option<Result<u32, &'static str>> {
        let sets = sets_of(desired, vni, |_| true);
        let mut sets = sets.values();
        let members = sets.next()?;
        if sets.next().is_some() {
            return Some(Err(UNCLEAR));
        }
        self.flow.sets.number(&self.maps, members).map(Ok)
    }

    fn copies(&self, cast: &Cast<'_>) -> Vec<Step> {
        let Ok(parsed) = Headers::parse(&cast.frame) else {
            return Vec::new();
        };
        let headers = parsed.headers;
        let each = headers.eth_dst == EACH_ITS_OWN || !headers.eth_dst.is_group();
        let asked = ListenerKey::asked(cast.vni, headers.family as u32);
        let listened =
            is_listened_for(&headers) && self.maps.listeners.content().contains_key(&asked);
        let listens = |network, who, address| {
            let key = ListenerKey {
                network,
                who,
                address,
            };
            self.maps.listeners.content().contains_key(&key)
        };
        let origin = self.location_in(cast.vni, cast.from);
        let flags = origin.map_or(0, |from| from.flags);
        let origin = origin.map_or(0, |from| from.node);
        let mut steps = Vec::new();
        for chunk in self.chunks(cast.group) {
            for member in &chunk.local[..chunk.locals as usize] {
                let is_meant =
                    *member != cast.from && (!listened || listens(cast.vni, *member, headers.dst));
                let Some(location) = self.location_in(cast.vni, *member).filter(|_| is_meant)
                else {
                    continue;
                };
                // One on its way here or away: its other node got a copy too.
                if location.ifindex != 0 {
                    let mut frame = cast.frame.to_vec();
                    if each {
                        frame[..6].copy_from_slice(&location.mac.to_bytes());
                    }
                    steps.push(step(cast.vni, 0, *member, frame));
                }
            }
            for node in &chunk.node[..chunk.nodes as usize] {
                let number = node & !RELAY;
                if number == origin || (cast.relaying && node & RELAY != 0) {
                    continue;
                }
                let has_listeners = !listened
                    || listens(cast.vni, node | NODE, headers.dst)
                    || !listens(0, node | NODE, Address::ZERO);
                if !has_listeners {
                    continue;
                }
                let tag = match node & RELAY {
                    0 => chunk.tag,
                    _ => chunk.tag | RELAYED,
                };
                let mut frame = cast.frame.to_vec();
                if each {
                    frame[..6].copy_from_slice(&EACH_ITS_OWN.to_bytes());
                }
                steps.push(match self.reachable(number, flags) {
                    Ok(way) => {
                        let frame = way.wrap(&frame, cast, tag);
                        Step {
                            outer: true,
                            ..step(cast.vni, number, 0, frame)
                        }
                    }
                    Err(reason) => Step {
                        outcome: StepOutcome::Dropped(reason),
                        ..step(cast.vni, 0, 0, frame)
                    },
                });
            }
        }
        steps
    }

    /// The parts of a group.
    fn chunks(&self, group: u32) -> impl Iterator<Item = &GroupChunk> {
        let chunks = (0..MAX_CHUNKS as u32).map(move |chunk| GroupKey { group, chunk });
        chunks.map_while(|key| self.maps.groups.content().get(&key))
    }

    fn location_in(&self, vni: u32, number: u32) -> Option<LocationEntry> {
        let location = self.maps.locations.get(number);
        (location.network == vni).then_some(location)
    }

    /// Number of the endpoint that sent a packet which came by a tunnel.
    fn sender(&self, vni: u32, headers: &Headers) -> Option<u32> {
        let owners = self.maps.owners.content();
        let by_address = AddressKey {
            network: vni,
            family: headers.family as u32,
            address: headers.src,
        };
        let owner = owners
            .get(&by_address)
            .filter(|_| headers.family != Family::None);
        let by_mac = AddressKey::mac(vni, headers.eth_src);
        owner.or_else(|| owners.get(&by_mac)).copied()
    }

    /// How a node is reached with packets of an endpoint that has these bits of [`location`].
    fn reachable(&self, node: u32, flags: u32) -> Result<Way, DropReason> {
        let peer = if flags & location::ENCRYPTED != 0 {
            self.maps.encrypted_peers.get(node)
        } else if flags & location::PLAIN != 0 {
            self.maps.plain_peers.get(node)
        } else {
            self.maps.peers.get(node)
        };
        match peer {
            peer if peer.ifindex != 0 => Ok(Way {
                peer,
                v6: self.maps.peers_v6.get(node),
            }),
            peer if peer.flags & peer::ENCRYPTED != 0 => Err(DropReason::NoTunnel),
            _ => Err(DropReason::NoRoute),
        }
    }
}

fn step(vni: u32, node: u32, destination: u32, frame: Vec<u8>) -> Step {
    Step {
        outcome: StepOutcome::Forwarded { node, destination },
        frame,
        outer: false,
        label: None,
        network: vni,
        connection: 0,
        wire: false,
        remark: None,
    }
}

/// How a node is reached.
struct Way {
    peer: PeerEntry,
    /// Its part that is of IPv6.
    v6: PeerEntryV6,
}

impl Way {
    fn is_v6(&self) -> bool {
        self.peer.flags & peer::OVER_IPV6 != 0
    }

    /// A frame behind the headers of a tunnel to the node, for a set with this tag.
    fn wrap(&self, inner: &[u8], cast: &Cast<'_>, tag: u32) -> Vec<u8> {
        let (words, offset, bytes) = match self.is_v6() {
            true => (&self.v6.template[..], UDP_OFFSET_V6, OUTER_BYTES_V6),
            false => (&self.peer.template[..], UDP_OFFSET, OUTER_BYTES),
        };
        let template = words.iter().flat_map(|word| word.to_ne_bytes());
        let mut frame: Vec<u8> = template.take(bytes).collect();
        frame.extend_from_slice(inner);
        let ether_type = inner.get(12..ETHERNET_BYTES);
        let is_ip = [ETHER_IPV4, ETHER_IPV6]
            .iter()
            .any(|ip| ether_type == Some(&ip.to_be_bytes()));
        if !is_ip {
            let length = frame.len().max(bytes + FRAME_BYTES_MIN as usize);
            frame.resize(length, 0);
        }
        let total = (frame.len() - IPV4_OFFSET) as u16;
        let udp_bytes = (frame.len() - offset) as u16;
        // The kernel's VXLAN refuses what others have put into reserved bits.
        let tag = match self.peer.flags & peer::FOREIGN {
            0 => tag,
            _ => 0,
        };
        let header = Vxlan {
            vni: cast.vni,
            hops: 0,
            tag,
        };
        let mut put = |offset: usize, bytes: &[u8]| {
            frame[offset..offset + bytes.len()].copy_from_slice(bytes);
        };
        if self.is_v6() {
            put(IPV6_OFFSET + 2, &cast.port.to_be_bytes());
            put(IPV6_OFFSET + 4, &udp_bytes.to_be_bytes());
        } else {
            let checksum = fold_checksum(self.peer.checksum + u32::from(total));
            put(IPV4_OFFSET + 2, &total.to_be_bytes());
            put(IPV4_OFFSET + 10, &checksum.to_be_bytes());
        }
        put(offset, &cast.port.to_be_bytes());
        put(offset + 2, &vxlan::PORT.to_be_bytes());
        put(offset + 4, &udp_bytes.to_be_bytes());
        put(offset + 6, &[0, 0]);
        put(offset + UDP_BYTES, &header.first_word().to_ne_bytes());
        put(offset + UDP_BYTES + 4, &header.last_word().to_ne_bytes());
        frame
    }
}

/// Bytes of a UDP header.
const UDP_BYTES: usize = 8;

/// The sets that a network's policy in force sends to, by those of its leaves' copies that are `wanted`: of
/// each its leaf and its number.
fn sets_of(
    desired: &Desired,
    vni: u32,
    wanted: impl Fn((&Leaf, usize)) -> bool,
) -> BTreeMap<Digest, Members> {
    let mut sets = BTreeMap::new();
    let mut reached = std::collections::HashSet::new();
    let program = desired.programs.get(&vni);
    let mut queue: Vec<Digest> = program
        .into_iter()
        .filter_map(|program| program.root)
        .collect();
    while let Some(digest) = queue.pop() {
        if !reached.insert(digest) {
            continue;
        }
        if let Some(node) = desired.table_nodes.get(&digest) {
            queue.push(node.default);
            queue.extend(node.edges.iter().map(|(_, next)| *next));
        }
        let Some(leaf) = desired.leaves.get(&digest) else {
            continue;
        };
        for (number, copied) in leaf.copies.iter().enumerate() {
            if copied.out == OUT_GROUP
                && wanted((leaf, number))
                && let Some(members) = leaf.members.get(copied.endpoint as usize)
            {
                sets.insert(sets::digest(members), members.clone());
            }
        }
    }
    sets
}
