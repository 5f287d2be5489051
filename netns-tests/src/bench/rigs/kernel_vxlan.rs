//! A bridge and a VXLAN device on each node, with the other node as the one fixed remote.
//!
//! With a firewall, nftables decides on both nodes what the bridges forward.
//!
//! The peer at its best: no learning on the tunnel, outer UDP checksums off as Sunwire has them, no
//! netfilter on the bridge where there is no firewall.

use anyhow::{Context as _, Result};
use rtnetlink::{LinkBridge, LinkUnspec, LinkVxlan};
use sunwire_dataplane_common::vxlan;

use super::nft::Firewall;
use super::{Carrier, HOST_SIDE, NODES, Rig, Site, WIRE};
use crate::bench::case::Case;
use crate::bench::namespace::Namespace;
use crate::bench::system::System;
use crate::bench::veth::index;

const BRIDGE: &str = "bridge0";
const TUNNEL: &str = "vxlan10";
const VNI: u32 = 10;

pub(super) fn build(case: Case) -> Result<Rig> {
    let site = bridges(case)?;
    let carrier = Carrier::Device(site.nodes[0].clone(), TUNNEL);
    Ok(site.into_rig(System::KernelVxlan, case, carrier))
}

/// The same with the rules of [`rules`](super::rules) in nftables.
pub(super) fn build_with_firewall(case: Case) -> Result<Rig> {
    let site = bridges(case)?;
    let start = |own: usize| Firewall::start(&site.nodes[own]);
    let carrier = Carrier::Firewall([start(0)?, start(1)?]);
    Ok(site.into_rig(System::KernelVxlanNft, case, carrier))
}

fn bridges(case: Case) -> Result<Site> {
    let site = Site::new(case)?;
    for own in 0..2 {
        bridge(&site.nodes[own], own, case)?;
    }
    Ok(site)
}

fn bridge(node: &Namespace, own: usize, case: Case) -> Result<()> {
    node.netlink(async |handle| {
        let tunnel = LinkVxlan::new(TUNNEL, VNI)
            .dev(index(WIRE)?)
            .local(NODES[own])
            .remote(NODES[1 - own])
            .port(vxlan::PORT)
            .learning(false)
            .udp_csum(false)
            .mtu(case.inner_mtu())
            .up()
            .build();
        handle
            .link()
            .add(tunnel)
            .execute()
            .await
            .context("cannot make the VXLAN device")?;
        let bridge = LinkBridge::new(BRIDGE).mtu(case.inner_mtu()).up().build();
        handle
            .link()
            .add(bridge)
            .execute()
            .await
            .context("cannot make the bridge")?;
        for port in [TUNNEL, HOST_SIDE] {
            let message = LinkUnspec::new_with_index(index(port)?)
                .controller(index(BRIDGE)?)
                .build();
            handle
                .link()
                .set(message)
                .execute()
                .await
                .with_context(|| format!("cannot make {port} a port of the bridge"))?;
        }
        Ok(())
    })
}
