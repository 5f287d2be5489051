//! One flow at a time, for the agent: looked for, had, forgotten. So connections come with an endpoint
//! that moves here.

use aya_ebpf::programs::RawTracePointContext;
use sunwire_dataplane_common::{
    address::Address,
    expiry::exchange,
    flow::{FlowEntry, TupleV4, TupleV6},
};

use crate::{
    flow,
    lines::{self, OF_AGENT},
    maps::{OVERFLOW_V4, OVERFLOW_V6},
};

/// Does with a flow what [`exchange`] says; returns the answer.
#[inline(always)]
pub(crate) fn exchange(ctx: &RawTracePointContext) -> u32 {
    let what: u64 = ctx.arg(0);
    let (Some(wanted), Some(scratch)) = (lines::wanted(OF_AGENT), flow::scratch_of(OF_AGENT))
    else {
        return exchange::NO;
    };
    let is_v4 = what >> 32 == 4;
    let (network_protocol, ports) = halves(ctx.arg(1));
    let address = |low: u64, high: u64| {
        let ((a, b), (c, d)) = (halves(low), halves(high));
        Address([a, b, c, d])
    };
    let (local, remote): (u64, u64) = (ctx.arg(2), ctx.arg(4));
    if is_v4 {
        let tuple = TupleV4 {
            network_protocol,
            local: local as u32,
            remote: remote as u32,
            ports,
        };
        lines::want_v4(wanted, &tuple);
    } else {
        let tuple = TupleV6 {
            network_protocol,
            ports,
            local: address(local, ctx.arg(3)),
            remote: address(remote, ctx.arg(5)),
        };
        lines::want_v6(wanted, &tuple);
    }
    *scratch = FlowEntry::from_words([
        ctx.arg(6),
        ctx.arg(7),
        ctx.arg(8),
        ctx.arg(9),
        ctx.arg(10),
        ctx.arg(11),
    ]);
    match what as u32 {
        exchange::FIND => u32::from(there(is_v4).is_some()),
        exchange::SET => have(is_v4, scratch, false),
        exchange::JOIN => have(is_v4, scratch, true),
        exchange::FORGET => u32::from(flow::forget_wanted(OF_AGENT)),
        exchange::FORGET_OWN => match there(is_v4) {
            Some(there) if there.local == scratch.local => u32::from(flow::forget_wanted(OF_AGENT)),
            _ => exchange::NO,
        },
        _ => exchange::NO,
    }
}

#[inline(always)]
fn halves(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

/// The flow that is wanted.
#[inline(always)]
fn there(is_v4: bool) -> Option<flow::Entry> {
    if let Some(line) = lines::line(lines::flow_slot(OF_AGENT)) {
        return Some(&mut line.entry);
    }
    if !flow::is_overflowing() {
        return None;
    }
    let wanted = lines::wanted(OF_AGENT)?;
    let entry = if is_v4 {
        OVERFLOW_V4.get_ptr_mut(&wanted.tuple_v4)?
    } else {
        OVERFLOW_V6.get_ptr_mut(&wanted.tuple_v6)?
    };
    // SAFETY: as in `flow::find`.
    Some(unsafe { &mut *entry })
}

/// Has the flow as it was handed over, in place of what is there.
#[inline(always)]
fn have(is_v4: bool, entry: flow::Entry, joins: bool) -> u32 {
    if let Some(there) = there(is_v4) {
        if joins && there.local == entry.local {
            // Its packets pass here already.
            entry.sent |= there.sent;
            entry.received |= there.received;
            entry.seen = there.seen;
        }
        if there.is_alias() == entry.is_alias() {
            flow::overwrite(there, entry);
            return exchange::YES;
        }
        // It becomes another line, so that it is never half a flow and half an alias.
        flow::forget_wanted(OF_AGENT);
    }
    match lines::flow_add(OF_AGENT) {
        lines::ADDED => exchange::YES,
        // A packet was first.
        lines::THERE => exchange::YES,
        _ => match flow::remember_beside(OF_AGENT, 0) {
            true => exchange::BESIDE,
            false => exchange::NO,
        },
    }
}
