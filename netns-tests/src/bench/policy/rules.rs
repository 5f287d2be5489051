//! Policies of any number of rules, and packets that meet each of them.
//!
//! A rule drops what one endpoint sends to one other on one port. Every pair of endpoints has the
//! same number of rules and ports of its own, so no two parts of the tables are equal.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Result, anyhow};
use sunwire_policy::compile_text;
use sunwire_policy::diagnostic::render_all;
use sunwire_policy::environment::{Endpoint, Environment, Network};
use sunwire_policy::tables::{Digest, FlowTables, Value};

/// VNI of the network.
pub(super) const VNI: u32 = 10;

/// A policy and whom it is for.
pub(super) struct Rules {
    /// Endpoints, with numbers from 1.
    pub(super) endpoints: u32,
    /// Rules for every ordered pair of them.
    pub(super) per_pair: u32,
}

/// One rule, by the packet that meets it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    /// Number of the endpoint that sends.
    pub(super) from: u32,
    /// Number of the endpoint that it is for.
    pub(super) to: u32,
    /// TCP destination port.
    pub(super) port: u16,
}

impl Rules {
    /// Rules of about this number: exact for the squares of a number up to 100, times ten.
    pub(super) fn new(count: usize) -> Self {
        let per_pair = 10;
        let pairs = count.div_ceil(per_pair as usize);
        Rules {
            endpoints: (pairs as f64).sqrt().ceil() as u32,
            per_pair,
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.endpoints as usize * self.endpoints as usize * self.per_pair as usize
    }

    /// One of them, by its number.
    pub(super) fn key(&self, number: usize) -> Key {
        let pair = (number / self.per_pair as usize) as u32;
        let (from, to) = (pair / self.endpoints + 1, pair % self.endpoints + 1);
        let nth = (number % self.per_pair as usize) as u32;
        // Knuth's multiplicative hash; the ports of a pair are apart by their parts of the range.
        let spread = (number as u32).wrapping_mul(0x9e37_79b1) >> 8;
        let port = (1_024 + nth * 6_400 + spread % 6_400) as u16;
        Key { from, to, port }
    }

    /// The policy, compiled.
    pub(super) fn compile(&self) -> Result<FlowTables> {
        let text = self.text();
        let compiled = compile_text(&text, &self.environment())
            .map_err(|diagnostics| anyhow!("{}", render_all(&diagnostics, &text)))?;
        Ok(compiled.tables)
    }

    /// The text: 100,000 rules stay well below the parser's limit, and share their labels, of which a node
    /// has fewer.
    fn text(&self) -> String {
        let mut text = "network bench { subnet 10.0.0.0/8 }\npolicy main = ".to_owned();
        let mut number = 0;
        let mut say = |line: std::fmt::Arguments<'_>| {
            text.write_fmt(line).expect("a string can be written");
        };
        for from in 1..=self.endpoints {
            say(format_args!("if src = e{from} then (\n"));
            for to in 1..=self.endpoints {
                say(format_args!(" if dst = e{to} then (\n"));
                for _ in 0..self.per_pair {
                    let port = self.key(number).port;
                    say(format_args!("if dst port {port} then drop \"d\" else\n"));
                    number += 1;
                }
                say(format_args!("forward \"f\") else\n"));
            }
            say(format_args!("forward \"f\") else\n"));
        }
        say(format_args!("forward \"f\"\n"));
        text
    }

    fn environment(&self) -> Environment {
        let network = "bench".to_owned();
        let endpoints = (1..=self.endpoints).map(|number| Endpoint {
            name: format!("e{number}"),
            number,
            network: network.clone(),
            addresses: vec![address(number).into()],
            mac: mac(number),
            labels: BTreeMap::new(),
        });
        Environment {
            endpoints: endpoints.collect(),
            networks: vec![Network {
                name: network,
                vni: VNI,
                subnets: vec![(IpAddr::from([10, 0, 0, 0]), 8)],
                ..Network::default()
            }],
            nodes: Vec::new(),
        }
    }
}

/// Address of an endpoint.
pub(super) fn address(number: u32) -> Ipv4Addr {
    let [_, b, c, d] = number.to_be_bytes();
    Ipv4Addr::new(10, b, c, d)
}

/// MAC address of an endpoint.
pub(super) fn mac(number: u32) -> [u8; 6] {
    let [a, b, c, d] = number.to_be_bytes();
    [2, 0x53, a, b, c, d]
}

/// How many nodes of the tables a packet visits; each is one probe of the edges.
pub(super) fn probes(tables: &FlowTables, key: Key) -> u32 {
    use sunwire_dataplane_common::flow_key::Field;
    let class = |number| Value::Class(class(tables, address(number)));
    let number = |value: u32| {
        move |shift: u8, width: u8| {
            let bits = u64::from(value) >> shift & ((1 << width) - 1);
            Value::Number(bits as u32)
        }
    };
    let mut at = tables.root;
    let mut probes = 0;
    while let Some(node) = tables.nodes.get(&at) {
        let value = match node.field {
            Field::SourceClass => class(key.from),
            Field::DestinationClass => class(key.to),
            Field::DestinationPort => number(key.port.into())(node.shift, node.width),
            Field::Protocol => number(6)(node.shift, node.width),
            Field::EtherType => number(0x0800)(node.shift, node.width),
            Field::Endpoint => number(key.from)(node.shift, node.width),
            _ => Value::Number(0),
        };
        let edge = node.edges.binary_search_by_key(&value, |(value, _)| *value);
        at = edge.map_or(node.default, |at| node.edges[at].1);
        probes += 1;
    }
    probes
}

fn class(tables: &FlowTables, address: Ipv4Addr) -> Digest {
    let holds = |first: IpAddr, prefix: u8| match first {
        IpAddr::V4(first) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            u32::from(first) == u32::from(address) & mask
        }
        IpAddr::V6(_) => false,
    };
    let classes = tables.classes.iter();
    let longest = classes
        .filter(|class| holds(class.address, class.prefix))
        .max_by_key(|class| class.prefix);
    longest.map_or(tables.class_none, |class| class.class)
}
