//! Staged policies into the kernel, beside those in force.
//!
//! Nothing here fails the policy in force: a candidate that cannot be staged is refused for itself,
//! and what is staged makes way when a policy in force needs its room.

use std::collections::BTreeMap;

use sunwire_dataplane_common::{audit::StagedRoot, tables::RootKey};

use super::{FlowMap, InstallError, Installed};
use crate::{
    audit,
    class_map::Lane,
    dataplane::chain,
    maps::Maps,
    state::{Desired, Program},
};

impl FlowMap {
    /// Stages `desired`'s candidates, up to the flip.
    pub(super) fn stage(&mut self, maps: &mut Maps, desired: &Desired) -> Result<(), InstallError> {
        self.to_stage = desired.staged.clone();
        self.refused.clear();
        let mut coming = Installed::default();
        for (vni, program) in &desired.staged {
            match self.admit(maps, desired, &coming.programs, *vni, program) {
                Ok(larger) => coming = larger,
                Err(error) => {
                    self.refused.insert(*vni, (program.revision, chain(&error)));
                }
            }
        }
        let control = maps.control.get(0);
        // No packet reads the other one of the two numbers: a grace period followed its last use.
        let number = if control.staged == 1 { 2 } else { 1 };
        if let Err(error) = self.write_staged(maps, desired, &coming, number) {
            let all = coming.programs.iter();
            self.refused
                .extend(all.map(|(vni, program)| (*vni, (program.revision, chain(&error)))));
            coming = Installed::default();
        }
        let mut flipped = control;
        flipped.staged = if coming.programs.is_empty() {
            0
        } else {
            number
        };
        maps.control.set(0, flipped)?;
        self.staged = Some(coming);
        Ok(())
    }

    /// Takes everything off stage, to make room. Returns whether there was anything.
    pub(super) fn unstage(&mut self, maps: &mut Maps) -> Result<bool, InstallError> {
        let control = maps.control.get(0);
        if control.staged == 0 {
            return Ok(false);
        }
        let mut flipped = control;
        flipped.staged = 0;
        maps.control.set(0, flipped)?;
        self.staged = Some(Installed::default());
        self.settle(maps)?;
        // What was staged is to be tried again afterwards.
        self.staged = None;
        Ok(true)
    }

    /// What is staged with one candidate more, if that fits.
    fn admit(
        &self,
        maps: &Maps,
        desired: &Desired,
        admitted: &BTreeMap<u32, Program>,
        vni: u32,
        program: &Program,
    ) -> Result<Installed, InstallError> {
        let mut programs = admitted.clone();
        programs.insert(vni, program.clone());
        let larger = Installed::new(desired, programs)?;
        self.check_capacity(maps, desired, &larger, Lane::Staged)?;
        audit::check_capacity(maps, larger.programs.len())?;
        Ok(larger)
    }

    fn write_staged(
        &mut self,
        maps: &mut Maps,
        desired: &Desired,
        coming: &Installed,
        number: u32,
    ) -> Result<(), InstallError> {
        self.write_tables(maps, desired, coming)?;
        for (vni, program) in &coming.programs {
            let Some(root) = program.root else { continue };
            let staged = StagedRoot {
                revision: program.revision,
                root: self.root(maps, desired, *vni, root, (program.bucket, program.limit))?,
                padding: 0,
            };
            let key = RootKey {
                network: *vni,
                generation: number,
            };
            maps.staged_roots.set(key, staged)?;
        }
        audit::prepare(maps, &coming.programs)?;
        self.classes
            .stage(maps, Lane::Staged, &coming.wanted, number)
    }
}
