//! Probes of tunnels: answered here, and their answers noted. See `sunwire_dataplane_common::probe`.

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_SHOT},
    helpers::bpf_ktime_get_ns,
};
use sunwire_dataplane_common::{
    bytes::Window,
    drop_reason::DropReason,
    entries::peer,
    event::program,
    probe::{self, ETHER_PROBE, MAGIC, kind},
};

use crate::{
    Handled, counters, event,
    frame::Skb,
    maps::{PEER_ADDRESSES, PEERS, PROBES},
    tunnel::{self, outer_bytes},
    underlay::outer_source,
};

/// Offset of the payload in the inner frame.
const PAYLOAD: usize = probe::PAYLOAD;

/// A packet for network 0 that came by a tunnel; `plain` if it was not encrypted.
#[inline(always)]
pub(crate) fn receive<const V6: bool>(skb: &mut Skb, plain: bool) -> Result<Handled, DropReason> {
    let (traced, plain) = (skb.is_traced() as u32, plain as u32);
    Ok(Handled::Told(if V6 {
        handle_probe_v6(skb.raw(), traced, plain)
    } else {
        handle_probe(skb.raw(), traced, plain)
    }))
}

// Global functions, verified once: a packet a second and node comes by here.

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn handle_probe(context: *mut __sk_buff, traced: u32, plain: u32) -> i32 {
    handle::<false>(context, traced != 0, plain != 0)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn handle_probe_v6(context: *mut __sk_buff, traced: u32, plain: u32) -> i32 {
    handle::<true>(context, traced != 0, plain != 0)
}

/// What becomes of it, told and counted, as the kernel's return code.
#[inline(always)]
fn handle<const V6: bool>(context: *mut __sk_buff, traced: bool, plain: bool) -> i32 {
    let mut skb = Skb::from_raw(context, traced);
    match look::<V6>(&mut skb, plain) {
        Ok(action) => action,
        Err(reason) => {
            event::end(&mut skb, &Err(reason), program::UNDERLAY);
            counters::dropped(&skb, reason);
            TC_ACT_SHOT
        }
    }
}

#[inline(always)]
fn look<const V6: bool>(skb: &mut Skb, plain: bool) -> Result<i32, DropReason> {
    let address = outer_source::<V6>(skb);
    // SAFETY: values are plain numbers, replaced whole.
    let node = unsafe { PEER_ADDRESSES.get(address) };
    let node = *node.ok_or(DropReason::UnknownPeer)?;
    let has_to_be_encrypted = PEERS
        .get(node)
        .is_some_and(|peer| peer.flags & peer::ENCRYPTED != 0);
    if plain && has_to_be_encrypted {
        return Err(DropReason::Unencrypted);
    }
    let frame = skb.window::<{ probe::INNER_BYTES }>(outer_bytes(V6));
    let frame = frame.ok_or(DropReason::UnknownNetwork)?;
    if u16::from_be(frame.half::<12>()) != ETHER_PROBE
        || frame.word::<PAYLOAD>() != u32::from_ne_bytes(MAGIC)
    {
        return Err(DropReason::UnknownNetwork);
    }
    let asks = u32::from_be(frame.word::<{ PAYLOAD + 4 }>());
    let slot = u32::from_be(frame.word::<{ PAYLOAD + 8 }>());
    let token = u64::from(frame.word::<{ PAYLOAD + 16 }>())
        | u64::from(frame.word::<{ PAYLOAD + 20 }>()) << 32;
    match asks {
        kind::ASK => {
            let action = tunnel::send_back::<V6>(skb, node, !plain)?;
            let mut payload = skb.window_mut::<8>(outer_bytes(V6) + PAYLOAD)?;
            payload.set_word::<4>(kind::ANSWER.to_be());
            Ok(action)
        }
        kind::ANSWER => {
            if !skb.is_traced()
                && let Some(waiting) = PROBES.get_ptr_mut(probe::place(node, slot))
            {
                // SAFETY: the pointer is valid; the agent writes a slot only before it asks, and
                // whichever of two equal answers comes first is as good as the other.
                unsafe {
                    if (*waiting).token == token && (*waiting).answered_ns == 0 {
                        (*waiting).answered_ns = bpf_ktime_get_ns();
                    }
                }
            }
            Ok(TC_ACT_SHOT)
        }
        _ => Err(DropReason::UnknownNetwork),
    }
}
