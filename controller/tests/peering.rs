//! Peered networks in the state: what is refused, and that policies of both change together.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use sunwire_api::{Name, NetworkCreate, NetworkEncryption};
use sunwire_controller::command::{Command, Note, Precondition, Proposal};
use sunwire_controller::state::State;

/// A state with networks `n1` (10.0.0.0/16), `n2` (10.1.0.0/16) and `n3` (10.0.0.0/8).
fn with_networks() -> State {
    let mut state = State::default();
    for (name, subnet) in [
        ("n1", "10.0.0.0/16"),
        ("n2", "10.1.0.0/16"),
        ("n3", "10.0.0.0/8"),
    ] {
        let create = Command::CreateNetwork(NetworkCreate {
            outbound: Default::default(),
            name: name.parse().unwrap(),
            vni: None,
            subnets: vec![subnet.parse().unwrap()],
            mtu: None,
            encryption: Default::default(),
            relay: false,
            enforce: Default::default(),
            vxlan_port: None,
            checksum: Default::default(),
        });
        state.apply(&Proposal::internal(create)).unwrap();
    }
    state
}

fn peer(state: &mut State, name: &str, peer: &str, peered: bool) -> Result<(), String> {
    let (name, peer) = (name.parse().unwrap(), peer.parse().unwrap());
    let command = match peered {
        true => Command::PeerNetworks { name, peer },
        false => Command::UnpeerNetworks { name, peer },
    };
    let done = state.apply(&Proposal::internal(command));
    done.map(drop).map_err(|refusal| format!("{refusal:?}"))
}

fn put(state: &mut State, policy: &str, text: &str) -> Result<(), String> {
    let name: Name = policy.parse().unwrap();
    let precondition = match state.policies().contains_key(&name) {
        true => Precondition::Any,
        false => Precondition::None,
    };
    let done = state.apply(&Proposal {
        precondition,
        ..Proposal::internal(put_policy(name, text))
    });
    done.map(drop).map_err(|refusal| format!("{refusal:?}"))
}

#[test]
fn what_cannot_be_peered_is_refused_with_the_reason() {
    let mut state = with_networks();
    let refused = peer(&mut state, "n1", "n3", true).unwrap_err();
    assert!(
        refused.contains("10.0.0.0/16") && refused.contains("10.0.0.0/8"),
        "{refused}"
    );
    assert!(
        peer(&mut state, "n1", "n9", true)
            .unwrap_err()
            .contains("no network n9")
    );
    assert!(
        peer(&mut state, "n1", "n1", true)
            .unwrap_err()
            .contains("no peer of its own")
    );
    assert!(
        peer(&mut state, "n1", "n2", false)
            .unwrap_err()
            .contains("not peered")
    );
    peer(&mut state, "n1", "n2", true).unwrap();
    // It would overlap another peer's.
    let create = Command::CreateNetwork(NetworkCreate {
        outbound: Default::default(),
        name: "n4".parse().unwrap(),
        vni: None,
        subnets: vec!["10.1.7.0/24".parse().unwrap()],
        mtu: None,
        encryption: Default::default(),
        relay: false,
        enforce: Default::default(),
        vxlan_port: None,
        checksum: Default::default(),
    });
    state.apply(&Proposal::internal(create)).unwrap();
    let refused = peer(&mut state, "n1", "n4", true).unwrap_err();
    assert!(
        refused.contains("10.1.7.0/24") && refused.contains("10.1.0.0/16"),
        "{refused}"
    );
    let delete = Command::DeleteNetwork {
        name: "n2".parse().unwrap(),
    };
    let refused = state.apply(&Proposal::internal(delete)).unwrap_err();
    assert!(
        format!("{refused:?}").contains("peered with network n1"),
        "{refused:?}"
    );
}

fn encrypt(state: &mut State, name: &str, encryption: NetworkEncryption) -> Result<(), String> {
    let command = Command::UpdateNetwork {
        name: name.parse().unwrap(),
        outbound: None,
        checksum: None,
        encryption: Some(encryption),
    };
    let done = state.apply(&Proposal::internal(command));
    done.map(drop).map_err(|refusal| format!("{refusal:?}"))
}

#[test]
fn networks_that_are_peered_are_encrypted_alike() {
    let mut state = with_networks();
    encrypt(&mut state, "n1", NetworkEncryption::Never).unwrap();
    let refused = peer(&mut state, "n1", "n2", true).unwrap_err();
    assert!(
        refused.contains("of network n1 is never, and of network n2 default"),
        "{refused}"
    );
    encrypt(&mut state, "n2", NetworkEncryption::Never).unwrap();
    peer(&mut state, "n1", "n2", true).unwrap();
    for other in [NetworkEncryption::Default, NetworkEncryption::Required] {
        let refused = encrypt(&mut state, "n1", other).unwrap_err();
        assert!(refused.contains("peered with network n2"), "{refused}");
    }
    encrypt(&mut state, "n1", NetworkEncryption::Never).unwrap();
    peer(&mut state, "n1", "n2", false).unwrap();
    encrypt(&mut state, "n1", NetworkEncryption::Required).unwrap();
}

#[test]
fn a_policy_and_its_peers_change_together() {
    let mut state = with_networks();
    put(&mut state, "p1", "network n1 policy main = forward").unwrap();
    put(&mut state, "p2", "network n2 policy main = forward").unwrap();
    let tables = |state: &State| {
        let of = |name: &str| {
            state.programs()[&name.parse::<Name>().unwrap()]
                .tables
                .clone()
        };
        [of("n1"), of("n2")]
    };
    let apart = tables(&state);
    peer(&mut state, "n1", "n2", true).unwrap();
    let closed = "network n2 policy main = if src in n1 then drop \"closed\" else forward";
    let command = put_policy("p2".parse().unwrap(), closed);
    let effects = state.apply(&Proposal::internal(command)).unwrap();
    // Agents hear of both at once.
    assert_eq!(effects.programs.len(), 2);
    let peered = tables(&state);
    let labels = peered[0].leaves.values().map(|leaf| leaf.label.clone());
    let labels: Vec<String> = labels.collect();
    assert!(labels.contains(&"n2: closed".to_owned()), "{labels:?}");
    // What is stored makes the same again.
    let text = serde_json::to_string(&state).unwrap();
    let again: State = serde_json::from_str(&text).unwrap();
    assert_eq!(tables(&again.restore()), peered);
    // The text counts on the peering.
    assert!(
        peer(&mut state, "n1", "n2", false)
            .unwrap_err()
            .contains("would not compile")
    );
    put(&mut state, "p2", "network n2 policy main = forward").unwrap();
    peer(&mut state, "n1", "n2", false).unwrap();
    assert_eq!(tables(&state), apart);
    // Without a policy there, nothing crosses to it.
    peer(&mut state, "n1", "n2", true).unwrap();
    let delete = Command::DeletePolicy {
        name: "p2".parse().unwrap(),
    };
    let effects = state.apply(&Proposal::internal(delete)).unwrap();
    assert_eq!(effects.programs.len(), 2);
    let n1: Name = "n1".parse().unwrap();
    let labels: Vec<&str> = state.programs()[&n1]
        .tables
        .leaves
        .values()
        .map(|leaf| leaf.label.as_str())
        .collect();
    assert!(labels.contains(&"n2: no policy in force"), "{labels:?}");
}

fn put_policy(name: Name, text: &str) -> Command {
    Command::PutPolicy {
        name,
        text: text.into(),
        note: Note::default(),
        confirm_by_unix_ms: None,
    }
}
