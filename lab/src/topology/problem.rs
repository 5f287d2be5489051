//! Why a topology is refused, and what to do about it.

use std::net::Ipv4Addr;

use thiserror::Error;

use crate::link::LinkError;
use crate::mac::MacError;
use crate::topology::workload::AddressError;

/// A refused topology.
#[derive(Debug, Error, Clone, PartialEq)]
pub enum TopologyError {
    /// Not TOML, a key that does not exist, a value of another type: the text
    /// names line and column and shows them.
    #[error("{0}")]
    Syntax(String),
    /// A well-formed file that says something impossible.
    #[error("line {line}, column {column}: {problem}\n{excerpt}")]
    At {
        /// Line, from 1.
        line: usize,
        /// Column, from 1, in characters.
        column: usize,
        /// What is wrong.
        problem: Problem,
        /// The line with a caret below the place.
        excerpt: String,
    },
    /// The same from the builder, where there is no place to show.
    #[error("{0}")]
    Problem(#[from] Problem),
    /// The file cannot be read.
    #[error("cannot read {path}: {reason}")]
    Unreadable {
        /// The file.
        path: String,
        /// The system's answer.
        reason: String,
    },
}

/// What is wrong with a topology.
#[derive(Debug, Error, Clone, PartialEq)]
pub enum Problem {
    /// A lab id of another form.
    #[error("lab id `{0}` is not 1 to 12 lower-case letters and digits")]
    LabId(String),
    /// A name of another form.
    #[error(
        "name `{0}` is not 1 to 32 lower-case letters, digits and inner hyphens, beginning with a letter"
    )]
    Name(String),
    /// A name that the lab uses itself.
    #[error(
        "name `{0}` is the lab's own (for the controller's node use [controller]): choose another"
    )]
    Reserved(String),
    /// A name given twice.
    #[error("name `{0}` is given twice: nodes and workloads share one name space")]
    Twice(String),
    /// A region of another form.
    #[error("region `{0}` is not of the form cloud:name, like aws:us-east-1")]
    Region(String),
    /// No nodes.
    #[error("a topology needs at least one [[node]]")]
    Empty,
    /// More nodes than addresses.
    #[error("{0} nodes are more than the {max} that one lab holds", max = super::builder::NODES_MAX)]
    TooManyNodes(usize),
    /// Two nodes within a /24.
    #[error(
        "underlay address {address} lies in the /24 of node `{other}`: every node has a /24 of its own"
    )]
    SameSubnet {
        /// The address.
        address: Ipv4Addr,
        /// The node that has the /24 already.
        other: String,
    },
    /// An underlay address that no host can have.
    #[error("{0} is no host's IPv4 address: use one between .1 and .254 of a unicast /24")]
    Underlay(Ipv4Addr),
    /// A link end that is neither a node nor a region in use.
    #[error("link end `{0}` is neither a node nor the region of one{known}", known = known(.1))]
    LinkEnd(String, Vec<String>),
    /// A link with other ends than it must have.
    #[error(
        "a link needs either between = [A, B] (both directions) or from = A and to = B (one direction)"
    )]
    LinkEnds,
    /// A link of a node with itself.
    #[error("a node has no link with itself (`{0}`)")]
    LinkToItself(String),
    /// A link value out of range.
    #[error("{0}")]
    Link(#[from] LinkError),
    /// No delay is known.
    #[error(
        "no delay is known between {a} and {b}: add a [[link]] with between = [\"{a}\", \"{b}\"] and delay_ms; \
         built in are {regions}",
        regions = crate::matrix::regions().join(", ")
    )]
    NoDelay {
        /// Region of one node.
        a: String,
        /// Region of the other.
        b: String,
    },
    /// A workload on a node that is not there.
    #[error("workload `{workload}` is on node `{node}`, which does not exist{known}", known = known(.nodes))]
    NoNode {
        /// The workload.
        workload: String,
        /// The node named.
        node: String,
        /// The nodes that exist.
        nodes: Vec<String>,
    },
    /// A malformed interface address.
    #[error("{0}")]
    Address(#[from] AddressError),
    /// A malformed hardware address.
    #[error("{0}")]
    Mac(#[from] MacError),
    /// A workload's gateway of a family it has no address in, or given twice.
    #[error(
        "gateway {0} needs an address of its family in addresses, and one gateway per family at most"
    )]
    Gateway(std::net::IpAddr),
    /// A workload's MTU out of range.
    #[error("mtu = {0} is not between 576 and 65535 (1280 at least with IPv6 addresses)")]
    Mtu(u32),
    /// Two workloads whose device names collide.
    #[error("workload names `{0}` and `{1}` give the same device name: rename one")]
    DeviceName(String, String),
}

fn known(names: &[String]) -> String {
    match names {
        [] => String::new(),
        names => format!(" (there are: {})", names.join(", ")),
    }
}

/// A lab id stands in namespace names before a hyphen and therefore has none:
/// otherwise lab `a` with node `b-c` and lab `a-b` with node `c` would collide.
pub(crate) fn check_lab_id(id: &str) -> Result<(), Problem> {
    let character = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    if (1..=12).contains(&id.len()) && id.bytes().all(character) {
        Ok(())
    } else {
        Err(Problem::LabId(id.to_owned()))
    }
}

pub(crate) fn check_name(name: &str) -> Result<(), Problem> {
    let character = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let good = (1..=32).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.bytes().all(character);
    if !good {
        return Err(Problem::Name(name.to_owned()));
    }
    if name == super::CONTROLLER || name == super::WAN {
        return Err(Problem::Reserved(name.to_owned()));
    }
    Ok(())
}

pub(crate) fn check_region(region: &str) -> Result<(), Problem> {
    let part = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
    };
    match region.split_once(':') {
        Some((cloud, name)) if part(cloud) && part(name) => Ok(()),
        _ => Err(Problem::Region(region.to_owned())),
    }
}
