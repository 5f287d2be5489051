//! The policy in force while Sunwire is measured, compiled as the controller does it, and handed to
//! the data plane as the agent does it.

use std::net::IpAddr;

use anyhow::{Result, anyhow};
use sunwire_policy::compile_text;
use sunwire_policy::diagnostic::render_all;
use sunwire_policy::environment::{Endpoint, Environment, Network};
use sunwire_policy::tables::FlowTables;
use sunwire_userspace::state::Desired;

use crate::bench::tables;

/// The label of what the policy does not admit.
pub(super) const DENIED: &str = "default deny";

/// Three tiers as in `examples/first-light.nk`, with UDP beside TCP on the web server's ports, so
/// that datagrams are measured under the same policy. The benchmark's server is the web server.
const TEXT: &str = r#"
network bench { subnet 10.20.0.0/16 }

set web = { server }
set db  = { database }

let pg = tcp and dst port 5432

policy main =
    if src in web and dst in db and pg then forward "web to db"
    else if src in db and dst in web and tcp and src port 5432 then forward "db replies"
    else if dst in web and (tcp or udp) and dst port in { 80, 443 } then forward "to web"
    else if src in web and (tcp or udp) and src port in { 80, 443 } then forward "web replies"
    else if icmp and src in bench and dst in bench then forward "icmp inside"
    else drop "default deny"
"#;

/// An endpoint as the policy knows it.
pub(super) struct Named {
    pub(super) name: &'static str,
    pub(super) number: u32,
    pub(super) address: IpAddr,
    pub(super) mac: [u8; 6],
}

/// Compiles the policy for network `vni` and puts it into `desired`.
pub(super) fn put(desired: &mut Desired, vni: u32, endpoints: &[Named]) -> Result<()> {
    tables::install(&compile(vni, endpoints)?, vni, desired);
    Ok(())
}

fn compile(vni: u32, endpoints: &[Named]) -> Result<FlowTables> {
    let network = "bench".to_owned();
    let environment = Environment {
        networks: vec![Network {
            name: network.clone(),
            vni,
            subnets: vec![(IpAddr::from([10, 20, 0, 0]), 16)],
        }],
        endpoints: endpoints
            .iter()
            .map(|endpoint| Endpoint {
                name: endpoint.name.to_owned(),
                number: endpoint.number,
                network: network.clone(),
                addresses: vec![endpoint.address],
                mac: endpoint.mac,
                labels: Default::default(),
            })
            .collect(),
        nodes: Vec::new(),
    };
    let compiled = compile_text(TEXT, &environment)
        .map_err(|diagnostics| anyhow!("{}", render_all(&diagnostics, TEXT)))?;
    Ok(compiled.tables)
}
