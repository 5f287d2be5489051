//! Open vSwitch's kernel datapath on each node.
//!
//! The peer at its best: its flows are in the kernel from the beginning, as its daemon would have put them there
//! after the first packets, with everything wildcarded that does not matter, and never expire; so the daemon has
//! nothing to do and is not there. One tunnel, no policy, outer UDP checksums off as Sunwire has them.
//!
//! `ovs-dpctl` puts them there. It is taken from the folder that [`FOLDER`] names, where the packages of a
//! distribution are unpacked, or else as it is installed.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use sunwire_dataplane_common::vxlan;
use sunwire_userspace::netlink;

use super::{Carrier, HOST_SIDE, NODES, Rig, Site};
use crate::bench::case::Case;
use crate::bench::namespace::Namespace;
use crate::bench::system::System;

/// Environment variable that names a folder with `usr/bin/ovs-dpctl` and the libraries that it needs.
const FOLDER: &str = "SUNWIRE_OVS";
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
const DATAPATH: &str = "switch0";
const TUNNEL: &str = "tunnel0";
const VNI: u32 = 10;
const TTL: u8 = 64;
/// Of the datapath: its own device has 0.
const HOST_SIDE_PORT: u32 = 1;
const TUNNEL_PORT: u32 = 2;
/// What packets of the workloads are, as keys of flows say it: a flow is of one EtherType.
const KINDS: [&str; 2] = [
    "eth(),eth_type(0x0800),ipv4(frag=no)",
    "eth(),eth_type(0x0806),arp()",
];

/// Why it cannot be measured here.
pub(super) fn missing() -> Option<String> {
    let error = dpctl(&["dump-dps"]).err()?;
    Some(format!("{error:#}"))
}

pub(super) fn build(case: Case) -> Result<Rig> {
    let site = Site::new(case)?;
    for own in 0..2 {
        switch(&site.nodes[own], own)?;
    }
    let carrier = Carrier::Device(site.nodes[0].clone(), TUNNEL);
    Ok(site.into_rig(System::Ovs, case, carrier))
}

fn switch(node: &Namespace, own: usize) -> Result<()> {
    node.netlink(async |handle| {
        // Its tunnel is told by each flow, as here.
        netlink::hold_tunnel_port(handle, TUNNEL, vxlan::PORT).await?;
        Ok(())
    })?;
    let (here, there) = (NODES[own], NODES[1 - own]);
    node.run(|| {
        dpctl(&["add-dp", DATAPATH])?;
        for (device, port) in [(HOST_SIDE, HOST_SIDE_PORT), (TUNNEL, TUNNEL_PORT)] {
            dpctl(&["add-if", DATAPATH, &format!("{device},port_no={port}")])?;
        }
        for kind in KINDS {
            dpctl(&[
                "add-flow",
                DATAPATH,
                &format!("recirc_id(0),in_port({HOST_SIDE_PORT}),{kind}"),
                &format!(
                    "set(tunnel(tun_id={VNI:#x},dst={there},ttl={TTL},tp_dst={},flags(df|key))),{TUNNEL_PORT}",
                    vxlan::PORT
                ),
            ])?;
            // The kernel wants a TTL in the key.
            let outer = format!("src={there},dst={here},ttl={TTL}");
            let tunnel = format!("tunnel(tun_id={VNI:#x},{outer},flags(+key))");
            dpctl(&[
                "add-flow",
                DATAPATH,
                &format!("recirc_id(0),{tunnel},in_port({TUNNEL_PORT}),{kind}"),
                &HOST_SIDE_PORT.to_string(),
            ])?;
        }
        Ok(())
    })
}

/// Runs `ovs-dpctl` in the calling thread's namespace.
fn dpctl(arguments: &[&str]) -> Result<()> {
    let mut command = match std::env::var_os(FOLDER) {
        Some(folder) => {
            let folder = Path::new(&folder);
            let mut command = Command::new(folder.join("usr/bin/ovs-dpctl"));
            let libraries = std::env::join_paths(LIBRARIES.map(|path| folder.join(path)))
                .with_context(|| format!("{FOLDER} has a colon"))?;
            command.env("LD_LIBRARY_PATH", libraries);
            command
        }
        None => Command::new("ovs-dpctl"),
    };
    let output = command
        .args(arguments)
        .output()
        .context("there is no `ovs-dpctl` (package openvswitch-switch)")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`ovs-dpctl {}` says: {}", arguments.join(" "), said.trim());
    }
    Ok(())
}
