//! When our programs take the place of those that an earlier agent left.

use super::Agent;
use crate::{crypt, dataplane::DataplaneError};

impl Agent {
    /// Puts our programs in place of those that an earlier agent left on the underlay and behind
    /// encryption, once our maps have a state: with another layout they were empty until now, and
    /// the earlier programs have gone on by maps of their own.
    pub(super) fn take_place(&mut self) -> Result<(), DataplaneError> {
        if self.is_in_place {
            return Ok(());
        }
        self.dataplane.attach_underlay(&self.config.underlay)?;
        if self.tunnel.is_some() {
            self.dataplane.attach_tunnel(crypt::supervisor::DEVICE)?;
        }
        for slot in self.kernel_tunnels.keys() {
            self.dataplane.attach_kernel_tunnel(*slot)?;
        }
        self.is_in_place = true;
        Ok(())
    }
}
