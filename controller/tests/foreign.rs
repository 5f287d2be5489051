//! Nodes without an agent: declared, not announced, and what can be done there without one.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{Running, code, create_endpoint, create_network, endpoint, name, network};
use sunwire_api::client::{Client, Guard};
use sunwire_api::{
    EndpointState, FlowQuery, NetworkCreate, NetworkEncryption, NetworkPatch, Node, NodeCreate,
    NodeKind, ProblemCode,
};

fn rack(address: &str) -> NodeCreate {
    NodeCreate {
        name: name("rack"),
        kind: NodeKind::Vxlan,
        location: "onprem:dc1".parse().unwrap(),
        underlay_address: address.parse().unwrap(),
        plaintext: true,
    }
}

fn declare(client: &Client) -> Node {
    let body = rack("198.18.0.99");
    client.create_node(&body, Guard::Key("rack")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_an_agent_is_told_to_agents_and_lasts() {
    let data = tempfile::tempdir().unwrap();
    let running = Running::start(data.path()).await;
    let (mut aws, _) = running.agent("aws1", 1).await;
    let declared = running.call(declare).await;
    assert_eq!(declared.spec.kind, NodeKind::Vxlan);
    assert!(declared.spec.plaintext && !declared.status.connected);
    let told = aws.delta().await.changed.unwrap().nodes;
    let [told] = &told[..] else {
        panic!("{told:?}")
    };
    assert!(told.foreign && told.plaintext, "{told:?}");
    assert_eq!(
        (told.name.as_str(), told.number),
        ("rack", declared.status.number)
    );
    running.stop().await;

    let running = Running::start(data.path()).await;
    let (_, snapshot) = running.agent("aws1", 1).await;
    let nodes = snapshot.state.unwrap().nodes;
    assert!(nodes.contains(told), "{nodes:?}");
    // Its name is not an agent's to take, nor its address.
    assert!(running.hello("rack", 7).await.is_err());
    assert!(running.hello("aws2", 99).await.is_err());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_what_a_node_without_an_agent_tells() {
    let data = tempfile::tempdir().unwrap();
    let running = Running::start(data.path()).await;
    running
        .call(|client| {
            declare(client);
            let items = client.flows(&FlowQuery::default()).unwrap();
            let items: Vec<_> = items.map(Result::unwrap).collect();
            assert!(items.is_empty(), "{items:?}");
        })
        .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_can_be_is_declared() {
    let data = tempfile::tempdir().unwrap();
    let running = Running::start(data.path()).await;
    let (_aws, _) = running.agent("aws1", 1).await;
    running
        .call(|client| {
            let refused = |body: NodeCreate| code(client.create_node(&body, Guard::None));
            assert_eq!(refused(rack("::1")), ProblemCode::AddressInvalid);
            assert_eq!(refused(rack("224.0.0.1")), ProblemCode::AddressInvalid);
            assert_eq!(
                refused(rack("198.18.0.1")),
                ProblemCode::UnderlayAddressTaken
            );
            let with_agent = NodeCreate {
                kind: NodeKind::Agent,
                ..rack("198.18.0.99")
            };
            assert_eq!(refused(with_agent), ProblemCode::InvalidBody);
            let taken = NodeCreate {
                name: name("aws1"),
                ..rack("198.18.0.99")
            };
            assert_eq!(refused(taken), ProblemCode::NameTaken);
            declare(client);
            assert_eq!(refused(rack("198.18.0.98")), ProblemCode::NameTaken);
            client.delete_node(&name("rack"), Guard::Any).unwrap();
            // Its name and address are free again.
            let again = client
                .create_node(&rack("198.18.0.99"), Guard::None)
                .unwrap();
            assert!(again.status.number > 2, "numbers are not");
        })
        .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_there_need_nobody_to_attach_them_and_stay() {
    let data = tempfile::tempdir().unwrap();
    let running = Running::start(data.path()).await;
    let (_aws, _) = running.agent("aws1", 1).await;
    running
        .call(|client| {
            declare(client);
            create_network(client, "shop");
            let host = create_endpoint(client, "host1", "shop", "rack");
            assert_eq!(host.status.state, EndpointState::Attached);
            assert!(host.status.detail.contains("no agent"), "{host:?}");
            create_endpoint(client, "web1", "shop", "aws1");
            for (endpoint, node) in [("web1", "rack"), ("host1", "aws1")] {
                let moved = client.move_endpoint(&name(endpoint), &name(node), Guard::Any);
                assert_eq!(code(moved), ProblemCode::NodeWithoutAgent);
            }
            let mut with_device = endpoint("host2", "shop", "rack");
            with_device.device = Some("eth7".parse().unwrap());
            let refused = client.create_endpoint(&with_device, Guard::None);
            assert_eq!(code(refused), ProblemCode::NodeWithoutAgent);
            let secret = NetworkCreate {
                encryption: NetworkEncryption::Required,
                ..network("secret")
            };
            client.create_network(&secret, Guard::None).unwrap();
            let refused = client.create_endpoint(&endpoint("host3", "secret", "rack"), Guard::None);
            assert_eq!(code(refused), ProblemCode::NotEncryptable);
            // Nor does its network become one that is encrypted; the contrary it may say.
            let encrypt = |network: &str, encryption| {
                let patch = NetworkPatch {
                    encryption: Some(encryption),
                    ..NetworkPatch::default()
                };
                client.patch_network(&name(network), &patch, Guard::Any)
            };
            let refused = encrypt("shop", NetworkEncryption::Required);
            assert_eq!(code(refused), ProblemCode::NotEncryptable);
            let changed = encrypt("shop", NetworkEncryption::Never).unwrap();
            assert_eq!(changed.spec.encryption, NetworkEncryption::Never);
            let changed = encrypt("secret", NetworkEncryption::Never).unwrap();
            assert_eq!(changed.spec.encryption, NetworkEncryption::Never);
            client
                .create_endpoint(&endpoint("host3", "secret", "rack"), Guard::None)
                .unwrap();
            let in_use = client.delete_node(&name("rack"), Guard::Any);
            assert_eq!(code(in_use), ProblemCode::NodeInUse);
        })
        .await;
    running.stop().await;
}
