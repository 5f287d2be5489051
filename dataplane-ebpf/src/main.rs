//! The TC programs of the virtual switch: packet in, verdict, packet out.
//!
//! ```text
//! endpoint_ingress, on the host-side device of every endpoint
//!     end of a wire? -> the other end, whatever it is
//!     parse -> asked of the node -> anti-spoof -> ARP and ND answered here -> classes -> walk of the flow tables
//!           -> rewrite -> owner -> location -> local: redirect_peer | remote: encap, redirect
//!                      -> group -> a clone to each member here and to each node that has some
//!
//! underlay_ingress, on the underlay device; tunnel_ingress, on the kernel's WireGuard
//!     outer checks -> source lives there -> location -> local: decap, redirect_peer
//!                                                    -> moved: forward to its new node
//!                                      -> group -> decap, a clone to each member here
//! ```
//!
//! foreign_ingress, on the device that takes packets of nodes without an agent out of the tunnel
//!     who sent it -> as endpoint_ingress does
//!
//! checksum_ingress, behind the device where packets of networks with outer checksums go first
//!     sum -> underlay device
//!
//! The node where a packet enters decides once, by the whole policy of one generation; the node
//! that receives it checks and delivers. Nothing here knows of NetKAT: the programs walk tables.
#![no_std]
#![no_main]
// Loads and stores of header fields are written in the target's own assembly; see `frame`.
#![feature(asm_experimental_arch)]
#![allow(
    clippy::needless_borrows_for_generic_args,
    reason = "keys and values handed over whole would be copied on the short stack"
)]

mod audit;
mod checksum;
mod classify;
mod counters;
mod decision;
mod deliver;
mod endpoint;
mod enforce;
mod event;
mod exchange;
mod flow;
mod foreign;
mod fragment;
mod frame;
mod group;
mod limit;
mod lines;
mod maps;
mod neighbour;
mod outbound;
mod probe;
mod punt;
mod quoted;
mod related;
mod rewrite;
mod routes;
mod segment_size;
mod sweep;
mod too_big;
mod translate;
mod tunnel;
mod underlay;
mod wire;

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{TC_ACT_OK, TC_ACT_SHOT},
    macros::classifier,
    programs::{RawTracePointContext, TcContext},
};
use sunwire_dataplane_common::{
    drop_reason::DropReason,
    event::program,
    headers::{ETHER_IPV4, ETHER_IPV6, ETHERNET_BYTES},
};

use crate::frame::Skb;

/// What a program does with a packet that it does not drop.
enum Handled {
    /// A redirect was set up; the kernel carries it out on this return code.
    Redirect(i32),
    /// The question in it was answered, or it needs no answer: it ends here and is no loss.
    Consumed,
    /// Not ours: the kernel's own stack goes on with it.
    Pass,
    /// What became of it is counted and told, as far as it is: the kernel carries this return code
    /// out.
    Told(i32),
}

#[classifier]
fn endpoint_ingress(ctx: TcContext) -> i32 {
    let mut skb = Skb::new(&ctx);
    endpoint_packet(&mut skb)
}

#[classifier]
fn underlay_ingress(ctx: TcContext) -> i32 {
    let mut skb = Skb::new(&ctx);
    underlay_packet(&mut skb)
}

#[classifier]
fn foreign_ingress(ctx: TcContext) -> i32 {
    let mut skb = Skb::new(&ctx);
    let noted = skb.note::<{ frame::note::NETWORK }>();
    event::begin(&mut skb);
    let outcome = foreign::ingress(&mut skb, noted);
    let action = finish(&mut skb, outcome, program::FOREIGN);
    // It has said who sends; queues would take it for a class.
    skb.set_priority(0);
    action
}

/// On a device of the kernel's WireGuard, whose packets begin with their IP header.
#[classifier]
fn tunnel_ingress(ctx: TcContext) -> i32 {
    let mut skb = Skb::new(&ctx);
    // From here on everything is where it is on the underlay.
    let outcome = skb.push(ETHERNET_BYTES as u32);
    event::begin(&mut skb);
    let outcome = outcome.and_then(|()| underlay::decrypted(&mut skb));
    finish(&mut skb, outcome, program::UNDERLAY)
}

/// On the device where packets come out of the one that takes everything off them that the kernel would
/// leave to a card.
#[classifier]
fn checksum_ingress(ctx: TcContext) -> i32 {
    let mut skb = Skb::new(&ctx);
    match checksum::ingress(&mut skb) {
        Ok(action) => action,
        Err(reason) => {
            counters::dropped(&skb, reason);
            TC_ACT_SHOT
        }
    }
}

// The programs that trace are attached to nothing: the agent runs them on packets that somebody
// asks about. They are the same source, so that they can say nothing else than the others do.

#[classifier]
fn endpoint_trace(ctx: TcContext) -> i32 {
    let mut skb = Skb::traced(&ctx);
    endpoint_packet(&mut skb)
}

#[classifier]
fn underlay_trace(ctx: TcContext) -> i32 {
    let mut skb = Skb::traced(&ctx);
    underlay_packet(&mut skb)
}

// The programs below are attached to nothing either: the agent runs them. Raw tracepoints are the one
// kind that the kernel runs on request with packets handled meanwhile. The library's attribute for
// them would return zero whatever the function returns.

#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/sunwire_clock")]
extern "C" fn flow_clock(_: *mut c_void) -> u32 {
    flow::now()
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/sunwire_sweep")]
extern "C" fn flow_sweep(ctx: *mut c_void) -> u32 {
    let ctx = RawTracePointContext::new(ctx);
    sweep::sweep(ctx.arg::<u64>(0))
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/sunwire_select")]
extern "C" fn flow_select(ctx: *mut c_void) -> u32 {
    let ctx = RawTracePointContext::new(ctx);
    sweep::select(sweep::Selection {
        local: ctx.arg::<u64>(0) as u32,
        part: ctx.arg::<u64>(1) as u32,
        parts: ctx.arg::<u64>(2) as u32,
        forgets: ctx.arg::<u64>(3) as u32,
        found: 0,
    })
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/sunwire_exchange")]
extern "C" fn flow_exchange(ctx: *mut c_void) -> u32 {
    exchange::exchange(&RawTracePointContext::new(ctx))
}

#[inline(always)]
fn endpoint_packet(skb: &mut Skb) -> i32 {
    event::begin(skb);
    let outcome = endpoint::ingress(skb);
    finish(skb, outcome, program::ENDPOINT)
}

#[inline(always)]
fn underlay_packet(skb: &mut Skb) -> i32 {
    event::begin(skb);
    match skb.protocol() {
        ETHER_IPV4 => underlay_over::<false>(skb),
        ETHER_IPV6 => underlay_over::<true>(skb),
        _ => TC_ACT_OK,
    }
}

/// A packet over IPv6 or over IPv4.
// A function of its own for each: one after the other they use the same stack.
#[inline(never)]
fn underlay_over<const V6: bool>(skb: &mut Skb) -> i32 {
    let outcome = underlay::ingress::<V6>(skb);
    finish(skb, outcome, program::UNDERLAY)
}

#[inline(always)]
fn finish(skb: &mut Skb, outcome: Result<Handled, DropReason>, program: u32) -> i32 {
    if let Ok(Handled::Told(action)) = outcome {
        return action;
    }
    event::end(skb, &outcome, program);
    match outcome {
        Ok(Handled::Told(action)) => action,
        Ok(Handled::Redirect(action)) => action,
        Ok(Handled::Pass) => TC_ACT_OK,
        Ok(Handled::Consumed) => TC_ACT_SHOT,
        Err(reason) => {
            counters::dropped(skb, reason);
            TC_ACT_SHOT
        }
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // The verifier admits no path to here: every index is masked and every division is by a
    // constant.
    loop {}
}

/// The programs call helpers that are GPL-only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
