//! Candidates on the agents' streams: what goes out, and what is counted of them and comes back.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::BTreeSet;

use common::{Agent, Running, create_network, name};
use sunwire_api::agent::agent_message::Message as Said;
use sunwire_api::agent::{self, Program};
use sunwire_api::client::Guard;
use sunwire_api::{ApplyRequest, StagedPolicy};

const OPEN: &str = "network shop\npolicy main = forward \"open\"\n";
const CLOSING: &str = "network shop
policy main = if tcp and dst port 22 then drop \"no ssh\" else forward \"open\"
";

/// Digests of the nodes and leaves that came with a program.
fn tables(program: &Program) -> BTreeSet<Vec<u8>> {
    let nodes = program.nodes.iter().map(|node| node.digest.clone());
    let leaves = program.leaves.iter().map(|leaf| leaf.digest.clone());
    nodes.chain(leaves).collect()
}

/// The next change of the network's candidate.
async fn staged(agent: &mut Agent) -> (u64, Program) {
    let delta = agent.delta().await;
    let mut changed = delta.changed.unwrap();
    assert_eq!((changed.programs.len(), changed.staged.len()), (0, 1));
    (delta.revision, changed.staged.remove(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_hear_of_a_candidate_beside_the_policy_and_nothing_twice() {
    let data = tempfile::tempdir().unwrap();
    let running = Running::start(data.path()).await;
    let shop = running.call(|client| create_network(client, "shop")).await;
    let put = |client: &sunwire_api::client::Client| {
        client.put_policy(&name("main"), OPEN, Guard::None).unwrap()
    };
    running.call(put).await;
    let (mut aws, snapshot) = running.agent("aws1", 1).await;
    let state = snapshot.state.unwrap();
    assert_eq!((state.programs.len(), state.staged.len()), (1, 0));
    let open = tables(&state.programs[0]);

    let stage = |client: &sunwire_api::client::Client| {
        client
            .stage_policy(&name("main"), CLOSING, Guard::Any)
            .unwrap()
    };
    let policy = running.call(stage).await;
    let (revision, candidate) = staged(&mut aws).await;
    assert_eq!(
        (revision, candidate.revision),
        (policy.revision, policy.revision)
    );
    assert_eq!(candidate.vni, shop.spec.vni.get());
    assert!(!candidate.root.is_empty() && !candidate.classes.is_empty());
    // What the policy in force has, the agent has.
    let closing = tables(&candidate);
    assert!(!closing.is_empty() && closing.is_disjoint(&open));
    // An agent that comes later gets all of both.
    let (gcp, snapshot) = running.agent("gcp1", 2).await;
    let state = snapshot.state.unwrap();
    assert_eq!(tables(&state.programs[0]), open);
    let whole = tables(&state.staged[0]);
    assert_eq!(whole, closing.union(&open).cloned().collect());
    assert_eq!(state.staged[0].revision, policy.revision);
    drop((gcp, aws.delta().await));

    let unstage = |client: &sunwire_api::client::Client| {
        client.unstage_policy(&name("main"), Guard::Any).unwrap()
    };
    running.call(unstage).await;
    let (_, gone) = staged(&mut aws).await;
    assert!(gone.root.is_empty() && gone.nodes.is_empty());

    running.call(stage).await;
    staged(&mut aws).await;
    let applied = running.call(|client| {
        let candidate = ApplyRequest::default();
        client
            .apply_policy(&name("main"), &candidate, Guard::Any)
            .unwrap()
    });
    applied.await;
    let changed = aws.delta().await.changed.unwrap();
    assert!(changed.staged[0].root.is_empty());
    assert_eq!(changed.programs[0].root, candidate.root);
    // The agent has its tables already.
    assert_eq!(tables(&changed.programs[0]), BTreeSet::new());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_agents_count_of_the_present_candidate_is_summed_and_of_others_ignored() {
    let data = tempfile::tempdir().unwrap();
    let running = Running::start(data.path()).await;
    let shop = running.call(|client| create_network(client, "shop")).await;
    let vni = shop.spec.vni.get();
    let (aws, _) = running.agent("aws1", 1).await;
    let (gcp, _) = running.agent("gcp1", 2).await;
    let staged = running
        .call(|client| {
            client.put_policy(&name("main"), OPEN, Guard::None).unwrap();
            client
                .stage_policy(&name("main"), CLOSING, Guard::Any)
                .unwrap()
        })
        .await;
    let revision = staged.revision;
    let counted = |vni: u32, revision: u64, refused: &str, packets: u64| {
        Said::Counters(agent::Counters {
            staged: vec![agent::StagedAudit {
                vni,
                revision,
                refused: refused.to_owned(),
                counts: vec![agent::AuditCount {
                    live_label: "open".to_owned(),
                    staged_label: "no ssh".to_owned(),
                    live_allowed: true,
                    staged_allowed: false,
                    packets,
                    bytes: packets * 100,
                }],
                uncounted_packets: 0,
            }],
            ..agent::Counters::default()
        })
    };
    let shown = async |agents: [&Agent; 2]| -> StagedPolicy {
        // What a stream carries is heard in order: once this is acknowledged, all was heard.
        for agent in agents {
            agent.acknowledge(revision).await;
        }
        running
            .call(move |client| {
                client.wait_revision(revision, common::PATIENCE).unwrap();
                client.staged_policy(&name("main")).unwrap()
            })
            .await
    };
    aws.say(counted(vni, revision, "", 3)).await;
    // Totals: the last one is all there is.
    aws.say(counted(vni, revision, "", 5)).await;
    aws.say(counted(vni, revision - 1, "", 1_000)).await;
    aws.say(counted(vni + 1, revision, "", 1_000)).await;
    gcp.say(counted(vni, revision, "it does not fit", 1_000))
        .await;
    let one = shown([&aws, &gcp]).await;
    assert_eq!(one.audit.len(), 1);
    assert_eq!((one.audit[0].packets, one.audit[0].bytes), (5, 500));
    assert_eq!(one.audit[0].staged_label, "no ssh");
    assert!(one.audit[0].live_allowed && !one.audit[0].staged_allowed);
    assert_eq!(one.reporting_nodes, [name("aws1")]);
    running.stop().await;
}
