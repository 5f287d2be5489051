//! What the agent does for encryption between its other work: the device that encrypts is kept
//! ready, and keys are announced.

use sunwire_api::agent::{self as wire, agent_message};

use super::{Agent, as_bytes, own_number};
use crate::{crypt::supervisor, dataplane::chain, netlink};

impl Agent {
    /// Has the process that encrypts be as it should, its device up and our program on it. What
    /// fails leaves no device, and then nothing is sent that has to be encrypted.
    pub(super) async fn ready_tunnel(&mut self, own: u32) {
        self.around.tunnel = None;
        let Some(desired) = &self.desired else { return };
        if !self.keeper.prepare(desired, own).await {
            self.tunnel = None;
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

    /// Looks at keys and tunnels, and announces keys that are new.
    pub(super) async fn keep_keys(&mut self) {
        let Some(desired) = &self.desired else { return };
        let Some(own) = own_number(desired, &self.config.node) else {
            return;
        };
        match self.keeper.look(desired, own).await {
            Ok(None) => {}
            Ok(Some(keys)) => {
                let public_keys = as_bytes(&keys);
                self.send(agent_message::Message::Keys(wire::Keys { public_keys }))
                    .await;
            }
            Err(error) => tracing::error!(error = %chain(&error), "the key stays as it is"),
        }
        let Some(desired) = &self.desired else { return };
        if self.keeper.is_broken(desired, own) {
            self.look_around().await;
            self.apply().await;
        }
    }
}
