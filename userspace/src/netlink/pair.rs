//! Two devices that are each other's ends, through which packets go so that nothing is left to a card.

use netlink_packet_route::link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute};
use rtnetlink::{Handle, LinkUnspec, LinkVeth};

use super::{NetlinkError, devices, ethtool, failed};

/// The largest that such devices take: what fits the way out fits here.
const MTU: u32 = 65_535;

/// Makes sure that there is a pair of devices, of which what goes into the first comes out of the second
/// as it will be on a wire: split, and with its checksums. Returns the first one's ifindex.
///
/// # Errors
/// When netlink fails, or the kernel keeps an offload on.
pub async fn ready_plain_pair(
    handle: &Handle,
    first: &str,
    second: &str,
) -> Result<u32, NetlinkError> {
    let found = devices(handle).await?;
    if !found.contains_key(first) || !found.contains_key(second) {
        let added = handle.link().add(LinkVeth::new(first, second).build());
        let added = added.execute().await;
        added.map_err(failed(format!("make the devices {first} and {second}")))?;
    }
    take_offloads_off(first)?;
    let found = devices(handle).await?;
    let find = |name: &str| {
        let device = found.get(name).cloned();
        device.ok_or_else(|| NetlinkError::NoDevice(name.to_owned()))
    };
    for name in [second, first] {
        let device = find(name)?;
        if device.up && device.mtu == MTU {
            continue;
        }
        // Neither is to say anything of itself. Where the kernel has no IPv6, neither would.
        let addresses = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        let quiet = LinkUnspec::new_with_index(device.ifindex).append_extra_attribute(
            LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![addresses])]),
        );
        if let Err(error) = handle.link().set(quiet.build()).execute().await {
            tracing::debug!(%error, name, "no way to keep IPv6 off a device");
        }
        let message = LinkUnspec::new_with_index(device.ifindex).mtu(MTU).up();
        let set = handle.link().set(message.build()).execute().await;
        set.map_err(failed(format!("set up device {name}")))?;
    }
    Ok(find(first)?.ifindex)
}

/// Has the kernel finish checksums and split super-packets before a device gets them.
///
/// # Errors
/// When the kernel keeps an offload on.
pub fn take_offloads_off(device: &str) -> Result<(), NetlinkError> {
    ethtool::take_offloads_off(device).map_err(|source| NetlinkError::Offloads {
        device: device.to_owned(),
        source,
    })
}
