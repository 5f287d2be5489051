//! What the end-to-end tests share: a small cloud of two nodes and two workloads.
#![allow(dead_code, reason = "each test program uses its own part of this")]

pub(crate) mod asking;
pub(crate) mod telling;

use sunwire_lab::{Topology, WorkloadSpec};
use sunwire_netns_tests::cloud::Cloud;

/// Lets everything through.
pub(crate) const OPEN: &str = "network shop\npolicy main = forward\n";
/// Address of `client1`, on node `near`.
pub(crate) const CLIENT: &str = "10.20.0.11";
/// Address of `web1`, on node `far`.
pub(crate) const WEB: &str = "10.20.0.12";

/// Says why a test cannot run here; `true` when it can.
pub(crate) fn can_run(test: &str) -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    eprintln!("SKIPPED {test}: root is needed to make network namespaces and load programs");
    false
}

/// Two nodes with one workload each on the network `shop`, and a third node without.
pub(crate) fn cloud() -> Cloud {
    cloud_of(&[("client1", "near", CLIENT), ("web1", "far", WEB)])
}

/// The same with one more workload.
pub(crate) fn cloud_with(name: &str, node: &str, address: &str) -> Cloud {
    cloud_of(&[
        ("client1", "near", CLIENT),
        ("web1", "far", WEB),
        (name, node, address),
    ])
}

fn cloud_of(workloads: &[(&str, &str, &str)]) -> Cloud {
    let workload = |name: &str, node: &str, address: &str| {
        WorkloadSpec::new(name, node, "shop")
            .address(&format!("{address}/16"))
            .expect("an address")
    };
    let mut topology = Topology::builder()
        .node("near", "aws:us-east-1")
        .node("far", "azure:westeurope")
        .node("third", "gcp:asia-northeast1-a")
        .controller("aws:us-east-1");
    for (name, node, address) in workloads {
        topology = topology.workload(workload(name, node, address));
    }
    let topology = topology.build().expect("a topology");
    let cloud = Cloud::up(topology).expect("the cloud comes up");
    cloud
        .create_network("shop", &["10.20.0.0/16"])
        .expect("the network is made");
    for (name, ..) in workloads {
        let workload = cloud.lab().workload(name).expect("the lab has it");
        cloud
            .create_endpoint(&workload)
            .expect("the endpoint is attached");
    }
    cloud
}
