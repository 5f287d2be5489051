//! The life of a policy over real sockets: trials, candidates, histories, and texts that a newer
//! compiler refuses.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::path::Path;

use common::http::{JSON, send};
use common::{PATIENCE, Running, code, create_endpoint, create_network, endpoint, name};
use sunwire_api::client::{Client, Guard};
use sunwire_api::{ApplyRequest, PolicyState, ProblemCode, RevisionReason, RollbackRequest};
use sunwire_controller::command::{Command, Entry, Found, Note, Outcome, Precondition, Proposal};
use sunwire_controller::log::{Log, RedbLog, replay};

const WEB: &str = "network shop\n\
    set web = labels(tier = \"web\")\n\
    policy main = if dst in web then forward else drop \"default deny\"\n";
const DB: &str = "network shop\n\
    policy main = if dst = db1 then forward else drop \"no\"\n";

fn apply(text: &str, confirm_within_seconds: Option<u32>) -> ApplyRequest {
    ApplyRequest {
        text: Some(text.to_owned()),
        confirm_within_seconds,
        author: Some("ann".to_owned()),
        comment: Some("why not".to_owned()),
        ..ApplyRequest::default()
    }
}

/// A controller with the network `shop` and in it `web1`, `db1`.
async fn shop(data: &Path) -> Running {
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
    drop(agent);
    running
}

/// Returns once the controller is at `revision`.
fn wait_for(client: &Client, revision: u64) {
    let status = client.wait_revision(revision, PATIENCE).unwrap();
    assert!(!status.timed_out, "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_is_not_confirmed_in_time_goes_away_by_itself() {
    let data = tempfile::tempdir().unwrap();
    let running = shop(data.path()).await;
    running
        .call(|client| {
            let main = name("main");
            let first = client.apply_policy(&main, &apply(WEB, None), Guard::None);
            let first = first.unwrap();
            assert_eq!(first.status.unconfirmed, None);
            let trial = client
                .apply_policy(&main, &apply(DB, Some(1)), Guard::Revision(first.revision))
                .unwrap();
            assert_eq!(trial.spec.text, DB);
            let unconfirmed = trial.status.unconfirmed.unwrap();
            assert_eq!(unconfirmed.fallback_revision, Some(first.revision));
            wait_for(client, trial.revision + 1);
            let back = client.policy(&main).unwrap();
            assert_eq!(back.spec.text, WEB);
            assert_eq!(back.status.unconfirmed, None);
            assert_eq!(back.status.tables_revision, back.revision);
            let history = client.policy_history(&main).unwrap().items;
            let reasons: Vec<_> = history.iter().map(|item| item.reason).collect();
            let applied = RevisionReason::Applied;
            assert_eq!(reasons, [applied, applied, RevisionReason::NotConfirmed]);
            assert_eq!(history[2].rolled_back_to, Some(first.revision));
            assert_eq!(history[2].text_hash, history[0].text_hash);
            let late = client.confirm_policy(&main, Guard::Any);
            assert_eq!(code(late), ProblemCode::NothingToConfirm);
        })
        .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_text_that_is_not_confirmed_leaves_no_policy() {
    let data = tempfile::tempdir().unwrap();
    let running = shop(data.path()).await;
    running
        .call(|client| {
            let main = name("main");
            let trial = client.apply_policy(&main, &apply(WEB, Some(1)), Guard::None);
            let trial = trial.unwrap();
            assert_eq!(trial.status.unconfirmed.unwrap().fallback_revision, None);
            wait_for(client, trial.revision + 1);
            assert_eq!(code(client.policy(&main)), ProblemCode::PolicyNotFound);
        })
        .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_outlives_the_controller_and_can_be_confirmed_or_goes_away() {
    let data = tempfile::tempdir().unwrap();
    let running = shop(data.path()).await;
    let trial = running
        .call(|client| {
            let main = name("main");
            client
                .apply_policy(&main, &apply(WEB, None), Guard::None)
                .unwrap();
            client
                .apply_policy(&main, &apply(DB, Some(3600)), Guard::Any)
                .unwrap()
        })
        .await;
    running.stop().await;

    let running = Running::start(data.path()).await;
    let short = running
        .call(move |client| {
            let main = name("main");
            assert_eq!(client.policy(&main).unwrap(), trial);
            let stale = client.confirm_policy(&main, Guard::Revision(trial.revision - 1));
            assert_eq!(code(stale), ProblemCode::StaleRevision);
            let unguarded = client.confirm_policy(&main, Guard::None);
            assert_eq!(code(unguarded), ProblemCode::PreconditionRequired);
            let kept = client
                .confirm_policy(&main, Guard::Revision(trial.revision))
                .unwrap();
            assert_eq!(
                (kept.spec.text.as_str(), kept.status.unconfirmed),
                (DB, None)
            );
            assert_eq!(kept.status.text_revision, trial.revision);
            let again = client.confirm_policy(&main, Guard::Any);
            assert_eq!(code(again), ProblemCode::NothingToConfirm);

            let body = RollbackRequest {
                confirm_within_seconds: Some(1),
                ..RollbackRequest::default()
            };
            client
                .rollback_policy_with(&main, &body, Guard::Any)
                .unwrap()
        })
        .await;
    assert_eq!(short.spec.text, WEB);
    running.stop().await;

    // Overdue or not yet: it goes away without anybody asking.
    let running = Running::start(data.path()).await;
    running
        .call(move |client| {
            wait_for(client, short.revision + 1);
            let back = client.policy(&name("main")).unwrap();
            assert_eq!(
                (back.spec.text.as_str(), back.status.unconfirmed),
                (DB, None)
            );
        })
        .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_takes_away_what_a_text_on_trial_would_go_back_to() {
    let data = tempfile::tempdir().unwrap();
    let running = shop(data.path()).await;
    running
        .call(|client| {
            let main = name("main");
            client
                .apply_policy(&main, &apply(DB, None), Guard::None)
                .unwrap();
            client
                .apply_policy(&main, &apply(WEB, Some(3600)), Guard::Any)
                .unwrap();
            let before = client.status().unwrap().revision;
            let needed = client.delete_endpoint(&name("db1"), Guard::Any);
            assert_eq!(code(needed), ProblemCode::PolicyBroken);
            assert_eq!(client.status().unwrap().revision, before);
            client.confirm_policy(&main, Guard::Any).unwrap();
            client.delete_endpoint(&name("db1"), Guard::Any).unwrap();
            let gone = client.rollback_policy(&main, None, Guard::Any);
            assert_eq!(code(gone), ProblemCode::PolicyInvalid);
            assert_eq!(client.policy(&main).unwrap().spec.text, WEB);
        })
        .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_is_kept_beside_the_text_in_force_until_it_is_applied_or_taken_away() {
    let data = tempfile::tempdir().unwrap();
    let running = shop(data.path()).await;
    running
        .call(|client| {
            let main = name("main");
            let nobody = client.stage_policy(&main, WEB, Guard::None);
            assert_eq!(code(nobody), ProblemCode::PolicyNotFound);
            client.put_policy(&main, WEB, Guard::None).unwrap();
            let nothing = client.staged_policy(&main);
            assert_eq!(code(nothing), ProblemCode::NothingStaged);
            let nothing = client.unstage_policy(&main, Guard::Any);
            assert_eq!(code(nothing), ProblemCode::NothingStaged);
            let nothing = client.apply_policy(&main, &ApplyRequest::default(), Guard::Any);
            assert_eq!(code(nothing), ProblemCode::NothingStaged);
            let wrong = client.stage_policy(&main, "network shop\npolicy main =\n", Guard::Any);
            assert_eq!(code(wrong), ProblemCode::PolicyInvalid);
            create_network(client, "lab");
            let elsewhere = "network lab\npolicy main = forward\n";
            let elsewhere = client.stage_policy(&main, elsewhere, Guard::Any);
            assert_eq!(code(elsewhere), ProblemCode::StagedElsewhere);

            let staged = client.stage_policy(&main, DB, Guard::Any).unwrap();
            assert_eq!(staged.spec.text, WEB);
            assert_eq!(staged.status.staged.unwrap().revision, staged.revision);
            let shown = client.staged_policy(&main).unwrap();
            assert_eq!((shown.text.as_str(), shown.compiles), (DB, true));
            assert_eq!(shown.tables_revision, staged.revision);
            assert_eq!((shown.audit, shown.reporting_nodes), (vec![], vec![]));

            // It stands in nobody's way, and says so when it means nothing any more.
            client.delete_endpoint(&name("db1"), Guard::Any).unwrap();
            let shown = client.staged_policy(&main).unwrap();
            assert!(!shown.compiles && !shown.warnings.is_empty());
            let refused = client.apply_policy(&main, &ApplyRequest::default(), Guard::Any);
            assert_eq!(code(refused), ProblemCode::PolicyInvalid);
            create_endpoint(client, "db1", "shop", "aws1");
            assert!(client.staged_policy(&main).unwrap().compiles);
            let applied = client.apply_policy(&main, &ApplyRequest::default(), Guard::Any);
            let applied = applied.unwrap();
            assert_eq!(
                (applied.spec.text.as_str(), applied.status.staged),
                (DB, None)
            );

            client.stage_policy(&main, WEB, Guard::Any).unwrap();
            let left = client.unstage_policy(&main, Guard::Any).unwrap();
            assert_eq!((left.spec.text.as_str(), left.status.staged), (DB, None));
        })
        .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_comes_in_pages_with_who_when_and_why() {
    let data = tempfile::tempdir().unwrap();
    let running = shop(data.path()).await;
    running
        .call(|client| {
            let main = name("main");
            let first = client
                .apply_policy(&main, &apply(WEB, None), Guard::None)
                .unwrap();
            client.put_policy(&main, DB, Guard::Any).unwrap();
            let last = client.rollback_policy(&main, None, Guard::Any).unwrap();
            let all = client.policy_history(&main).unwrap().items;
            assert_eq!(all.len(), 3);
            let (author, comment) = (all[0].author.as_deref(), all[0].comment.as_deref());
            assert_eq!((author, comment), (Some("ann"), Some("why not")));
            assert!(all.iter().all(|item| item.at_unix_ms.is_some()));
            assert_eq!(all[2].text_hash, first.status.text_hash);
            assert_eq!(all[2].reason, RevisionReason::RolledBack);
            let one = client.policy_revision(&main, last.revision).unwrap();
            assert_eq!(one, all[2]);
            let none = client.policy_revision(&main, 1);
            assert_eq!(code(none), ProblemCode::RevisionNotFound);
        })
        .await;
    let base = running.rest.clone();
    running
        .call(move |client| {
            let get = |path: &str| send(&base, "GET", path, &[], b"");
            let mut seen = Vec::new();
            let mut path = "/v1/policies/main/history?limit=2".to_owned();
            loop {
                let page = get(&path);
                assert_eq!(page.status, 200);
                let page: sunwire_api::PolicyHistory = serde_json::from_slice(&page.body).unwrap();
                assert!(page.items.len() <= 2);
                seen.extend(page.items);
                let Some(token) = page.next_page_token else {
                    break;
                };
                path = format!("/v1/policies/main/history?limit=2&page_token={token}");
            }
            assert_eq!(seen, client.policy_history(&name("main")).unwrap().items);
            for (path, expected) in [
                ("history?limit=0", ProblemCode::InvalidQuery),
                ("history?page_token=x", ProblemCode::InvalidQuery),
                ("history/x", ProblemCode::RevisionNotFound),
            ] {
                let answer = get(&format!("/v1/policies/main/{path}"));
                assert_eq!(answer.code(), expected, "{path}");
            }
            for body in [
                r#"{"text": "x", "confirm_within_seconds": 0}"#,
                r#"{"text": "x", "confirm_within_seconds": 86401}"#,
                r#"{"text": "x", "confirmWithin": 3}"#,
            ] {
                let any = ("if-match", "*");
                let path = "/v1/policies/main/apply";
                let answer = send(&base, "POST", path, &[JSON, any], body.as_bytes());
                assert_eq!(answer.code(), ProblemCode::InvalidBody, "{body}");
            }
        })
        .await;
    running.stop().await;
}

/// A log as a version left it whose compiler took a text that this one refuses.
fn log_with_a_refused_text(data: &Path, outcome: bool) {
    let text = "network shop\npolicy main = frobnicate\n";
    let mut log = RedbLog::open(data).unwrap();
    let revision = replay(&log).unwrap().revision() + 1;
    let found = Found {
        network: name("shop"),
        tables_changed: true,
        violations: Vec::new(),
    };
    let recorded = Outcome {
        policies: [(name("main"), found)].into(),
        ..Outcome::default()
    };
    let entry = Entry {
        revision,
        proposal: Proposal {
            command: Command::PutPolicy {
                name: name("main"),
                text: text.into(),
                note: Note::default(),
                confirm_by_unix_ms: None,
            },
            precondition: Precondition::None,
            key: None,
            force: false,
        },
        outcome: outcome.then_some(recorded),
    };
    log.append(&[entry]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_a_newer_compiler_refuses_is_out_of_force_and_stops_nobody() {
    for recorded in [true, false] {
        let data = tempfile::tempdir().unwrap();
        shop(data.path()).await.stop().await;
        log_with_a_refused_text(data.path(), recorded);
        let running = Running::start(data.path()).await;
        let (_agent, snapshot) = running.agent("aws1", 1).await;
        assert_eq!(snapshot.state.unwrap().programs, []);
        running
            .call(|client| {
                let main = name("main");
                let refused = client.policy(&main).unwrap();
                assert_eq!(refused.status.state, PolicyState::Refused);
                assert!(refused.status.warnings[0].message.contains("frobnicate"));
                assert_eq!(refused.status.table_nodes + refused.status.leaves, 0);
                let taken = client.put_policy(&name("other"), WEB, Guard::None);
                assert_eq!(code(taken), ProblemCode::PolicyNetworkTaken);
                create_endpoint(client, "web2", "shop", "aws1");
                client.delete_endpoint(&name("web2"), Guard::Any).unwrap();
            })
            .await;
        running.stop().await;

        // The same from a snapshot.
        let running = Running::start(data.path()).await;
        running
            .call(|client| {
                let main = name("main");
                let refused = client.policy(&main).unwrap();
                assert_eq!(refused.status.state, PolicyState::Refused);
                let put = client
                    .put_policy(&main, WEB, Guard::Revision(refused.revision))
                    .unwrap();
                assert_eq!(put.status.state, PolicyState::InForce);
            })
            .await;
        running.stop().await;
    }
}

#[test]
fn entries_of_the_first_format_are_read() {
    let json = r#"{"revision": 4, "proposal": {"command":
        {"PutPolicy": {"name": "main", "text": "network shop"}},
        "precondition": "None", "key": null}}"#;
    let entry: Entry = serde_json::from_str(json).unwrap();
    assert_eq!(entry.outcome, None);
    assert!(!entry.proposal.force);
    let json = r#"{"RollbackPolicy": {"name": "main", "to": null}}"#;
    let command: Command = serde_json::from_str(json).unwrap();
    assert!(matches!(command, Command::RollbackPolicy { to: None, .. }));
}
