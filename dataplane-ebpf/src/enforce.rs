//! Where a network does not trust the nodes that packets enter by: the node that a packet is for
//! decides too, before it delivers.
//!
//! ```text
//! entry node    its generation: who gets it, rates, counts, copies --tunnel--> receiver
//! receiver      its own generation: would this packet, entering where its sender lives, have gone to
//!               this endpoint? -> deliver, and remember it in the flow | drop (`receiver_policy`)
//! ```
//!
//! The receiver only judges: it counts under no label, takes no token, tells of nothing that `log` asks
//! for and makes no copies, because the entry node has. It judges what the packet says and who sent it,
//! and nothing that the entry node knows alone. So where that may be either of two things, both count: a
//! connection that the local endpoint answers is up for its sender once the answer has arrived; a rate
//! may have admitted the packet or not; a moving sender is at either node.
//!
//! What entered has to be what arrives, so the compiler refuses policies that rewrite.

use aya_ebpf::bindings::__sk_buff;
use sunwire_dataplane_common::{
    drop_reason::DropReason,
    entries::{LocationEntry, location},
    flow::{Direction, FlowEntry, has_flow, seen},
    flow_key::Connection,
    headers::{Fragment, Headers},
    outbound::is_egress,
    tables::{MAX_COPIES, OUT_ENDPOINT, OUT_GROUP, OUT_OWNER, Reads, Verdict},
};

use crate::{
    classify,
    decision::DROPPED,
    deliver,
    endpoint::generation_of,
    flow, fragment,
    frame::{self, Skb, note},
    maps::{CONTROL, VERDICTS},
    outbound, related, routes,
};

/// Whether what comes for an endpoint from other nodes is decided about here, too.
#[inline(always)]
pub(crate) fn is_on(location: &LocationEntry) -> bool {
    location.flags & location::ENFORCED != 0
}

/// Decides about a packet that came by a tunnel, from endpoint `from` to `to`, which is here; `known` is
/// its flow, where the same endpoints are known to be its ends. Returns the generation that
/// [`remember`] is to be told, or zero.
///
/// # Errors
/// [`DropReason::ReceiverPolicy`], [`DropReason::Revoked`] for a connection that an earlier generation
/// had admitted, [`DropReason::Fragment`] for one without its first part, and
/// [`DropReason::BadTables`].
#[inline(always)]
pub(crate) fn check(
    skb: &mut Skb,
    known: Option<&FlowEntry>,
    network: u32,
    from: u32,
    to: u32,
) -> Result<u32, DropReason> {
    let ends = u64::from(to) << 32 | u64::from(from);
    let outcome = decide(skb, known, network, ends);
    if outcome & REFUSED == 0 {
        return Ok(outcome as u32);
    }
    // Each of the reasons that it gives, one by one: it is a number of the kernel's.
    Err(match outcome as u32 {
        code if code == DropReason::BadTables as u32 => DropReason::BadTables,
        code if code == DropReason::Fragment as u32 => DropReason::Fragment,
        code if code == DropReason::Revoked as u32 => DropReason::Revoked,
        _ => DropReason::ReceiverPolicy,
    })
}

/// Added to the number of a drop reason.
const REFUSED: u64 = 1 << 32;

/// As [`check`]: a generation, or a drop reason and [`REFUSED`].
// A function of its own: networks that trust the entry node have no use for it.
#[inline(never)]
fn decide(skb: &mut Skb, known: Option<&FlowEntry>, network: u32, ends: u64) -> u64 {
    let (from, to) = (ends as u32, (ends >> 32) as u32);
    let (Some(control), Some(parsed)) = (CONTROL.get(0), frame::parsed()) else {
        return REFUSED | DropReason::BadTables as u64;
    };
    let generation = generation_of(control);
    if parsed.fragment != Fragment::Whole && fragment::find_ports(skb, parsed, network).is_err() {
        return REFUSED | DropReason::Fragment as u64;
    }
    let headers = &parsed.headers;
    if known.is_some_and(|flow| flow.is_admitted(headers, generation)) {
        return 0;
    }
    match judge(skb.raw(), generation, network, from, to) {
        FOR_THIS => 0,
        FOR_ALL => u64::from(generation),
        // What had been admitted depended on nothing but the flow, and so does this.
        code if code == DROPPED | DropReason::ReceiverPolicy as u32
            && known.is_some_and(|flow| flow.was_admitted(generation)) =>
        {
            if !skb.is_traced() {
                flow::forget(network, headers, Direction::Received);
            }
            REFUSED | DropReason::Revoked as u64
        }
        code => REFUSED | u64::from(code & !DROPPED),
    }
}

/// Remembers that the policy of a generation admits what comes in by the flow of a packet that was
/// delivered to an endpoint.
#[inline(never)]
pub(crate) fn remember(skb: &Skb, network: u32, to: u32, generation: u32) {
    let Some(parsed) = frame::parsed() else {
        return;
    };
    let headers = &parsed.headers;
    if skb.is_traced() || !has_flow(headers) {
        return;
    }
    if let Some(entry) = flow::find(network, headers, Direction::Received)
        && entry.local == to
        && entry.received & seen::PACKET != 0
    {
        entry.admit(generation);
    }
}

/// Decides about a packet for several that endpoint `from` sent, and which the entry node says is for
/// the group `tagged`, zero where that one is not known here. Returns the group that it is for.
///
/// # Errors
/// [`DropReason::ReceiverPolicy`], and [`DropReason::UnknownGroup`] where it is for several groups and
/// the entry node's is none of them.
#[inline(always)]
pub(crate) fn group(skb: &mut Skb, from: u32, tagged: u32) -> Result<u32, DropReason> {
    let generation = generation_of(CONTROL.get(0).ok_or(DropReason::BadTables)?);
    match judge_group(skb.raw(), generation, from, tagged) {
        0 => Err(DropReason::ReceiverPolicy),
        DROPPED => Err(DropReason::UnknownGroup),
        group => Ok(group),
    }
}

/// What [`judge`] returns of a packet that is admitted.
const FOR_THIS: u32 = 0;
/// The same of one whose flow is.
const FOR_ALL: u32 = 1;

/// What a packet's sender may have seen that is not known here: bits that number the ways to ask.
mod way {
    /// While it moves, the sender was at its other node.
    pub(super) const OTHER_NODE: u32 = 1 << 0;
    /// What the receiver has sent has not arrived there.
    pub(super) const NOT_UP: u32 = 1 << 1;
    /// The rate did not admit it.
    pub(super) const NO_TOKEN: u32 = 1 << 2;
    /// How many ways there are.
    pub(super) const ALL: u32 = 1 << 3;
}

/// What a walk may have looked at that a flow does not say.
const NOT_OF_A_FLOW: u32 =
    Reads::DSCP | Reads::ICMP_TYPE | Reads::ICMP_CODE | Reads::NODE | Reads::ETH_DST;

/// Asks the policy about the packet at hand. Returns [`FOR_THIS`], [`FOR_ALL`], or a drop reason and
/// [`DROPPED`].
///
/// A global function, which the verifier looks at once: see `classify::walk_tables`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge(
    context: *mut __sk_buff,
    generation: u32,
    network: u32,
    from: u32,
    to: u32,
) -> u32 {
    let mut skb = Skb::from_raw(context, false);
    let (Some(parsed), Some(source)) = (frame::parsed(), routes::location(from)) else {
        return DROPPED | DropReason::BadTables as u32;
    };
    let connection = connection(&mut skb, &parsed.headers, network, from, to);
    let mut owner = deliver::owner_of(&parsed.headers, source.network);
    if owner == 0 && is_egress(to) {
        // What nobody owns leaves, by the node that the entry node names.
        owner = to;
    }
    let mut reads = 0;
    let mut label = 0;
    for way in 0..way::ALL {
        let mut node = source.node;
        if way & way::OTHER_NODE != 0 {
            node = source.other;
            if node == 0 || reads & Reads::NODE == 0 {
                continue;
            }
        }
        let mut state = connection;
        if way & way::NOT_UP != 0 {
            state = Connection::New as u32;
            if connection != Connection::Established as u32 || reads & Reads::CONNECTION == 0 {
                continue;
            }
        }
        let token = way & way::NO_TOKEN == 0;
        if !token && reads & Reads::TOKEN == 0 {
            continue;
        }
        let state = classify::with_token(state, token);
        let decided = classify::received(from, node, state, generation);
        reads |= decided.reads.0;
        if decided.slot == classify::NO_POLICY {
            break;
        }
        let Some(verdict) = VERDICTS.get(decided.slot) else {
            return DROPPED | DropReason::BadTables as u32;
        };
        if sends_to(verdict, to, owner) {
            return u32::from(reads & NOT_OF_A_FLOW == 0);
        }
        if label == 0 {
            label = verdict.label + 1;
        }
    }
    skb.set_note::<{ note::LABEL }>(label);
    DROPPED | DropReason::ReceiverPolicy as u32
}

/// As [`judge`], of a packet for several: returns their group, zero where the policy sends it to none,
/// or [`DROPPED`] where it is to several and `tagged` is none of them.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_group(context: *mut __sk_buff, generation: u32, from: u32, tagged: u32) -> u32 {
    let mut skb = Skb::from_raw(context, false);
    let Some(source) = routes::location(from) else {
        return 0;
    };
    let mut reads = 0;
    let mut label = 0;
    for way in 0..way::ALL {
        let mut node = source.node;
        if way & way::OTHER_NODE != 0 {
            node = source.other;
            if node == 0 || reads & Reads::NODE == 0 {
                continue;
            }
        }
        let token = way & way::NO_TOKEN == 0;
        if way & way::NOT_UP != 0 || (!token && reads & Reads::TOKEN == 0) {
            continue;
        }
        let state = classify::with_token(Connection::New as u32, token);
        let decided = classify::received(from, node, state, generation);
        reads |= decided.reads.0;
        let Some(verdict) = VERDICTS.get(decided.slot) else {
            break;
        };
        let group = group_of(verdict, tagged);
        if group != 0 {
            return group;
        }
        if label == 0 {
            label = verdict.label + 1;
        }
    }
    skb.set_note::<{ note::LABEL }>(label);
    0
}

/// The state of the connection that a packet belongs to, as its sender knows it, a [`Connection`].
#[inline(always)]
fn connection(skb: &mut Skb, headers: &Headers, network: u32, from: u32, to: u32) -> u32 {
    if is_egress(to) {
        return outbound::connection(skb, network, from);
    }
    if related::is_error(headers) {
        return match related::is_about(skb, network, from, to) {
            true => Connection::Related as u32,
            false => Connection::New as u32,
        };
    }
    if !has_flow(headers) {
        return Connection::New as u32;
    }
    match flow::find(network, headers, Direction::Received) {
        Some(flow) if flow.local == to => flow.connection_of_received(headers) as u32,
        _ => Connection::New as u32,
    }
}

/// Whether a verdict sends a copy, as it is, to an endpoint; `owner` is who owns the destination.
#[inline(always)]
fn sends_to(verdict: &Verdict, to: u32, owner: u32) -> bool {
    for number in 0..MAX_COPIES {
        if number as u32 >= verdict.copies {
            break;
        }
        let copied = &verdict.copied[number];
        let receiver = match copied.out {
            OUT_OWNER => owner,
            OUT_ENDPOINT => copied.endpoint,
            _ => 0,
        };
        if copied.set == 0 && receiver == to {
            return true;
        }
    }
    false
}

/// The group that a verdict sends a copy to: `tagged` if that is one, or the only one.
#[inline(always)]
fn group_of(verdict: &Verdict, tagged: u32) -> u32 {
    let mut only = 0;
    for number in 0..MAX_COPIES {
        if number as u32 >= verdict.copies {
            break;
        }
        let copied = &verdict.copied[number];
        if copied.set != 0 || copied.out != OUT_GROUP {
            continue;
        }
        if copied.endpoint == tagged {
            return tagged;
        }
        only = match only {
            0 => copied.endpoint,
            _ => DROPPED,
        };
    }
    only
}
