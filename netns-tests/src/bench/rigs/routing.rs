//! Two nodes that route between the workloads, without a tunnel.

use anyhow::{Context as _, Result};
use rtnetlink::RouteMessageBuilder;
use std::net::Ipv4Addr;

use super::{CLIENT, Carrier, HOST_SIDE, NODES, Rig, SERVER, Site, WIRE};
use crate::bench::case::Case;
use crate::bench::namespace::{Namespace, set};
use crate::bench::system::System;
use crate::bench::veth::index;

pub(super) fn build(case: Case) -> Result<Rig> {
    let site = Site::new(case)?;
    let workloads = [CLIENT, SERVER];
    for own in 0..2 {
        let node = &site.nodes[own];
        node.run(|| {
            set("net/ipv4/ip_forward", "1")?;
            // The workloads believe to be on one link.
            set(&format!("net/ipv4/conf/{HOST_SIDE}/proxy_arp"), "1")
        })?;
        route(node, workloads[own], HOST_SIDE, None)?;
        route(node, workloads[1 - own], WIRE, Some(NODES[1 - own]))?;
    }
    Ok(site.into_rig(System::Routing, case, Carrier::Nothing))
}

fn route(node: &Namespace, to: Ipv4Addr, device: &str, via: Option<Ipv4Addr>) -> Result<()> {
    node.netlink(async |handle| {
        let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(to, 32)
            .output_interface(index(device)?);
        route = match via {
            Some(gateway) => route.gateway(gateway),
            None => route.scope(rtnetlink::packet_route::route::RouteScope::Link),
        };
        handle
            .route()
            .add(route.build())
            .execute()
            .await
            .with_context(|| format!("cannot add the route to {to}"))
    })
}
