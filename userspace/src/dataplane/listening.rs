//! Who listens to multicast, from what is known of it to the kernel.

use sunwire_dataplane_common::group::{ListenerKey, NODE};

use super::{Dataplane, DataplaneError};
use crate::{
    groups::listeners::{self, Groups, Known},
    state::Desired,
};

impl Dataplane {
    /// What endpoints here listen to, as far as the kernel knows.
    #[must_use]
    pub fn listeners(&self) -> Groups {
        listeners::seeds(self.maps.listeners.content().keys())
    }

    /// Lets multicast packets go to who listens, by all that is known of it, for node `own`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn listen(
        &mut self,
        known: &Known,
        desired: &Desired,
        own: u32,
    ) -> Result<(), DataplaneError> {
        let wanted = &known.keys(desired, own, self.maps.listeners.capacity());
        let listeners = &mut self.maps.listeners;
        // What is asked for comes last and goes first: without it, all get everything.
        let asked = |key: &ListenerKey| key.who == NODE || key.network == 0;
        listeners.retain(|key| !asked(key) || wanted.contains(key))?;
        listeners.retain(|key| wanted.contains(key))?;
        let keys = wanted.iter();
        for key in keys.clone().filter(|key| !asked(key)) {
            listeners.set(*key, 1)?;
        }
        for key in keys.filter(|key| asked(key)) {
            listeners.set(*key, 1)?;
        }
        Ok(())
    }
}
