//! What the agent sees around it: devices, routes to other nodes, and who is next on them.

use std::{collections::BTreeMap, net::Ipv4Addr};

use super::Agent;
use crate::{
    dataplane::chain,
    netlink::{self, Route},
};

impl Agent {
    /// Reads what the kernel has, and has next hops resolved that we need.
    pub(super) async fn look_around(&mut self) {
        match netlink::devices(&self.handle).await {
            Ok(devices) => self.around.devices = devices,
            Err(error) => tracing::warn!(error = %chain(&error), "devices are not known"),
        }
        let addresses: Vec<Ipv4Addr> = self
            .desired
            .iter()
            .flat_map(|desired| desired.nodes.values())
            .map(|node| node.address)
            .filter(|address| *address != self.vtep)
            .collect();
        let mut routes = BTreeMap::new();
        for address in addresses {
            match netlink::route(&self.handle, address).await {
                Ok(route) => {
                    routes.insert(address, route);
                    self.manage(route).await;
                }
                Err(error) => tracing::warn!(error = %chain(&error), "a node cannot be reached"),
            }
        }
        self.around.routes = routes;
        match netlink::neighbours(&self.handle).await {
            Ok(neighbours) => self.around.neighbours = neighbours,
            Err(error) => tracing::warn!(error = %chain(&error), "next hops are not known"),
        }
    }

    async fn manage(&mut self, route: Route) {
        if !self.managed.insert((route.ifindex, route.next_hop)) {
            return;
        }
        if let Err(error) = netlink::manage_neighbour(&self.handle, route).await {
            self.managed.remove(&(route.ifindex, route.next_hop));
            tracing::warn!(error = %chain(&error), "a next hop is not kept resolved");
        }
    }
}
