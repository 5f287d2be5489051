//! Devices of the rigs: veth pairs between namespaces, and what carries a case's frames.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use nix::net::if_::if_nametoindex;
use rtnetlink::{Handle, LinkUnspec, LinkVeth};

use super::case::Case;
use super::ethtool;
use super::namespace::{Namespace, set};

/// One end of a veth pair.
pub(super) struct End<'a> {
    /// Where it is.
    pub(super) namespace: &'a Namespace,
    /// Its name there.
    pub(super) name: &'a str,
    /// Its hardware address.
    pub(super) mac: [u8; 6],
    /// Its address, with a prefix of 24 bits.
    pub(super) address: Option<Ipv4Addr>,
}

/// Makes a veth pair; both ends are up when this returns.
pub(super) fn connect(a: &End<'_>, b: &End<'_>, mtu: u32) -> Result<()> {
    a.namespace.netlink(async |handle| {
        // Both ends begin in one namespace, so their names may have to differ for a moment.
        let passing = format!("{}-peer", b.name);
        handle
            .link()
            .add(LinkVeth::new(a.name, &passing).build())
            .execute()
            .await
            .with_context(|| format!("cannot make the veth pair of {}", a.name))?;
        let move_out = LinkUnspec::new_with_index(index(&passing)?)
            .name(b.name)
            .setns_by_fd(b.namespace.descriptor())
            .build();
        handle
            .link()
            .set(move_out)
            .execute()
            .await
            .with_context(|| format!("cannot move {} to its namespace", b.name))
    })?;
    for end in [a, b] {
        end.namespace.netlink(async |handle| {
            let message = LinkUnspec::new_with_index(index(end.name)?)
                .address(end.mac.to_vec())
                .mtu(mtu)
                .up()
                .build();
            handle
                .link()
                .set(message)
                .execute()
                .await
                .with_context(|| format!("cannot set up {}", end.name))?;
            if let Some(address) = end.address {
                handle
                    .address()
                    .add(index(end.name)?, address.into(), 24)
                    .execute()
                    .await
                    .with_context(|| format!("cannot give {} the address {address}", end.name))?;
            }
            Ok(())
        })?;
        end.namespace.run(|| {
            // A neighbour that is asked for again in the middle of a sample slows that one alone.
            let key = format!("net/ipv4/neigh/{}/base_reachable_time_ms", end.name);
            set(&key, "3600000")
        })?;
    }
    Ok(())
}

/// As [`connect`], for the pair that stands for the wire between two nodes.
pub(super) fn connect_wire(a: &End<'_>, b: &End<'_>, mtu: u32, case: Case) -> Result<()> {
    connect(a, b, mtu)?;
    if case.is_wire_like() {
        for end in [a, b] {
            end.namespace.run(|| {
                ethtool::like_a_plain_card(end.name)
                    .with_context(|| format!("cannot change the offloads of {}", end.name))
            })?;
        }
    }
    Ok(())
}

/// Sets a device of the handle's namespace up.
pub(super) async fn set_up(handle: &Handle, name: &str) -> Result<()> {
    let message = LinkUnspec::new_with_index(index(name)?).up().build();
    let request = handle.link().set(message);
    request
        .execute()
        .await
        .with_context(|| format!("cannot set up {name}"))
}

/// Index of a device of the calling thread's namespace.
pub(super) fn index(name: &str) -> Result<u32> {
    if_nametoindex(name).with_context(|| format!("there is no device {name}"))
}
