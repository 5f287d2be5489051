//! Dense numbers for content-addressed things, the same across restarts of the agent.
//!
//! The kernel tests small numbers; the controller speaks in digests. A number is given out once
//! per digest, remembered in a pinned map, and given out again only after the digest was released,
//! which the caller does when no program can reach it any more.

use std::collections::BTreeSet;

use sunwire_dataplane_common::entries::IdKey;

use crate::{
    shadow::{HashShadow, ShadowError},
    state::Digest,
};

/// One space of dense numbers, `first .. end`.
pub(crate) struct Numbers {
    kind: u32,
    name: &'static str,
    end: u32,
    next: u32,
    free: BTreeSet<u32>,
}

/// There are no numbers left.
#[derive(Debug, thiserror::Error)]
#[error("{name}: all {capacity} are in use; the policy does not fit this node's tables")]
pub struct Exhausted {
    name: &'static str,
    capacity: u32,
}

impl Numbers {
    /// The space of a kind, with what `ids` remembers of it. Number 0 is never given out.
    pub(crate) fn open(
        ids: &HashShadow<IdKey, u32>,
        kind: u32,
        name: &'static str,
        end: u32,
    ) -> Self {
        let used: BTreeSet<u32> = ids
            .content()
            .iter()
            .filter(|(key, _)| key.kind == kind)
            .map(|(_, number)| *number)
            .collect();
        let next = used.last().map_or(1, |last| last + 1);
        let free = (1..next).filter(|number| !used.contains(number)).collect();
        Numbers {
            kind,
            name,
            end,
            next,
            free,
        }
    }

    /// The number of a digest, if it has one.
    pub(crate) fn get(&self, ids: &HashShadow<IdKey, u32>, digest: Digest) -> Option<u32> {
        ids.content().get(&self.key(digest)).copied()
    }

    /// The number of a digest, given out now if it has none.
    pub(crate) fn number(
        &mut self,
        ids: &mut HashShadow<IdKey, u32>,
        digest: Digest,
    ) -> Result<u32, NumbersError> {
        if let Some(number) = self.get(ids, digest) {
            return Ok(number);
        }
        let number = match self.free.first() {
            Some(number) => *number,
            None if self.next < self.end => self.next,
            None => {
                return Err(Exhausted {
                    name: self.name,
                    capacity: self.end,
                }
                .into());
            }
        };
        ids.set(self.key(digest), number)?;
        if !self.free.remove(&number) {
            self.next = number + 1;
        }
        Ok(number)
    }

    /// How many more numbers can be given out.
    pub(crate) fn available(&self) -> usize {
        self.free.len() + self.end.saturating_sub(self.next) as usize
    }

    /// Fails when `count` more numbers cannot be given out.
    pub(crate) fn check_available(&self, count: usize) -> Result<(), Exhausted> {
        if count > self.available() {
            return Err(Exhausted {
                name: self.name,
                capacity: self.end,
            });
        }
        Ok(())
    }

    /// The digests of this kind that `keep` refuses, with their numbers.
    pub(crate) fn dead(
        &self,
        ids: &HashShadow<IdKey, u32>,
        keep: impl Fn(Digest) -> bool,
    ) -> Vec<(Digest, u32)> {
        ids.content()
            .iter()
            .filter(|(key, _)| key.kind == self.kind && !keep(Digest(key.digest)))
            .map(|(key, number)| (Digest(key.digest), *number))
            .collect()
    }

    /// Takes a digest's number back.
    pub(crate) fn release(
        &mut self,
        ids: &mut HashShadow<IdKey, u32>,
        digest: Digest,
        number: u32,
    ) -> Result<(), ShadowError> {
        ids.remove(&self.key(digest))?;
        self.free.insert(number);
        Ok(())
    }

    fn key(&self, digest: Digest) -> IdKey {
        IdKey {
            kind: self.kind,
            digest: digest.0,
        }
    }
}

/// A number could not be given out.
#[derive(Debug, thiserror::Error)]
pub enum NumbersError {
    /// There are none left.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// It could not be remembered.
    #[error(transparent)]
    Shadow(#[from] ShadowError),
}
