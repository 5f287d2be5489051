//! The controller's messages made one state, item by item, in the protocol's own form.
//!
//! Each item is a [`State`](wire::State) with nothing else in it, encoded. Encoded messages of one kind,
//! one behind the other, are what they say together, so a whole state is all of them in a row.

use std::collections::{BTreeMap, HashMap};

use prost::Message as _;
use sunwire_api::agent as wire;

/// Items of a state.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Items {
    revision: u64,
    items: BTreeMap<(Kind, u32), Vec<u8>>,
}

/// What an item is; its number is unique within the kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Encryption,
    Node,
    Network,
    Endpoint,
    Wire,
    Program,
    Staged,
}

impl Items {
    /// Those of a snapshot.
    pub(super) fn new(snapshot: &wire::Snapshot) -> Self {
        let mut items = Items {
            revision: snapshot.revision,
            ..Items::default()
        };
        if let Some(state) = &snapshot.state {
            items.merge(state);
        }
        items
    }

    /// Changes them as a delta says.
    pub(super) fn apply(&mut self, delta: &wire::Delta) {
        let wire::Delta {
            revision,
            changed,
            removed_nodes,
            removed_endpoints,
            removed_networks,
            removed_wires,
        } = delta;
        self.revision = *revision;
        for (kinds, numbers) in [
            (&[Kind::Wire][..], removed_wires),
            (&[Kind::Endpoint], removed_endpoints),
            (
                &[Kind::Network, Kind::Program, Kind::Staged],
                removed_networks,
            ),
            (&[Kind::Node], removed_nodes),
        ] {
            for (kind, number) in kinds
                .iter()
                .flat_map(|kind| numbers.iter().map(move |n| (kind, n)))
            {
                self.items.remove(&(*kind, *number));
            }
        }
        if let Some(changed) = changed {
            self.merge(changed);
        }
    }

    /// An encoded [`Snapshot`](wire::Snapshot) of them.
    pub(super) fn encode(&self) -> Vec<u8> {
        let revision = wire::Snapshot {
            revision: self.revision,
            state: None,
        };
        let mut bytes = revision.encode_to_vec();
        let length = self.items.values().map(Vec::len).sum::<usize>();
        // The state's key: field 2, of known length.
        prost::encoding::encode_key(2, prost::encoding::WireType::LengthDelimited, &mut bytes);
        prost::encoding::encode_varint(length as u64, &mut bytes);
        bytes.reserve(length);
        self.items.values().for_each(|item| bytes.extend(item));
        bytes
    }

    fn merge(&mut self, state: &wire::State) {
        // A new kind of items is to be kept too.
        let wire::State {
            nodes,
            networks,
            endpoints,
            programs,
            staged,
            encryption,
            wires,
        } = state;
        let nothing = wire::State::default;
        for node in nodes {
            let nodes = vec![node.clone()];
            self.put(Kind::Node, node.number, wire::State { nodes, ..nothing() });
        }
        for network in networks {
            let networks = vec![network.clone()];
            self.put(
                Kind::Network,
                network.vni,
                wire::State {
                    networks,
                    ..nothing()
                },
            );
        }
        if encryption.is_some() {
            let encryption = *encryption;
            self.put(
                Kind::Encryption,
                0,
                wire::State {
                    encryption,
                    ..nothing()
                },
            );
        }
        for endpoint in endpoints {
            let endpoints = vec![endpoint.clone()];
            self.put(
                Kind::Endpoint,
                endpoint.number,
                wire::State {
                    endpoints,
                    ..nothing()
                },
            );
        }
        for wire in wires {
            let wires = vec![wire.clone()];
            self.put(Kind::Wire, wire.number, wire::State { wires, ..nothing() });
        }
        self.merge_programs(programs, staged);
    }

    /// Programs come without the tables that their network had before, in force or staged.
    fn merge_programs(&mut self, programs: &[wire::Program], staged: &[wire::Program]) {
        let mut tables: HashMap<u32, Tables> = HashMap::new();
        for program in programs.iter().chain(staged) {
            let tables = tables.entry(program.vni);
            let tables = tables.or_insert_with(|| self.tables(program.vni));
            tables.add(program);
        }
        let whole = |program: &wire::Program| tables[&program.vni].complete(program);
        for program in programs {
            let programs = vec![whole(program)];
            let state = wire::State {
                programs,
                ..wire::State::default()
            };
            self.put(Kind::Program, program.vni, state);
        }
        for program in staged {
            if program.root.is_empty() {
                self.items.remove(&(Kind::Staged, program.vni));
                continue;
            }
            let staged = vec![whole(program)];
            let state = wire::State {
                staged,
                ..wire::State::default()
            };
            self.put(Kind::Staged, program.vni, state);
        }
    }

    /// The tables that a network's programs have.
    fn tables(&self, vni: u32) -> Tables {
        let mut tables = Tables::default();
        for kind in [Kind::Program, Kind::Staged] {
            let Some(item) = self.items.get(&(kind, vni)) else {
                continue;
            };
            let state = wire::State::decode(&item[..]).expect("it was encoded here");
            state
                .programs
                .iter()
                .chain(&state.staged)
                .for_each(|program| tables.add(program));
        }
        tables
    }

    fn put(&mut self, kind: Kind, number: u32, state: wire::State) {
        self.items.insert((kind, number), state.encode_to_vec());
    }
}

/// Table nodes and leaves by digest.
#[derive(Default)]
struct Tables {
    nodes: HashMap<Vec<u8>, wire::TableNode>,
    leaves: HashMap<Vec<u8>, wire::Leaf>,
}

impl Tables {
    fn add(&mut self, program: &wire::Program) {
        let nodes = program.nodes.iter();
        self.nodes
            .extend(nodes.map(|node| (node.digest.clone(), node.clone())));
        let leaves = program.leaves.iter();
        self.leaves
            .extend(leaves.map(|leaf| (leaf.digest.clone(), leaf.clone())));
    }

    /// The program with the tables that it reaches, and no others.
    fn complete(&self, program: &wire::Program) -> wire::Program {
        let mut whole = wire::Program {
            nodes: Vec::new(),
            leaves: Vec::new(),
            ..program.clone()
        };
        let mut reached = std::collections::HashSet::new();
        let mut queue = vec![&program.root];
        while let Some(digest) = queue.pop() {
            if !reached.insert(digest) {
                continue;
            }
            if let Some(node) = self.nodes.get(digest) {
                queue.push(&node.default);
                queue.extend(node.edges.iter().map(|edge| &edge.next));
                whole.nodes.push(node.clone());
            } else if let Some(leaf) = self.leaves.get(digest) {
                whole.leaves.push(leaf.clone());
            }
        }
        whole
    }
}
