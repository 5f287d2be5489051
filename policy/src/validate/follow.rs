//! The proof after a change of classes alone: only the changed addresses are looked at.
//!
//! Tables and policy were proved equal, and since then neither a node nor a rule has changed, only
//! in which sets some addresses are. Both sides then see an address only through the sets that it
//! is in, and through its class; so a changed address is treated rightly when it has the class of
//! an unchanged address that is in just the same sets.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use crate::address::{Address, Prefix};
use crate::atoms::RegionChange;
use crate::tables::{Digest, FlowTables};
use crate::term::Resolved;

/// Whether tables that were proved before do what the policy says after these changes of classes.
/// `false` says nothing: then [`validate`](super::validate) decides.
///
/// The caller knows that no node, verdict or rule has changed since the proof.
#[must_use]
pub fn validate_classes(policy: &Resolved, tables: &FlowTables, changes: &[RegionChange]) -> bool {
    let changed: BTreeSet<Prefix> = changes.iter().map(|change| change.prefix).collect();
    if changed.iter().any(|p| p.length != p.family.bits()) {
        return false;
    }
    let mut wanted: HashMap<Digest, Vec<Address>> = HashMap::new();
    for change in changes {
        let address = change.prefix.family.address(change.prefix.first);
        let Some(class) = class_of(tables, address) else {
            return false;
        };
        // What is said to have changed is what has.
        if change.after.is_some_and(|after| after != class) {
            return false;
        }
        wanted.entry(class).or_default().push(address.into());
    }
    // An address of each class that has not changed.
    let mut known: HashMap<Digest, Address> = HashMap::new();
    for entry in &tables.classes {
        let prefix = Prefix::new(entry.address, entry.prefix);
        let host = prefix.length == prefix.family.bits();
        if host && wanted.contains_key(&entry.class) && !changed.contains(&prefix) {
            known.entry(entry.class).or_insert(entry.address.into());
        }
    }
    wanted.iter().all(|(class, addresses)| {
        known.get(class).is_some_and(|model| {
            addresses.iter().all(|address| {
                let mut sets = policy.sets.iter();
                sets.all(|set| set.contains(*address) == set.contains(*model))
            })
        })
    })
}

/// The class of an address, by the longest prefix.
fn class_of(tables: &FlowTables, address: IpAddr) -> Option<Digest> {
    let host = Prefix::new(address, 128);
    tables
        .classes
        .iter()
        .filter(|entry| {
            let prefix = Prefix::new(entry.address, entry.prefix);
            prefix.family == host.family && prefix.contains(host.first)
        })
        .max_by_key(|entry| entry.prefix)
        .map(|entry| entry.class)
}
