//! Nodes, edges and verdicts into the kernel, beside what is there: nothing that a root reaches is
//! touched.

use sunwire_dataplane_common::limit::Limit;
use sunwire_dataplane_common::tables::{
    EdgeKey, KIND_NODE, MAX_COPIES, MAX_COUNTS, Next, OUT_GROUP, RootEntry, Verdict, annotation,
};

use super::{FlowMap, InstallError, Installed, labels, reach::of_network};
use crate::{
    class_map::Lane,
    maps::Maps,
    state::{Desired, Digest, Leaf, TableNode, Value},
};

impl FlowMap {
    /// Fails when what is new in `coming` does not fit.
    pub(super) fn check_capacity(
        &self,
        maps: &Maps,
        desired: &Desired,
        coming: &Installed,
        lane: Lane,
    ) -> Result<(), InstallError> {
        let reached = &coming.reached;
        let new = |(vni, digest): &&(u32, Digest)| {
            let digest = of_network(*vni, *digest);
            self.tables.get(&maps.ids, digest).is_none()
        };
        let nodes = reached.iter().filter(new).count();
        self.tables.check_available(nodes)?;
        let leaves = reached.iter().filter(|(vni, digest)| {
            desired.leaves.contains_key(digest)
                && self
                    .verdicts
                    .get(&maps.ids, of_network(*vni, *digest))
                    .is_none()
        });
        self.verdicts.check_available(leaves.count())?;
        let edges: usize = reached
            .iter()
            .filter(new)
            .filter_map(|(_, digest)| desired.table_nodes.get(digest))
            .map(|node| node.edges.len())
            .sum();
        maps.edges
            .check_capacity(maps.edges.content().len() + edges)?;
        let roots = coming.programs.len();
        match lane {
            Lane::InForce => maps
                .roots
                .check_capacity(maps.roots.content().len() + roots)?,
            Lane::Staged => maps
                .staged_roots
                .check_capacity(maps.staged_roots.content().len() + roots)?,
        }
        labels::check_capacity(maps, &coming.labels)?;
        self.classes.check_capacity(maps, lane, &coming.wanted)?;
        Ok(())
    }

    /// Writes all that roots reach and that is not there yet.
    pub(super) fn write_tables(
        &mut self,
        maps: &mut Maps,
        desired: &Desired,
        coming: &Installed,
    ) -> Result<(), InstallError> {
        for (vni, digest) in &coming.reached {
            if let Some(leaf) = desired.leaves.get(digest) {
                self.write_leaf(maps, *vni, *digest, leaf)?;
            }
        }
        for (vni, digest) in &coming.reached {
            if let Some(node) = desired.table_nodes.get(digest) {
                self.write_node(maps, desired, *vni, *digest, node)?;
            }
        }
        Ok(())
    }

    fn write_leaf(
        &mut self,
        maps: &mut Maps,
        vni: u32,
        digest: Digest,
        leaf: &Leaf,
    ) -> Result<(), InstallError> {
        let label = labels::slot(maps, labels::label(vni, leaf))?;
        let mut counts = [0; MAX_COUNTS];
        for (target, key) in counts.iter_mut().zip(labels::counts(vni, leaf)) {
            *target = labels::slot(maps, key)? + 1;
        }
        let annotations = match labels::log(vni, leaf) {
            Some(key) => annotation::LOG | labels::slot(maps, key)? << annotation::LOG_SLOT_SHIFT,
            None => 0,
        };
        let digest = of_network(vni, digest);
        let slot = self.verdicts.number(&mut maps.ids, digest)?;
        let mut verdict = Verdict {
            label,
            copies: leaf.copies.len() as u32,
            annotations,
            counts,
            ..Verdict::default()
        };
        for (target, copied) in verdict
            .copied
            .iter_mut()
            .zip(leaf.copies.iter().take(MAX_COPIES))
        {
            *target = *copied;
            if copied.out == OUT_GROUP {
                let members = leaf.members.get(copied.endpoint as usize);
                let number = members.and_then(|members| self.sets.number(maps, members));
                target.endpoint = number.ok_or(InstallError::Incomplete { vni })?;
            }
        }
        maps.verdicts.set(slot, verdict)?;
        let number = self.tables.number(&mut maps.ids, digest)?;
        maps.nodes.set(number, Next::leaf(slot))?;
        Ok(())
    }

    fn write_node(
        &mut self,
        maps: &mut Maps,
        desired: &Desired,
        vni: u32,
        digest: Digest,
        node: &TableNode,
    ) -> Result<(), InstallError> {
        let pointer = self.pointer(maps, desired, vni, digest)?;
        for (value, next) in &node.edges {
            let value = match value {
                Value::Number(number) => *number,
                Value::Class(class) => self.classes.number(maps, *class)?,
            };
            let next = self.pointer(maps, desired, vni, *next)?;
            maps.edges.set(
                EdgeKey {
                    node: pointer.node,
                    value,
                },
                next,
            )?;
        }
        maps.nodes.set(pointer.node, pointer)?;
        Ok(())
    }

    /// The root of a network's policy.
    pub(super) fn root(
        &mut self,
        maps: &mut Maps,
        desired: &Desired,
        vni: u32,
        root: Digest,
        (bucket, limit): (u32, Limit),
    ) -> Result<RootEntry, InstallError> {
        Ok(RootEntry {
            next: self.pointer(maps, desired, vni, root)?,
            bucket,
            limit,
        })
    }

    /// The pointer to a node or leaf.
    pub(super) fn pointer(
        &mut self,
        maps: &mut Maps,
        desired: &Desired,
        vni: u32,
        digest: Digest,
    ) -> Result<Next, InstallError> {
        let scoped = of_network(vni, digest);
        let number = self.tables.number(&mut maps.ids, scoped)?;
        match desired.table_nodes.get(&digest) {
            Some(node) => {
                let (field, shift) = node.field.place();
                Ok(Next {
                    node: number,
                    default: self
                        .tables
                        .number(&mut maps.ids, of_network(vni, node.default))?,
                    field,
                    shift: node.shift + shift,
                    width: node.width,
                    kind: KIND_NODE,
                })
            }
            None => Ok(Next::leaf(self.verdicts.number(&mut maps.ids, scoped)?)),
        }
    }
}
