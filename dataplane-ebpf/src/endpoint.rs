//! From an endpoint into the switch: who it is, what it may say, and what policy says to it.

use core::ptr;

use sunwire_dataplane_common::{
    address::Address,
    bytes::Window,
    drop_reason::DropReason,
    entries::{Control, EndpointEntry, endpoint as flags},
    event::notes,
    flow::{sign, tcp},
    group::{GroupKey, MAX_CHUNKS},
    headers::{
        ETHER_ARP, ETHER_QINQ, ETHER_VLAN, ETHERNET_BYTES, Family, Fragment, Headers,
        PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP, Parsed,
    },
    punt::link_local,
    tables::{Copied, MAX_COPIES, MAX_VERDICTS, OUT_GROUP, OUT_OWNER, Verdict, set},
};

use crate::{
    Handled, audit, counters,
    decision::{self, DROPPED},
    deliver::{self, Way},
    event, flow, fragment,
    frame::{self, Skb, note},
    group, limit,
    maps::{CONTROL, ENDPOINTS, FOREIGN_ENDPOINTS, VERDICTS},
    neighbour, punt, rewrite, routes, segment_size, too_big, tunnel, wire,
};

/// Marks a copy of a packet that enters again: the verdict was taken, only its slot and the copy's
/// number are left to act on. A workload cannot forge it: the mark is cleared when a packet crosses
/// a network namespace, and slots are bounded.
///
/// ```text
/// 31    28 27    26 25         20 19    16 15     0
/// | 0xa   | number | generation  | chunk  | slot   |
/// ```
///
/// The chunk is the part of a group that the copy goes to; zero for all others.
///
/// A copy waits in the device's backlog, outside of the grace period that protects slots; so one
/// that meets another generation is dropped.
pub(crate) const COPY_MARK: u32 = 0xa << 28;
pub(crate) const COPY_MARK_MASK: u32 = 0xf << 28;
const NUMBER_SHIFT: u32 = notes::COPY_NUMBER_SHIFT;
const NUMBER_MASK: u32 = 0x3;
const GENERATION_SHIFT: u32 = 20;
const GENERATION_MASK: u32 = 0x3f;
const CHUNK_SHIFT: u32 = 16;
const CHUNK_MASK: u32 = MAX_CHUNKS as u32 - 1;
const SLOT_MASK: u32 = MAX_VERDICTS - 1;
const _: () =
    assert!(MAX_VERDICTS == 1 << CHUNK_SHIFT && CHUNK_MASK < 1 << (GENERATION_SHIFT - CHUNK_SHIFT));
const _: () = assert!(MAX_COPIES as u32 - 1 <= NUMBER_MASK);

/// A packet that comes in on the host-side device of an endpoint.
#[inline(always)]
pub(crate) fn ingress(skb: &mut Skb) -> Result<Handled, DropReason> {
    // The verifier of older kernels wants the key of an array look-up on the stack, unchanged.
    let ifindex = skb.ifindex();
    let endpoint = ENDPOINTS.get(ifindex).ok_or(DropReason::NotAttached)?;
    if endpoint.network == 0 {
        return Err(DropReason::NotAttached);
    }
    let control = CONTROL.get(0).ok_or(DropReason::BadTables)?;
    if endpoint.wire != 0 {
        return wire::enter(skb);
    }
    match enter(skb, endpoint, control, |_| {}) {
        Err(reason @ (DropReason::Expired | DropReason::TooBig)) => tell(skb, reason),
        outcome => outcome,
    }
}

/// A packet of an endpoint; `prepare` is called before policy is asked.
#[inline(always)]
pub(crate) fn enter(
    skb: &mut Skb,
    endpoint: &EndpointEntry,
    control: &Control,
    prepare: impl FnOnce(&Headers),
) -> Result<Handled, DropReason> {
    let generation = generation_of(control);
    if skb.is_tagged() {
        return Err(DropReason::Vlan);
    }
    skb.ensure_headers(0);
    let parsed = frame::parsed().ok_or(DropReason::BadTables)?;
    // What answers is called from here: behind `check` it would need more stack than there is.
    match check(skb, parsed, endpoint)? {
        Step::Decide => {
            prepare(&parsed.headers);
            decide(skb, parsed, endpoint, control.node, generation)
        }
        Step::Served(handled) => Ok(handled),
        Step::Arp => neighbour::arp(skb, endpoint),
        Step::Solicitation => neighbour::solicitation(skb, &parsed.headers, endpoint),
        Step::TooBig => too_big::answer(skb, parsed, endpoint, DropReason::TooBig, endpoint.mtu),
    }
}

/// The endpoint behind a device, or the one of this number, at a node without an agent, whose packets
/// come in at the device.
#[inline(always)]
pub(crate) fn sender(ifindex: u32, number: u32) -> Option<&'static EndpointEntry> {
    let endpoint = ENDPOINTS.get(ifindex).filter(|own| own.network != 0);
    if endpoint.is_some() {
        return endpoint;
    }
    // SAFETY: an entry is replaced whole and freed only after a grace period.
    unsafe { FOREIGN_ENDPOINTS.get(number) }
}

/// The generation in force, read once: whatever is decided and remembered of a packet belongs to it.
#[inline(always)]
pub(crate) fn generation_of(control: &Control) -> u32 {
    // SAFETY: a reference is valid; the agent writes the word whole.
    unsafe { ptr::read_volatile(&raw const control.generation) }
}

/// Tells the sender of a packet that does not cross to another network, which the packet's note says.
///
/// # Errors
/// The reason, where nobody is to be told, or has been in vain.
// A function of its own that looks everything up again: the stack is short.
#[inline(never)]
fn tell(skb: &mut Skb, reason: DropReason) -> Result<Handled, DropReason> {
    let ifindex = skb.ifindex();
    let endpoint = ENDPOINTS.get(ifindex).ok_or(reason)?;
    let parsed = frame::parsed().ok_or(reason)?;
    match routes::location(skb.note::<{ note::DESTINATION }>()) {
        Some(location) if location.network != endpoint.network => {
            too_big::answer(skb, parsed, endpoint, reason, location.mtu)
        }
        _ => Err(reason),
    }
}

/// How a packet that passed the checks goes on.
enum Step {
    /// By what policy says.
    Decide,
    /// Nowhere: the node itself was asked.
    Served(Handled),
    /// It is answered as ARP.
    Arp,
    /// It is answered as neighbour discovery.
    Solicitation,
    /// Its sender is told that it is too big.
    TooBig,
}

/// What comes before any policy: who sends, whether it is for the node itself, and whether it fits.
// A function of its own, like `first_copy`: what one of them needs of the stack the other one has
// when it is over.
#[inline(never)]
fn check(skb: &mut Skb, parsed: &mut Parsed, endpoint: &EndpointEntry) -> Result<Step, DropReason> {
    *parsed = Headers::parse(&skb.view(0)).map_err(|_| DropReason::Malformed)?;
    let headers = &parsed.headers;

    if headers.eth_src != endpoint.mac {
        return Err(DropReason::SpoofedSource);
    }
    // Without a subnet the node answers nothing, and addresses are the workloads' own matter.
    let is_link = endpoint.flags & flags::LINK != 0;
    if !is_link
        && parsed.fragment == Fragment::Whole
        && let Some(served) = punt::serve(skb, parsed, endpoint)
    {
        return served.map(Step::Served);
    }
    match headers.family {
        Family::V4 | Family::V6 if is_link => {}
        Family::V4 => {
            if headers.src != endpoint.ipv4 || headers.src == Address::ZERO {
                return Err(DropReason::SpoofedSource);
            }
        }
        Family::V6 => {
            // No part of a datagram is neighbour discovery (RFC 6980, 5).
            let is_whole = parsed.fragment == Fragment::Whole;
            if headers.protocol == PROTOCOL_ICMPV6
                && neighbour::is_control(headers.icmp_type)
                && is_whole
            {
                return Ok(Step::Solicitation);
            }
            if headers.src != endpoint.ipv6 || headers.src == Address::ZERO {
                // What announces itself on the link does so from its link-local address.
                let group = headers.eth_dst.is_group();
                if !(group && is_own_link_local(headers, endpoint)) {
                    let local = headers.src.is_link_local() || headers.src == Address::ZERO;
                    return Err(match local && group {
                        true => DropReason::Multicast,
                        false => DropReason::SpoofedSource,
                    });
                }
            }
        }
        Family::None => match headers.ether_type {
            ETHER_ARP if !is_link => return Ok(Step::Arp),
            ETHER_VLAN | ETHER_QINQ => return Err(DropReason::Vlan),
            _ => {}
        },
    }
    if parsed.fragment != Fragment::Whole {
        fragment::find_ports(skb, parsed, endpoint.network)?;
    }
    if !fits(skb, parsed, endpoint.mtu)? {
        // Nobody is told of what he sent to many (RFC 1122, 3.2.2).
        // Where there is no gateway, nobody is there to tell.
        if is_link || parsed.headers.eth_dst.is_group() {
            return Err(DropReason::TooBig);
        }
        return Ok(Step::TooBig);
    }
    if parsed.headers.tcp_flags & tcp::SYN != 0 {
        segment_size::clamp(skb, parsed, endpoint.mtu)?;
    }
    Ok(Step::Decide)
}

/// Whether a packet comes from the link-local address that its endpoint's MAC address makes.
// A function of its own: addresses take stack.
#[inline(never)]
fn is_own_link_local(headers: &Headers, endpoint: &EndpointEntry) -> bool {
    headers.src == link_local(endpoint.mac)
}

/// Whether a packet, or each segment of a super-packet, is within a network's MTU.
#[inline(always)]
pub(crate) fn fits(skb: &mut Skb, parsed: &Parsed, mtu: u32) -> Result<bool, DropReason> {
    let bytes = match skb.gso_size() {
        0 => skb.len() - ETHERNET_BYTES as u32,
        segment => {
            parsed.transport - ETHERNET_BYTES as u32 + transport_bytes(skb, parsed)? + segment
        }
    };
    Ok(bytes <= mtu)
}

/// Length of the transport header that every segment of a super-packet repeats.
#[inline(always)]
fn transport_bytes(skb: &Skb, parsed: &Parsed) -> Result<u32, DropReason> {
    match parsed.headers.protocol {
        PROTOCOL_TCP => {
            let tcp = skb
                .window::<13>(parsed.transport_offset())
                .ok_or(DropReason::Malformed)?;
            // The data offset is in the upper 4 bits, in words (RFC 9293, 3.1).
            Ok(u32::from(tcp.byte::<12>() >> 4) * 4)
        }
        PROTOCOL_UDP => Ok(8),
        _ => Ok(0),
    }
}

#[inline(always)]
fn decide(
    skb: &mut Skb,
    parsed: &mut Parsed,
    endpoint: &EndpointEntry,
    own_node: u32,
    generation: u32,
) -> Result<Handled, DropReason> {
    let mut way = Way {
        network: endpoint.network,
        from: endpoint.number,
        to: 0,
        own_node,
        tunnel_port: 0,
        source_port: 0,
        keeps_mac: false,
    };
    let copied = match skb.mark() {
        mark if mark & COPY_MARK_MASK == COPY_MARK => {
            skb.set_mark(0);
            Some((further_copy(mark, generation)?, mark))
        }
        _ => match first_copy(skb, &parsed.headers, endpoint, generation, &mut way) {
            AS_IT_IS => None,
            slot => {
                let verdict = dropped_or(slot)?;
                Some((&verdict.copied[0], mark_of(slot, generation)))
            }
        },
    };
    if let Some((copied, mark)) = copied {
        if copied.out == OUT_GROUP {
            to_group(skb, parsed, endpoint, copied, mark)?;
            return Ok(Handled::Consumed);
        }
        way.keeps_mac = copied.set & set::ETH_DST != 0;
        if way.to != 0 {
            // While it still is what its sender can be told about.
            routes::check_way(skb, parsed, &way)?;
        }
        rewrite::apply(skb, parsed, copied, way.source_port)?;
        // The owner of the address would get alone what is addressed to many.
        if parsed.headers.eth_dst.is_group() && copied.out == OUT_OWNER {
            return Err(DropReason::Multicast);
        }
        if way.to == 0 {
            way.to = deliver::number(copied, &parsed.headers, endpoint.network)?;
            way.tunnel_port = tunnel::source_port(skb);
        }
    }
    deliver::send(skb, parsed, &way)
}

/// The mark of copies by a verdict, without their number.
#[inline(always)]
fn mark_of(slot: u32, generation: u32) -> u32 {
    COPY_MARK | (generation & GENERATION_MASK) << GENERATION_SHIFT | (slot & SLOT_MASK)
}

/// Sends a copy to the members of a part of its group; `mark` says which, and another copy enters
/// again for the parts after it.
// A function of its own: the stack is short.
#[inline(never)]
fn to_group(
    skb: &mut Skb,
    parsed: &mut Parsed,
    endpoint: &EndpointEntry,
    copied: &Copied,
    mark: u32,
) -> Result<(), DropReason> {
    let chunk = mark >> CHUNK_SHIFT & CHUNK_MASK;
    let key = GroupKey {
        group: copied.endpoint,
        chunk,
    };
    if group::has_more(&key) && !skb.is_traced() {
        skb.set_mark((mark & !(CHUNK_MASK << CHUNK_SHIFT)) | (chunk + 1) << CHUNK_SHIFT);
        skb.reenter()?;
        skb.set_mark(0);
    }
    rewrite::apply(skb, parsed, copied, 0)?;
    group::send(skb, &parsed.headers, endpoint, key)
}

/// The first copy goes as it is.
const AS_IT_IS: u32 = u32::MAX;

/// Decides, and sends the copies after the first on a way of their own. Returns the slot of the
/// verdict by which the first one is to be written, [`AS_IT_IS`], or a drop reason and [`DROPPED`].
#[inline(never)]
fn first_copy(
    skb: &mut Skb,
    headers: &Headers,
    endpoint: &EndpointEntry,
    generation: u32,
    way: &mut Way,
) -> u32 {
    let known = decision::known(headers, endpoint.network);
    let holds =
        (known.as_ref()).is_some_and(|flow| decision::holds(flow, headers, endpoint, generation));
    // Who finds that the rate does not admit it asks the policy what then.
    let token = match &known {
        Some(flow) if holds && flow.mask & sign::TOKEN != 0 => {
            limit::admits(skb, endpoint.number, endpoint.network, generation)
        }
        _ => true,
    };
    let flow = match known {
        Some(flow) if holds && token => {
            if !skb.is_traced() {
                flow::note_sent(flow, headers);
            }
            event::established(skb);
            counters::labelled(skb, flow.label);
            if !flow.is_plain() {
                counters::named(skb, u32::from(flow.verdict));
            }
            audit::count_remembered(skb, headers, flow);
            flow
        }
        known => {
            let mut flags = 0;
            if !token {
                flags |= decision::WITHOUT_TOKEN;
            }
            if skb.is_traced() {
                flags |= decision::TRACED;
            }
            let outcome = decision::ask(
                skb.raw(),
                generation,
                flags,
                known.map_or(ptr::null_mut(), ptr::from_mut),
            );
            if outcome & DROPPED != 0 {
                return outcome;
            }
            event::new_packet(skb, outcome == decision::FIRST);
            match flow::scratch() {
                Some(flow) => flow,
                None => return DROPPED | DropReason::BadTables as u32,
            }
        }
    };
    way.to = flow.location;
    way.tunnel_port = flow.tunnel_port;
    way.source_port = flow.original_port;
    if flow.is_plain() {
        return AS_IT_IS;
    }
    let slot = u32::from(flow.verdict);
    let Some(verdict) = VERDICTS.get(slot) else {
        return DROPPED | DropReason::BadTables as u32;
    };
    match fan_out(skb, verdict, mark_of(slot, generation)) {
        Ok(()) => slot,
        Err(reason) => DROPPED | reason as u32,
    }
}

/// The verdict in the slot that [`first_copy`] returned, when it is one.
#[inline(always)]
fn dropped_or(outcome: u32) -> Result<&'static Verdict, DropReason> {
    if outcome & DROPPED != 0 {
        // Each of the reasons that it gives, one by one: it is a number of the kernel's.
        return Err(match outcome & !DROPPED {
            code if code == DropReason::NoPolicy as u32 => DropReason::NoPolicy,
            code if code == DropReason::Policy as u32 => DropReason::Policy,
            code if code == DropReason::Revoked as u32 => DropReason::Revoked,
            code if code == DropReason::TranslationTaken as u32 => DropReason::TranslationTaken,
            code if code == DropReason::NotTranslatable as u32 => DropReason::NotTranslatable,
            code if code == DropReason::Resize as u32 => DropReason::Resize,
            _ => DropReason::BadTables,
        });
    }
    VERDICTS.get(outcome).ok_or(DropReason::BadTables)
}

/// What is to be written into a copy after the first, which entered again.
#[inline(always)]
fn further_copy(mark: u32, generation: u32) -> Result<&'static Copied, DropReason> {
    let verdict = VERDICTS
        .get(mark & SLOT_MASK)
        .ok_or(DropReason::BadTables)?;
    if mark >> GENERATION_SHIFT & GENERATION_MASK != generation & GENERATION_MASK {
        return Err(DropReason::Superseded);
    }
    let number = mark >> NUMBER_SHIFT & NUMBER_MASK;
    verdict
        .copied
        .get(number as usize % MAX_COPIES)
        .ok_or(DropReason::BadTables)
}

/// Lets a copy enter again for each copy of the verdict after the first.
#[inline(always)]
fn fan_out(skb: &mut Skb, verdict: &Verdict, mark: u32) -> Result<(), DropReason> {
    if verdict.copies <= 1 {
        return Ok(());
    }
    if skb.is_traced() {
        // Whoever asks runs the program again for each of them.
        skb.set_mark(mark);
        skb.flag(verdict.copies << notes::COPIES_SHIFT);
        return Ok(());
    }
    for number in 1..MAX_COPIES as u32 {
        if number >= verdict.copies {
            break;
        }
        skb.set_mark(mark | number << NUMBER_SHIFT);
        // A copy that cannot be made is a loss of its own, and none of the others'.
        if let Err(reason) = skb.reenter() {
            counters::dropped(skb, reason);
        }
    }
    skb.set_mark(0);
    Ok(())
}
