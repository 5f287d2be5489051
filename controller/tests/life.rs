//! How a controller starts and stops.

mod common;

use std::fs;

use common::{PATIENCE, Running, code, create_endpoint, create_network, name};
use sunwire_api::client::Guard;
use sunwire_api::{EndpointState, ProblemCode};
use sunwire_controller::{Config, Controller, OpenError};

#[test]
fn it_listens_on_loopback_and_lab_addresses_only_and_says_so() {
    let data = tempfile::tempdir().unwrap();
    for (rest, grpc) in [("0.0.0.0:0", "127.0.0.1:0"), ("127.0.0.1:0", "[::]:0")] {
        let config = Config {
            rest: vec![rest.parse().unwrap()],
            grpc: vec![grpc.parse().unwrap()],
            data_dir: data.path().join("never"),
        };
        let Err(error) = Controller::open(&config) else {
            panic!("{rest} and {grpc} were bound");
        };
        assert!(matches!(error, OpenError::Listen(_)));
        let text = error.to_string();
        assert!(text.contains("198.18.0.0/15"), "{text}");
        assert!(!data.path().join("never").exists(), "nothing was made");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_on_the_disk_before_the_controller_stops() {
    let data = tempfile::tempdir().unwrap();
    let running = Running::start(data.path()).await;
    let shop = running.call(|client| create_network(client, "shop")).await;
    // The file as it would be found after the power was cut now.
    let cut = tempfile::tempdir().unwrap();
    let file = "controller.redb";
    fs::copy(data.path().join(file), cut.path().join(file)).unwrap();
    running.stop().await;

    let revived = Running::start(cut.path()).await;
    let found = revived
        .call(|client| client.network(&name("shop")).unwrap())
        .await;
    assert_eq!(found, shop);
    revived.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_stops_at_once_although_clients_wait_and_agents_are_connected() {
    let data = tempfile::tempdir().unwrap();
    let running = Running::start(data.path()).await;
    let (aws, _) = running.agent("aws1", 1).await;
    running
        .call(|client| {
            create_network(client, "shop");
            create_endpoint(client, "web1", "shop", "aws1");
        })
        .await;
    let (waits, begun) = std::sync::mpsc::channel();
    let client = running.client.clone();
    let waiting = tokio::task::spawn_blocking(move || {
        waits.send(()).unwrap();
        client.wait_endpoint(&name("web1"), EndpointState::Attached, PATIENCE)
    });
    begun.recv().unwrap();
    running.stop().await;
    assert!(aws.end().await.is_err());
    // Either the controller told the client, or it was gone before it was asked.
    let outcome = common::within(waiting).await.unwrap();
    if let Err(error) = &outcome
        && error.problem().is_some()
    {
        assert_eq!(code(outcome), ProblemCode::Stopping);
    } else {
        assert!(outcome.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn revisions_go_on_after_a_restart_and_after_many_entries() {
    let data = tempfile::tempdir().unwrap();
    let running = Running::start(data.path()).await;
    let last = running
        .call(|client| {
            let mut last = 0;
            // More than are kept before a snapshot takes their place.
            for _ in 0..600 {
                create_network(client, "shop");
                let shop = name("shop");
                last = client.delete_network(&shop, Guard::Any).unwrap().revision;
            }
            last
        })
        .await;
    assert_eq!(last, 1200);
    running.stop().await;
    let running = Running::start(data.path()).await;
    let shop = running.call(|client| create_network(client, "shop")).await;
    assert_eq!(shop.revision, last + 1);
    assert_eq!(shop.spec.vni.get(), 601);
    running.stop().await;
}
