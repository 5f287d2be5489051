//! The policy in force while Sunwire is measured, compiled as the controller does it, and handed to
//! the data plane as the agent does it.

use std::net::IpAddr;

use anyhow::{Result, anyhow};
use sunwire_dataplane_common::address::Mac;
use sunwire_dataplane_common::tables::{Copied, OUT_ENDPOINT, OUT_NONE, OUT_OWNER, set};
use sunwire_policy::compile_text;
use sunwire_policy::diagnostic::render_all;
use sunwire_policy::environment::{Endpoint, Environment, Network};
use sunwire_policy::tables::{self, FlowTables, Out};
use sunwire_userspace::state::{Desired, Digest, Leaf, Program, TableNode, Value};

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
    let tables = compile(vni, endpoints)?;
    for (key, node) in &tables.nodes {
        desired.table_nodes.insert(digest(key), table_node(node));
    }
    for (key, leaf) in &tables.leaves {
        let copies = leaf.copies.iter().map(copied).collect();
        let label = leaf.label.clone();
        desired.leaves.insert(digest(key), Leaf { label, copies });
    }
    let classes = tables.classes.iter();
    let program = Program {
        revision: 1,
        root: Some(digest(&tables.root)),
        classes: classes
            .map(|class| (class.address, class.prefix, digest(&class.class)))
            .collect(),
        class_none: digest(&tables.class_none),
    };
    desired.programs.insert(vni, program);
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

fn table_node(node: &tables::TableNode) -> TableNode {
    let edges = node.edges.iter().map(|(value, next)| {
        let value = match value {
            tables::Value::Number(number) => Value::Number(*number),
            tables::Value::Class(class) => Value::Class(digest(class)),
        };
        (value, digest(next))
    });
    TableNode {
        field: node.field,
        shift: node.shift,
        width: node.width,
        edges: edges.collect(),
        default: digest(&node.default),
    }
}

fn copied(copy: &tables::Copied) -> Copied {
    let (out, endpoint) = match copy.out {
        None => (OUT_NONE, 0),
        Some(Out::Owner) => (OUT_OWNER, 0),
        Some(Out::Endpoint(number)) => (OUT_ENDPOINT, number),
    };
    let mut copied = Copied {
        out,
        endpoint,
        ..Copied::default()
    };
    let mut mark = |given: bool, bit| copied.set |= if given { bit } else { 0 };
    mark(copy.eth_src.is_some(), set::ETH_SRC);
    mark(copy.eth_dst.is_some(), set::ETH_DST);
    mark(copy.dscp.is_some(), set::DSCP);
    mark(copy.src_port.is_some(), set::SRC_PORT);
    mark(copy.dst_port.is_some(), set::DST_PORT);
    mark(copy.ip4_src.is_some(), set::IP4_SRC);
    mark(copy.ip4_dst.is_some(), set::IP4_DST);
    copied.eth_src = copy.eth_src.map(Mac::new).unwrap_or_default();
    copied.eth_dst = copy.eth_dst.map(Mac::new).unwrap_or_default();
    copied.dscp = copy.dscp.unwrap_or_default();
    copied.src_port = copy.src_port.unwrap_or_default();
    copied.dst_port = copy.dst_port.unwrap_or_default();
    let word = |address: std::net::Ipv4Addr| u32::from_ne_bytes(address.octets());
    copied.ip4_src = copy.ip4_src.map(word).unwrap_or_default();
    copied.ip4_dst = copy.ip4_dst.map(word).unwrap_or_default();
    copied
}

fn digest(digest: &tables::Digest) -> Digest {
    Digest(digest.0)
}
