//! Which tunnels are encrypted.

use serde::{Deserialize, Serialize};
use sunwire_api::{Encryption, EncryptionMode, EncryptionSpec, EncryptionStatus, ProblemCode};

use super::State;
use crate::command::{Precondition, Proposal};
use crate::effects::Effects;
use crate::refusal::Refusal;

/// The cloud's setting. It is always there, so it has a revision from the beginning: 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncryptionRecord {
    /// Which tunnels are encrypted.
    pub mode: EncryptionMode,
    /// Revision of its last change.
    pub revision: u64,
}

impl State {
    pub(super) fn set_encryption(
        &mut self,
        mode: EncryptionMode,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        self.encryption = EncryptionRecord {
            mode,
            revision: effects.revision,
        };
        effects.encryption = true;
        Ok(())
    }

    /// Which tunnels are encrypted.
    #[must_use]
    pub fn encryption(&self) -> EncryptionRecord {
        self.encryption
    }

    /// The setting as clients see it.
    #[must_use]
    pub fn encryption_view(&self) -> Encryption {
        let nodes = self.nodes.iter();
        let without_key = nodes.filter(|(_, node)| !node.plaintext && node.public_keys.is_empty());
        Encryption {
            name: "encryption".parse().expect("a name"),
            spec: EncryptionSpec {
                mode: self.encryption.mode,
            },
            status: EncryptionStatus {
                nodes_without_key: without_key.map(|(name, _)| name.clone()).collect(),
            },
            revision: self.encryption.revision,
        }
    }

    /// Like any other resource that exists: a client says which revision it decided on.
    pub(super) fn check_encryption_precondition(&self, proposal: &Proposal) -> Result<(), Refusal> {
        let existing = self.encryption.revision;
        match proposal.precondition {
            Precondition::None if proposal.key.is_none() => Err(Refusal::new(
                ProblemCode::PreconditionRequired,
                "send If-Match with the setting's ETag (or * for whatever it is now), or an \
                 Idempotency-Key",
            )),
            Precondition::Revision(asked) if asked != existing => Err(Refusal::new(
                ProblemCode::StaleRevision,
                format!(
                    "the setting is at revision {existing}, not at {asked}: get it again, and \
                     decide again"
                ),
            )),
            Precondition::Absent => Err(Refusal::new(
                ProblemCode::StaleRevision,
                "the setting exists always: send its ETag in If-Match to change it",
            )),
            _ => Ok(()),
        }
    }
}
