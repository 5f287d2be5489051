//! The sets of endpoints that verdicts send to: numbered, and kept up to date with where their
//! members are.
//!
//! A set is known by what it is, so every node has the same tag for it without being told. A node
//! that puts a policy in force later than another one still gets packets for the sets of the policy
//! before, and the other way round; so sets that no verdict here sends to any more are kept until
//! the next change.

use std::collections::{BTreeMap, BTreeSet};

use sunwire_dataplane_common::{
    entries::id_kind,
    group::{CHUNK, GroupChunk, GroupKey, MAX_CHUNKS, RELAYED, TagKey},
};

use crate::{
    groups::{listeners::homes, relays::Relays},
    ids::{Exhausted, Numbers, NumbersError},
    maps::Maps,
    shadow::ShadowError,
    state::{Desired, Digest},
};

/// Members of a set: numbers of endpoints, ascending.
pub type Members = std::sync::Arc<[u32]>;

/// The sets cannot be put into the kernel.
#[derive(Debug, thiserror::Error)]
pub enum SetsError {
    /// There are too many.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// A map could not be written.
    #[error(transparent)]
    Shadow(#[from] ShadowError),
    /// One has more members here, or nodes with members, than a packet is copied to.
    #[error(
        "a packet would be copied to {count} {what}, and a node makes at most {}",
        CHUNK * MAX_CHUNKS
    )]
    TooLarge {
        /// How many.
        count: usize,
        /// Of what.
        what: &'static str,
    },
    /// Two have the same tag: one in 8 million pairs, and nothing can tell them apart.
    #[error(
        "two sets of endpoints of network {vni} have the same tag {tag:#08x}; send to one endpoint \
         more or less in one of them"
    )]
    SameTag {
        /// VNI of the network.
        vni: u32,
        /// The tag.
        tag: u32,
    },
}

impl From<NumbersError> for SetsError {
    fn from(error: NumbersError) -> Self {
        match error {
            NumbersError::Exhausted(error) => SetsError::Exhausted(error),
            NumbersError::Shadow(error) => SetsError::Shadow(error),
        }
    }
}

/// What a set is called.
#[must_use]
pub fn digest(members: &[u32]) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key("sunwire group v1");
    for member in members {
        hasher.update(&member.to_be_bytes());
    }
    Digest(*hasher.finalize().as_bytes())
}

/// How a packet between nodes says which set it is for: 23 bits, never zero.
#[must_use]
pub fn tag(digest: &Digest) -> u32 {
    let [a, b, c, ..] = digest.0;
    (u32::from_be_bytes([0, a, b, c]) & !RELAYED).max(1)
}

/// Where a set's members are, seen from a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Spread {
    /// VNI of the members' network; `None` when none of them is known.
    vni: Option<u32>,
    /// Endpoints that are, or will be, here.
    local: BTreeSet<u32>,
    /// Nodes with members.
    nodes: BTreeSet<u32>,
}

impl Spread {
    fn new(members: &[u32], desired: &Desired, own: u32) -> Self {
        let mut spread = Spread::default();
        for number in members {
            let Some(endpoint) = desired.endpoints.get(number) else {
                continue;
            };
            spread.vni = spread.vni.or(Some(endpoint.vni));
            for node in homes(endpoint) {
                if node == own {
                    spread.local.insert(*number);
                } else {
                    spread.nodes.insert(node);
                }
            }
        }
        spread
    }

    fn chunks(&self, tag: u32) -> Result<Vec<GroupChunk>, SetsError> {
        for (what, of) in [("endpoints here", &self.local), ("nodes", &self.nodes)] {
            let count = of.len();
            if count > CHUNK * MAX_CHUNKS {
                return Err(SetsError::TooLarge { count, what });
            }
        }
        let local: Vec<u32> = self.local.iter().copied().collect();
        let nodes: Vec<u32> = self.nodes.iter().copied().collect();
        let count = local.len().max(nodes.len()).div_ceil(CHUNK).max(1);
        let mut chunks = vec![GroupChunk::default(); count];
        for (at, chunk) in chunks.iter_mut().enumerate() {
            chunk.tag = tag;
            chunk.more = u32::from(at + 1 < count);
            chunk.locals = fill(&mut chunk.local, local.chunks(CHUNK).nth(at));
            chunk.nodes = fill(&mut chunk.node, nodes.chunks(CHUNK).nth(at));
        }
        Ok(chunks)
    }
}

fn fill(into: &mut [u32; CHUNK], from: Option<&[u32]>) -> u32 {
    let from = from.unwrap_or_default();
    into[..from.len()].copy_from_slice(from);
    from.len() as u32
}

/// The sets of this node.
pub(crate) struct Sets {
    numbers: Numbers,
    known: BTreeMap<Digest, Members>,
    /// Those of `known` that no verdict sends to since the last change.
    retired: BTreeSet<Digest>,
}

impl Sets {
    pub(crate) fn open(maps: &Maps) -> Self {
        Sets {
            numbers: Numbers::open(
                &maps.ids,
                id_kind::GROUP,
                "sets of endpoints",
                maps.groups.capacity() as u32,
            ),
            known: BTreeMap::new(),
            retired: BTreeSet::new(),
        }
    }

    /// Number of a set that was written.
    pub(crate) fn number(&self, maps: &Maps, members: &[u32]) -> Option<u32> {
        self.numbers.get(&maps.ids, digest(members))
    }

    /// Writes every set that `desired`'s verdicts send to, and those kept from before, as their
    /// members are now. To be called before verdicts are written that send to them.
    pub(crate) fn write(
        &mut self,
        maps: &mut Maps,
        desired: &Desired,
        own: u32,
        relays: &Relays<'_>,
    ) -> Result<(), SetsError> {
        let wanted = wanted(desired);
        let mut tags: BTreeMap<TagKey, Digest> = BTreeMap::new();
        for (name, members) in &wanted {
            let spread = Spread::new(members, desired, own);
            if let Some(network) = spread.vni {
                let tag = tag(name);
                if tags.insert(TagKey { network, tag }, *name).is_some() {
                    return Err(SetsError::SameTag { vni: network, tag });
                }
            }
        }
        self.known.extend(wanted);
        for (name, members) in &self.known {
            let mut spread = Spread::new(members, desired, own);
            if let Some(vni) = spread.vni {
                spread.nodes = relays.targets(desired, vni, &spread.nodes);
            }
            let chunks = spread.chunks(tag(name))?;
            let group = self.numbers.number(&mut maps.ids, *name)?;
            // The parts that others lead to come first, and go last.
            for (at, chunk) in chunks.iter().enumerate().rev() {
                let chunk_number = at as u32;
                let key = GroupKey {
                    group,
                    chunk: chunk_number,
                };
                maps.groups.set(key, *chunk)?;
            }
            let count = chunks.len() as u32;
            maps.groups
                .retain(|key| key.group != group || key.chunk < count)?;
            if let Some(network) = spread.vni {
                let key = TagKey {
                    network,
                    tag: tag(name),
                };
                // One that is kept gives way.
                if tags.get(&key).is_none_or(|owner| owner == name) {
                    maps.group_tags.set(key, group)?;
                }
            }
        }
        Ok(())
    }

    /// Forgets sets that no verdict sends to since the change before the last. To be called when
    /// `desired`'s policies are in force and no packet goes by earlier ones.
    pub(crate) fn forget(&mut self, maps: &mut Maps, desired: &Desired) -> Result<(), ShadowError> {
        let wanted = wanted(desired);
        let unused: BTreeSet<Digest> = self
            .known
            .keys()
            .filter(|name| !wanted.contains_key(name))
            .copied()
            .collect();
        if unused != self.retired {
            let gone = self.retired.clone();
            self.known
                .retain(|name, _| !(gone.contains(name) && unused.contains(name)));
            self.retired = unused.difference(&gone).copied().collect();
        }
        let known = &self.known;
        let dead = self
            .numbers
            .dead(&maps.ids, |name| known.contains_key(&name));
        for (name, number) in dead {
            maps.group_tags.retain_values(|group| *group != number)?;
            maps.groups.retain(|key| key.group != number)?;
            self.numbers.release(&mut maps.ids, name, number)?;
        }
        Ok(())
    }
}

/// The sets that verdicts send to.
fn wanted(desired: &Desired) -> BTreeMap<Digest, Members> {
    let leaves = desired.leaves.values();
    let sets = leaves.flat_map(|leaf| &leaf.members);
    sets.map(|members| (digest(members), members.clone()))
        .collect()
}
