//! What is kept is what is in force, and nothing else is gone by.

use std::os::unix::fs::PermissionsExt as _;

use sunwire_dataplane_common::flow_key::Field;

use super::*;
use crate::state::Desired;

/// A directory of one test's own, removed at its end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sunwire-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join(FILE)
    }

    fn last_known(&self) -> LastKnown {
        LastKnown::new(&self.0, "near")
    }

    /// What an agent that starts now finds.
    fn read(&self) -> Result<Option<Recalled>, FileError> {
        self.last_known().read()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn digest(of: u8) -> Vec<u8> {
    vec![of; 32]
}

fn node(number: u32) -> wire::Node {
    wire::Node {
        number,
        name: format!("node{number}"),
        underlay_address: vec![192, 0, 2, number as u8],
        public_keys: vec![vec![number as u8; 32]],
        ..wire::Node::default()
    }
}

fn network(vni: u32) -> wire::Network {
    wire::Network {
        vni,
        name: format!("network{vni}"),
        mtu: 1300,
        gateway_mac: vec![2, 0, 0, 0, 0, 1],
        peers: vec![vni + 1],
        ..wire::Network::default()
    }
}

fn endpoint(number: u32, node: u32) -> wire::Endpoint {
    wire::Endpoint {
        number,
        name: format!("web{number}"),
        vni: 100,
        device: "veth0".to_owned(),
        mac: vec![2, 0, 0, 0, 1, number as u8],
        node,
        ..wire::Endpoint::default()
    }
}

fn leaf(of: u8) -> wire::Leaf {
    wire::Leaf {
        digest: digest(of),
        label: format!("rule {of}"),
        ..wire::Leaf::default()
    }
}

/// A node that goes to one of two.
fn table_node(of: u8, one: u8, other: u8) -> wire::TableNode {
    wire::TableNode {
        digest: digest(of),
        field: Field::Protocol as u32,
        width: 8,
        edges: vec![wire::Edge {
            value: Some(wire::edge::Value::Number(6)),
            next: digest(one),
        }],
        default: digest(other),
        ..wire::TableNode::default()
    }
}

fn program(revision: u64, root: u8) -> wire::Program {
    wire::Program {
        vni: 100,
        revision,
        root: digest(root),
        class_none: digest(0),
        ..wire::Program::default()
    }
}

fn snapshot() -> wire::Snapshot {
    let state = wire::State {
        nodes: vec![node(1), node(2)],
        networks: vec![network(100), network(200)],
        endpoints: vec![endpoint(1, 1), endpoint(2, 2)],
        programs: vec![wire::Program {
            leaves: vec![leaf(1)],
            ..program(3, 1)
        }],
        encryption: Some(wire::Encryption {
            mode: wire::encryption::Mode::Always.into(),
        }),
        wires: vec![wire::Wire {
            number: 1,
            name: "cable".to_owned(),
            vni: 100,
            a: 1,
            b: 2,
        }],
        ..wire::State::default()
    };
    wire::Snapshot {
        revision: 5,
        state: Some(state),
    }
}

/// Changes of every kind, one after the other.
fn deltas() -> Vec<wire::Delta> {
    let changed = |state| wire::Delta {
        changed: Some(state),
        ..wire::Delta::default()
    };
    let nothing = wire::State::default;
    let mut deltas = vec![
        // An endpoint moves.
        changed(wire::State {
            endpoints: vec![endpoint(2, 1)],
            ..nothing()
        }),
        // A candidate with a leaf of the program in force, which is not sent again.
        changed(wire::State {
            staged: vec![wire::Program {
                nodes: vec![table_node(9, 1, 2)],
                leaves: vec![leaf(2)],
                ..program(7, 9)
            }],
            ..nothing()
        }),
        // The candidate is put in force; all of its tables were staged.
        changed(wire::State {
            programs: vec![program(7, 9)],
            staged: vec![wire::Program {
                root: Vec::new(),
                ..program(7, 9)
            }],
            ..nothing()
        }),
        // Only one of its leaves is left.
        changed(wire::State {
            programs: vec![program(9, 2)],
            encryption: Some(wire::Encryption {
                mode: wire::encryption::Mode::Never.into(),
            }),
            ..nothing()
        }),
        wire::Delta {
            removed_wires: vec![1],
            removed_endpoints: vec![1],
            removed_nodes: vec![2],
            removed_networks: vec![200],
            ..wire::Delta::default()
        },
        wire::Delta {
            removed_endpoints: vec![2],
            removed_networks: vec![100],
            ..wire::Delta::default()
        },
    ];
    for (revision, delta) in (6..).zip(&mut deltas) {
        delta.revision = revision;
    }
    deltas
}

/// What an agent makes of a state, in a form that can be compared.
fn seen(desired: &Desired) -> impl PartialEq + std::fmt::Debug {
    let Desired {
        nodes,
        networks,
        endpoints,
        wires,
        programs,
        staged,
        table_nodes,
        leaves,
        encryption,
    } = desired.clone();
    let tables: std::collections::BTreeMap<_, _> = table_nodes.into_iter().collect();
    let leaves: std::collections::BTreeMap<_, _> = leaves.into_iter().collect();
    (
        (nodes, networks, endpoints, programs, staged, encryption),
        format!("{wires:?} {tables:?} {leaves:?}"),
    )
}

#[test]
fn what_is_kept_is_what_an_agent_had_that_followed_every_change() {
    let directory = Directory::new("state-followed");
    let last_known = directory.last_known();
    let mut desired = Desired::from_snapshot(snapshot().state.unwrap()).unwrap();
    last_known.note(News::whole(&snapshot()));
    let mut revision = snapshot().revision;
    for (round, delta) in [None]
        .into_iter()
        .chain(deltas().into_iter().map(Some))
        .enumerate()
    {
        if let Some(delta) = delta {
            revision = delta.revision;
            last_known.note(News::part(&delta));
            desired.apply(delta).unwrap();
            desired.forget_unreachable();
        }
        last_known.in_force(40 + round as u32);
        last_known.write().unwrap();
        let recalled = directory.read().unwrap().unwrap();
        assert_eq!(recalled.generation, 40 + round as u32);
        assert_eq!(recalled.snapshot.revision, revision);
        let read = Desired::from_snapshot(recalled.snapshot.state.unwrap()).unwrap();
        assert_eq!(seen(&read), seen(&desired), "round {round}");
    }
    assert!(desired.endpoints.is_empty() && desired.networks.is_empty());
    let mode = fs::metadata(directory.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn an_agent_that_kept_nothing_has_nothing() {
    let directory = Directory::new("state-none");
    assert_eq!(directory.read().unwrap(), None);
    assert!(!directory.last_known().is_due());
    // Nothing is written of which nobody said that it is in force.
    let last_known = directory.last_known();
    last_known.note(News::whole(&snapshot()));
    last_known.write().unwrap();
    assert_eq!(directory.read().unwrap(), None);
}

#[test]
fn while_a_change_is_made_there_is_no_state_to_go_by() {
    let directory = Directory::new("state-aside");
    let last_known = directory.last_known();
    last_known.note(News::whole(&snapshot()));
    last_known.in_force(7);
    last_known.write().unwrap();
    let deltas = deltas();

    // The agent after this one takes its file for its own until something changes.
    let next = directory.last_known();
    assert_eq!(next.read().unwrap().unwrap().generation, 7);
    assert!(!next.is_due());
    next.note(News::part(&deltas[0]));
    assert!(matches!(directory.read(), Err(FileError::Older)));
    // In force, and not yet on disk.
    next.in_force(8);
    assert!(next.is_due());
    assert!(matches!(directory.read(), Err(FileError::Older)));
    next.write().unwrap();
    assert!(!next.is_due());
    assert_eq!(directory.read().unwrap().unwrap().generation, 8);
    // What is refused by the kernel is not kept, nor is what was before.
    next.note(News::part(&deltas[1]));
    next.write().unwrap();
    assert!(matches!(directory.read(), Err(FileError::Older)));
}

#[test]
fn a_generation_that_flips_is_kept() {
    let directory = Directory::new("state-flipped");
    let last_known = directory.last_known();
    last_known.flipped(1);
    last_known.note(News::whole(&snapshot()));
    last_known.in_force(7);
    last_known.write().unwrap();
    last_known.flipped(7);
    assert!(!last_known.is_due());
    last_known.flipped(8);
    assert!(last_known.is_due());
    last_known.write().unwrap();
    assert_eq!(directory.read().unwrap().unwrap().generation, 8);
}

#[test]
fn a_file_that_is_torn_or_changed_is_refused() {
    let directory = Directory::new("state-torn");
    let last_known = directory.last_known();
    last_known.note(News::whole(&snapshot()));
    last_known.in_force(7);
    last_known.write().unwrap();
    let whole = fs::read(directory.file()).unwrap();
    for length in 0..whole.len() {
        fs::write(directory.file(), &whole[..length]).unwrap();
        directory.read().unwrap_err();
    }
    for position in 0..whole.len() {
        let mut changed = whole.clone();
        changed[position] ^= 0x10;
        fs::write(directory.file(), changed).unwrap();
        directory.read().unwrap_err();
    }
    fs::write(directory.file(), &whole).unwrap();
    directory.read().unwrap().unwrap();
}

#[test]
fn what_is_not_this_nodes_own_is_refused_by_what_it_is() {
    let directory = Directory::new("state-foreign");
    let put = |bytes: &[u8]| {
        fs::write(directory.file(), bytes).unwrap();
        directory.read().unwrap_err().to_string()
    };
    says(put(b""), "it is no state of an agent");
    says(put(b"{\"a\": 1}"), "it is no state of an agent");
    says(
        put(b"sunwire state 2\nxyz"),
        "it is of another version of the agent",
    );
    says(put(b"sunwire state 1\nxyz"), "it is damaged or cut short");
    let other = file::encode("far", 1, &Items::new(&snapshot()).encode()).unwrap();
    says(put(&other), "it is of node far");
    let nonsense = file::encode("near", 1, &[0xff; 9]).unwrap();
    says(put(&nonsense), "what is in it makes no sense");

    // As long as a disk, and refused before it is read.
    let file = fs::File::create(directory.file()).unwrap();
    file.set_len(1 << 40).unwrap();
    assert!(matches!(directory.read(), Err(FileError::TooLarge { .. })));
    fs::set_permissions(directory.file(), fs::Permissions::from_mode(0o620)).unwrap();
    assert!(matches!(
        directory.read(),
        Err(FileError::Exposed { mode: 0o620 })
    ));

    // It is in the way of nothing.
    let last_known = directory.last_known();
    last_known.read().unwrap_err();
    last_known.note(News::whole(&snapshot()));
    last_known.in_force(3);
    last_known.write().unwrap();
    assert_eq!(directory.read().unwrap().unwrap().generation, 3);
}

fn says(found: String, expected: &str) {
    assert_eq!(found, expected);
}

#[test]
fn what_cannot_be_written_leaves_no_file() {
    let directory = Directory::new("state-unwritable");
    let last_known = LastKnown::new(&directory.0.join("missing"), "near");
    last_known.note(News::whole(&snapshot()));
    last_known.in_force(1);
    assert!(matches!(last_known.write(), Err(FileError::Write(_))));
    assert!(last_known.is_due());
}
