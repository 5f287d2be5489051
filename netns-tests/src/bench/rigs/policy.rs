//! The policy in force while Sunwire is measured, with the rules of [`rules`](super::rules), compiled as the controller does it, and handed to
//! the data plane as the agent does it.

use std::fmt::Write as _;
use std::net::IpAddr;

use anyhow::{Result, anyhow};
use sunwire_policy::compile_text;
use sunwire_policy::diagnostic::render_all;
use sunwire_policy::environment::{Endpoint, Environment, Network};
use sunwire_policy::tables::FlowTables;
use sunwire_userspace::state::Desired;

use super::rules::{Rule, Tier};
use crate::bench::tables;

/// The label of what the policy does not admit.
pub(super) const DENIED: &str = "default deny";

/// How answers to admitted connections are admitted.
#[derive(Clone, Copy)]
enum Answers {
    /// By their source port: a second rule for every rule, as without connection tracking.
    #[expect(dead_code, reason = "the other one is chosen below")]
    BySourcePort,
    /// Because they belong to a connection that was admitted.
    Established,
}

/// What is measured.
const ANSWERS: Answers = Answers::Established;

/// Rules with labels of their own.
const LABELS: usize = 1_000;

/// The rules in the policy language.
fn text(rules: &[Rule], any_port: bool) -> String {
    let mut text = "network bench { subnet 10.0.0.0/8 }\n".to_owned();
    let mut say = |line: std::fmt::Arguments<'_>| {
        text.write_fmt(line).expect("a string can be written");
    };
    for tier in Tier::all() {
        say(format_args!(
            "set tier{} = {{ {} }}\n",
            tier.0,
            tier.prefix()
        ));
    }
    say(format_args!("policy main =\n"));
    if let Answers::Established = ANSWERS {
        say(format_args!(
            "if established then forward \"established\" else\n"
        ));
    }
    say(format_args!(
        "if icmp and src in bench and dst in bench then forward \"icmp inside\" else\n"
    ));
    for (number, rule) in rules.iter().enumerate() {
        let (from, to) = (rule.from.0, rule.to.0);
        let (protocol, port) = (rule.protocol, rule.port);
        // There are fewer labels than there may be rules.
        let number = number % LABELS;
        say(format_args!(
            "if src in tier{from} and dst in tier{to} and {protocol} and dst port {port} \
             then forward \"rule {number}\" else\n"
        ));
        if let Answers::BySourcePort = ANSWERS {
            say(format_args!(
                "if src in tier{to} and dst in tier{from} and {protocol} and src port {port} \
                 then forward \"answers to rule {number}\" else\n"
            ));
        }
    }
    if any_port {
        say(format_args!(
            "if src in tier0 and dst in tier1 and udp then forward \"any port\" else\n"
        ));
    }
    say(format_args!("drop \"{DENIED}\"\n"));
    text
}

/// An endpoint as the policy knows it.
pub(super) struct Named {
    pub(super) name: String,
    pub(super) number: u32,
    pub(super) address: IpAddr,
    pub(super) mac: [u8; 6],
}

/// Compiles the policy for network `vni` and puts it into `desired`. With `any_port` the client may send
/// datagrams to every port of the server.
pub(super) fn put(
    desired: &mut Desired,
    vni: u32,
    endpoints: &[Named],
    rules: &[Rule],
    any_port: bool,
) -> Result<()> {
    let text = text(rules, any_port);
    tables::install(&compile(vni, endpoints, &text)?, vni, desired);
    Ok(())
}

fn compile(vni: u32, endpoints: &[Named], text: &str) -> Result<FlowTables> {
    let network = "bench".to_owned();
    let environment = Environment {
        networks: vec![Network {
            name: network.clone(),
            vni,
            subnets: vec![(IpAddr::from([10, 0, 0, 0]), 8)],
            ..Network::default()
        }],
        endpoints: endpoints
            .iter()
            .map(|endpoint| Endpoint {
                name: endpoint.name.clone(),
                number: endpoint.number,
                network: network.clone(),
                addresses: vec![endpoint.address],
                mac: endpoint.mac,
                labels: Default::default(),
            })
            .collect(),
        nodes: Vec::new(),
    };
    let compiled = compile_text(text, &environment)
        .map_err(|diagnostics| anyhow!("{}", render_all(&diagnostics, text)))?;
    Ok(compiled.tables)
}
