//! Probes of tunnels: answered here, and their answers noted. See `sunwire_dataplane_common::probe`.

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_SHOT},
    helpers::bpf_ktime_get_ns,
};
use sunwire_dataplane_common::{
    address::Address,
    bytes::Window,
    drop_reason::DropReason,
    entries::peer,
    event::program,
    probe::{self, ETHER_PROBE, MAGIC, kind},
    vxlan::OUTER_BYTES,
};

use crate::{
    Handled, counters, event,
    frame::Skb,
    maps::{CONTROL, PEER_ADDRESSES, PEERS, PROBES},
    tunnel,
};

const PAYLOAD: usize = OUTER_BYTES + probe::PAYLOAD;

/// A packet for network 0 that came by a tunnel from `address`; `by_kernel`: that of its WireGuard.
#[inline(always)]
pub(crate) fn receive(skb: &mut Skb, address: u32, by_kernel: bool) -> Result<Handled, DropReason> {
    Ok(Handled::Told(handle_probe(
        skb.raw(),
        address,
        skb.is_traced() as u32 | (by_kernel as u32) << 1,
    )))
}

/// What becomes of it, told and counted, as the kernel's return code. A global function, verified once:
/// a packet a second and node comes by here.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn handle_probe(context: *mut __sk_buff, address: u32, how: u32) -> i32 {
    let mut skb = Skb::from_raw(context, how & 1 != 0);
    let outcome = look(&mut skb, address, how & 2 != 0);
    match outcome {
        Ok(action) => action,
        Err(reason) => {
            event::end(&mut skb, &Err(reason), program::UNDERLAY);
            counters::dropped(&skb, reason);
            TC_ACT_SHOT
        }
    }
}

#[inline(always)]
fn look(skb: &mut Skb, address: u32, by_kernel: bool) -> Result<i32, DropReason> {
    let control = CONTROL.get(0).ok_or(DropReason::BadTables)?;
    let plain = !by_kernel && !tunnel::was_encrypted(skb, control);
    // SAFETY: values are plain numbers, replaced whole.
    let node = unsafe { PEER_ADDRESSES.get(Address([address, 0, 0, 0])) };
    let node = *node.ok_or(DropReason::UnknownPeer)?;
    let has_to_be_encrypted = PEERS
        .get(node)
        .is_some_and(|peer| peer.flags & peer::ENCRYPTED != 0);
    if plain && has_to_be_encrypted {
        return Err(DropReason::Unencrypted);
    }
    let frame = skb.window::<{ OUTER_BYTES + probe::INNER_BYTES }>(0);
    let frame = frame.ok_or(DropReason::UnknownNetwork)?;
    if u16::from_be(frame.half::<{ OUTER_BYTES + 12 }>()) != ETHER_PROBE
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
            let action = tunnel::send_back(skb, node, !plain)?;
            let mut payload = skb.window_mut::<8>(PAYLOAD)?;
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
