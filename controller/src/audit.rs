//! What agents counted of staged candidates: in memory only, as agents report totals again.
//!
//! Counts belong to the candidate's tables of one revision: they are dropped with them.

use std::collections::BTreeMap;

use sunwire_api::{AuditTotals, Name, StagedRefusal};

/// Packets of live flows on one node, by what both policies say of them.
pub(crate) type AuditCount = AuditTotals;

/// Counts by network and node.
#[derive(Default)]
pub(crate) struct Audit {
    networks: BTreeMap<Name, BTreeMap<Name, Report>>,
}

/// What one node counted since it has the candidate's tables.
struct Report {
    revision: u64,
    /// Counts, or why it cannot ask the candidate.
    counts: Result<Vec<AuditCount>, String>,
}

/// What all nodes together say of a candidate.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sum {
    /// Counts, most packets first.
    pub(crate) totals: Vec<AuditTotals>,
    /// Nodes that ask it.
    pub(crate) reporting: Vec<Name>,
    /// Nodes that cannot.
    pub(crate) refusing: Vec<StagedRefusal>,
}

impl Audit {
    /// Keeps what `node` has counted in `network` of the candidate's tables of `revision`, or why it
    /// cannot: totals, so the last report is all there is.
    pub(crate) fn report(
        &mut self,
        network: &Name,
        node: &Name,
        revision: u64,
        counts: Result<Vec<AuditCount>, String>,
    ) {
        let nodes = self.networks.entry(network.clone()).or_default();
        nodes.insert(node.clone(), Report { revision, counts });
    }

    /// The candidate of this network has other tables now, or is gone.
    pub(crate) fn forget_network(&mut self, network: &Name) {
        self.networks.remove(network);
    }

    /// The node is gone.
    pub(crate) fn forget_node(&mut self, node: &Name) {
        for nodes in self.networks.values_mut() {
            nodes.remove(node);
        }
    }

    /// Sums over nodes of the candidate's tables of `revision`.
    pub(crate) fn sum(&self, network: &Name, revision: u64) -> Sum {
        let mut sums: BTreeMap<(&str, &str, bool, bool), (u64, u64)> = BTreeMap::new();
        let (mut reporting, mut refusing) = (Vec::new(), Vec::new());
        let nodes = self.networks.get(network).into_iter().flatten();
        for (node, report) in nodes.filter(|(_, report)| report.revision == revision) {
            let counts = match &report.counts {
                Ok(counts) => counts,
                Err(detail) => {
                    refusing.push(StagedRefusal {
                        node: node.clone(),
                        detail: detail.clone(),
                    });
                    continue;
                }
            };
            reporting.push(node.clone());
            for count in counts {
                let (live, staged) = (count.live_label.as_str(), count.staged_label.as_str());
                let key = (live, staged, count.live_allowed, count.staged_allowed);
                let (packets, bytes) = sums.entry(key).or_default();
                *packets = packets.saturating_add(count.packets);
                *bytes = bytes.saturating_add(count.bytes);
            }
        }
        let totals = sums.into_iter().map(|(key, (packets, bytes))| AuditTotals {
            live_label: key.0.to_owned(),
            staged_label: key.1.to_owned(),
            live_allowed: key.2,
            staged_allowed: key.3,
            packets,
            bytes,
        });
        let mut totals: Vec<AuditTotals> = totals.collect();
        totals.sort_by_key(|totals| std::cmp::Reverse(totals.packets));
        Sum {
            totals,
            reporting,
            refusing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn count(live: &str, staged_allowed: bool, packets: u64) -> AuditCount {
        AuditCount {
            live_label: live.to_owned(),
            staged_label: "staged".to_owned(),
            live_allowed: true,
            staged_allowed,
            packets,
            bytes: packets * 100,
        }
    }

    #[test]
    fn counts_are_summed_over_nodes_by_what_both_policies_say() {
        let mut audit = Audit::default();
        let shop = name("shop");
        let report = |audit: &mut Audit, network: &str, node: &str, revision, counts| {
            audit.report(&name(network), &name(node), revision, Ok(counts));
        };
        report(&mut audit, "shop", "aws1", 7, vec![count("web", true, 99)]);
        let (first, second) = (count("web", true, 3), count("db", false, 1));
        report(&mut audit, "shop", "aws1", 7, vec![first, second]);
        report(&mut audit, "shop", "gcp1", 7, vec![count("db", false, 4)]);
        report(&mut audit, "shop", "old1", 6, vec![count("db", false, 50)]);
        report(&mut audit, "lab", "gcp1", 7, vec![count("db", false, 9)]);
        audit.report(&shop, &name("full1"), 7, Err("no room".to_owned()));
        let sum = audit.sum(&shop, 7);
        assert_eq!(sum.totals, [count("db", false, 5), count("web", true, 3)]);
        assert_eq!(sum.reporting, [name("aws1"), name("gcp1")]);
        assert_eq!(sum.refusing.len(), 1);
        assert_eq!(sum.refusing[0].detail, "no room");

        audit.forget_node(&name("gcp1"));
        assert_eq!(audit.sum(&shop, 7).totals[0], count("web", true, 3));
        audit.forget_network(&shop);
        assert_eq!(audit.sum(&shop, 7).totals, []);
    }
}
