//! Making classes follow changed sets.

use super::{Atoms, Class, NOT_YET, RegionChange};
use crate::address::{Family, Prefix};
use crate::tables::Digest;

impl Atoms {
    /// Looks again at all prefixes that changed; returns those that have another class now, by the
    /// names of the classes, in order.
    pub fn settle(&mut self) -> Vec<RegionChange> {
        let dirty = std::mem::take(&mut self.dirty);
        let mut changes = Vec::new();
        let mut done: Option<Prefix> = None;
        for prefix in dirty {
            // What lies inside was looked at with it.
            if done.is_some_and(|outer| holds(&outer, &prefix)) {
                continue;
            }
            self.sweep(prefix, &mut changes);
            done = Some(prefix);
        }
        self.settle_none();
        self.bury();
        changes.sort_unstable_by_key(|change| change.prefix);
        changes
    }

    /// Looks again at a prefix and at all listed prefixes inside of it.
    fn sweep(&mut self, top: Prefix, changes: &mut Vec<RegionChange>) {
        let last = Prefix {
            first: top.last(),
            length: top.family.bits(),
            ..top
        };
        let inside: Vec<Prefix> = self.ends.range(top..=last).map(|(p, _)| *p).collect();
        // Prefixes in order visit the trie from each node to its children.
        let mut path: Vec<(Prefix, u32)> = Vec::new();
        let around = self.around(&top);
        let mut signature = Vec::new();
        for prefix in inside {
            while path.last().is_some_and(|(outer, _)| !holds(outer, &prefix)) {
                path.pop();
            }
            let outer = path.last().map(|(_, class)| *class).or(around);
            let Some(end) = self.ends.get(&prefix) else {
                continue;
            };
            let was = end.class;
            // Both families' whole prefixes stay, so that every address has a class.
            if end.sets.is_empty() && prefix.length > 0 {
                self.ends.remove(&prefix);
                if let Some(count) = self.lengths[prefix.family as usize].get_mut(&prefix.length) {
                    *count -= 1;
                    if *count == 0 {
                        self.lengths[prefix.family as usize].remove(&prefix.length);
                    }
                }
                self.leave(was);
                self.set_region(prefix, None, changes);
                continue;
            }
            signature.clear();
            match outer {
                Some(outer) => signature.extend(&self.classes[outer as usize].signature),
                None => signature.extend(self.everywhere()),
            }
            for set in &end.sets {
                let complement = self.sets[*set as usize]
                    .as_ref()
                    .is_some_and(|s| s.complement);
                match (signature.binary_search(set), complement) {
                    (Ok(at), true) => {
                        signature.remove(at);
                    }
                    (Err(at), false) => signature.insert(at, *set),
                    _ => {}
                }
            }
            let class = self.number_of(&signature);
            self.classes[class as usize].uses += 1;
            self.leave(was);
            if let Some(end) = self.ends.get_mut(&prefix) {
                end.class = Some(class);
            }
            let own = (outer != Some(class)).then_some(class);
            self.set_region(prefix, own, changes);
            path.push((prefix, class));
        }
    }

    /// Sets that hold whatever no prefix names.
    fn everywhere(&self) -> impl Iterator<Item = u32> + '_ {
        let sets = (0..).zip(&self.sets);
        sets.filter_map(|(index, set)| set.as_ref()?.complement.then_some(index))
    }

    fn leave(&mut self, class: Option<u32>) {
        if let Some(class) = class {
            self.classes[class as usize].uses -= 1;
        }
    }

    fn set_region(&mut self, prefix: Prefix, class: Option<u32>, changes: &mut Vec<RegionChange>) {
        let before = match class {
            Some(class) => self.regions.insert(prefix, class),
            None => self.regions.remove(&prefix),
        };
        if before != class {
            let name = |class: u32| self.classes[class as usize].digest;
            changes.push(RegionChange {
                prefix,
                before: before.map(name),
                after: class.map(name),
            });
        }
    }

    fn settle_none(&mut self) {
        let sets = (0..).zip(&self.sets);
        let signature: Vec<u32> = sets
            .filter_map(|(index, set)| set.as_ref()?.none.then_some(index))
            .collect();
        let class = self.number_of(&signature);
        self.classes[class as usize].uses += 1;
        self.leave((self.none != NOT_YET).then_some(self.none));
        self.none = class;
    }

    /// The class with this signature, new when there is none.
    pub(super) fn number_of(&mut self, signature: &[u32]) -> u32 {
        if let Some(class) = self.known.get(signature) {
            return *class;
        }
        let class = Class {
            signature: signature.into(),
            digest: self.name(signature),
            uses: 0,
        };
        let number = match self.free.pop() {
            Some(number) => {
                self.classes[number as usize] = class;
                number
            }
            None => {
                self.classes.push(class);
                self.classes.len() as u32 - 1
            }
        };
        self.known.insert(signature.into(), number);
        for set in signature {
            self.members[*set as usize].insert(number);
        }
        self.generation += 1;
        number
    }

    /// Gives the numbers of classes free that nothing has any more.
    fn bury(&mut self) {
        let dead: Vec<u32> = (0..)
            .zip(&self.classes)
            .filter(|(_, class)| class.uses == 0)
            .map(|(number, _)| number)
            .collect();
        for number in dead {
            let signature = self.classes[number as usize].signature.clone();
            // A free number has no signature of its own any more.
            if self.known.get(&signature) != Some(&number) {
                continue;
            }
            self.known.remove(&signature);
            for set in &signature {
                self.members[*set as usize].remove(&number);
            }
            self.free.push(number);
            self.generation += 1;
        }
        // The least number first, so that what is in use stays dense.
        self.free.sort_unstable_by(|a, b| b.cmp(a));
    }

    fn name(&self, signature: &[u32]) -> Digest {
        let mut identities: Vec<&str> = signature
            .iter()
            .filter_map(|index| self.sets[*index as usize].as_ref())
            .map(|set| set.identity.as_str())
            .collect();
        identities.sort_unstable();
        let mut hasher = blake3::Hasher::new_derive_key("sunwire class v1");
        for identity in identities {
            hasher.update(&(identity.len() as u64).to_le_bytes());
            hasher.update(identity.as_bytes());
        }
        Digest(*hasher.finalize().as_bytes())
    }
}

fn holds(outer: &Prefix, inner: &Prefix) -> bool {
    outer.family == inner.family && outer.length <= inner.length && outer.contains(inner.first)
}

const _: () = assert!(Family::V4 as usize == 0 && Family::V6 as usize == 1);
