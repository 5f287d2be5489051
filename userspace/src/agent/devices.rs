//! What the agent does to workloads' devices once its program is on them.

use super::Agent;
use crate::{
    dataplane::{Attachment, chain},
    netlink,
};

impl Agent {
    /// Sets attached devices up, and then gives their workloads' packets headroom.
    pub(super) async fn set_devices_up(&mut self) {
        let Some(desired) = &self.desired else { return };
        for (number, attachment) in &self.attachments {
            let Attachment::Attached { ifindex } = attachment else {
                continue;
            };
            let Some(endpoint) = desired.endpoints.get(number) else {
                continue;
            };
            let Some(device) = self.around.devices.get_mut(&endpoint.device) else {
                continue;
            };
            if !device.up {
                match netlink::set_up(&self.handle, &endpoint.device, *ifindex).await {
                    Ok(()) => device.up = true,
                    Err(error) => tracing::warn!(error = %chain(&error), "a device stays down"),
                }
            }
            if let Some(bridge) = self.headroom
                && device.master == 0
            {
                match netlink::set_master(&self.handle, &endpoint.device, *ifindex, bridge).await {
                    Ok(()) => device.master = bridge,
                    Err(error) => tracing::warn!(error = %chain(&error), "no headroom"),
                }
            }
        }
    }
}
