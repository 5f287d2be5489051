//! The state machine: deterministic, and untouched by what it refuses.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use proptest::prelude::*;
use proptest::sample::select;
use sunwire_api::{EndpointCreate, Name, NetworkCreate};
use sunwire_controller::Refusal;
use sunwire_controller::command::{
    Command, Condition, Entry, IdempotencyKey, Precondition, Proposal,
};
use sunwire_controller::log::{Log, RedbLog, replay};
use sunwire_controller::state::State;

/// Texts of which some compile, some do so only with certain endpoints, and one never does.
const TEXTS: [&str; 5] = [
    "network n1\npolicy main = forward\n",
    "network n1\nset web = labels(tier = \"web\")\npolicy main = if dst in web then forward else drop \"no\"\n",
    "network n1\npolicy main = if dst = e1 then forward else drop \"no\"\n",
    "network n2\npolicy main = if src = e2 then drop \"no\" else forward\n",
    "network n1\npolicy main = if\n",
];

fn name(kind: &'static str, count: usize) -> impl Strategy<Value = Name> {
    (1..=count).prop_map(move |index| format!("{kind}{index}").parse().unwrap())
}

fn command() -> impl Strategy<Value = Command> {
    let node = || name("node", 3);
    let network = || name("n", 2);
    let endpoint = || name("e", 3);
    let policy = || name("p", 2);
    let epoch = || prop_oneof![4 => Just(1u32), 1 => 2u32..4];
    let register = (node(), 1u8..4, select(vec!["aws:us-east-1", "gcp:eu"])).prop_map(
        |(name, last, location)| Command::RegisterNode {
            name,
            location: location.parse().unwrap(),
            underlay_address: Ipv4Addr::new(198, 18, 0, last),
        },
    );
    let subnets = select(vec!["10.0.0.0/29", "10.0.0.0/16", "127.0.0.0/8"]);
    let create_network =
        (network(), subnets, proptest::option::of(1u32..4)).prop_map(|(name, subnet, vni)| {
            Command::CreateNetwork(NetworkCreate {
                name,
                vni: vni.map(|vni| vni.try_into().unwrap()),
                subnets: vec![subnet.parse().unwrap()],
                mtu: None,
            })
        });
    let tier = || select(vec!["web", "db"]).prop_map(str::to_owned);
    let address = select(vec!["10.0.0.2", "10.0.0.3", "10.0.9.9"]);
    let create_endpoint = (
        endpoint(),
        network(),
        node(),
        proptest::option::of(address),
        proptest::option::of(tier()),
    )
        .prop_map(|(name, network, node, address, tier)| {
            Command::CreateEndpoint(EndpointCreate {
                name,
                network,
                node,
                device: None,
                addresses: address.map(|address| vec![address.parse().unwrap()]),
                mac: None,
                labels: tier
                    .map(|tier| ("tier".to_owned(), tier))
                    .into_iter()
                    .collect(),
            })
        });
    let update = (endpoint(), proptest::option::of(tier())).prop_map(|(name, tier)| {
        Command::UpdateEndpoint {
            name,
            labels: BTreeMap::from([("tier".to_owned(), tier)]),
        }
    });
    let conditions = vec![Condition::Absent, Condition::Attached, Condition::Failed];
    let report = (endpoint(), node(), 1u32..4, select(conditions)).prop_map(
        |(endpoint, node, epoch, condition)| Command::ReportEndpoint {
            endpoint,
            node,
            epoch,
            condition,
            detail: String::new(),
        },
    );
    let put = (policy(), select(TEXTS.to_vec())).prop_map(|(name, text)| Command::PutPolicy {
        name,
        text: text.to_owned(),
    });
    prop_oneof![
        3 => register,
        1 => node().prop_map(|name| Command::DeleteNode { name }),
        3 => create_network,
        1 => network().prop_map(|name| Command::DeleteNetwork { name }),
        9 => create_endpoint,
        2 => update,
        4 => endpoint().prop_map(|name| Command::DeleteEndpoint { name }),
        3 => (endpoint(), node())
            .prop_map(|(endpoint, node)| Command::BeginMove { endpoint, node }),
        1 => endpoint().prop_map(|endpoint| Command::AbortMove { endpoint }),
        3 => (endpoint(), node(), epoch())
            .prop_map(|(endpoint, node, epoch)| Command::FinishMove { endpoint, node, epoch }),
        3 => report,
        6 => put,
        1 => (policy(), proptest::option::of(0u64..40))
            .prop_map(|(name, to)| Command::RollbackPolicy { name, to }),
        1 => policy().prop_map(|name| Command::DeletePolicy { name }),
    ]
}

fn proposal() -> impl Strategy<Value = Proposal> {
    let precondition = prop_oneof![
        9 => Just(Precondition::Any),
        1 => Just(Precondition::None),
        1 => Just(Precondition::Absent),
        1 => (0u64..40).prop_map(Precondition::Revision),
    ];
    let key = (1u8..6, 1u8..3).prop_map(|(key, fingerprint)| IdempotencyKey {
        key: format!("key{key}"),
        fingerprint: format!("{fingerprint}"),
    });
    (
        command(),
        precondition,
        proptest::option::weighted(0.1, key),
    )
        .prop_map(|(command, precondition, key)| Proposal {
            command,
            precondition,
            key,
        })
}

/// What most interesting things presuppose: nodes, networks, and an endpoint in each.
fn prelude() -> Vec<Proposal> {
    let name = |text: &str| -> Name { text.parse().unwrap() };
    let mut commands = Vec::new();
    for last in 1..=3 {
        commands.push(Command::RegisterNode {
            name: name(&format!("node{last}")),
            location: "aws:us-east-1".parse().unwrap(),
            underlay_address: Ipv4Addr::new(198, 18, 0, last),
        });
    }
    for index in 1..=2 {
        commands.push(Command::CreateNetwork(NetworkCreate {
            name: name(&format!("n{index}")),
            vni: None,
            subnets: vec!["10.0.0.0/16".parse().unwrap()],
            mtu: None,
        }));
        commands.push(Command::CreateEndpoint(EndpointCreate {
            name: name(&format!("e{index}")),
            network: name(&format!("n{index}")),
            node: name("node1"),
            device: None,
            addresses: None,
            mac: None,
            labels: BTreeMap::new(),
        }));
    }
    commands.into_iter().map(Proposal::internal).collect()
}

/// A proposal, or several that have to follow each other to get anywhere.
fn step() -> impl Strategy<Value = Vec<Proposal>> {
    let internal = |commands: Vec<Command>| -> Vec<Proposal> {
        commands.into_iter().map(Proposal::internal).collect()
    };
    let whole_move = (name("e", 3), name("node", 3)).prop_map(move |(endpoint, node)| {
        let begin = Command::BeginMove {
            endpoint: endpoint.clone(),
            node: node.clone(),
        };
        let epoch = 1;
        internal(vec![
            begin,
            Command::FinishMove {
                endpoint,
                node,
                epoch,
            },
        ])
    });
    let break_policy = name("p", 2).prop_map(move |name| {
        let text = TEXTS[2].to_owned();
        let endpoint = "e1".parse().unwrap();
        internal(vec![
            Command::PutPolicy { name, text },
            Command::DeleteEndpoint { name: endpoint },
        ])
    });
    let leave = (name("e", 3), name("node", 3)).prop_map(move |(endpoint, node)| {
        let (epoch, other) = (1, "e2".parse().unwrap());
        internal(vec![
            Command::BeginMove {
                endpoint: endpoint.clone(),
                node: node.clone(),
            },
            Command::FinishMove {
                endpoint,
                node,
                epoch,
            },
            Command::DeleteEndpoint { name: other },
            Command::DeleteNode {
                name: "node1".parse().unwrap(),
            },
        ])
    });
    prop_oneof![
        1 => leave,
        20 => proposal().prop_map(|proposal| vec![proposal]),
        2 => whole_move,
        1 => break_policy,
    ]
}

/// Random proposals, from nothing or after the prelude.
fn proposals() -> impl Strategy<Value = Vec<Proposal>> {
    let random = proptest::collection::vec(step(), 1..80);
    (any::<bool>(), random).prop_map(|(from_nothing, random)| {
        let mut all = if from_nothing { Vec::new() } else { prelude() };
        all.extend(random.into_iter().flatten());
        all
    })
}

/// Applies proposals; returns the state and what was accepted.
fn run(proposals: &[Proposal]) -> (State, Vec<Entry>) {
    let mut state = State::default();
    let mut entries = Vec::new();
    for proposal in proposals {
        if let Ok(effects) = state.apply(proposal)
            && !effects.repeated
        {
            entries.push(Entry {
                revision: effects.revision,
                proposal: proposal.clone(),
            });
        }
    }
    (state, entries)
}

/// Failing proposals are printed whole, so none are kept in files.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases)
    }
}

/// What has to hold of every state.
fn check_invariants(state: &State) {
    let mut numbers = std::collections::BTreeSet::new();
    let mut owned = std::collections::BTreeSet::new();
    let mut devices = std::collections::BTreeSet::new();
    for (name, endpoint) in state.endpoints() {
        assert!(
            numbers.insert(endpoint.number),
            "{name}: number given twice"
        );
        assert!(state.networks().contains_key(&endpoint.network));
        assert!(state.nodes().contains_key(&endpoint.node));
        for node in [&endpoint.moving_to, &endpoint.previous]
            .into_iter()
            .flatten()
        {
            assert!(state.nodes().contains_key(node), "{name}: {node} is gone");
        }
        assert_ne!(endpoint.moving_to.as_ref(), Some(&endpoint.node));
        for address in &endpoint.addresses {
            assert!(
                owned.insert((&endpoint.network, *address)),
                "{address} given twice"
            );
        }
        for node in [Some(&endpoint.node), endpoint.moving_to.as_ref()]
            .into_iter()
            .flatten()
        {
            assert!(
                devices.insert((node, &endpoint.device)),
                "{name}: device given twice"
            );
        }
        assert!(endpoint.revision <= state.revision());
    }
    assert_eq!(state.policies().len(), state.programs().len());
    for (name, policy) in state.policies() {
        assert_eq!(&state.programs()[&policy.network].policy, name);
        assert!(state.networks().contains_key(&policy.network));
    }
    let underlay: std::collections::BTreeSet<_> = state
        .nodes()
        .values()
        .map(|node| node.underlay_address)
        .collect();
    assert_eq!(underlay.len(), state.nodes().len());
}

proptest! {
    #![proptest_config(config(200))]

    #[test]
    fn a_refused_proposal_leaves_the_state_equal(
        proposals in proposals(),
    ) {
        let mut state = State::default();
        for proposal in &proposals {
            let before = state.clone();
            match state.apply(proposal) {
                Err(_) => prop_assert_eq!(&state, &before),
                Ok(effects) if effects.repeated => prop_assert_eq!(&state, &before),
                Ok(effects) => {
                    prop_assert_eq!(effects.revision, before.revision() + 1);
                    prop_assert_eq!(state.revision(), effects.revision);
                }
            }
            check_invariants(&state);
        }
    }

    #[test]
    fn equal_proposals_make_equal_states_and_effects(
        proposals in proposals(),
    ) {
        let (mut one, mut other) = (State::default(), State::default());
        for proposal in &proposals {
            prop_assert_eq!(one.apply(proposal), other.apply(proposal));
        }
        prop_assert_eq!(one, other);
    }

    #[test]
    fn a_state_that_is_stored_and_taken_up_again_is_equal(
        proposals in proposals(),
    ) {
        let (state, _) = run(&proposals);
        let json = serde_json::to_string(&state).unwrap();
        let read: State = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(read.restore().unwrap(), state);
    }
}

proptest! {
    #![proptest_config(config(24))]

    #[test]
    fn replaying_the_log_gives_an_equal_state_wherever_it_was_compacted(
        proposals in proposals(),
        compacted in 0usize..60,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let (state, entries) = run(&proposals);
        let compacted = compacted.min(entries.len());
        {
            let mut log = RedbLog::open(directory.path()).unwrap();
            for batch in entries[..compacted].chunks(7) {
                log.append(batch).unwrap();
            }
            let half = replay(&log).unwrap();
            log.compact(&half).unwrap();
            prop_assert_eq!(log.entries_since_snapshot(), 0);
            log.append(&entries[compacted..]).unwrap();
        }
        let log = RedbLog::open(directory.path()).unwrap();
        let left = entries.len() - compacted;
        prop_assert_eq!(log.entries_since_snapshot(), left as u64);
        prop_assert_eq!(replay(&log).unwrap(), state);
    }
}

#[test]
fn the_generator_reaches_moves_programs_and_refusals() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut moved, mut programs, mut unchanged, mut broken) = (0, 0, 0, 0);
    for _ in 0..400 {
        let proposals = proposals().new_tree(&mut runner).unwrap().current();
        let mut state = State::default();
        for proposal in &proposals {
            match state.apply(proposal) {
                Err(Refusal::Unchanged) => unchanged += 1,
                Err(Refusal::Problem(problem)) => {
                    let policy_broken = sunwire_api::ProblemCode::PolicyBroken;
                    broken += usize::from(problem.code == policy_broken);
                }
                Ok(_) => {
                    let finish = matches!(proposal.command, Command::FinishMove { .. });
                    moved += usize::from(finish);
                }
            }
        }
        programs += state.programs().len();
    }
    println!("{moved} moved, {programs} programs, {unchanged} unchanged, {broken} broken");
    assert!(moved >= 10 && programs >= 10 && unchanged >= 10 && broken >= 10);
}
