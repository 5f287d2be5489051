//! Whether the node that a packet is for can decide about it again, as it does where a network does not
//! trust the nodes that packets enter by.
//!
//! It sees the packet as it arrives and knows who sent it. That must be what the entry node saw, as far
//! as the policy looks at it. So nothing may be rewritten; and of the destination MAC address, which the
//! entry node writes where it knows the owner of an address, no more may be asked than which group it
//! is. Where there is no subnet, it is the address that the sender wrote, unless the policy sends the
//! packet to another endpoint.

use std::collections::{BTreeSet, HashSet};

use sunwire_dataplane_common::flow_key::Field;

use crate::diagnostic::{Code, Diagnostic};
use crate::environment::Environment;
use crate::tables::{Copied, Digest, FlowTables, Leaf, Out, TableNode, Value};
use crate::term::Resolved;

/// What the receiver of a packet could not decide again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NotJudgeable {
    /// Under this label fields are rewritten, or addresses translated.
    Rewrites(String),
    /// A MAC address of one endpoint is tested.
    ReadsAddress,
    /// Under this label a frame for many goes to one, or one for one endpoint to others, and its MAC
    /// address was tested.
    Readdresses(String),
}

impl std::fmt::Display for NotJudgeable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NotJudgeable::Rewrites(label) => write!(
                f,
                "it rewrites fields of packets or translates addresses (\"{label}\"), so that what \
                 arrives is not what entered"
            ),
            NotJudgeable::ReadsAddress => write!(
                f,
                "it tests the destination MAC address of one endpoint, which the entry node replaces"
            ),
            NotJudgeable::Readdresses(label) => write!(
                f,
                "it tests the destination MAC address of frames that it sends to others \
                 (\"{label}\"), who get them under another one"
            ),
        }
    }
}

/// Checks the tables of a policy, whose network's receivers decide too, or a peer's.
///
/// # Errors
/// The first part that they could not decide again.
pub fn check(
    policy: &Resolved,
    tables: &FlowTables,
    environment: &Environment,
) -> Result<(), Diagnostic> {
    let named = |name: &str| environment.networks.iter().find(|one| one.name == name);
    let Some(own) = named(&policy.network.name) else {
        return Ok(());
    };
    let peers = own.peers.iter().filter_map(|peer| named(peer));
    let Some(judging) = std::iter::once(own)
        .chain(peers)
        .find(|network| network.enforced)
    else {
        return Ok(());
    };
    let Some(reason) = not_judgeable(tables, own.subnets.is_empty())
        .into_iter()
        .next()
    else {
        return Ok(());
    };
    let message = format!(
        "packets of network {} are decided about by their receivers, too (`enforce = \"both\"`), and \
         by this policy they could not be: {reason}",
        judging.name
    );
    let span = policy.span;
    let found = Diagnostic::new(policy.source(), Code::NotJudgeable, span, message);
    Err(found)
}

/// All that a receiver could not decide again by these tables; `is_link`: their network has no subnet.
#[must_use]
pub fn not_judgeable(tables: &FlowTables, is_link: bool) -> BTreeSet<NotJudgeable> {
    let mut search = Search {
        tables,
        is_link,
        seen: HashSet::new(),
        found: BTreeSet::new(),
    };
    search.visit(tables.root, Path::default());
    search.found
}

/// What was asked of the destination MAC address on the way to a node.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Path {
    /// Anything.
    is_read: bool,
    /// It is one of a group.
    is_group: bool,
    /// It is one, or among some, of which not all are groups'.
    is_named: bool,
}

struct Search<'a> {
    tables: &'a FlowTables,
    is_link: bool,
    seen: HashSet<(Digest, Path)>,
    found: BTreeSet<NotJudgeable>,
}

/// Bit of the first 16 bits of a MAC address that those of groups have (IEEE 802, 8.2.2).
const GROUP_BIT: u8 = 8;

impl Search<'_> {
    fn visit(&mut self, at: Digest, path: Path) {
        if !self.seen.insert((at, path)) {
            return;
        }
        if let Some(leaf) = self.tables.leaves.get(&at) {
            self.leaf(leaf, path);
        }
        let Some(node) = self.tables.nodes.get(&at) else {
            return;
        };
        let reads = matches!(node.field, Field::EthDstHigh | Field::EthDstLow);
        let path = Path {
            is_read: path.is_read || reads,
            ..path
        };
        for (value, next) in &node.edges {
            let mut path = path;
            if reads && !path.is_group {
                match is_group(node, *value) {
                    true => path.is_group = true,
                    false => path.is_named = true,
                }
            }
            if path.is_named && !self.is_link {
                self.found.insert(NotJudgeable::ReadsAddress);
            }
            self.visit(*next, path);
        }
        self.visit(node.default, path);
    }

    fn leaf(&mut self, leaf: &Leaf, path: Path) {
        if leaf.copies.iter().any(rewrites) {
            self.found
                .insert(NotJudgeable::Rewrites(leaf.label.clone()));
        }
        let to_one = |copy: &Copied| {
            matches!(copy.out, Some(Out::Endpoint(_)))
                && (path.is_group || (self.is_link && path.is_read))
        };
        let to_many = |copy: &Copied| !copy.members.is_empty() && path.is_named;
        if leaf.copies.iter().any(|copy| to_one(copy) || to_many(copy)) {
            self.found
                .insert(NotJudgeable::Readdresses(leaf.label.clone()));
        }
    }
}

/// Whether only addresses of groups take an edge.
fn is_group(node: &TableNode, value: Value) -> bool {
    let covers = node.shift <= GROUP_BIT && GROUP_BIT < node.shift + node.width;
    match value {
        Value::Number(number) if node.field == Field::EthDstHigh && covers => {
            number >> (GROUP_BIT - node.shift) & 1 != 0
        }
        _ => false,
    }
}

fn rewrites(copy: &Copied) -> bool {
    let as_it_is = Copied {
        out: copy.out,
        members: copy.members.clone(),
        ..Copied::default()
    };
    *copy != as_it_is
}
