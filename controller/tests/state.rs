//! The state machine: deterministic, and untouched by what it refuses.

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
    let endpoint = || name("e", 4);
    let policy = || name("p", 2);
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
        6 => create_endpoint,
        2 => update,
        2 => endpoint().prop_map(|name| Command::DeleteEndpoint { name }),
        3 => (endpoint(), node())
            .prop_map(|(endpoint, node)| Command::BeginMove { endpoint, node }),
        1 => endpoint().prop_map(|endpoint| Command::AbortMove { endpoint }),
        3 => (endpoint(), node(), 1u32..4)
            .prop_map(|(endpoint, node, epoch)| Command::FinishMove { endpoint, node, epoch }),
        3 => report,
        4 => put,
        1 => (policy(), proptest::option::of(0u64..40))
            .prop_map(|(name, to)| Command::RollbackPolicy { name, to }),
        1 => policy().prop_map(|name| Command::DeletePolicy { name }),
    ]
}

fn proposal() -> impl Strategy<Value = Proposal> {
    let precondition = prop_oneof![
        6 => Just(Precondition::Any),
        2 => Just(Precondition::None),
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
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_refused_proposal_leaves_the_state_equal(
        proposals in proptest::collection::vec(proposal(), 1..60),
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
        proposals in proptest::collection::vec(proposal(), 1..60),
    ) {
        let (mut one, mut other) = (State::default(), State::default());
        for proposal in &proposals {
            prop_assert_eq!(one.apply(proposal), other.apply(proposal));
        }
        prop_assert_eq!(one, other);
    }

    #[test]
    fn a_state_that_is_stored_and_taken_up_again_is_equal(
        proposals in proptest::collection::vec(proposal(), 1..60),
    ) {
        let (state, _) = run(&proposals);
        let json = serde_json::to_string(&state).unwrap();
        let read: State = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(read.restore().unwrap(), state);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn replaying_the_log_gives_an_equal_state_wherever_it_was_compacted(
        proposals in proptest::collection::vec(proposal(), 1..60),
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
    for _ in 0..200 {
        let proposals = proptest::collection::vec(proposal(), 60);
        let proposals = proposals.new_tree(&mut runner).unwrap().current();
        let mut state = State::default();
        for proposal in &proposals {
            match state.apply(proposal) {
                Err(Refusal::Unchanged) => unchanged += 1,
                Err(Refusal::Problem(problem)) => {
                    let policy_broken = sunwire_api::ProblemCode::PolicyBroken;
                    broken += usize::from(problem.code == policy_broken);
                }
                Ok(_) => {}
            }
        }
        moved += state.endpoints().values().filter(|e| e.epoch > 1).count();
        programs += state.programs().len();
    }
    let reached = (moved > 0, programs > 0, unchanged > 0, broken > 0);
    assert_eq!(reached, (true, true, true, true));
}
