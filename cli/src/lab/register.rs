//! What a topology's workloads are at the controller: networks and endpoints; and policies.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail};
use sunwire_api::client::Guard;
use sunwire_api::{
    Cidr, EncryptionMode, EncryptionSpec, EndpointCreate, EndpointState, Name, Network,
    NetworkCreate, NodeProgress, TunnelState,
};
use sunwire_lab::{Lab, Workload, WorkloadSpec};

use super::cloud::Cloud;

/// Decides which tunnels are encrypted, unless the default is to stay, and waits until every node
/// reaches every other one. Returns what there is to tell of it.
pub(super) fn encryption(
    cloud: &mut Cloud<'_>,
    wanted: Option<EncryptionMode>,
) -> anyhow::Result<String> {
    if let Some(mode) = wanted {
        let spec = EncryptionSpec { mode };
        cloud.rest(|client| client.put_encryption(&spec, Guard::Any))?;
    }
    let setting = cloud.rest(|client| client.encryption())?;
    let mode = setting.spec.mode;
    cloud.wait("tunnels to be up", |client| {
        let behind = |node: &&NodeProgress| node.acknowledged_revision < setting.revision;
        if let Some(node) = client.status()?.nodes.iter().find(behind) {
            return Ok(Some(format!("{} has not heard of the setting", node.name)));
        }
        let nodes = client.nodes()?;
        let missing = nodes.iter().find_map(|node| {
            let tunnels = &node.status.tunnels;
            if tunnels.len() + 1 < nodes.len() {
                return Some(format!("{} has not told of its tunnels", node.name));
            }
            let down = tunnels.iter().find(|t| t.state == TunnelState::Down)?;
            let why = down.detail.as_deref().unwrap_or("no session yet");
            Some(format!("{} to {}: {why}", node.name, down.node))
        });
        Ok(missing)
    })?;
    let nodes = cloud.rest(|client| client.nodes())?;
    let tunnels = || nodes.iter().flat_map(|node| &node.status.tunnels);
    let all = tunnels().count();
    let encrypted = tunnels()
        .filter(|tunnel| tunnel.state == TunnelState::Encrypted)
        .count();
    Ok(format!(
        "encryption {mode}: {encrypted} of {all} tunnels are encrypted"
    ))
}

/// Makes the networks that workloads name, with the subnets that their addresses are in.
pub(super) fn networks(cloud: &Cloud<'_>, lab: &Lab) -> anyhow::Result<Vec<Network>> {
    let workloads = lab.workloads();
    let bodies = bodies(workloads.iter().map(Workload::spec))?;
    let create = |body: &NetworkCreate| {
        cloud
            .rest(|client| client.create_network(body, Guard::None))
            .with_context(|| format!("network {} was not made", body.name))
    };
    bodies.iter().map(create).collect()
}

/// Makes an endpoint of every workload and waits until all are attached.
pub(super) fn endpoints(cloud: &mut Cloud<'_>, lab: &Lab) -> anyhow::Result<usize> {
    let workloads = lab.workloads();
    for workload in &workloads {
        let spec = workload.spec();
        let addresses: Vec<_> = spec.addresses.iter().map(|address| address.ip).collect();
        let body = EndpointCreate {
            name: spec.name.parse()?,
            network: spec.network.parse()?,
            node: workload.node().name.parse()?,
            device: Some(workload.host_device_name().parse()?),
            addresses: Some(addresses),
            mac: Some(spec.effective_mac().to_string().parse()?),
            labels: spec.labels.clone(),
        };
        cloud
            .rest(|client| client.create_endpoint(&body, Guard::None))
            .with_context(|| format!("endpoint {} was not made", body.name))?;
    }
    cloud.wait("every endpoint to be attached", |client| {
        let endpoints = client.endpoints()?;
        let waiting = endpoints
            .iter()
            .find(|e| e.status.state != EndpointState::Attached);
        Ok(waiting.map(|endpoint| {
            let (name, status) = (&endpoint.name, &endpoint.status);
            format!("{name} is {} {}", status.state, status.detail)
        }))
    })?;
    Ok(workloads.len())
}

/// Puts a policy in force on all nodes.
pub(super) fn policy(cloud: &mut Cloud<'_>, name: &Name, text: &str) -> anyhow::Result<()> {
    let policy = cloud.rest(|client| client.put_policy(name, text, Guard::None))?;
    for warning in &policy.status.warnings {
        eprintln!("{}\n", warning.rendered.trim_end());
    }
    cloud.wait("every node to apply the policy", |client| {
        let status = client.status()?;
        let behind = status
            .nodes
            .iter()
            .find(|node| node.acknowledged_revision < policy.revision);
        Ok(behind.map(|node| match &node.error {
            Some(error) => format!("{} could not: {}", node.name, error.detail),
            None => format!("{} has not", node.name),
        }))
    })
}

fn bodies<'w>(
    workloads: impl Iterator<Item = &'w WorkloadSpec>,
) -> anyhow::Result<Vec<NetworkCreate>> {
    let mut networks: BTreeMap<&str, (BTreeSet<Cidr>, u32)> = BTreeMap::new();
    for spec in workloads {
        let (subnets, mtu) = networks
            .entry(&spec.network)
            .or_insert((BTreeSet::new(), spec.mtu));
        if *mtu != spec.mtu {
            bail!(
                "workloads of network {} have MTUs {mtu} and {}: give all the same",
                spec.network,
                spec.mtu
            );
        }
        for address in &spec.addresses {
            subnets.extend(Cidr::containing(address.ip, address.prefix_length));
        }
    }
    let body = |(name, (subnets, mtu)): (&str, (BTreeSet<Cidr>, u32))| {
        let mtu = u16::try_from(mtu).context("a network's MTU has 16 bits")?;
        Ok(NetworkCreate {
            outbound: Default::default(),
            encryption: Default::default(),
            relay: false,
            enforce: Default::default(),
            vxlan_port: None,
            checksum: Default::default(),
            name: name.parse().with_context(|| format!("network {name:?}"))?,
            vni: None,
            subnets: subnets.into_iter().collect(),
            mtu: Some(mtu),
        })
    };
    networks.into_iter().map(body).collect()
}
