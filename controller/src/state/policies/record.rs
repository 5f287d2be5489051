//! What is stored of a policy, and what is made of that.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sunwire_api::{Diagnostic, Name, RevisionReason, Violation};
use sunwire_policy::tables::FlowTables;

use crate::command::Note;
use crate::state::Source;

/// How many texts of a policy are kept, and how many bytes of them; the last two always are.
const HISTORY_MAX: usize = 100;
const HISTORY_BYTES_MAX: usize = 16 << 20;

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRecord {
    /// The network that it governs.
    pub network: Name,
    /// Its texts, oldest first; never empty, and the last is in force.
    pub history: Vec<TextRevision>,
    /// Revision since which the tables are as they are.
    pub tables_revision: u64,
    /// Revision of its last change.
    pub revision: u64,
    /// The text in force waits to be confirmed.
    #[serde(default)]
    pub unconfirmed: Option<UnconfirmedText>,
    /// The candidate.
    #[serde(default)]
    pub staged: Option<StagedText>,
    /// What the text in force asserts and does not hold.
    #[serde(default)]
    pub violations: Vec<Violation>,
}

/// A text that a policy had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextRevision {
    /// Revision since which it was in force.
    pub revision: u64,
    /// The source.
    pub text: Source,
    /// The revision whose text was brought back.
    pub rolled_back_to: Option<u64>,
    /// It was brought back because the text after it was not confirmed.
    #[serde(default)]
    pub not_confirmed: bool,
    /// When, who and why.
    #[serde(default)]
    pub note: Note,
}

/// Until when a text is in force unless it is confirmed, and what comes after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnconfirmedText {
    /// Milliseconds of Unix time.
    pub deadline_unix_ms: u64,
    /// The text that is put back; `None` when there was no policy.
    pub fallback: Option<Fallback>,
}

/// The last text that was not on trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fallback {
    /// Its revision.
    pub revision: u64,
    /// The network that it governs.
    pub network: Name,
    /// The source.
    pub text: Source,
}

/// A candidate that is asked beside the text in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedText {
    /// The source.
    pub text: Source,
    /// Revision that staged it.
    pub revision: u64,
    /// Revision since which its tables are as they are.
    pub tables_revision: u64,
}

/// The compiled policy of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Name of the policy.
    pub policy: Name,
    /// The tables.
    pub tables: Arc<FlowTables>,
    /// Findings that are no errors.
    pub warnings: Vec<Diagnostic>,
}

/// The compiled candidate for a network: asked on live flows, and decides nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staged {
    /// Name of the policy whose candidate it is.
    pub policy: Name,
    /// Revision since which its tables are as they are: what counts of it name.
    pub revision: u64,
    /// BLAKE3-256 of its text, in hexadecimal.
    pub text_hash: String,
    /// The tables.
    pub tables: Arc<FlowTables>,
    /// Findings that are no errors.
    pub warnings: Vec<Diagnostic>,
}

/// Why the compiler refuses a text that is out of force. Never compared: the hints among the
/// findings depend on names that do not concern the policy.
#[derive(Clone, Debug)]
pub(in crate::state) struct Findings(pub(in crate::state) Vec<Diagnostic>);

impl PartialEq for Findings {
    fn eq(&self, _: &Findings) -> bool {
        true
    }
}

impl PolicyRecord {
    /// The text in force.
    #[must_use]
    pub fn text(&self) -> &Source {
        &self.present().text
    }

    /// The revision in force.
    #[must_use]
    pub fn present(&self) -> &TextRevision {
        self.history.last().expect("a history is never empty")
    }

    /// The networks that it governs, or would again if it is not confirmed.
    pub(in crate::state) fn networks(&self) -> impl Iterator<Item = &Name> {
        let unconfirmed = self.unconfirmed.as_ref();
        let fallback = unconfirmed.and_then(|unconfirmed| unconfirmed.fallback.as_ref());
        std::iter::once(&self.network).chain(fallback.map(|fallback| &fallback.network))
    }

    /// What to go back to when a text that comes after the present one is not confirmed.
    pub(super) fn fallback(&self) -> Option<Fallback> {
        match &self.unconfirmed {
            Some(unconfirmed) => unconfirmed.fallback.clone(),
            None => Some(Fallback {
                revision: self.present().revision,
                network: self.network.clone(),
                text: self.text().clone(),
            }),
        }
    }
}

impl TextRevision {
    /// How it came into force.
    #[must_use]
    pub fn reason(&self) -> RevisionReason {
        match (self.not_confirmed, self.rolled_back_to) {
            (true, _) => RevisionReason::NotConfirmed,
            (false, Some(_)) => RevisionReason::RolledBack,
            (false, None) => RevisionReason::Applied,
        }
    }
}

/// Keeps the end of a history that is within bounds.
pub(super) fn forget_oldest(history: &mut Vec<TextRevision>) {
    let mut bytes = 0;
    let within = history.iter().rev().take(HISTORY_MAX).take_while(|item| {
        bytes += item.text.as_str().len();
        bytes <= HISTORY_BYTES_MAX
    });
    let kept = within.count().max(2).min(history.len());
    history.drain(..history.len() - kept);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_keeps_its_end_within_bounds_and_always_the_last_two() {
        let item = |revision, bytes: usize| TextRevision {
            revision,
            text: "-".repeat(bytes).into(),
            rolled_back_to: None,
            not_confirmed: false,
            note: Note::default(),
        };
        let kept = |mut history: Vec<TextRevision>| {
            forget_oldest(&mut history);
            history.iter().map(|item| item.revision).collect::<Vec<_>>()
        };
        assert_eq!(kept(vec![item(1, 9)]), [1]);
        assert_eq!(kept((1..=110).map(|n| item(n, 9)).collect()).len(), 100);
        let large = HISTORY_BYTES_MAX / 2;
        assert_eq!(kept((1..=4).map(|n| item(n, large)).collect()), [3, 4]);
        let huge = HISTORY_BYTES_MAX + 1;
        assert_eq!(kept((1..=4).map(|n| item(n, huge)).collect()), [3, 4]);
    }
}
