//! The cloud that a soak runs in: four nodes in three clouds over links that delay, jitter and lose,
//! and an endpoint on each; and policies that all let the same traffic through.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::{Context as _, Result};
use sunwire_api::EncryptionMode;
use sunwire_lab::{
    LinkChange, Topology, Workload, WorkloadSpec, eventually_ok,
    traffic::ping::{PingOptions, ping},
};

use crate::cloud::{Cloud, PATIENCE};

/// Name and location of the nodes.
pub const NODES: [(&str, &str); 4] = [
    ("aws", "aws:us-east-1"),
    ("oregon", "aws:us-west-2"),
    ("azure", "azure:westeurope"),
    ("gcp", "gcp:us-central1"),
];
/// Name, IPv4 and IPv6 address of the endpoints; each begins at the node of the same number.
pub const ENDPOINTS: [(&str, &str, &str); 4] = [
    ("alpha", "10.30.0.11", "fd00:30::11"),
    ("beta", "10.30.0.12", "fd00:30::12"),
    ("gamma", "10.30.0.13", "fd00:30::13"),
    ("delta", "10.30.0.14", "fd00:30::14"),
];
/// What the links do all the time. Not so slow that most of the time goes by on the way.
const LINK: LinkChange = LinkChange {
    delay_ms: Some(8.0),
    jitter_ms: Some(2.0),
    loss: Some(0.001),
    rate_mbps: Some(200.0),
    queue_packets: None,
    queue_bytes: None,
    up: None,
};
/// Longest way of a packet on a machine that is not busy, ns: over a link with its jitter, to the old
/// node and on to the new one, and through queues and processors.
pub const WAY_NS: u64 = 60_000_000;
/// The longest way that is believed, however busy the machine is.
pub const WAY_NS_MAX: u64 = 250_000_000;

/// Policies that let everything of a soak through, by different rules and with and without state.
pub const POLICIES: [&str; 3] = [
    "network soak\npolicy main = forward \"all\"\n",
    "network soak\npolicy main =
    if udp then forward \"datagrams\"
    else if tcp then forward \"streams\"
    else if icmp then forward \"echoes\"
    else drop \"nothing else is sent\"\n",
    "network soak\npolicy main =
    if established then forward \"known\"
    else if udp or icmp then forward \"datagrams\"
    else if tcp and dst port in { 80, 5000-5999 } then forward \"asked for\"
    else drop \"unasked\"\n",
];
/// Name that the policies are kept under.
pub const POLICY_NAME: &str = "soak";

/// A running cloud with its endpoints.
pub struct World {
    /// The cloud.
    pub cloud: Cloud,
    /// By the numbers of [`ENDPOINTS`].
    pub endpoints: Vec<Workload>,
}

impl World {
    /// Brings it up and waits until every endpoint reaches every other.
    ///
    /// # Errors
    /// When something does not come up.
    pub fn up(seed: u64, is_encrypted: bool) -> Result<Self> {
        let mut builder = Topology::builder()
            .seed(seed)
            .defaults(LINK)
            .controller(NODES[0].1);
        for (name, location) in NODES {
            builder = builder.node(name, location);
        }
        for ((name, v4, v6), (node, _)) in ENDPOINTS.into_iter().zip(NODES) {
            let spec = WorkloadSpec::new(name, node, "soak")
                .address(&format!("{v4}/16"))?
                .address(&format!("{v6}/64"))?;
            builder = builder.workload(spec);
        }
        let cloud = Cloud::up(builder.build()?)?;
        cloud.create_network("soak", &["10.30.0.0/16", "fd00:30::/64"])?;
        let mut endpoints = Vec::new();
        for (name, ..) in ENDPOINTS {
            let workload = cloud.lab().workload(name)?;
            cloud.create_endpoint(&workload)?;
            endpoints.push(workload);
        }
        cloud.apply_policy(POLICY_NAME, POLICIES[0])?;
        let world = World { cloud, endpoints };
        world.cloud.encrypt(if is_encrypted {
            EncryptionMode::BetweenClouds
        } else {
            // Of a dropped frame that can be read it is known which datagram was in it.
            EncryptionMode::Never
        })?;
        world.reach()?;
        Ok(world)
    }

    fn reach(&self) -> Result<()> {
        for (from, workload) in self.endpoints.iter().enumerate() {
            for to in (0..ENDPOINTS.len()).filter(|to| *to != from) {
                for address in addresses(to) {
                    let what = format!("{} to reach {address}", workload.name());
                    eventually_ok(&what, PATIENCE, || {
                        let options = PingOptions {
                            count: 1,
                            ..PingOptions::default()
                        };
                        let answered = ping(workload.namespace(), address, options)?.received();
                        anyhow::ensure!(answered == 1, "no answer");
                        Ok(())
                    })?;
                }
            }
        }
        Ok(())
    }

    /// Packets that nodes dropped, by node and reason, as their agents last reported: once a second.
    ///
    /// # Errors
    /// When the controller does not answer.
    pub fn node_drops(&self) -> Result<BTreeMap<String, BTreeMap<String, u64>>> {
        let counters = self.cloud.rest(|client| client.counters())?;
        let nodes = counters.nodes.into_iter().map(|node| {
            let drops = node
                .drops
                .into_iter()
                .filter(|drop| drop.totals.packets > 0);
            let drops = drops
                .map(|drop| (drop.reason, drop.totals.packets))
                .collect();
            (node.node.to_string(), drops)
        });
        Ok(nodes.collect())
    }

    /// Frames that the machine lost, and not the emulator: nobody can tell what was in them.
    ///
    /// # Errors
    /// When the emulator has stopped.
    pub fn machine_drops(&self) -> Result<u64> {
        let report = self.cloud.lab().report().context("no report")?;
        Ok(report.socket_overflow_frames + report.machine_backlog_drops)
    }
}

/// The addresses of an endpoint, IPv4 first.
#[must_use]
pub fn addresses(endpoint: usize) -> [IpAddr; 2] {
    let (_, v4, v6) = ENDPOINTS[endpoint];
    [v4, v6].map(|text| text.parse().expect("written as an address"))
}
