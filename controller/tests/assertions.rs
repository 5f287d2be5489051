//! Claims of policies: what would break one is refused with a packet, unless somebody insists.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::http::{JSON, send};
use common::{Running, create_endpoint, create_network, name};
use sunwire_api::client::{Client, ClientError, Guard};
use sunwire_api::{
    ApplyRequest, EndpointPatch, PolicyState, Problem, ProblemCode, RollbackRequest,
};

/// Holds as long as nothing is labelled `db`.
const APART: &str = "network shop\n\
    set web = labels(tier = \"web\")\n\
    set db = labels(tier = \"db\")\n\
    policy main = if dst in web then forward \"to web\" else drop \"default deny\"\n\
    assert isolated(web, db)\n";
/// Never holds.
const WRONG: &str = "network shop\n\
    policy main = forward \"all\"\n\
    assert isolated(web1, db1)\n";

fn problem<T: std::fmt::Debug>(outcome: Result<T, ClientError>) -> Problem {
    match outcome {
        Err(ClientError::Refused(problem)) => *problem,
        other => panic!("a refusal was due, not {other:?}"),
    }
}

fn label(client: &Client, endpoint: &str, tier: &str) -> Result<u64, ClientError> {
    let labels = [("tier".to_owned(), Some(tier.to_owned()))].into();
    client
        .patch_endpoint(&name(endpoint), &EndpointPatch { labels }, Guard::Any)
        .map(|endpoint| endpoint.revision)
}

/// The packet is shown, with where it goes, and nothing has changed.
fn check(refused: &Problem, assertion: &str) {
    assert_eq!(
        (refused.code, refused.status),
        (ProblemCode::AssertionViolated, 409)
    );
    assert_eq!(refused.violations.len(), 1, "{refused:#?}");
    let violation = &refused.violations[0];
    assert_eq!(violation.policy, name("main"));
    assert_eq!(violation.assertion, assertion);
    let packet = violation.counterexample.as_ref().unwrap();
    assert!(
        packet.contains("10.20.0.") || packet.contains("fd00:20::"),
        "{packet}"
    );
    assert!(refused.detail.contains(packet), "{}", refused.detail);
    assert!(
        violation.hops[0].contains("forwards it to"),
        "{violation:?}"
    );
    assert!(violation.line > 0 && violation.column > 0);
    assert_eq!(refused.diagnostics.len(), 1);
    assert!(refused.diagnostics[0].rendered.contains('^'));
}

/// A controller with the network `shop` and in it `web1`, labelled so, and `db1`.
async fn shop(data: &std::path::Path) -> Running {
    let running = Running::start(data).await;
    let (agent, _) = running.agent("aws1", 1).await;
    running
        .call(|client| {
            create_network(client, "shop");
            create_endpoint(client, "web1", "shop", "aws1");
            create_endpoint(client, "db1", "shop", "aws1");
            label(client, "web1", "web").unwrap();
        })
        .await;
    drop(agent);
    running
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_does_not_do_what_it_asserts_is_refused_with_the_packet() {
    let data = tempfile::tempdir().unwrap();
    let running = shop(data.path()).await;
    running
        .call(|client| {
            let main = name("main");
            let before = client.status().unwrap().revision;
            let refused = problem(client.put_policy(&main, WRONG, Guard::None));
            check(&refused, "isolated(web1, db1)");
            assert_eq!(client.status().unwrap().revision, before);
            assert_eq!(client.policies().unwrap(), []);

            let mut body = ApplyRequest {
                text: Some(WRONG.to_owned()),
                ..ApplyRequest::default()
            };
            let refused = problem(client.apply_policy(&main, &body, Guard::None));
            check(&refused, "isolated(web1, db1)");
            body.force = true;
            let forced = client.apply_policy(&main, &body, Guard::None).unwrap();
            assert_eq!(forced.status.state, PolicyState::Violated);
            assert_eq!(forced.status.violations, refused.violations);

            let mended = client.put_policy(&main, APART, Guard::Any).unwrap();
            assert_eq!(mended.status.state, PolicyState::InForce);
            assert_eq!(mended.status.violations, []);
            let refused = problem(client.rollback_policy(&main, None, Guard::Any));
            check(&refused, "isolated(web1, db1)");
            let body = RollbackRequest {
                force: true,
                ..RollbackRequest::default()
            };
            let forced = client.rollback_policy_with(&main, &body, Guard::Any);
            assert_eq!(forced.unwrap().status.state, PolicyState::Violated);
        })
        .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_that_would_break_an_assertion_is_refused_with_the_packet_or_forced() {
    let data = tempfile::tempdir().unwrap();
    let running = shop(data.path()).await;
    let base = running.rest.clone();
    let violated = running
        .call(move |client| {
            let main = name("main");
            client.put_policy(&main, APART, Guard::None).unwrap();
            let before = client.status().unwrap().revision;
            let refused = problem(label(client, "db1", "db"));
            check(&refused, "isolated(web, db)");
            let refused = send(
                &base,
                "POST",
                "/v1/endpoints",
                &[JSON],
                br#"{"name": "db2", "network": "shop", "node": "aws1", "labels": {"tier": "db"}}"#,
            );
            assert_eq!(refused.code(), ProblemCode::AssertionViolated);
            assert_eq!(client.status().unwrap().revision, before);

            let forced = send(
                &base,
                "PATCH",
                "/v1/endpoints/db1?force=true",
                &[JSON, ("if-match", "*")],
                br#"{"labels": {"tier": "db"}}"#,
            );
            assert_eq!(forced.status, 200);
            let policy = client.policy(&main).unwrap();
            assert_eq!(policy.status.state, PolicyState::Violated);
            assert_eq!(policy.status.violations[0].assertion, "isolated(web, db)");

            // What was broken before is nobody's fault now.
            create_endpoint(client, "other", "shop", "aws1");
            client.policy(&main).unwrap()
        })
        .await;
    assert_eq!(violated.status.state, PolicyState::Violated);
    running.stop().await;

    let running = Running::start(data.path()).await;
    running
        .call(move |client| {
            let main = name("main");
            assert_eq!(client.policy(&main).unwrap(), violated);
            label(client, "db1", "cache").unwrap();
            let mended = client.policy(&main).unwrap();
            assert_eq!(mended.status.state, PolicyState::InForce);
            assert_eq!(mended.status.violations, []);
        })
        .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_whose_own_test_fails_is_refused_with_the_packet() {
    let data = tempfile::tempdir().unwrap();
    let running = shop(data.path()).await;
    running
        .call(|client| {
            let text = "network shop\n\
                policy main = forward\n\
                test \"no ssh\" { from web1 to db1 tcp 22 : drop }\n";
            let refused = problem(client.put_policy(&name("main"), text, Guard::None));
            assert_eq!(refused.code, ProblemCode::AssertionViolated);
            assert_eq!(refused.violations[0].assertion, "test \"no ssh\"");
            let packet = refused.violations[0].counterexample.as_ref().unwrap();
            assert!(packet.contains(":22"), "{packet}");
        })
        .await;
    running.stop().await;
}
