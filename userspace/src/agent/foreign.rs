//! What the agent does for nodes without an agent: our program is on the device that the kernel takes
//! their packets out of the tunnel with, as long as there are any.

use super::Agent;
use crate::dataplane::chain;

impl Agent {
    /// Has the program attached where it is needed, and nowhere else.
    pub(super) fn ready_foreign(&mut self) {
        let Some(desired) = &self.desired else { return };
        let is_wanted = desired.nodes.values().any(|node| node.foreign);
        if self.foreign == Some(is_wanted) {
            return;
        }
        let changed = if is_wanted {
            self.dataplane.attach_foreign(&self.port_device)
        } else {
            // Perhaps an earlier agent's.
            self.dataplane.detach_foreign()
        };
        match changed {
            Ok(()) => self.foreign = Some(is_wanted),
            Err(error) => {
                tracing::error!(error = %chain(&error), "nodes without an agent are not heard");
            }
        }
    }
}
