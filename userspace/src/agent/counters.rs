//! What is counted on this node, told to the controller.

use sunwire_api::agent::agent_message;
use sunwire_dataplane_common::drop_reason::DropReason;

use super::{Agent, chain, own_number};
use crate::report;

impl Agent {
    /// Tells all totals.
    pub(super) async fn send_counters(&mut self) {
        if self.stream.is_none() {
            return;
        }
        let refused = self.services.refused();
        let unheard = self.services.unheard();
        let read = self.dataplane.totals().and_then(|mut totals| {
            if refused.packets > 0 {
                totals.drops.push((DropReason::PuntMalformed, refused));
            }
            if unheard.packets > 0 {
                totals.drops.push((DropReason::TooManyGroups, unheard));
            }
            let staged = self.dataplane.audit()?;
            let tunnels = self.desired.as_ref().and_then(|desired| {
                let own = own_number(desired, &self.config.node)?;
                Some(self.keeper.tunnels(desired, own))
            });
            Ok(report::counters(
                totals,
                staged,
                tunnels.unwrap_or_default(),
            ))
        });
        match read {
            Ok(counters) => self.send(agent_message::Message::Counters(counters)).await,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "counters cannot be read");
            }
        }
    }
}
