//! What the policy says of a packet that an endpoint sends: remembered of its flow, or asked.

use aya_ebpf::bindings::__sk_buff;
use sunwire_dataplane_common::{
    drop_reason::DropReason,
    entries::{Control, EndpointEntry},
    flow::{Direction, FlowEntry, events, has_flow, mask, seen, sign, signature},
    flow_key::{Connection, bucket, state},
    headers::Headers,
    outbound::{is_egress, leaving},
    tables::{Reads, annotation, set},
};

use crate::{
    audit, classify, counters, endpoint, event, flow,
    frame::{self, Skb},
    limit,
    maps::{CONTROL, VERDICTS},
    related, translate, tunnel,
};

/// What is known of a packet's flow.
#[inline(always)]
pub(crate) fn known(headers: &Headers, network: u32) -> Option<flow::Entry> {
    if !has_flow(headers) {
        return None;
    }
    flow::find(network, headers, Direction::Sent)
}

/// Whether what is remembered of a flow decides about a packet, too.
#[inline(always)]
pub(crate) fn holds(
    flow: &FlowEntry,
    headers: &Headers,
    endpoint: &EndpointEntry,
    generation: u32,
) -> bool {
    let differs = flow.signature ^ signature(headers, flow.connection(headers));
    flow.generation == generation
        && flow.local == endpoint.number
        && differs & flow.mask == 0
        && !flow.begins_anew(headers)
}

/// What is set before the policy for a packet of a flow.
#[inline(always)]
pub(crate) fn state_of(flow: &FlowEntry, headers: &Headers) -> u32 {
    let connection = flow.connection(headers);
    let bucket = match connection {
        Connection::Established => match flow.kept_bucket() {
            // What leaves the cloud has no back end.
            bucket if leaving::egress(bucket) != 0 => 0,
            bucket => bucket,
        },
        _ => 0,
    };
    classify::preset(connection, bucket)
}

/// The state of the connection in what is set before the policy.
#[inline(always)]
fn connection_of(state: u32) -> u32 {
    state >> state::CONNECTION_SHIFT & ((1 << state::CONNECTION_WIDTH) - 1)
}

/// The rate is known not to admit the packet: a flag of [`ask`].
pub(crate) const WITHOUT_TOKEN: u32 = 1 << 0;
/// The packet is only asked about: a flag of [`ask`].
pub(crate) const TRACED: u32 = 1 << 1;

/// What [`ask`] returns of a packet that is the first of its flow, and is admitted.
pub(crate) const FIRST: u32 = 1;
/// What it returns of another one that is admitted.
const ANOTHER: u32 = 0;
/// Added to the number of a drop reason.
pub(crate) const DROPPED: u32 = 1 << 31;

/// Asks the policy of a generation about the packet at hand, counts the verdict under its label, and
/// remembers it, in `known` if that is what is
/// there of the flow (null if nothing is); then the scratch entry says how the packet goes on. Returns [`FIRST`], another small
/// number, or a drop reason and [`DROPPED`].
///
/// A global function, which the verifier looks at once, and not anew for every way that leads here.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ask(
    context: *mut __sk_buff,
    generation: u32,
    flags: u32,
    known: *mut FlowEntry,
) -> u32 {
    let mut skb = Skb::from_raw(context, flags & TRACED != 0);
    let sender = endpoint::sender(skb.ifindex(), skb.priority());
    let (Some(parsed), Some(endpoint)) = (frame::parsed(), sender) else {
        return DROPPED | DropReason::BadTables as u32;
    };
    let Some(control) = CONTROL.get(0) else {
        return DROPPED | DropReason::BadTables as u32;
    };
    let token = flags & WITHOUT_TOKEN == 0;
    // SAFETY: null, or of the caller, who got it by `flow::find` and uses it no more.
    let known = unsafe { known.as_mut() };
    match decide(
        &mut skb,
        &parsed.headers,
        endpoint,
        (control, generation),
        known,
        token,
    ) {
        Ok(true) => FIRST,
        Ok(false) => ANOTHER,
        Err(reason) => DROPPED | reason as u32,
    }
}

/// Whether the packet is the first of its flow, when it is admitted.
#[inline(always)]
fn decide(
    skb: &mut Skb,
    headers: &Headers,
    endpoint: &EndpointEntry,
    (control, generation): (&Control, u32),
    known: Option<&mut FlowEntry>,
    mut token: bool,
) -> Result<bool, DropReason> {
    let network = endpoint.network;
    let is_own = known
        .as_ref()
        .is_some_and(|flow| flow.local == endpoint.number);
    // Who sent what is answered, where the address does not tell.
    let mut asker = 0;
    let mut state = classify::preset(Connection::New, 0);
    match &known {
        Some(flow) if is_own => {
            if flow.is_alias() {
                // What comes back would be taken for an answer to what was translated.
                return Err(DropReason::TranslationTaken);
            }
            state = state_of(flow, headers);
            if flow.received & seen::PACKET != 0 {
                asker = flow.remote;
            }
            let egress = leaving::egress(flow.kept_bucket());
            if egress != 0 && !flow.begins_anew(headers) {
                asker = egress;
            }
        }
        None if related::is_error(headers) => {
            let related = related::related(skb, network, endpoint.number);
            if related & related::RELATED != 0 {
                state = classify::preset(Connection::Related, 0);
                asker = related & !related::RELATED;
            }
        }
        _ => {}
    }
    let who = (skb.ifindex(), endpoint.number);
    let mut decided = classify::in_force(who, classify::with_token(state, token), generation);
    if token
        && decided.reads.0 & Reads::TOKEN != 0
        && !limit::admits(skb, endpoint.number, network, generation)
    {
        token = false;
        decided = classify::in_force(who, state, generation);
    }
    audit::count(skb, control.staged, state, decided.slot);
    if decided.slot == classify::NO_POLICY {
        return Err(DropReason::NoPolicy);
    }
    let verdict = VERDICTS.get(decided.slot).ok_or(DropReason::BadTables)?;
    counters::labelled(skb, verdict.label);
    if verdict.counts[0] != 0 {
        counters::named(skb, decided.slot);
    }
    if verdict.annotations & annotation::LOG != 0 && (known.is_none() || verdict.copies == 0) {
        event::logged(skb, verdict.annotations);
    }
    if verdict.copies == 0 {
        if let Some(flow) = known
            && is_own
            && flow.sent & seen::PACKET != 0
            && flow.generation != generation
            && token
        {
            if !skb.is_traced() {
                flow::forget(network, headers, Direction::Sent);
            }
            return Err(DropReason::Revoked);
        }
        return Err(DropReason::Policy);
    }
    let copied = &verdict.copied[0];
    // Nowhere: said when the copy is made, after what else may be wrong with it.
    let location = translate::location(network, decided.slot, asker);
    let mut source_port = translate::KEPT;
    if copied.set & set::TRANSLATE != 0 && has_flow(headers) {
        if endpoint.node != control.node {
            // Replies go to its node without coming by here.
            return Err(DropReason::NotTranslatable);
        }
        let mut flags = 0;
        if known.is_some() {
            flags |= translate::IS_KNOWN;
        }
        if skb.is_traced() {
            flags |= translate::IS_TRACED;
        }
        source_port = translate::alias(network, endpoint.number, decided.slot, flags);
        if source_port == translate::TAKEN {
            return Err(DropReason::TranslationTaken);
        }
    }
    let mask = mask(decided.reads);
    let is_plain =
        verdict.copies == 1 && copied.set == 0 && verdict.counts[0] == 0 && location != 0;
    let is_plain = is_plain && !headers.eth_dst.is_group();
    let fresh = flow::scratch().ok_or(DropReason::BadTables)?;
    // Field by field: a whole value would be written by a loop over its bytes.
    fresh.generation = generation;
    fresh.signature =
        signature(headers, Connection::New) | connection_of(state) << sign::CONNECTION_SHIFT;
    fresh.mask = mask.unwrap_or(0) | if is_plain { sign::PLAIN } else { 0 };
    fresh.verdict = decided.slot as u16;
    fresh.label = verdict.label;
    fresh.location = location;
    fresh.local = endpoint.number;
    fresh.remote = 0;
    fresh.seen = flow::now();
    fresh.tunnel_port = tunnel::source_port(skb);
    fresh.tag = 0;
    fresh.sent = events(headers);
    fresh.received = 0;
    fresh.original_port = source_port as u16;
    fresh.bucket = 0;
    if is_egress(location) {
        fresh.bucket = leaving::bucket(location);
    } else if copied.set & set::TRANSLATE != 0 {
        fresh.bucket = bucket::kept(location).unwrap_or(0);
    }
    if !has_flow(headers) || (location == 0 && verdict.copies == 1) {
        return Ok(false);
    }
    if skb.is_traced() {
        return Ok(known.is_none());
    }
    if mask.is_none() || !token {
        // For this packet only.
        fresh.generation = 0;
    }
    match known {
        Some(flow) if is_own => {
            if token {
                flow::remember_verdict(flow, headers, fresh);
            } else {
                flow::note_sent(flow, headers);
            }
            Ok(false)
        }
        // Another endpoint of this node got copies of packets to this one's address.
        Some(_) => Ok(false),
        None => {
            flow::remember(network, headers, Direction::Sent);
            Ok(true)
        }
    }
}
