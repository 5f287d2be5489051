//! Where outer UDP checksums are written: packets of networks that have them go through a pair of devices,
//! at whose far end the program for it is. The pair is there as long as a network needs it.

use super::Agent;
use crate::{dataplane::chain, netlink};

/// Packets go into the first, and come out of the second.
const DEVICE: &str = "sw-checksum";
const FAR_END: &str = "sw-checksum-out";

impl Agent {
    /// Has the devices be there if a network needs them; returns what went wrong. Packets of such networks
    /// are dropped meanwhile: whoever gets them drops those without checksum, too.
    pub(super) async fn ready_checksum(&mut self) -> Option<String> {
        if !self.wants_checksums() {
            return None;
        }
        match self.make_checksum_device().await {
            Ok(ifindex) => {
                self.around.checksum = Some(ifindex);
                None
            }
            Err(error) => {
                tracing::error!(%error, "packets that have outer checksums are not sent");
                self.around.checksum = None;
                Some(error)
            }
        }
    }

    async fn make_checksum_device(&mut self) -> Result<u32, String> {
        if let Some(there) = self.around.devices.get(DEVICE)
            && there.up
            && self.around.checksum == Some(there.ifindex)
        {
            // Whatever somebody has turned on.
            netlink::take_offloads_off(DEVICE).map_err(|error| chain(&error))?;
            return Ok(there.ifindex);
        }
        let ready = netlink::ready_plain_pair(&self.handle, DEVICE, FAR_END).await;
        let ifindex = ready.map_err(|error| chain(&error))?;
        let attached = self.dataplane.attach_checksum(FAR_END);
        attached.map_err(|error| chain(&error))?;
        Ok(ifindex)
    }

    /// Removes the devices, of this agent or an earlier one, once no packets are sent to them.
    pub(super) async fn retire_checksum(&mut self) {
        if self.desired.is_none() || self.wants_checksums() {
            return;
        }
        let Some(device) = self.around.devices.remove(DEVICE) else {
            return;
        };
        self.around.checksum = None;
        if let Err(error) = self.dataplane.detach_checksum() {
            tracing::warn!(error = %chain(&error), "a program that nobody needs stays attached");
        }
        if let Err(error) = netlink::remove(&self.handle, DEVICE, device.ifindex).await {
            tracing::warn!(error = %chain(&error), "a device that nobody needs stays");
        }
    }

    fn wants_checksums(&self) -> bool {
        let networks = self.desired.iter().flat_map(|desired| &desired.networks);
        let mut networks = networks.map(|(_, network)| network);
        networks.any(|network| network.checksum && !network.is_encrypted())
    }
}
