//! Agents' streams over real sockets.

mod common;

use std::time::Duration;

use common::{PATIENCE, Running, create_endpoint, create_network, name};
use sunwire_api::agent::agent_message::Message as Said;
use sunwire_api::agent::controller_message::Message as Heard;
use sunwire_api::agent::{self, endpoint_report};
use sunwire_api::client::Guard;
use sunwire_api::{EndpointState, ProblemCode};
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_gets_everything_and_then_every_change_in_order() {
    let data = tempfile::tempdir().unwrap();
    let running = Running::start(data.path()).await;
    running.call(|client| create_network(client, "shop")).await;
    let (mut aws, snapshot) = running.agent("aws1", 1).await;
    let state = snapshot.state.unwrap();
    assert_eq!(snapshot.revision, 2);
    assert_eq!(state.networks.len(), 1);
    assert_eq!(state.networks[0].gateway_v4, [10, 20, 0, 1]);
    assert_eq!(state.networks[0].prefix_v4, 16);
    assert_eq!(state.networks[0].prefix_v6, 64);
    assert_eq!(state.networks[0].gateway_mac, [0x02, 0x53, 0x57, 0, 0, 1]);
    assert_eq!(state.networks[0].mtu, 1300);
    assert_eq!(state.nodes[0].underlay_address, [198, 18, 0, 1]);

    let (mut gcp, _) = running.agent("gcp1", 2).await;
    running
        .call(|client| {
            create_endpoint(client, "web1", "shop", "aws1");
            create_endpoint(client, "db1", "shop", "gcp1");
            client.delete_endpoint(&name("web1"), Guard::Any).unwrap();
        })
        .await;

    let first = aws.delta().await;
    assert_eq!(first.revision, 3);
    assert_eq!(first.changed.unwrap().nodes[0].name, "gcp1");
    for agent in [&mut aws, &mut gcp] {
        let second = agent.delta().await;
        assert_eq!(second.revision, 4);
        let web1 = second.changed.unwrap().endpoints.remove(0);
        assert_eq!((web1.number, web1.node, web1.other), (1, 1, 0));
        assert_eq!(web1.device, "sw-web1");
        assert_eq!(web1.ipv4, [10, 20, 0, 2]);
        assert_eq!(web1.mac, [0x02, 0x73, 0, 0, 0, 1]);
        let third = agent.delta().await;
        assert_eq!(third.revision, 5);
        assert_eq!(third.changed.unwrap().endpoints[0].number, 2);
        let fourth = agent.delta().await;
        assert_eq!((fourth.revision, fourth.removed_endpoints), (6, vec![1]));
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_for_a_revision_ends_when_the_last_connected_agent_acknowledges() {
    let data = tempfile::tempdir().unwrap();
    let running = Running::start(data.path()).await;
    let (mut aws, snapshot) = running.agent("aws1", 1).await;
    aws.acknowledge(snapshot.revision).await;
    let (mut gcp, snapshot) = running.agent("gcp1", 2).await;
    gcp.acknowledge(snapshot.revision).await;
    let revision = aws.delta().await.revision;
    aws.acknowledge(revision).await;
    let shop = running.call(|client| create_network(client, "shop")).await;

    let unanswered = running
        .call(move |client| client.wait_revision(shop.revision, Duration::ZERO))
        .await
        .unwrap();
    assert!(unanswered.timed_out);
    assert!(
        unanswered
            .nodes
            .iter()
            .all(|node| node.acknowledged_revision < shop.revision)
    );

    let waiting = running.call(move |client| client.wait_revision(shop.revision, PATIENCE));
    let answering = async {
        for agent in [&mut aws, &mut gcp] {
            let revision = agent.delta().await.revision;
            assert_eq!(revision, shop.revision);
            agent.acknowledge(revision).await;
        }
    };
    let (status, ()) = tokio::join!(waiting, answering);
    let status = status.unwrap();
    assert!(!status.timed_out);
    assert_eq!(status.revision, shop.revision);
    for node in &status.nodes {
        assert!(node.connected);
        assert_eq!(node.acknowledged_revision, shop.revision);
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_fails_ends_the_wait_with_its_error_and_gets_everything_next() {
    let data = tempfile::tempdir().unwrap();
    let running = Running::start(data.path()).await;
    let (mut aws, snapshot) = running.agent("aws1", 1).await;
    aws.acknowledge(snapshot.revision).await;
    let shop = running.call(|client| create_network(client, "shop")).await;
    let revision = aws.delta().await.revision;
    aws.say(Said::Acknowledge(agent::Acknowledge {
        revision,
        error: "the map is full".to_owned(),
    }))
    .await;
    let status = running
        .call(move |client| client.wait_revision(shop.revision, PATIENCE).unwrap())
        .await;
    assert!(!status.timed_out);
    let node = &status.nodes[0];
    assert_eq!(node.error.as_ref().unwrap().detail, "the map is full");
    assert!(node.acknowledged_revision < shop.revision);

    running.call(|client| create_network(client, "lab")).await;
    let Heard::Snapshot(snapshot) = aws.hear().await else {
        panic!("an agent that failed gets everything");
    };
    assert_eq!(snapshot.state.unwrap().networks.len(), 2);
    aws.acknowledge(snapshot.revision).await;
    let status = running
        .call(move |client| client.wait_revision(snapshot.revision, PATIENCE).unwrap())
        .await;
    assert_eq!(status.nodes[0].error, None);
    assert_eq!(status.nodes[0].acknowledged_revision, snapshot.revision);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_is_published_once_the_destination_has_the_device() {
    let data = tempfile::tempdir().unwrap();
    let running = Running::start(data.path()).await;
    let (mut aws, _) = running.agent("aws1", 1).await;
    let (mut gcp, _) = running.agent("gcp1", 2).await;
    aws.delta().await;
    running
        .call(|client| {
            create_network(client, "shop");
            create_endpoint(client, "web1", "shop", "aws1");
        })
        .await;
    for agent in [&mut aws, &mut gcp] {
        agent.delta().await;
        agent.delta().await;
    }
    aws.report("web1", endpoint_report::State::Attached, 1)
        .await;
    let web1 = name("web1");
    let attached = running
        .call({
            let web1 = web1.clone();
            move |client| client.wait_endpoint(&web1, EndpointState::Attached, PATIENCE)
        })
        .await
        .unwrap();
    assert_eq!(attached.status.state, EndpointState::Attached);

    // A report of a node that has nothing to do with it changes nothing.
    gcp.report("web1", endpoint_report::State::Attached, 1)
        .await;
    gcp.report("web1", endpoint_report::State::Failed, 1).await;
    let moving = running
        .call({
            let web1 = web1.clone();
            let guard = Guard::Revision(attached.revision);
            move |client| client.move_endpoint(&web1, &name("gcp1"), guard)
        })
        .await
        .unwrap();
    assert_eq!(moving.status.state, EndpointState::Moving);
    assert_eq!(moving.status.node, name("aws1"));
    assert_eq!(moving.status.moving_to, Some(name("gcp1")));
    for agent in [&mut aws, &mut gcp] {
        let delta = agent.delta().await;
        assert_eq!(delta.revision, moving.revision);
        let endpoint = &delta.changed.unwrap().endpoints[0];
        assert_eq!((endpoint.node, endpoint.other), (1, 2));
        assert!(endpoint.moving);
        assert_eq!(endpoint.epoch, 1);
    }

    aws.report("web1", endpoint_report::State::Absent, 1).await;
    gcp.report("web1", endpoint_report::State::Attached, 1)
        .await;
    let mut published = 0;
    for agent in [&mut aws, &mut gcp] {
        let delta = agent.delta().await;
        let endpoint = &delta.changed.unwrap().endpoints[0];
        assert_eq!((endpoint.node, endpoint.other), (2, 1));
        assert!(!endpoint.moving);
        assert_eq!(endpoint.epoch, 2);
        published = delta.revision;
    }
    // Late words of the epoch before are not heard, from whomever.
    for agent in [&aws, &gcp] {
        agent
            .report("web1", endpoint_report::State::Failed, 1)
            .await;
        agent.acknowledge(published).await;
    }
    running
        .call(move |client| client.wait_revision(published, PATIENCE))
        .await
        .unwrap();
    let moved = running
        .call({
            let web1 = web1.clone();
            move |client| client.wait_endpoint(&web1, EndpointState::Attached, PATIENCE)
        })
        .await
        .unwrap();
    assert_eq!(moved.status.node, name("gcp1"));
    assert_eq!(moved.status.state, EndpointState::Attached);
    assert_eq!((moved.status.moving_to, moved.status.epoch), (None, 2));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_move_leaves_the_endpoint_as_its_source_last_saw_it() {
    let data = tempfile::tempdir().unwrap();
    let running = Running::start(data.path()).await;
    let (aws, _) = running.agent("aws1", 1).await;
    let (_gcp, _) = running.agent("gcp1", 2).await;
    let web1 = name("web1");
    running
        .call(|client| {
            create_network(client, "shop");
            create_endpoint(client, "web1", "shop", "aws1");
        })
        .await;
    aws.report("web1", endpoint_report::State::Attached, 1)
        .await;
    let state = running
        .call(move |client| {
            client
                .wait_endpoint(&web1, EndpointState::Attached, PATIENCE)
                .unwrap();
            client
                .move_endpoint(&web1, &name("gcp1"), Guard::Any)
                .unwrap();
            let again = client.move_endpoint(&web1, &name("gcp1"), Guard::Any);
            assert_eq!(common::code(again), ProblemCode::AlreadyMoving);
            let there = client.abort_move(&web1, Guard::Any).unwrap();
            let none = client.abort_move(&web1, Guard::Any);
            assert_eq!(common::code(none), ProblemCode::NotMoving);
            let there_already = client.move_endpoint(&web1, &name("aws1"), Guard::Any);
            assert_eq!(common::code(there_already), ProblemCode::AlreadyThere);
            let nowhere = client.move_endpoint(&web1, &name("azure1"), Guard::Any);
            assert_eq!(common::code(nowhere), ProblemCode::UnknownNode);
            there.status
        })
        .await;
    assert_eq!(state.state, EndpointState::Attached);
    assert_eq!((state.node, state.epoch), (name("aws1"), 1));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newer_of_two_streams_of_a_node_wins() {
    let data = tempfile::tempdir().unwrap();
    let running = Running::start(data.path()).await;
    let (old, _) = running.agent("aws1", 1).await;
    let (mut new, _) = running.agent("aws1", 1).await;
    let status = old.end().await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted);

    let other = running.hello("aws1", 9).await.map(|_| ()).unwrap_err();
    assert_eq!(other.code(), Code::AlreadyExists, "{other}");
    let same_address = running.hello("gcp1", 1).await.map(|_| ()).unwrap_err();
    assert_eq!(same_address.code(), Code::AlreadyExists, "{same_address}");
    let malformed = running.hello("AWS", 3).await.map(|_| ()).unwrap_err();
    assert_eq!(malformed.code(), Code::InvalidArgument, "{malformed}");

    running.call(|client| create_network(client, "shop")).await;
    assert_eq!(new.delta().await.changed.unwrap().networks.len(), 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_an_agent_gets_the_same_again() {
    let data = tempfile::tempdir().unwrap();
    let running = Running::start(data.path()).await;
    let (aws, _) = running.agent("aws1", 1).await;
    running
        .call(|client| {
            create_network(client, "shop");
            create_endpoint(client, "web1", "shop", "aws1");
        })
        .await;
    drop(aws);
    let (aws, before) = running.agent("aws1", 1).await;
    running.stop().await;
    let status = aws.end().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);

    let running = Running::start(data.path()).await;
    let node = running
        .call(|client| client.node(&name("aws1")).unwrap())
        .await;
    assert!(!node.status.connected);
    let (_aws, after) = running.agent("aws1", 1).await;
    assert_eq!(before, after);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_gone_is_shown_as_gone_and_can_then_be_deleted() {
    let data = tempfile::tempdir().unwrap();
    let running = Running::start(data.path()).await;
    let (aws, snapshot) = running.agent("aws1", 1).await;
    aws.acknowledge(snapshot.revision).await;
    let refused = running
        .call(|client| client.delete_node(&name("aws1"), Guard::Any))
        .await;
    assert_eq!(common::code(refused), ProblemCode::NodeConnected);
    drop(aws);
    let (_gcp, _) = running.agent("gcp1", 2).await;
    // The streams' ends may be noticed in any order: ask until the first has been.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let node = running
            .call(|client| client.node(&name("aws1")).unwrap())
            .await;
        if !node.status.connected {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    running
        .call(|client| {
            create_network(client, "shop");
            create_endpoint(client, "web1", "shop", "aws1");
            let used = client.delete_node(&name("aws1"), Guard::Any);
            assert_eq!(common::code(used), ProblemCode::NodeInUse);
            client.delete_endpoint(&name("web1"), Guard::Any).unwrap();
            client.delete_node(&name("aws1"), Guard::Any).unwrap();
            let gone = client.node(&name("aws1"));
            assert_eq!(common::code(gone), ProblemCode::NodeNotFound);
        })
        .await;
    let (_aws, snapshot) = running.agent("aws1", 1).await;
    let numbers: Vec<u32> = snapshot
        .state
        .unwrap()
        .nodes
        .iter()
        .map(|n| n.number)
        .collect();
    assert_eq!(numbers, [3, 2], "numbers are not reused");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_are_summed_over_nodes_by_network_and_label_and_reason() {
    let data = tempfile::tempdir().unwrap();
    let running = Running::start(data.path()).await;
    let (aws, _) = running.agent("aws1", 1).await;
    let (gcp, _) = running.agent("gcp1", 2).await;
    let shop = running.call(|client| create_network(client, "shop")).await;
    let vni = shop.spec.vni.get();
    for (agent, packets) in [(&aws, 3), (&gcp, 4)] {
        agent
            .say(Said::Counters(agent::Counters {
                labels: vec![agent::LabelCounter {
                    vni,
                    label: "default deny".to_owned(),
                    packets,
                    bytes: packets * 100,
                }],
                drops: vec![agent::DropCounter {
                    reason: "unknown-peer".to_owned(),
                    packets,
                    bytes: packets * 10,
                }],
                ..agent::Counters::default()
            }))
            .await;
        // What a stream carries is heard in order: once this is acknowledged, those were heard.
        agent.acknowledge(shop.revision).await;
    }
    let counters = running
        .call(move |client| {
            client.wait_revision(shop.revision, PATIENCE).unwrap();
            client.counters().unwrap()
        })
        .await;
    assert_eq!(counters.labels.len(), 1);
    assert_eq!(counters.labels[0].network, Some(name("shop")));
    assert_eq!(counters.labels[0].totals.packets, 7);
    assert_eq!(counters.drops[0].totals.bytes, 70);
    assert_eq!(counters.nodes.len(), 2);
    assert_eq!(counters.nodes[1].labels[0].totals.packets, 4);
    running.stop().await;
}
