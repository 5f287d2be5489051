//! UDP ports of networks beside the usual one: each is held by a device of its own, so that the kernel
//! merges tunnelled packets to it, and so that nobody else has it.

use std::collections::BTreeSet;

use sunwire_dataplane_common::vxlan;

use super::{Agent, TUNNEL_DEVICE};
use crate::{dataplane::chain, netlink};

impl Agent {
    /// Has the ports that networks use held, and no others; returns what went wrong. Nothing is received
    /// on a port that somebody else has.
    pub(super) async fn ready_ports(&mut self) -> Option<String> {
        let networks = self.desired.iter().flat_map(|desired| &desired.networks);
        let wanted: BTreeSet<u16> = networks
            .map(|(_, network)| network.port)
            .filter(|port| *port != vxlan::PORT)
            .collect();
        let mut failed = None;
        for port in &wanted {
            let held = self.ports.get(port);
            if held.is_some_and(|device| self.around.devices.contains_key(device)) {
                continue;
            }
            match netlink::hold_tunnel_port(&self.handle, &device_name(*port), *port).await {
                Ok(device) => {
                    if let Some(foreign) = &mut self.foreign {
                        foreign.remove(port);
                    }
                    self.ports.insert(*port, device);
                }
                Err(error) => {
                    self.ports.remove(port);
                    let error = chain(&error);
                    tracing::error!(%error, "packets to a port are not received");
                    failed = Some(error);
                }
            }
        }
        self.ports.retain(|port, _| wanted.contains(port));
        self.around.ports = self.ports.keys().copied().collect();
        // Of this agent or an earlier one.
        let devices = self.around.devices.iter();
        let unused = devices.filter(|(name, _)| {
            let port = port_of(name);
            port.is_some_and(|port| !wanted.contains(&port))
        });
        for (name, device) in unused {
            if let Err(error) = netlink::remove(&self.handle, name, device.ifindex).await {
                tracing::warn!(error = %chain(&error), "a port that no network uses is still held");
            }
        }
        failed
    }
}

/// Name of our device that holds a port.
fn device_name(port: u16) -> String {
    format!("{TUNNEL_DEVICE}-{port}")
}

/// The port that a device of ours holds.
fn port_of(device: &str) -> Option<u16> {
    let port = device.strip_prefix(TUNNEL_DEVICE)?.strip_prefix('-')?;
    port.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_of_every_port_has_a_name_that_tells_it() {
        for port in [1, 4790, 65_535] {
            let name = device_name(port);
            assert!(name.len() < 16, "{name}: the kernel takes 15 bytes");
            assert_eq!(port_of(&name), Some(port));
        }
        assert_eq!(port_of(TUNNEL_DEVICE), None);
        assert_eq!(port_of("eth0"), None);
    }
}
