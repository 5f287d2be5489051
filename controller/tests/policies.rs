//! Policies over real sockets: nothing wrong is applied, and agents get exactly what is new.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::BTreeSet;

use common::{Agent, Running, code, create_endpoint, create_network, endpoint, name};
use sunwire_api::agent::{self, controller_message::Message as Heard};
use sunwire_api::client::{Client, ClientError, Guard};
use sunwire_api::{EndpointPatch, Problem, ProblemCode};

const WEB: &str = "network shop\n\
    set web = labels(tier = \"web\")\n\
    policy main =\n    \
      if dst in web and tcp dst port 80 then forward \"web\" else drop \"default deny\"\n";
const DB: &str = "network shop\n\
    policy main = -- a comment that stays, with its blanks   \n    \
      if dst = db1 and tcp dst port 5432 then forward else drop \"default deny\"\n";

fn problem<T: std::fmt::Debug>(outcome: Result<T, ClientError>) -> Problem {
    match outcome {
        Err(ClientError::Refused(problem)) => *problem,
        other => panic!("a refusal was due, not {other:?}"),
    }
}

fn label(client: &Client, endpoint: &str, value: Option<&str>) -> Result<u64, ClientError> {
    let labels = [("tier".to_owned(), value.map(str::to_owned))].into();
    client
        .patch_endpoint(&name(endpoint), &EndpointPatch { labels }, Guard::Any)
        .map(|endpoint| endpoint.revision)
}

/// A controller with the network `shop`, where `web1` is web and `db1` is not, and an agent that
/// has heard it all.
async fn shop(data: &std::path::Path) -> (Running, Agent) {
    let running = Running::start(data).await;
    let (agent, _) = running.agent("aws1", 1).await;
    running
        .call(|client| {
            create_network(client, "shop");
            let mut web1 = endpoint("web1", "shop", "aws1");
            web1.labels.insert("tier".into(), "web".into());
            client.create_endpoint(&web1, Guard::None).unwrap();
            create_endpoint(client, "db1", "shop", "aws1");
        })
        .await;
    let mut agent = agent;
    for _ in 0..3 {
        agent.delta().await;
    }
    (running, agent)
}

/// The only program of the next delta.
async fn program(agent: &mut Agent) -> agent::Program {
    let mut programs = agent.delta().await.changed.unwrap().programs;
    assert_eq!(programs.len(), 1);
    programs.remove(0)
}

fn digests(program: &agent::Program) -> BTreeSet<Vec<u8>> {
    let nodes = program.nodes.iter().map(|node| node.digest.clone());
    let leaves = program.leaves.iter().map(|leaf| leaf.digest.clone());
    nodes.chain(leaves).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_with_errors_is_refused_with_all_of_them_and_nothing_is_applied() {
    let data = tempfile::tempdir().unwrap();
    let (running, _agent) = shop(data.path()).await;
    running
        .call(|client| {
            let put = client.put_policy(&name("main"), WEB, Guard::None).unwrap();
            let before = client.status().unwrap().revision;
            let wrong = "network shop\npolicy main =\n  if src = wep1 and dst = bd1 then forward \
                         else drop\n";
            let guard = Guard::Revision(put.revision);
            let refused = problem(client.put_policy(&name("main"), wrong, guard));
            assert_eq!(
                (refused.code, refused.status),
                (ProblemCode::PolicyInvalid, 422)
            );
            assert!(refused.diagnostics.len() >= 2, "{refused:?}");
            let first = &refused.diagnostics[0];
            assert_eq!((first.line, first.column), (3, 12));
            assert_eq!(
                &wrong[first.span.start as usize..first.span.end as usize],
                "wep1"
            );
            assert!(first.rendered.contains('^') && first.code.starts_with("SW"));
            let checked = problem(client.check_policy(wrong));
            assert_eq!(checked.diagnostics, refused.diagnostics);
            assert_eq!(client.status().unwrap().revision, before);
            assert_eq!(client.policy(&name("main")).unwrap(), put);
            let checked = client.check_policy(DB).unwrap();
            assert_eq!(checked.network, name("shop"));
            assert!(checked.table_nodes > 0 && checked.leaves > 0);
            assert_eq!(client.status().unwrap().revision, before);
        })
        .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_come_back_byte_for_byte_and_roll_back() {
    let data = tempfile::tempdir().unwrap();
    let (running, _agent) = shop(data.path()).await;
    running
        .call(|client| {
            let main = name("main");
            let first = client.put_policy(&main, WEB, Guard::None).unwrap();
            let nothing = client.rollback_policy(&main, None, Guard::Any);
            assert_eq!(code(nothing), ProblemCode::NothingToRollBack);
            let unguarded = client.put_policy(&main, DB, Guard::None);
            assert_eq!(code(unguarded), ProblemCode::PreconditionRequired);
            let second = client
                .put_policy(&main, DB, Guard::Revision(first.revision))
                .unwrap();
            let stale = client.put_policy(&main, WEB, Guard::Revision(first.revision));
            assert_eq!(code(stale), ProblemCode::StaleRevision);
            assert_eq!(client.policy(&main).unwrap().spec.text, DB);
            let missing = client.rollback_policy(&main, Some(1), Guard::Any);
            assert_eq!(code(missing), ProblemCode::RevisionNotFound);

            let back = client
                .rollback_policy(&main, None, Guard::Revision(second.revision))
                .unwrap();
            assert_eq!(back.spec.text, WEB);
            let forth = client
                .rollback_policy(&main, Some(second.revision), Guard::Any)
                .unwrap();
            assert_eq!(forth.spec.text, DB);
            let history = client.policy_history(&main).unwrap().items;
            let revisions: Vec<_> = history
                .iter()
                .map(|item| (item.revision, item.text.as_str(), item.rolled_back_to))
                .collect();
            assert_eq!(
                revisions,
                [
                    (first.revision, WEB, None),
                    (second.revision, DB, None),
                    (back.revision, WEB, Some(first.revision)),
                    (forth.revision, DB, Some(second.revision)),
                ]
            );
            let absent = client.put_policy(&name("other"), DB, Guard::Any);
            assert_eq!(code(absent), ProblemCode::StaleRevision);
            let taken = client.put_policy(&name("other"), DB, Guard::None);
            assert_eq!(code(taken), ProblemCode::PolicyNetworkTaken);
            let used = client.delete_network(&name("shop"), Guard::Any);
            assert_eq!(code(used), ProblemCode::NetworkInUse);
        })
        .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_a_policy_cannot_do_without_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let (running, _agent) = shop(data.path()).await;
    running
        .call(|client| {
            client.put_policy(&name("main"), DB, Guard::None).unwrap();
            let before = client.status().unwrap().revision;
            let refused = problem(client.delete_endpoint(&name("db1"), Guard::Any));
            assert_eq!(
                (refused.code, refused.status),
                (ProblemCode::PolicyBroken, 409)
            );
            assert!(!refused.diagnostics.is_empty());
            assert_eq!(client.status().unwrap().revision, before);
            client.delete_endpoint(&name("web1"), Guard::Any).unwrap();
            client.delete_policy(&name("main"), Guard::Any).unwrap();
            client.delete_endpoint(&name("db1"), Guard::Any).unwrap();
        })
        .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_holds_a_program_whole_but_for_what_the_one_before_had() {
    let data = tempfile::tempdir().unwrap();
    let (running, mut agent) = shop(data.path()).await;
    let main = name("main");
    let put = |text: &'static str, guard: Guard<'static>| {
        let main = main.clone();
        running.call(move |client| client.put_policy(&main, text, guard).unwrap())
    };
    let first = put(WEB, Guard::None).await;
    let web = program(&mut agent).await;
    assert_eq!(web.revision, first.revision);
    let known = digests(&web);
    assert!(known.contains(&web.root));
    assert!(web.leaves.iter().any(|leaf| leaf.label == "default deny"));
    assert!(web.classes.iter().any(|class| class.prefix == 0));

    put(DB, Guard::Any).await;
    let db = program(&mut agent).await;
    let new = digests(&db);
    assert!(new.is_disjoint(&known), "what is known is not sent again");
    assert!(new.contains(&db.root));
    assert!(!db.leaves.iter().any(|leaf| leaf.label == "default deny"));

    put(WEB, Guard::Any).await;
    let again = program(&mut agent).await;
    assert_eq!(again.root, web.root);
    assert_eq!(again.classes, web.classes);
    // A label changes which addresses a set has: classes, and for this policy no node.
    running
        .call(|client| label(client, "db1", Some("web")).unwrap())
        .await;
    let relabelled = program(&mut agent).await;
    assert_ne!(relabelled.classes, web.classes);

    running
        .call(|client| client.delete_policy(&name("main"), Guard::Any).unwrap())
        .await;
    let gone = program(&mut agent).await;
    assert!(gone.root.is_empty());

    running
        .call(|client| {
            client.put_policy(&name("main"), WEB, Guard::None).unwrap();
        })
        .await;
    let whole = program(&mut agent).await;
    let (_again, snapshot) = running.agent("aws1", 1).await;
    assert_eq!(snapshot.state.unwrap().programs, [whole]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_programs_have_the_same_digests() {
    let data = tempfile::tempdir().unwrap();
    let (running, agent) = shop(data.path()).await;
    running
        .call(|client| {
            client.put_policy(&name("main"), WEB, Guard::None).unwrap();
            label(client, "db1", Some("web")).unwrap();
        })
        .await;
    drop(agent);
    let (_agent, before) = running.agent("aws1", 1).await;
    running.stop().await;
    let running = Running::start(data.path()).await;
    let (_agent, after) = running.agent("aws1", 1).await;
    assert_eq!(before, after);
    assert!(!after.state.unwrap().programs.is_empty());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_does_not_read_is_fed_everything_anew_when_it_reads_again() {
    let data = tempfile::tempdir().unwrap();
    let (running, mut aws) = shop(data.path()).await;
    // Far more than the queue and the windows of HTTP/2 take.
    let last = running
        .call(|client| {
            let mut last = 0;
            for text in [WEB, DB].into_iter().cycle().take(1000) {
                let main = name("main");
                let guard = match last {
                    0 => Guard::None,
                    last => Guard::Revision(last),
                };
                last = client.put_policy(&main, text, guard).unwrap().revision;
            }
            last
        })
        .await;
    let mut revision = aws.delta().await.revision;
    aws.acknowledge(revision).await;
    let mut snapshots = 0;
    while revision < last {
        let now = match aws.hear().await {
            Heard::Delta(delta) => {
                assert_eq!(delta.revision, revision + 1, "no delta is left out unseen");
                delta.revision
            }
            Heard::Snapshot(snapshot) => {
                snapshots += 1;
                snapshot.revision
            }
            other => panic!("nobody asks the node anything: {other:?}"),
        };
        assert!(now > revision);
        revision = now;
        aws.acknowledge(revision).await;
    }
    assert!(snapshots > 0, "the agent was never behind");
    let status = running
        .call(move |client| client.wait_revision(last, common::PATIENCE).unwrap())
        .await;
    assert!(!status.timed_out);
    running.stop().await;
}
