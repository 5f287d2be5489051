//! What agents say of multicast listeners reaches all other agents.
#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod common;

use common::{Agent, Running, create_endpoint, create_network};
use sunwire_api::agent::agent_message::Message as Said;
use sunwire_api::agent::controller_message::Message as Heard;
use sunwire_api::agent::{self, listening::Listener};

const GROUP: [u8; 4] = [239, 1, 2, 3];

async fn say(agent: &Agent, endpoint: &str, groups: &[&[u8]]) {
    let listener = agent::listeners::Listener {
        endpoint: endpoint.to_owned(),
        groups: groups.iter().map(|group| group.to_vec()).collect(),
    };
    let listeners = match endpoint {
        "" => Vec::new(),
        _ => vec![listener],
    };
    let report = agent::Listeners { listeners };
    agent.say(Said::Listeners(report)).await;
}

/// The next thing that an agent hears of listeners, past everything else.
async fn heard(agent: &mut Agent) -> agent::Listening {
    loop {
        if let Heard::Listening(listening) = agent.hear().await {
            return listening;
        }
    }
}

fn telling(nodes: &[u32]) -> Option<agent::listening::Telling> {
    let nodes = nodes.to_vec();
    Some(agent::listening::Telling { nodes })
}

fn listener(endpoint: u32, groups: &[&[u8]]) -> Listener {
    Listener {
        endpoint,
        groups: groups.iter().map(|group| group.to_vec()).collect(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_says_of_its_endpoints_all_nodes_hear_and_newcomers_too() {
    let data = tempfile::tempdir().unwrap();
    let running = Running::start(data.path()).await;
    let (mut aws, _) = running.agent("aws1", 1).await;
    let (mut gcp, _) = running.agent("gcp1", 2).await;
    running
        .call(|client| {
            create_network(client, "shop");
            create_endpoint(client, "web1", "shop", "aws1");
            create_endpoint(client, "db1", "shop", "gcp1");
        })
        .await;
    say(&aws, "", &[]).await;
    for agent in [&mut aws, &mut gcp] {
        let news = heard(agent).await;
        assert_eq!((news.whole, news.telling), (false, telling(&[1])));
        assert_eq!(news.listeners, []);
    }
    // Of an endpoint elsewhere nothing is believed, nor what is no group.
    say(&aws, "db1", &[&GROUP]).await;
    say(&aws, "nobody", &[&GROUP]).await;
    say(
        &aws,
        "web1",
        &[&GROUP, &[10, 0, 0, 1], &[0xff; 5], &[0xff; 16]],
    )
    .await;
    for agent in [&mut aws, &mut gcp] {
        let news = heard(agent).await;
        assert_eq!((news.whole, news.telling), (false, None));
        assert_eq!(news.listeners, [listener(1, &[&GROUP, &[0xff; 16]])]);
    }
    // What is known is not told again.
    say(&aws, "web1", &[&GROUP, &[0xff; 16]]).await;
    say(&gcp, "db1", &[&GROUP]).await;
    let news = heard(&mut aws).await;
    assert_eq!(news.telling, telling(&[1, 2]));
    assert_eq!(news.listeners, [listener(2, &[&GROUP])]);
    heard(&mut gcp).await;

    let (mut azure, _) = running.agent("azure1", 3).await;
    let all = heard(&mut azure).await;
    assert_eq!((all.whole, all.telling), (true, telling(&[1, 2])));
    let both = [listener(1, &[&GROUP, &[0xff; 16]]), listener(2, &[&GROUP])];
    assert_eq!(all.listeners, both);

    // A node that is away does not tell, and what is known of its endpoints stays.
    drop(aws);
    assert_eq!(heard(&mut gcp).await.telling, telling(&[2]));
    let (mut aws, _) = running.agent("aws1", 1).await;
    let all = heard(&mut aws).await;
    assert_eq!((all.telling, all.listeners.len()), (telling(&[2]), 2));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_nodes_of_a_move_are_heard_and_a_deleted_endpoint_is_forgotten() {
    let data = tempfile::tempdir().unwrap();
    let running = Running::start(data.path()).await;
    let (mut aws, _) = running.agent("aws1", 1).await;
    let (gcp, _) = running.agent("gcp1", 2).await;
    running
        .call(|client| {
            create_network(client, "shop");
            create_endpoint(client, "web1", "shop", "aws1");
            let web1 = common::name("web1");
            let guard = sunwire_api::client::Guard::Any;
            client
                .move_endpoint(&web1, &common::name("gcp1"), guard)
                .unwrap();
        })
        .await;
    say(&aws, "web1", &[&GROUP]).await;
    assert_eq!(heard(&mut aws).await.listeners, [listener(1, &[&GROUP])]);
    say(&gcp, "web1", &[]).await;
    assert_eq!(heard(&mut aws).await.listeners, [listener(1, &[])]);

    running
        .call(|client| {
            let guard = sunwire_api::client::Guard::Any;
            client
                .delete_endpoint(&common::name("web1"), guard)
                .unwrap();
            create_endpoint(client, "web2", "shop", "aws1");
        })
        .await;
    say(&aws, "web2", &[&GROUP]).await;
    assert_eq!(heard(&mut aws).await.listeners, [listener(2, &[&GROUP])]);
    let (mut azure, _) = running.agent("azure1", 3).await;
    assert_eq!(heard(&mut azure).await.listeners, [listener(2, &[&GROUP])]);
    running.stop().await;
}
