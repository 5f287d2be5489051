//! What the agent does for encryption between its other work: the device that encrypts is kept
//! ready, and keys are announced.

use sunwire_api::agent::{self as wire, agent_message};

use std::collections::BTreeMap;

use super::{Agent, as_bytes, own_number};
use crate::{
    crypt::{keeper::Backend, kernel::Way, slot::SLOTS, supervisor},
    dataplane::chain,
    netlink,
};

impl Agent {
    /// Has the process that encrypts be as it should, its device up and our program on it. What
    /// fails leaves no device, and then nothing is sent that has to be encrypted.
    pub(super) async fn ready_tunnel(&mut self, own: u32) {
        self.around.tunnel = None;
        let Some(desired) = &self.desired else { return };
        self.around.ways.clear();
        let is_ready = self.keeper.prepare(&self.handle, desired, own).await;
        self.ready_kernel_devices();
        if !is_ready {
            self.tunnel = None;
            return;
        }
        if self.keeper.backend() == Some(Backend::Kernel) {
            self.tunnel = None;
            self.around.ways = self.keeper.ways().clone();
            let is_attached = |way: &Way| self.kernel_tunnels.values().any(|at| *at == way.ifindex);
            self.around.ways.retain(|_, way| is_attached(way));
            return;
        }
        let ready = netlink::ready_tunnel_device(&self.handle, supervisor::DEVICE).await;
        let attached = match ready {
            Ok(ifindex) if self.tunnel == Some(ifindex) => Ok(ifindex),
            // Once our maps have a state: see `take_place`.
            Ok(ifindex) if !self.is_in_place => Ok(ifindex),
            Ok(ifindex) => self
                .dataplane
                .attach_tunnel(supervisor::DEVICE)
                .map(|()| ifindex)
                .map_err(|error| chain(&error)),
            Err(error) => Err(chain(&error)),
        };
        if let Err(error) = &attached {
            tracing::error!(%error, "what has to be encrypted is not sent");
        }
        self.tunnel = attached.ok();
        self.around.tunnel = self.tunnel;
    }

    /// Has our program on the kernel's WireGuard devices, and off those that are gone. Nothing is sent
    /// by a device without it: what came back would be lost.
    fn ready_kernel_devices(&mut self) {
        let devices: BTreeMap<usize, u32> = self.keeper.kernel_devices().into_iter().collect();
        for slot in 0..SLOTS {
            let ifindex = devices.get(&slot).copied();
            let before = self.kernel_tunnels.get(&slot).copied();
            if before == ifindex {
                continue;
            }
            let is_replaced = before.is_some();
            let mut outcome = Ok(());
            if is_replaced || (ifindex.is_none() && self.is_in_place) {
                outcome = self.dataplane.detach_kernel_tunnel(slot);
            }
            self.kernel_tunnels.remove(&slot);
            if let Some(ifindex) = ifindex {
                // Once our maps have a state: see `take_place`.
                if self.is_in_place {
                    outcome = outcome.and_then(|()| self.dataplane.attach_kernel_tunnel(slot));
                }
                if outcome.is_ok() {
                    self.kernel_tunnels.insert(slot, ifindex);
                }
            }
            if let Err(error) = outcome {
                tracing::error!(error = %chain(&error), "what has to be encrypted is not sent");
            }
        }
    }

    /// Looks at keys and tunnels, and announces keys that are new.
    pub(super) async fn keep_keys(&mut self) {
        let Some(desired) = &self.desired else { return };
        let Some(own) = own_number(desired, &self.config.node) else {
            return;
        };
        match self.keeper.look(&self.handle, desired, own).await {
            Ok(None) => {}
            Ok(Some(keys)) => {
                let public_keys = as_bytes(&keys);
                self.send(agent_message::Message::Keys(wire::Keys { public_keys }))
                    .await;
            }
            Err(error) => tracing::error!(error = %chain(&error), "the key stays as it is"),
        }
        let Some(desired) = &self.desired else { return };
        let is_other_way = self.keeper.backend() == Some(Backend::Kernel)
            && *self.keeper.ways() != self.around.ways;
        if is_other_way || self.keeper.is_broken(desired, own) {
            self.look_around().await;
            self.apply().await;
        }
    }
}
