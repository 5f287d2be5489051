//! Labels and the slots of their counters.

use std::collections::BTreeSet;

use sunwire_dataplane_common::entries::{LabelKey, label_kind};

use super::InstallError;
use crate::{maps::Maps, state::Leaf};

/// The counter slot of a label, given out now if it has none.
pub(super) fn slot(maps: &mut Maps, key: LabelKey) -> Result<u32, InstallError> {
    if let Some(slot) = maps.labels.content().get(&key) {
        return Ok(*slot);
    }
    let capacity = maps.labels.capacity();
    let used: BTreeSet<u32> = maps.labels.content().values().copied().collect();
    let slot = (0..capacity as u32)
        .find(|slot| !used.contains(slot))
        .ok_or(InstallError::TooManyLabels { capacity })?;
    maps.reset_label_counter(slot)?;
    maps.labels.set(key, slot)?;
    Ok(slot)
}

/// The key of a verdict's label.
pub(super) fn label(vni: u32, leaf: &Leaf) -> LabelKey {
    LabelKey::new(vni, label_kind::LABEL, &leaf.label)
}

/// The keys of the names that a verdict counts under.
pub(super) fn counts(vni: u32, leaf: &Leaf) -> impl Iterator<Item = LabelKey> + '_ {
    let names = leaf.counts.iter();
    names.map(move |name| LabelKey::new(vni, label_kind::COUNT, name))
}

/// The key of what a verdict logs.
pub(super) fn log(vni: u32, leaf: &Leaf) -> Option<LabelKey> {
    let text = leaf.log.as_ref()?;
    Some(LabelKey::new(vni, label_kind::LOG, text))
}

/// All of them.
pub(super) fn of_leaf(vni: u32, leaf: &Leaf) -> impl Iterator<Item = LabelKey> + '_ {
    let others = counts(vni, leaf).chain(log(vni, leaf));
    [label(vni, leaf)].into_iter().chain(others)
}

/// Fails when there is no room for those of `labels` that have no slot yet.
pub(super) fn check_capacity(maps: &Maps, labels: &BTreeSet<LabelKey>) -> Result<(), InstallError> {
    let held = maps.labels.content();
    let new = labels.iter().filter(|key| !held.contains_key(*key)).count();
    let capacity = maps.labels.capacity();
    if held.len() + new > capacity {
        return Err(InstallError::TooManyLabels { capacity });
    }
    Ok(())
}

/// Forgets labels that nothing uses, once half of the counters are taken. Until then they are kept:
/// their totals outlive the rule, and a roll-back finds them again.
pub(super) fn forget(
    maps: &mut Maps,
    is_used: impl Fn(&LabelKey, u32) -> bool,
) -> Result<(), InstallError> {
    if maps.labels.content().len() <= maps.labels.capacity() / 2 {
        return Ok(());
    }
    let unused: Vec<LabelKey> = maps
        .labels
        .content()
        .iter()
        .filter(|(key, slot)| !is_used(key, **slot))
        .map(|(key, _)| *key)
        .collect();
    unused.iter().try_for_each(|key| maps.labels.remove(key))?;
    Ok(())
}
