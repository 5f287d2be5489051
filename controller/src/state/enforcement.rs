//! Which nodes decide about a network's packets.

use sunwire_api::{Name, NetworkEnforcement};

use super::State;
use super::policies::Change;
use crate::effects::Effects;
use crate::examine::Examiner;
use crate::refusal::Refusal;

impl State {
    /// Has these nodes decide from here on. Policies by which they could not are in the way: those of
    /// the network and of its peers.
    pub(super) fn enforce_network(
        &mut self,
        name: &Name,
        enforce: NetworkEnforcement,
        examiner: &mut Examiner<'_>,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        self.network(name)?;
        let change = Change::Enforcement(name, enforce);
        let policies = self.reexamined(change, false, examiner)?;

        let record = self.networks.get_mut(name);
        let record = record.expect("it was looked up");
        record.enforce = enforce;
        record.revision = effects.revision;
        effects.networks.insert(name.clone());
        self.settle(policies, effects);
        Ok(())
    }
}
