//! Numbers for labels that stay while the text around them changes.
//!
//! A label is known by its place in the text, and of several the first in the text counts. The
//! numbers keep that order. Labels before and behind a change keep their numbers; those in the middle
//! get new ones from the gap between, and when there is no room left, all are numbered anew.

use crate::fdd::hash::FastMap;
use crate::packet::{LabelId, NO_LABEL};
use crate::term::{Resolved, Term};

/// The labels of the policy in force, with their numbers.
#[derive(Default)]
pub(super) struct Labels {
    /// In the order of the text: what tells the label apart, and its number.
    entries: Vec<(String, LabelId)>,
    /// Text of every number that diagrams were lowered with.
    lowered: FastMap<LabelId, String>,
}

impl Labels {
    /// Follows a new text: every label with its number.
    pub(super) fn follow(&mut self, policy: &Resolved) -> Vec<(LabelId, LabelId)> {
        let labels = used(policy);
        let keys: Vec<String> = labels.iter().map(|label| key(policy, *label)).collect();
        let old = &self.entries;
        let front = keys
            .iter()
            .zip(old)
            .take_while(|(key, (known, _))| *key == known)
            .count();
        let rest = keys[front..].iter().rev().zip(old[front..].iter().rev());
        let back = rest.take_while(|(key, (known, _))| *key == known).count();
        let low = front.checked_sub(1).map_or(0, |at| old[at].1);
        let high = old
            .len()
            .checked_sub(back)
            .and_then(|at| old.get(at))
            .map_or(NO_LABEL, |(_, number)| *number);
        let middle = keys.len() - front - back;
        let numbers: Vec<LabelId> = match spread(low, high, middle) {
            Some(fresh) => old[..front]
                .iter()
                .map(|(_, number)| *number)
                .chain(fresh)
                .chain(old[old.len() - back..].iter().map(|(_, number)| *number))
                .collect(),
            // A text has fewer labels than there are numbers.
            None => spread(0, NO_LABEL, keys.len())
                .into_iter()
                .flatten()
                .collect(),
        };
        self.entries = keys.into_iter().zip(numbers.iter().copied()).collect();
        labels.into_iter().zip(numbers).collect()
    }

    /// Whether a number stands for another text than when diagrams were last lowered with it; from
    /// now on it stands for this one.
    pub(super) fn differ(&mut self, policy: &Resolved, numbers: &[(LabelId, LabelId)]) -> bool {
        let text = |label: LabelId| policy.labels.get(&label).map_or("", String::as_str);
        let differ = numbers.iter().any(|(label, number)| {
            let known = self.lowered.get(number);
            known.is_some_and(|known| known != text(*label))
        });
        if differ {
            self.lowered.clear();
        }
        for (label, number) in numbers {
            if !self.lowered.contains_key(number) {
                self.lowered.insert(*number, text(*label).to_owned());
            }
        }
        differ
    }
}

/// The labels in a policy, in the order of the text.
fn used(policy: &Resolved) -> Vec<LabelId> {
    let terms = policy.terms.iter();
    let mut labels: Vec<LabelId> = terms
        .filter_map(|term| match term {
            Term::SetPort(_, label) | Term::Drop(label) => Some(*label),
            _ => None,
        })
        .filter(|label| *label != NO_LABEL)
        .collect();
    labels.sort_unstable();
    labels.dedup();
    labels
}

/// What tells a label apart: its text, but of a label that names its line not the line.
fn key(policy: &Resolved, label: LabelId) -> String {
    let text = policy.labels.get(&label).map_or("", String::as_str);
    let line = text
        .strip_prefix(policy.policy.as_str())
        .and_then(|rest| rest.strip_prefix(':'));
    match line {
        Some(rest) => rest
            .trim_start_matches(|c: char| c.is_ascii_digit())
            .to_owned(),
        None => text.to_owned(),
    }
}

/// So many numbers between two others, evenly; `None` when there is no room.
fn spread(low: LabelId, high: LabelId, count: usize) -> Option<Vec<LabelId>> {
    let step = u64::from(high - low) / (count as u64 + 1);
    if count > 0 && step == 0 {
        return None;
    }
    let number = |at: u64| low + (at * step) as LabelId;
    Some((1..=count as u64).map(number).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_between_two_others_ascend_or_there_is_no_room() {
        assert_eq!(spread(10, 20, 0), Some(vec![]));
        assert_eq!(spread(10, 14, 3), Some(vec![11, 12, 13]));
        assert_eq!(spread(10, 13, 3), None);
        assert_eq!(spread(10, 11, 1), None);
        let many = spread(0, NO_LABEL, 100_000).unwrap();
        assert!(many.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(many[0] > 0 && many[99_999] < NO_LABEL);
    }
}
