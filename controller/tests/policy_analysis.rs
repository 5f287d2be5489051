//! What is found of a policy's text over real sockets, changing nothing: check, plan, verify,
//! explain.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::http::{JSON, send};
use common::{Running, code, create_endpoint, create_network, name};
use sunwire_api::client::Guard;
use sunwire_api::{AssertionVerdict, ExplainRequest, PacketChangeKind, ProblemCode};

const PINGS: &str = "network shop\n\
    policy main = if icmp then forward \"ping\" else drop \"default deny\"\n\
    assert reach(web1, db1 where icmp)\n\
    assert main <= icmp\n\
    test \"no ssh\" { from web1 to db1 tcp 22 : drop \"default deny\" }\n";
const SSH: &str = "network shop\n\
    policy main = if icmp then forward \"ping\"\n\
      else if tcp dst port 22 then forward \"ssh\" else drop \"default deny\"\n\
    assert main <= icmp\n";

/// A controller with `web1` and `db1` in the network `shop`, where the first text is in force.
async fn shop(data: &std::path::Path) -> Running {
    let running = Running::start(data).await;
    let (agent, _) = running.agent("aws1", 1).await;
    running
        .call(|client| {
            create_network(client, "shop");
            create_endpoint(client, "web1", "shop", "aws1");
            create_endpoint(client, "db1", "shop", "aws1");
            client
                .put_policy(&name("main"), PINGS, Guard::None)
                .unwrap();
        })
        .await;
    drop(agent);
    running
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_tells_which_packets_and_endpoints_a_text_would_change_and_changes_nothing() {
    let data = tempfile::tempdir().unwrap();
    let running = shop(data.path()).await;
    running
        .call(|client| {
            let main = name("main");
            let before = client.policy(&main).unwrap();
            let plan = client.plan_policy(&main, SSH).unwrap();
            assert_eq!(plan.network, name("shop"));
            assert_eq!(plan.from_revision, Some(before.status.text_revision));
            assert!(!plan.changes.is_empty() && !plan.more, "{plan:#?}");
            for change in &plan.changes {
                assert_eq!(change.kind, PacketChangeKind::Allowed);
                assert!(change.example.starts_with("tcp"), "{change:?}");
                assert!(change.before.contains("default deny"), "{change:?}");
                assert!(change.after.contains("ssh"), "{change:?}");
                assert!(plan.rendered.contains(&change.example));
            }
            // It would be refused for what it asserts.
            assert_eq!(plan.violations.len(), 1);
            assert_eq!(plan.violations[0].assertion, "main <= icmp");
            assert_eq!(client.policy(&main).unwrap(), before);

            let nothing = client.plan_policy(&main, PINGS).unwrap();
            assert_eq!((nothing.changes, nothing.violations), (vec![], vec![]));
            let other = client.plan_policy(&name("other"), SSH);
            assert_eq!(code(other), ProblemCode::PolicyNetworkTaken);
            let wrong = client.plan_policy(&main, "network shop\npolicy main = forwrd\n");
            assert_eq!(code(wrong), ProblemCode::PolicyInvalid);
            client.delete_policy(&main, Guard::Any).unwrap();
            let first = client.plan_policy(&main, PINGS).unwrap();
            assert_eq!(first.from_revision, None);
            assert!(
                first.reachability.iter().any(|change| change.reachable),
                "{first:#?}"
            );
        })
        .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_of_the_stored_text_and_of_others_are_verified() {
    let data = tempfile::tempdir().unwrap();
    let running = shop(data.path()).await;
    let base = running.rest.clone();
    running
        .call(move |client| {
            let main = name("main");
            let stored = client.verify_policy(&main, None).unwrap();
            assert!(stored.holds, "{stored:#?}");
            assert_eq!(stored.assertions.len(), 2);
            assert_eq!((stored.tests.len(), stored.tests[0].packets > 0), (1, true));
            let other = client.verify_policy(&main, Some(SSH)).unwrap();
            assert!(!other.holds);
            let fails = &other.assertions[0];
            assert_eq!(fails.verdict, AssertionVerdict::Fails);
            assert!(
                fails.counterexample.as_ref().unwrap().starts_with("tcp"),
                "{fails:?}"
            );
            assert_eq!((fails.line, other.diagnostics.len()), (4, 1));
            let nobody = client.verify_policy(&name("other"), None);
            assert_eq!(code(nobody), ProblemCode::PolicyNotFound);

            let check = |headers: &[(&str, &str)], body: &str| {
                send(
                    &base,
                    "POST",
                    "/v1/policies/main/check",
                    headers,
                    body.as_bytes(),
                )
            };
            assert_eq!(check(&[], "").status, 200);
            let text = ("content-type", "text/plain");
            let wrong = check(&[text], "network shop\npolicy main = if icmp then frwrd\n");
            assert_eq!(wrong.code(), ProblemCode::PolicyInvalid);
            let wrong: sunwire_api::Problem = serde_json::from_slice(&wrong.body).unwrap();
            let found = wrong
                .diagnostics
                .iter()
                .find(|one| one.message.contains("frwrd"));
            let found = found.unwrap();
            assert_eq!((found.line, found.end_line), (2, 2));
            assert_eq!(found.end_column - found.column, 5);
        })
        .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packet_is_explained_by_the_clause_that_decides_about_it() {
    let data = tempfile::tempdir().unwrap();
    let running = shop(data.path()).await;
    let base = running.rest.clone();
    running
        .call(move |client| {
            let main = name("main");
            let packet = serde_json::json!({
                "port": "web1", "ethTyp": "0x800", "ipProto": 6, "dstPort": 22,
                "ip4Src": "10.20.0.2", "ip4Dst": "10.20.0.3",
            });
            let body = |text: Option<&str>| ExplainRequest {
                packet: packet.as_object().unwrap().clone(),
                text: text.map(str::to_owned),
            };
            let stored = client.explain_policy(&main, &body(None)).unwrap();
            let decision = &stored.decisions[0];
            assert_eq!(
                (decision.at.as_str(), decision.label.as_str()),
                ("web1", "default deny")
            );
            let statement = decision.statement.as_ref().unwrap();
            assert_eq!(statement.text, "drop \"default deny\"");
            let span = statement.span.start as usize..statement.span.end as usize;
            assert_eq!(&PINGS[span], statement.text);
            assert!(!decision.conditions[0].holds && decision.copies.is_empty());
            let other = client.explain_policy(&main, &body(Some(SSH))).unwrap();
            assert_eq!(other.decisions[0].label, "ssh");
            assert!(
                other.decisions[0].copies[0].what.contains("db1"),
                "{other:?}"
            );

            let path = "/v1/policies/main/explain";
            let any = br#"{"packet": {"tpcPort": 1}}"#;
            let wrong = send(&base, "POST", path, &[JSON], any);
            assert_eq!(wrong.code(), ProblemCode::InvalidBody);
        })
        .await;
    running.stop().await;
}
