//! Which node of a region sends on what comes from other regions for several endpoints.
//!
//! A network may ask that such packets cross from region to region once. Then the node where one
//! enters sends it to the nodes with members in its own region and, in each other region with more
//! than one such node, to a single one that sends it on ([`RELAY`]). Who that is every sender chooses
//! for itself: any node of the region can do it, whether it has members or not, because all know
//! all sets. Only nodes that are known to be at work are chosen; without one, all get copies
//! themselves.

use std::collections::{BTreeMap, BTreeSet};

use sunwire_dataplane_common::group::RELAY;

use crate::state::Desired;

/// For each network that asks for it, the node that sends on in each other region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Relays<'a> {
    by_region: BTreeMap<(u32, &'a str), u32>,
}

impl<'a> Relays<'a> {
    /// As node `own` chooses, of the nodes that are at work.
    pub(crate) fn new(desired: &'a Desired, own: u32, at_work: &BTreeSet<u32>) -> Self {
        let mut relays = Relays::default();
        let own_region = region(desired, own);
        let asking = desired.networks.iter();
        let asking: Vec<u32> = asking
            .filter(|(_, network)| network.relayed)
            .map(|(vni, _)| *vni)
            .collect();
        if asking.is_empty() {
            return relays;
        }
        let mut nodes: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for number in at_work {
            let region = region(desired, *number);
            if !region.is_empty() && region != own_region {
                nodes.entry(region).or_default().push(*number);
            }
        }
        for vni in asking {
            for (region, nodes) in &nodes {
                // Networks are spread over the nodes.
                let chosen = nodes[vni as usize % nodes.len()];
                relays.by_region.insert((vni, region), chosen);
            }
        }
        relays
    }

    /// Where copies for members on `nodes` of a network are sent: nodes, and nodes that send on.
    pub(crate) fn targets(
        &self,
        desired: &Desired,
        vni: u32,
        nodes: &BTreeSet<u32>,
    ) -> BTreeSet<u32> {
        if self.by_region.is_empty() {
            return nodes.clone();
        }
        let mut by_region: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for node in nodes {
            by_region
                .entry(region(desired, *node))
                .or_default()
                .push(*node);
        }
        let mut targets = BTreeSet::new();
        for (region, nodes) in by_region {
            match self.by_region.get(&(vni, region)) {
                Some(relay) if nodes.len() > 1 => {
                    targets.insert(relay | RELAY);
                }
                _ => targets.extend(nodes),
            }
        }
        targets
    }

    /// The node that sends on to a node with members, if there is one.
    pub(crate) fn to(&self, desired: &Desired, vni: u32, node: u32) -> Option<u32> {
        let region = region(desired, node);
        self.by_region.get(&(vni, region)).copied()
    }

    /// The nodes that send on, each with the nodes of its region.
    pub(crate) fn regions(&self, desired: &Desired) -> BTreeMap<u32, BTreeSet<u32>> {
        let relays = self.by_region.iter();
        relays
            .map(|((_, name), relay)| {
                let nodes = desired.nodes.keys().copied();
                let within = nodes.filter(|node| region(desired, *node) == *name);
                (*relay, within.collect())
            })
            .collect()
    }
}

/// Whether a node is in the region of node `own`.
pub(crate) fn is_near(desired: &Desired, own: u32, node: u32) -> bool {
    let own = region(desired, own);
    !own.is_empty() && region(desired, node) == own
}

/// Where a node is; empty when that is not known.
fn region(desired: &Desired, node: u32) -> &str {
    let node = desired.nodes.get(&node);
    node.map_or("", |node| node.region.as_str())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::{groups::listeners::tests::network, state::Node};

    const VNI: u32 = 100;

    /// Nodes 1 and 2 in one region, 3, 4 and 5 in another, 6 nobody knows where.
    fn desired(relayed: bool) -> Desired {
        let mut desired = Desired::default();
        for (number, region) in [
            (1, "a:x"),
            (2, "a:x"),
            (3, "a:y"),
            (4, "a:y"),
            (5, "a:y"),
            (6, ""),
        ] {
            let node = Node {
                region: region.to_owned(),
                ..Node::without_key("node", Ipv4Addr::LOCALHOST)
            };
            desired.nodes.insert(number, node);
        }
        let mut shop = network("10.0.0.1");
        shop.relayed = relayed;
        desired.networks.insert(VNI, shop);
        desired
    }

    fn targets(relayed: bool, own: u32, at_work: &[u32], nodes: &[u32]) -> Vec<u32> {
        let desired = desired(relayed);
        let at_work = at_work.iter().copied().collect();
        let relays = Relays::new(&desired, own, &at_work);
        let nodes = nodes.iter().copied().collect();
        relays.targets(&desired, VNI, &nodes).into_iter().collect()
    }

    #[test]
    fn one_node_of_each_other_region_gets_what_several_there_are_to_get() {
        // 100 of three leaves the second one.
        assert_eq!(
            targets(true, 1, &[1, 2, 3, 4, 5, 6], &[2, 3, 4, 5, 6]),
            [2, 6, 4 | RELAY]
        );
        assert_eq!(
            targets(true, 3, &[1, 2, 3, 4, 5, 6], &[1, 2, 4, 5, 6]),
            [4, 5, 6, 1 | RELAY]
        );
        // One alone is sent to as it is.
        assert_eq!(targets(true, 1, &[1, 2, 3, 4, 5, 6], &[2, 5]), [2, 5]);
    }

    #[test]
    fn who_is_not_at_work_is_not_asked_and_without_anybody_all_get_copies() {
        assert_eq!(targets(true, 1, &[5], &[3, 4, 5]), [5 | RELAY]);
        assert_eq!(targets(true, 1, &[1, 2], &[3, 4, 5]), [3, 4, 5]);
        assert_eq!(targets(false, 1, &[3, 4, 5], &[3, 4, 5]), [3, 4, 5]);
        assert_eq!(targets(true, 6, &[3, 4, 5], &[3, 4, 5]), [4 | RELAY]);
    }

    #[test]
    fn nearness_is_known_of_nodes_that_say_where_they_are() {
        let desired = desired(true);
        assert!(is_near(&desired, 1, 2) && is_near(&desired, 3, 5));
        assert!(!is_near(&desired, 1, 3) && !is_near(&desired, 6, 6));
    }
}
