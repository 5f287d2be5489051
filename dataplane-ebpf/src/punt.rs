//! What a workload asks of the node itself: echo is answered here, the rest is handed to the agent.
//!
//! ```text
//! headers -> asked? -> network -> wanted? -> echo: swapped, back out of the device
//!                                         -> else: bucket -> scratch -> ring buffer PUNTS
//! ```

use aya_ebpf::helpers::bpf_ktime_get_ns;
use sunwire_dataplane_common::{
    address::Address,
    drop_reason::DropReason,
    entries::{EndpointEntry, NetworkEntry},
    headers::{ETHERNET_BYTES, Family, Headers, Parsed},
    punt::{self, Bucket, Kind, PuntHeader},
};

use crate::{
    Handled, counters,
    frame::Skb,
    maps::{NETWORKS, PUNT_BUCKETS, PUNT_SCRATCH, PUNTS},
};

/// Answers or hands over a packet that asks something of the node; `None` for every other packet.
#[inline(always)]
pub(crate) fn serve(
    skb: &mut Skb,
    parsed: &Parsed,
    endpoint: &EndpointEntry,
) -> Option<Result<Handled, DropReason>> {
    let kind = punt::asked(&parsed.headers)?;
    // SAFETY: a network is replaced whole and freed only after a grace period.
    let network = unsafe { NETWORKS.get(endpoint.network) }?;
    if !is_wanted(kind, &parsed.headers, endpoint, network) {
        return None;
    }
    counters::asked(skb, kind);
    Some(match kind {
        Kind::Echo => echo(skb, parsed, endpoint, network),
        _ => hand_over(skb, endpoint, kind).map(|()| Handled::Consumed),
    })
}

/// As [`punt::wanted`].
// A function of its own: addresses take stack.
#[inline(never)]
fn is_wanted(
    kind: Kind,
    headers: &Headers,
    endpoint: &EndpointEntry,
    network: &NetworkEntry,
) -> bool {
    punt::wanted(kind, headers, endpoint, network)
}

/// Hands the frame to the agent.
// A function of its own, like `echo`: rare, and its stack is then not the common path's.
#[inline(never)]
pub(crate) fn hand_over(
    skb: &mut Skb,
    endpoint: &EndpointEntry,
    kind: Kind,
) -> Result<(), DropReason> {
    if skb.len() > punt::FRAME_BYTES as u32 {
        return Err(DropReason::TooBig);
    }
    if skb.is_traced() {
        return Ok(());
    }
    let ifindex = skb.ifindex();
    let bucket = PUNT_BUCKETS
        .get_ptr_mut(ifindex)
        .ok_or(DropReason::NotAttached)?;
    // SAFETY: no arguments.
    let now_ms = (unsafe { bpf_ktime_get_ns() } / 1_000_000) as u32;
    // SAFETY: the slot is there; it is one aligned word, so that programs on other processors read
    // and write it whole.
    unsafe {
        let taken = Bucket(*bucket).take(now_ms);
        *bucket = taken.ok_or(DropReason::PuntLimited)?.0;
    }
    let record = PUNT_SCRATCH.get_ptr_mut(0).ok_or(DropReason::PuntFull)?;
    let header = PuntHeader {
        ifindex,
        endpoint: endpoint.number,
        network: endpoint.network,
        kind: kind as u32,
        length: skb.len(),
    };
    skb.output(&PUNTS, record, header)
}

/// Turns an echo request to the gateway into its reply, and sends it back.
///
/// Swapping addresses changes no checksum; the type is one more or eight less, which the checksum
/// of the message is corrected by.
#[inline(never)]
fn echo(
    skb: &mut Skb,
    parsed: &Parsed,
    endpoint: &EndpointEntry,
    network: &NetworkEntry,
) -> Result<Handled, DropReason> {
    if skb.len() > endpoint.mtu + ETHERNET_BYTES as u32 {
        return Err(DropReason::TooBig);
    }
    let headers = &parsed.headers;
    let at = parsed.transport as usize;
    let reply = match headers.family {
        Family::V4 => 0,
        _ => punt::ECHO_REQUEST_V6 + 1,
    };
    let before = u16::from_ne_bytes([headers.icmp_type, headers.icmp_code]);
    let after = u16::from_ne_bytes([reply, headers.icmp_code]);
    skb.correct_transport_checksum(at + 2, u32::from(before), u32::from(after), 2)?;
    skb.store(at, &[reply])?;
    match headers.family {
        Family::V4 => {
            let swapped = [headers.dst.0[0], headers.src.0[0]];
            skb.store_words(ETHERNET_BYTES + 12, &swapped)?;
        }
        _ => {
            store_v6(skb, headers)?;
        }
    }
    skb.store(0, &endpoint.mac.to_bytes())?;
    skb.store(6, &network.gateway_mac.to_bytes())?;
    Ok(Handled::Redirect(skb.redirect(skb.ifindex())))
}

#[inline(always)]
fn store_v6(skb: &mut Skb, headers: &Headers) -> Result<(), DropReason> {
    let (src, dst): (&Address, &Address) = (&headers.src, &headers.dst);
    skb.store_words(ETHERNET_BYTES + 8, &dst.0)?;
    skb.store_words(ETHERNET_BYTES + 24, &src.0)
}
