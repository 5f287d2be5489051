//! Fragments after the first have no ports: they are remembered from the first one.

use sunwire_dataplane_common::{
    drop_reason::DropReason,
    fragment::{FragmentKey, FragmentPorts},
    headers::{Fragment, Parsed},
};

use crate::{frame::Skb, maps::FRAGMENTS};

/// Gives a fragment the ports of its datagram.
///
/// # Errors
/// [`DropReason::Fragment`] when the first fragment was not seen.
#[inline(never)]
pub(crate) fn find_ports(skb: &Skb, parsed: &mut Parsed, network: u32) -> Result<(), DropReason> {
    let key = FragmentKey::new(network, parsed);
    if parsed.fragment == Fragment::First {
        let ports = FragmentPorts::new(&parsed.headers);
        if !skb.is_traced() {
            // Full is impossible: the map forgets the oldest.
            let _ = FRAGMENTS.insert(&key, &ports, 0);
        }
        return Ok(());
    }
    // SAFETY: a value is replaced whole; at worst ports of another datagram are read in the moment
    // that the map forgets this one, and then the policy decides by those.
    let ports = unsafe { FRAGMENTS.get(&key) }.ok_or(DropReason::Fragment)?;
    ports.give(&mut parsed.headers);
    Ok(())
}
