//! What the agent does for nodes without an agent: our program is on the devices that the kernel takes
//! their packets out of the tunnel with, one for each port, as long as there are any.

use std::collections::BTreeMap;

use sunwire_dataplane_common::vxlan;

use super::Agent;
use crate::dataplane::chain;

impl Agent {
    /// Has the program attached where it is needed, and nowhere else.
    pub(super) fn ready_foreign(&mut self) {
        let Some(desired) = &self.desired else { return };
        let mut wanted = BTreeMap::new();
        if desired.nodes.values().any(|node| node.foreign) {
            wanted.insert(vxlan::PORT, self.port_device.clone());
            wanted.extend(self.ports.clone());
        }
        if self.foreign.as_ref() == Some(&wanted) {
            return;
        }
        // Perhaps an earlier agent's.
        let mut failed = None;
        for port in self.dataplane.foreign_ports() {
            if !wanted.contains_key(&port) {
                failed = self.dataplane.detach_foreign(port).err().or(failed);
            }
        }
        for (port, device) in &wanted {
            let known = self.foreign.as_ref().and_then(|known| known.get(port));
            if known != Some(device) {
                failed = self
                    .dataplane
                    .attach_foreign(*port, device)
                    .err()
                    .or(failed);
            }
        }
        match failed {
            None => self.foreign = Some(wanted),
            Some(error) => {
                tracing::error!(error = %chain(&error), "nodes without an agent are not heard");
            }
        }
    }
}
