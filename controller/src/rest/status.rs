//! The controller's status, and counters.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use sunwire_api::{
    CountTotals, Counters, DropTotals, LabelTotals, Name, NamedTotals, NodeCounters, NodeProgress,
    Problem, Status, Totals, Vni, agent,
};
use utoipa::IntoParams;

use super::failure::Failure;
use super::request::Parameters;
use super::wait;
use crate::handle::Handle;
use crate::owner::Cluster;

/// What to wait for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct StatusQuery {
    /// Answer once every connected node has answered this revision, or the time is over.
    wait_revision: Option<u64>,
    /// How long to wait, in milliseconds: at most 300000, 10000 when absent.
    timeout_ms: Option<u64>,
}

/// How far the controller and its nodes are.
#[utoipa::path(
    get, path = "/v1/status", tag = "status",
    params(StatusQuery),
    responses((status = 200, body = Status), (status = "4XX", body = Problem)),
)]
pub(crate) async fn status(
    State(handle): State<Handle>,
    Parameters(query): Parameters<StatusQuery>,
) -> Result<Json<Status>, Failure> {
    let timeout = wait::timeout(query.timeout_ms)?;
    let awaited = query.wait_revision.unwrap_or(0);
    let read = move |cluster: &Cluster| {
        let answered =
            cluster.state.revision() >= awaited && cluster.sessions.all_answered(awaited);
        Ok((view(cluster), answered))
    };
    let ((mut status, _), answered) = handle
        .read_until(timeout, read, |(_, answered)| *answered)
        .await?;
    status.timed_out = !answered;
    Ok(Json(status))
}

pub(super) fn view(cluster: &Cluster) -> Status {
    let revision = cluster.state.revision();
    let nodes = cluster.state.nodes().iter().map(|(name, record)| {
        let status = cluster.sessions.status(name, record, &cluster.state);
        NodeProgress {
            name: name.clone(),
            number: record.number,
            connected: status.connected,
            acknowledged_revision: status.acknowledged_revision,
            error: status.error,
        }
    });
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision,
        nodes: nodes.collect(),
        timed_out: false,
    }
}

/// Counters of all nodes, as their agents last reported them.
#[utoipa::path(
    get, path = "/v1/counters", tag = "status",
    responses((status = 200, body = Counters), (status = "4XX", body = Problem)),
)]
pub(crate) async fn counters(State(handle): State<Handle>) -> Result<Json<Counters>, Failure> {
    Ok(Json(handle.read(sum).await?))
}

pub(super) fn sum(cluster: &Cluster) -> Counters {
    let mut all = Sums::default();
    let mut nodes = Vec::new();
    for (node, counters) in cluster.sessions.counters() {
        all.add(counters);
        let mut own = Sums::default();
        own.add(counters);
        nodes.push(NodeCounters {
            node: node.clone(),
            labels: own.labels(cluster),
            counts: own.counts(cluster),
            drops: own.drops(),
            asked: named(&own.asked),
            copies: named(&own.copies),
        });
    }
    Counters {
        labels: all.labels(cluster),
        counts: all.counts(cluster),
        drops: all.drops(),
        asked: named(&all.asked),
        copies: named(&all.copies),
        nodes,
    }
}

/// Totals by what was counted.
#[derive(Default)]
struct Sums {
    labels: BTreeMap<(u32, String), Totals>,
    counts: BTreeMap<(u32, String), Totals>,
    drops: BTreeMap<String, Totals>,
    asked: BTreeMap<String, Totals>,
    copies: BTreeMap<String, Totals>,
}

impl Sums {
    fn add(&mut self, counters: &agent::Counters) {
        for (sums, counters) in [
            (&mut self.labels, &counters.labels),
            (&mut self.counts, &counters.counts),
        ] {
            for counter in counters {
                let key = (counter.vni, counter.label.clone());
                *sums.entry(key).or_default() += Totals {
                    packets: counter.packets,
                    bytes: counter.bytes,
                };
            }
        }
        for (sums, counters) in [
            (&mut self.asked, &counters.asked),
            (&mut self.copies, &counters.copies),
        ] {
            for counter in counters {
                *sums.entry(counter.name.clone()).or_default() += Totals {
                    packets: counter.packets,
                    bytes: counter.bytes,
                };
            }
        }
        for counter in &counters.drops {
            *self.drops.entry(counter.reason.clone()).or_default() += Totals {
                packets: counter.packets,
                bytes: counter.bytes,
            };
        }
    }

    fn labels(&self, cluster: &Cluster) -> Vec<LabelTotals> {
        let labels = self.labels.iter();
        labels
            .map(|((vni, label), totals)| LabelTotals {
                vni: *vni,
                network: network(cluster, *vni),
                label: label.clone(),
                totals: *totals,
            })
            .collect()
    }

    fn counts(&self, cluster: &Cluster) -> Vec<CountTotals> {
        let counts = self.counts.iter();
        counts
            .map(|((vni, name), totals)| CountTotals {
                vni: *vni,
                network: network(cluster, *vni),
                name: name.clone(),
                totals: *totals,
            })
            .collect()
    }

    fn drops(&self) -> Vec<DropTotals> {
        let drops = self.drops.iter();
        drops
            .map(|(reason, totals)| DropTotals {
                reason: reason.clone(),
                totals: *totals,
            })
            .collect()
    }
}

fn named(sums: &BTreeMap<String, Totals>) -> Vec<NamedTotals> {
    let sums = sums.iter();
    sums.map(|(name, totals)| NamedTotals {
        name: name.clone(),
        totals: *totals,
    })
    .collect()
}

/// The network with a VNI; `None` when it is gone.
fn network(cluster: &Cluster, vni: u32) -> Option<Name> {
    let vni = Vni::try_from(vni).ok()?;
    cluster.state.network_of(vni).cloned()
}
