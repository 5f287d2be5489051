//! Which nodes decide about a network's packets: policies that a receiver could not decide by are
//! refused where receivers decide, whichever of the two comes first.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use sunwire_api::{Name, NetworkCreate, NetworkEnforcement};
use sunwire_controller::command::{Command, Note, Precondition, Proposal};
use sunwire_controller::state::State;

const OPEN: &str = "network n1 policy main = forward";
const REWRITES: &str =
    "network n1 policy main = if udp then (dscp := 8; forward \"marked\") else forward";

/// A state with networks `n1` (10.1.0.0/16) and `n2` (10.2.0.0/16).
fn with_networks(enforce: NetworkEnforcement) -> State {
    let mut state = State::default();
    for (name, subnet) in [("n1", "10.1.0.0/16"), ("n2", "10.2.0.0/16")] {
        let create = Command::CreateNetwork(NetworkCreate {
            outbound: Default::default(),
            name: name.parse().unwrap(),
            vni: None,
            subnets: vec![subnet.parse().unwrap()],
            mtu: None,
            encryption: Default::default(),
            relay: false,
            vxlan_port: None,
            checksum: Default::default(),
            enforce,
        });
        state.apply(&Proposal::internal(create)).unwrap();
    }
    state
}

fn enforce(state: &mut State, name: &str, enforce: NetworkEnforcement) -> Result<(), String> {
    let name = name.parse().unwrap();
    let done = state.apply(&Proposal::internal(Command::EnforceNetwork {
        name,
        enforce,
    }));
    done.map(drop).map_err(|refusal| format!("{refusal:?}"))
}

fn put(state: &mut State, policy: &str, text: &str) -> Result<(), String> {
    let name: Name = policy.parse().unwrap();
    let precondition = match state.policies().contains_key(&name) {
        true => Precondition::Any,
        false => Precondition::None,
    };
    let command = Command::PutPolicy {
        name,
        text: text.into(),
        note: Note::default(),
        confirm_by_unix_ms: None,
    };
    let done = state.apply(&Proposal {
        precondition,
        ..Proposal::internal(command)
    });
    done.map(drop).map_err(|refusal| format!("{refusal:?}"))
}

fn assert_refused(outcome: Result<(), String>) {
    let refused = outcome.unwrap_err();
    assert!(refused.contains("SW0506"), "{refused}");
    assert!(refused.contains("rewrites"), "{refused}");
}

#[test]
fn a_policy_that_rewrites_is_refused_where_receivers_decide_and_the_other_way_round() {
    let mut state = with_networks(NetworkEnforcement::Both);
    assert_refused(put(&mut state, "p1", REWRITES));
    put(&mut state, "p1", OPEN).unwrap();
    assert_refused(put(&mut state, "p1", REWRITES));
    enforce(&mut state, "n1", NetworkEnforcement::Entry).unwrap();
    put(&mut state, "p1", REWRITES).unwrap();
    assert_refused(enforce(&mut state, "n1", NetworkEnforcement::Both));
    let network: Name = "n1".parse().unwrap();
    assert_eq!(
        state.networks()[&network].enforce,
        NetworkEnforcement::Entry
    );
    put(&mut state, "p1", OPEN).unwrap();
    enforce(&mut state, "n1", NetworkEnforcement::Both).unwrap();
    assert_eq!(state.networks()[&network].enforce, NetworkEnforcement::Both);
    // What is stored is the same again.
    let text = serde_json::to_string(&state).unwrap();
    let again: State = serde_json::from_str(&text).unwrap();
    let again = again.restore();
    assert_eq!(again.networks()[&network].enforce, NetworkEnforcement::Both);
    assert_eq!(again.programs(), state.programs());
}

#[test]
fn peers_of_a_network_whose_receivers_decide_may_not_rewrite_either() {
    let mut state = with_networks(NetworkEnforcement::Entry);
    put(&mut state, "p1", REWRITES).unwrap();
    put(&mut state, "p2", "network n2 policy main = forward").unwrap();
    enforce(&mut state, "n2", NetworkEnforcement::Both).unwrap();
    let peer = Command::PeerNetworks {
        name: "n1".parse().unwrap(),
        peer: "n2".parse().unwrap(),
    };
    let refused = state.apply(&Proposal::internal(peer.clone())).unwrap_err();
    assert_refused(Err(format!("{refused:?}")));
    put(&mut state, "p1", OPEN).unwrap();
    state.apply(&Proposal::internal(peer)).unwrap();
    assert_refused(put(&mut state, "p1", REWRITES));
    enforce(&mut state, "n2", NetworkEnforcement::Entry).unwrap();
    put(&mut state, "p1", REWRITES).unwrap();
}
