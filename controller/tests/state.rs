//! The state machine: deterministic, and untouched by what it refuses.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use proptest::prelude::*;
use proptest::sample::select;
use sunwire_api::{EndpointCreate, Name, NetworkCreate};
use sunwire_controller::Refusal;
use sunwire_controller::command::{
    Command, Condition, Entry, IdempotencyKey, Note, Precondition, Proposal,
};
use sunwire_controller::log::{Log, RedbLog, replay};
use sunwire_controller::state::State;

/// Texts of which some compile, some do so only with certain endpoints, and one never does.
const TEXTS: [&str; 6] = [
    "network n1\npolicy main = forward\n",
    "network n1\nset web = labels(tier = \"web\")\npolicy main = if dst in web then forward else drop \"no\"\n",
    "network n1\npolicy main = if dst = e1 then forward else drop \"no\"\n",
    "network n2\npolicy main = if src = e2 then drop \"no\" else forward\n",
    "network n1\npolicy main = if\n",
    "network n1\nset web = labels(tier = \"web\")\nset db = labels(tier = \"db\")\n\
     policy main = if dst in web then forward else drop \"no\"\nassert isolated(web, db)\n",
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
            underlay_address: Some(Ipv4Addr::new(198, 18, 0, last)),
            underlay_address_v6: None,
            public_keys: Vec::new(),
            tunnel_port: 51820,
        },
    );
    let subnets = select(vec!["10.0.0.0/29", "10.0.0.0/16", "127.0.0.0/8"]);
    let create_network =
        (network(), subnets, proptest::option::of(1u32..4)).prop_map(|(name, subnet, vni)| {
            Command::CreateNetwork(NetworkCreate {
                outbound: Default::default(),
                name,
                vni: vni.map(|vni| vni.try_into().unwrap()),
                subnets: vec![subnet.parse().unwrap()],
                mtu: None,
                encryption: Default::default(),
                relay: false,
                enforce: Default::default(),
                vxlan_port: None,
                checksum: Default::default(),
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
    let text = || select(TEXTS.to_vec());
    let deadline = || proptest::option::weighted(0.4, 1u64..1000);
    let put = (policy(), text(), deadline())
        .prop_map(|(name, text, deadline)| put_policy(name, text, deadline));
    let rollback = (policy(), proptest::option::of(0u64..40), deadline()).prop_map(
        |(name, to, confirm_by_unix_ms)| Command::RollbackPolicy {
            name,
            to,
            note: Note::default(),
            confirm_by_unix_ms,
        },
    );
    let apply_staged =
        (policy(), deadline()).prop_map(|(name, confirm_by_unix_ms)| Command::ApplyStaged {
            name,
            note: Note::default(),
            confirm_by_unix_ms,
        });
    let stage = (policy(), text()).prop_map(|(name, text)| Command::StagePolicy {
        name,
        text: text.into(),
    });
    let revert = (policy(), 0u64..80).prop_map(|(name, text_revision)| Command::RevertPolicy {
        name,
        text_revision,
        note: Note::default(),
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
        2 => rollback,
        2 => apply_staged,
        3 => stage,
        1 => policy().prop_map(|name| Command::UnstagePolicy { name }),
        2 => policy().prop_map(|name| Command::ConfirmPolicy { name }),
        2 => revert,
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
        proptest::bool::weighted(0.2),
    )
        .prop_map(|(command, precondition, key, force)| Proposal {
            command,
            precondition,
            key,
            force,
        })
}

fn put_policy(name: Name, text: &str, confirm_by_unix_ms: Option<u64>) -> Command {
    Command::PutPolicy {
        name,
        text: text.into(),
        note: Note::default(),
        confirm_by_unix_ms,
    }
}

/// What most interesting things presuppose: nodes, networks, and an endpoint in each.
fn prelude() -> Vec<Proposal> {
    let name = |text: &str| -> Name { text.parse().unwrap() };
    let mut commands = Vec::new();
    for last in 1..=3 {
        commands.push(Command::RegisterNode {
            public_keys: Vec::new(),
            tunnel_port: 51820,
            name: name(&format!("node{last}")),
            location: "aws:us-east-1".parse().unwrap(),
            underlay_address: Some(Ipv4Addr::new(198, 18, 0, last)),
            underlay_address_v6: None,
        });
    }
    for index in 1..=2 {
        commands.push(Command::CreateNetwork(NetworkCreate {
            outbound: Default::default(),
            encryption: Default::default(),
            relay: false,
            enforce: Default::default(),
            vxlan_port: None,
            checksum: Default::default(),
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
        let endpoint = "e1".parse().unwrap();
        internal(vec![
            put_policy(name, TEXTS[2], None),
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
    let break_assertion = (name("p", 2), any::<bool>()).prop_map(move |(policy, force)| {
        let label = |endpoint: &str, tier: &str| Command::UpdateEndpoint {
            name: endpoint.parse().unwrap(),
            labels: [("tier".to_owned(), Some(tier.to_owned()))].into(),
        };
        let mut proposals = internal(vec![
            put_policy(policy.clone(), TEXTS[5], None),
            put_policy(policy, TEXTS[5], None),
            label("e1", "web"),
            label("e3", "db"),
        ]);
        // The first creates it, or the second replaces what is there.
        proposals[0].precondition = Precondition::Absent;
        proposals[3].force = force;
        proposals
    });
    prop_oneof![
        2 => break_assertion,
        1 => leave,
        20 => proposal().prop_map(|proposal| vec![proposal]),
        2 => whole_move,
        1 => break_policy,
    ]
}

/// After the prelude: two texts, the second on trial, a candidate beside it, and perhaps no
/// confirmation.
fn trial(not_confirmed: bool) -> Vec<Proposal> {
    let name: Name = "p1".parse().unwrap();
    let mut commands = vec![
        put_policy(name.clone(), TEXTS[2], None),
        put_policy(name.clone(), TEXTS[0], Some(9)),
        Command::StagePolicy {
            name: name.clone(),
            text: TEXTS[1].into(),
        },
    ];
    if not_confirmed {
        commands.push(Command::RevertPolicy {
            name,
            text_revision: prelude().len() as u64 + 2,
            note: Note::default(),
        });
    }
    let mut proposals: Vec<_> = commands.into_iter().map(Proposal::internal).collect();
    proposals[0].precondition = Precondition::Absent;
    proposals
}

/// Random proposals, from nothing, or after the prelude and perhaps a trial.
fn proposals() -> impl Strategy<Value = Vec<Proposal>> {
    let random = proptest::collection::vec(step(), 1..80);
    (0..5, random).prop_map(|(beginning, random)| {
        let mut all = match beginning {
            0 | 1 => Vec::new(),
            _ => prelude(),
        };
        if beginning > 2 {
            all.extend(trial(beginning == 3));
        }
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
                outcome: Some(effects.outcome),
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
        let revisions: Vec<u64> = policy.history.iter().map(|item| item.revision).collect();
        assert!(
            revisions.is_sorted_by(|a, b| a < b),
            "{name}: {revisions:?}"
        );
        assert!(policy.present().revision <= policy.revision);
        assert!(policy.revision <= state.revision() && policy.tables_revision <= state.revision());
        if let Some(staged) = &policy.staged {
            assert!(staged.revision <= staged.tables_revision);
        }
        let unconfirmed = policy.unconfirmed.as_ref();
        if let Some(fallback) = unconfirmed.and_then(|unconfirmed| unconfirmed.fallback.as_ref()) {
            assert!(fallback.revision < policy.present().revision);
            assert!(state.networks().contains_key(&fallback.network));
        }
    }
    for (network, staged) in state.staged() {
        let policy = &state.policies()[&staged.policy];
        assert_eq!(&policy.network, network);
        let candidate = policy.staged.as_ref().unwrap();
        assert_eq!(staged.revision, candidate.tables_revision);
        assert_eq!(staged.text_hash, candidate.text.hash());
    }
    let underlay: std::collections::BTreeSet<_> = state
        .nodes()
        .values()
        .map(|node| node.underlay_address)
        .collect();
    assert_eq!(underlay.len(), state.nodes().len());
}

proptest! {
    #![proptest_config(config(100))]

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
    fn examining_beforehand_decides_the_same_or_says_that_it_is_stale(
        proposals in proposals(),
        stale in any::<bool>(),
    ) {
        let mut state = State::default();
        let mut older = State::default();
        for proposal in &proposals {
            let from = if stale { older } else { state.clone() };
            let prepared = from.prepare(proposal);
            older = state.clone();
            let mut other = state.clone();
            let decided = state.apply(proposal);
            let taken = other.apply_prepared(proposal, &prepared);
            if matches!(taken, Err(Refusal::Stale)) {
                prop_assert!(stale, "what was prepared from this very state fits");
                prop_assert_eq!(&other, &older, "nothing has changed");
            } else {
                prop_assert_eq!(taken, decided);
                prop_assert_eq!(&other, &state);
            }
        }
    }

    #[test]
    fn histories_only_grow_at_their_end_and_nothing_reaches_back(
        proposals in proposals(),
    ) {
        let mut state = State::default();
        for proposal in &proposals {
            let before = state.clone();
            if state.apply(proposal).is_err() {
                continue;
            }
            for (name, policy) in state.policies() {
                let Some(old) = before.policies().get(name) else {
                    prop_assert_eq!(policy.history.len(), 1);
                    continue;
                };
                let kept = policy.history.len().min(old.history.len());
                prop_assert_eq!(&policy.history[..kept], &old.history[..kept]);
                let new = &policy.history[kept..];
                prop_assert!(new.len() <= 1);
                prop_assert!(new.iter().all(|item| item.revision == state.revision()));
            }
        }
    }

    #[test]
    fn what_is_not_confirmed_goes_back_to_exactly_the_last_text_that_was_not_on_trial(
        before in proposal(),
        meanwhile in proposals(),
    ) {
        let mut proposals = prelude();
        proposals.extend(trial(false));
        proposals.push(before);
        let (mut state, _) = run(&proposals);
        let on_trial = state.policies().iter().find_map(|(name, policy)| {
            Some((name.clone(), policy.unconfirmed.clone()?))
        });
        let Some((name, unconfirmed)) = on_trial else {
            // The proposal before ended it.
            return Ok(());
        };
        let deadline = state.next_deadline().map(|(_, _, deadline)| deadline);
        prop_assert!(deadline.is_some_and(|next| next <= unconfirmed.deadline_unix_ms));
        // Whatever else happens, as long as nobody touches the policy.
        let about_it = |command: &Command| match command {
            Command::PutPolicy { name: other, .. }
            | Command::ApplyStaged { name: other, .. }
            | Command::RollbackPolicy { name: other, .. }
            | Command::ConfirmPolicy { name: other }
            | Command::RevertPolicy { name: other, .. }
            | Command::DeletePolicy { name: other } => *other == name,
            _ => false,
        };
        for proposal in meanwhile.iter().filter(|proposal| !about_it(&proposal.command)) {
            let _ = state.apply(proposal);
        }
        let revert = |text_revision| Proposal::internal(Command::RevertPolicy {
            name: name.clone(),
            text_revision,
            note: Note::default(),
        });
        let text_revision = state.policies()[&name].present().revision;
        let late = state.apply(&revert(text_revision - 1));
        prop_assert_eq!(late, Err(Refusal::Unchanged));
        let effects = state.apply(&revert(text_revision));
        prop_assert!(effects.is_ok(), "{effects:?}");
        check_invariants(&state);
        match unconfirmed.fallback {
            None => prop_assert!(!state.policies().contains_key(&name)),
            Some(fallback) => {
                let policy = &state.policies()[&name];
                prop_assert_eq!(policy.text(), &fallback.text);
                prop_assert_eq!(&policy.network, &fallback.network);
                prop_assert_eq!(policy.present().rolled_back_to, Some(fallback.revision));
                prop_assert!(policy.present().not_confirmed && policy.unconfirmed.is_none());
                prop_assert_eq!(policy.tables_revision, state.revision());
            }
        }
        prop_assert_eq!(state.apply(&revert(text_revision)), Err(Refusal::Unchanged));
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
        prop_assert_eq!(read.restore(), state);
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
    let (mut staged, mut on_trial, mut reverted) = (0, 0, 0);
    let (mut violated, mut kept_from_it) = (0, 0);
    for _ in 0..400 {
        let proposals = proposals().new_tree(&mut runner).unwrap().current();
        let mut state = State::default();
        for proposal in &proposals {
            match state.apply(proposal) {
                Err(Refusal::Unchanged) => unchanged += 1,
                Err(Refusal::Stale) => panic!("nothing was prepared"),
                Err(Refusal::Problem(problem)) => {
                    let policy_broken = sunwire_api::ProblemCode::PolicyBroken;
                    broken += usize::from(problem.code == policy_broken);
                    let assertion = sunwire_api::ProblemCode::AssertionViolated;
                    kept_from_it += usize::from(problem.code == assertion);
                }
                Ok(_) => {
                    let finish = matches!(proposal.command, Command::FinishMove { .. });
                    moved += usize::from(finish);
                    let revert = matches!(proposal.command, Command::RevertPolicy { .. });
                    reverted += usize::from(revert);
                }
            }
        }
        programs += state.programs().len();
        staged += state.staged().len();
        let policies = state.policies().values();
        let waiting = policies.filter(|policy| policy.unconfirmed.is_some());
        on_trial += waiting.count();
        let policies = state.policies().values();
        let broken = policies.filter(|policy| !policy.violations.is_empty());
        violated += broken.count();
    }
    println!("{violated} violated, {kept_from_it} kept from it");
    assert!(violated >= 3 && kept_from_it >= 3);
    println!("{staged} staged, {on_trial} on trial, {reverted} put back");
    assert!(staged >= 10 && on_trial >= 10 && reverted >= 3);
    println!("{moved} moved, {programs} programs, {unchanged} unchanged, {broken} broken");
    assert!(moved >= 10 && programs >= 10 && unchanged >= 10 && broken >= 10);
}
