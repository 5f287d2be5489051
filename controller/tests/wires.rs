//! Networks without subnet, and wires between their endpoints.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::time::{Duration, Instant};

use common::{Running, code, create_endpoint, create_network, endpoint, name, network};
use sunwire_api::agent::agent_message::Message as Said;
use sunwire_api::agent::{self, endpoint_report};
use sunwire_api::client::{Client, Guard};
use sunwire_api::{NetworkCreate, ProblemCode, Wire, WireCreate, WireState};

fn cables(text: &str) -> NetworkCreate {
    NetworkCreate {
        outbound: Default::default(),
        subnets: Vec::new(),
        ..network(text)
    }
}

fn body(text: &str, a: &str, b: &str) -> WireCreate {
    WireCreate {
        name: name(text),
        a: name(a),
        b: name(b),
    }
}

fn connect(client: &Client, text: &str, a: &str, b: &str) -> Wire {
    client.connect_wire(&body(text, a, b), Guard::None).unwrap()
}

/// A network `cables` with endpoints `left` at aws1 and `right` at gcp1.
fn ends(client: &Client) {
    client
        .create_network(&cables("cables"), Guard::None)
        .unwrap();
    create_endpoint(client, "left", "cables", "aws1");
    create_endpoint(client, "right", "cables", "gcp1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_without_subnet_has_no_gateway_and_its_endpoints_no_addresses() {
    let data = tempfile::tempdir().unwrap();
    let running = Running::start(data.path()).await;
    let (mut aws, _) = running.agent("aws1", 1).await;
    running
        .call(|client| {
            let network = client
                .create_network(&cables("cables"), Guard::None)
                .unwrap();
            assert!(network.spec.subnets.is_empty() && network.status.gateways.is_empty());
            let end = create_endpoint(client, "left", "cables", "aws1");
            assert!(end.spec.addresses.is_empty());
            let mut addressed = endpoint("right", "cables", "aws1");
            addressed.addresses = Some(vec!["10.0.0.1".parse().unwrap()]);
            let refused = client.create_endpoint(&addressed, Guard::None);
            assert_eq!(code(refused), ProblemCode::AddressInvalid);
            // A tagged frame has to fit the underlay, too.
            let mut large = cables("large");
            large.mtu = Some(8947);
            let refused = client.create_network(&large, Guard::None);
            assert_eq!(code(refused), ProblemCode::MtuInvalid);
            large.mtu = Some(8946);
            client.create_network(&large, Guard::None).unwrap();
        })
        .await;
    let network = aws.delta().await.changed.unwrap().networks.remove(0);
    assert!(network.gateway_v4.is_empty() && network.gateway_v6.is_empty());
    assert_eq!((network.prefix_v4, network.prefix_v6), (0, 0));
    let end = aws.delta().await.changed.unwrap().endpoints.remove(0);
    assert!(end.ipv4.is_empty() && end.ipv6.is_empty());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_hear_of_wires_and_of_their_end_and_a_restart_keeps_them() {
    let data = tempfile::tempdir().unwrap();
    let running = Running::start(data.path()).await;
    let (aws, _) = running.agent("aws1", 1).await;
    let (mut gcp, _) = running.agent("gcp1", 2).await;
    let revision = running
        .call(|client| {
            ends(client);
            let first = connect(client, "patch1", "left", "right");
            client
                .disconnect_wire(&name("patch1"), Guard::Revision(first.revision))
                .unwrap();
            let again = connect(client, "patch1", "right", "left");
            assert_eq!((first.status.number, again.status.number), (1, 2));
            again.revision
        })
        .await;
    for _ in 0..3 {
        gcp.delta().await;
    }
    let first = gcp.delta().await.changed.unwrap().wires.remove(0);
    assert_eq!((first.number, first.vni, first.a, first.b), (1, 1, 1, 2));
    assert_eq!(gcp.delta().await.removed_wires, [1]);
    let second = gcp.delta().await;
    assert_eq!(second.revision, revision);
    let second = second.changed.unwrap().wires.remove(0);
    assert_eq!((second.number, second.a, second.b), (2, 2, 1));
    drop((aws, gcp));
    running.stop().await;

    let running = Running::start(data.path()).await;
    let (_aws, snapshot) = running.agent("aws1", 1).await;
    assert_eq!(snapshot.state.unwrap().wires, [second]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wire_that_cannot_be_is_refused_with_its_reason() {
    let data = tempfile::tempdir().unwrap();
    let running = Running::start(data.path()).await;
    let (_aws, _) = running.agent("aws1", 1).await;
    let (_gcp, _) = running.agent("gcp1", 2).await;
    running
        .call(|client| {
            ends(client);
            create_network(client, "shop");
            create_endpoint(client, "web1", "shop", "aws1");
            client
                .create_network(&cables("other"), Guard::None)
                .unwrap();
            create_endpoint(client, "lone", "other", "aws1");
            create_endpoint(client, "third", "cables", "aws1");
            let refused =
                |a: &str, b: &str| code(client.connect_wire(&body("patch1", a, b), Guard::None));
            assert_eq!(refused("left", "nobody"), ProblemCode::UnknownEndpoint);
            assert_eq!(refused("left", "left"), ProblemCode::WireInvalid);
            assert_eq!(refused("left", "web1"), ProblemCode::WireInvalid);
            assert_eq!(refused("left", "lone"), ProblemCode::WireInvalid);
            let missing = client.disconnect_wire(&name("patch1"), Guard::Any);
            assert_eq!(code(missing), ProblemCode::WireNotFound);
            assert!(client.wires().unwrap().is_empty());

            let wire = connect(client, "patch1", "left", "right");
            assert_eq!(refused("third", "right"), ProblemCode::NameTaken);
            let second = client.connect_wire(&body("patch2", "third", "right"), Guard::None);
            assert_eq!(code(second), ProblemCode::EndpointWired);
            let end = client.delete_endpoint(&name("left"), Guard::Any);
            assert_eq!(code(end), ProblemCode::EndpointWired);
            let unguarded = client.disconnect_wire(&name("patch1"), Guard::None);
            assert_eq!(code(unguarded), ProblemCode::PreconditionRequired);
            let stale = Guard::Revision(wire.revision - 1);
            let stale = client.disconnect_wire(&name("patch1"), stale);
            assert_eq!(code(stale), ProblemCode::StaleRevision);

            // The same request again makes no second wire, and takes none away twice.
            let key = Guard::Key("once");
            let third = client.disconnect_wire(&name("patch1"), key).unwrap();
            assert_eq!(client.disconnect_wire(&name("patch1"), key).unwrap(), third);
            client.delete_endpoint(&name("left"), Guard::Any).unwrap();
        })
        .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wire_is_up_while_both_ends_are_attached_and_says_which_is_not() {
    let data = tempfile::tempdir().unwrap();
    let running = Running::start(data.path()).await;
    let (aws, _) = running.agent("aws1", 1).await;
    let (gcp, _) = running.agent("gcp1", 2).await;
    let patch = || name("patch1");
    let down = running
        .call(move |client| {
            ends(client);
            connect(client, "patch1", "left", "right");
            client.wire(&patch()).unwrap().status
        })
        .await;
    assert_eq!(down.state, WireState::Down);
    assert!(down.detail.contains("end a (left)") && down.detail.contains("end b (right)"));
    aws.report("left", endpoint_report::State::Attached, 1)
        .await;
    gcp.report("right", endpoint_report::State::Attached, 1)
        .await;
    let wait = |state| {
        move |client: &Client| {
            let patience = Duration::from_secs(60);
            client.wait_wire(&name("patch1"), state, patience).unwrap()
        }
    };
    let up = running.call(wait(WireState::Up)).await;
    assert_eq!(up.status.state, WireState::Up);
    assert_eq!(up.status.detail, "");
    // What both ends sent is summed over the nodes where they were.
    for (agent, from_b, packets) in [(&aws, false, 3), (&gcp, true, 5), (&gcp, false, 4)] {
        let mut wires = vec![agent::WireCounter {
            wire: up.status.number,
            from_b,
            packets,
            bytes: packets * 100,
        }];
        if packets == 4 {
            let of_b = agent::WireCounter {
                from_b: true,
                packets: 5,
                bytes: 500,
                ..wires[0]
            };
            wires.push(of_b);
        }
        agent
            .say(Said::Counters(agent::Counters {
                wires,
                ..agent::Counters::default()
            }))
            .await;
    }
    gcp.report("right", endpoint_report::State::Absent, 1).await;
    let down = running.call(wait(WireState::Down)).await;
    assert_eq!(down.status.state, WireState::Down);
    assert!(
        !down.status.detail.contains("left"),
        "{}",
        down.status.detail
    );
    assert!(
        down.status.detail.contains("right"),
        "{}",
        down.status.detail
    );
    // What one node says may be heard after what another says.
    let counted = running
        .call(|client| {
            let ends = Instant::now() + Duration::from_secs(60);
            loop {
                let status = client.wire(&name("patch1")).unwrap().status;
                if status.from_a.packets == 7 || Instant::now() > ends {
                    break status;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        })
        .await;
    assert_eq!(counted.from_a.packets, 7);
    assert_eq!((counted.from_b.packets, counted.from_b.bytes), (5, 500));
    running.stop().await;
}
