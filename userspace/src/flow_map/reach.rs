//! What policies reach of the tables that were sent, and the proof that nothing of it is missing or
//! too deep.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use sunwire_dataplane_common::tables::MAX_DEPTH;

use super::InstallError;
use crate::state::{Desired, Digest, Program};

/// Every node and leaf that roots reach, with the network it is reached in.
pub(super) type Reached = BTreeSet<(u32, Digest)>;

/// The name under which a network's node or leaf has its number: two networks may have equal ones,
/// and each counts under labels of its own.
pub(super) fn of_network(vni: u32, Digest(mut bytes): Digest) -> Digest {
    for (byte, vni) in bytes.iter_mut().zip(vni.to_be_bytes()) {
        *byte ^= vni;
    }
    Digest(bytes)
}

/// What programs reach.
pub(super) fn reach(
    desired: &Desired,
    programs: &BTreeMap<u32, Program>,
) -> Result<Reached, InstallError> {
    let mut reached = Reached::new();
    for (vni, program) in programs {
        let Some(root) = program.root else { continue };
        let mut depths: HashMap<Digest, usize> = HashMap::new();
        let depth = depth(desired, *vni, root, &mut depths)?;
        if depth > MAX_DEPTH {
            return Err(InstallError::TooDeep { vni: *vni, depth });
        }
        reached.extend(depths.into_keys().map(|digest| (*vni, digest)));
    }
    Ok(reached)
}

/// Tests on the longest path from a node or leaf. Iterative: the depth of what was sent is not
/// yet known to be bounded, and a cycle would never end a recursion.
fn depth(
    desired: &Desired,
    vni: u32,
    root: Digest,
    depths: &mut HashMap<Digest, usize>,
) -> Result<usize, InstallError> {
    let mut stack = vec![(root, false)];
    let mut open: HashSet<Digest> = HashSet::new();
    while let Some((digest, children_done)) = stack.pop() {
        if depths.contains_key(&digest) {
            continue;
        }
        if desired.leaves.contains_key(&digest) {
            depths.insert(digest, 0);
            continue;
        }
        let node = desired
            .table_nodes
            .get(&digest)
            .ok_or(InstallError::Incomplete { vni })?;
        let children = || {
            node.edges
                .iter()
                .map(|(_, next)| *next)
                .chain([node.default])
        };
        if children_done {
            let deepest = children().filter_map(|child| depths.get(&child)).max();
            depths.insert(digest, 1 + deepest.copied().unwrap_or(0));
            open.remove(&digest);
            continue;
        }
        if !open.insert(digest) {
            // Reached again below itself: no walk would end.
            return Err(InstallError::TooDeep {
                vni,
                depth: usize::MAX,
            });
        }
        stack.push((digest, true));
        for child in children() {
            if !depths.contains_key(&child) {
                if open.contains(&child) {
                    return Err(InstallError::TooDeep {
                        vni,
                        depth: usize::MAX,
                    });
                }
                stack.push((child, false));
            }
        }
    }
    Ok(depths.get(&root).copied().unwrap_or(0))
}
