//! The life of a stored policy, as a script drives it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::path::Path;

use common::Running;

const FIRST: &str = "network shop\npolicy main = if icmp then forward else drop \"no\"\n";
const SECOND: &str = "network shop\npolicy main = if tcp then forward else drop \"no\"\n";
const WRONG: &str = "network shop\npolicy main = forward\nassert main <= icmp\n";

/// A policy file of this name.
fn file(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A controller with the network `shop`, where the first text is in force as `shop`.
fn shop(directory: &Path) -> Running {
    let controller = Running::start(&directory.join("data"));
    controller.ask(&["network", "create", "shop", "--subnet", "10.20.0.0/16"]);
    let first = file(directory, "shop.nk", FIRST);
    let ran = controller.ask(&["policy", "apply", &first, "--comment", "the first"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:#?}");
    controller
}

#[test]
fn a_policy_on_trial_says_how_to_keep_it_and_is_kept_by_that() {
    let directory = tempfile::tempdir().unwrap();
    let controller = shop(directory.path());
    let second = file(directory.path(), "shop.nk", SECOND);
    let apply = [
        "policy",
        "apply",
        &second,
        "--confirm-within",
        "1h",
        "--author",
        "ann",
    ];
    let ran = controller.ask(&apply);
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert!(
        ran.err.contains("`sunwire policy confirm shop`"),
        "{ran:#?}"
    );
    assert!(ran.out.contains("on-trial"), "{ran:#?}");

    let ran = controller.ask(&["policy", "confirm", "shop", "-o", "json"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:#?}");
    assert!(ran.json()["status"]["unconfirmed"].is_null(), "{ran:#?}");
    let ran = controller.ask(&["policy", "confirm", "shop"]);
    assert_eq!(ran.code, 1, "{ran:#?}");
    assert!(ran.err.contains("code: nothing-to-confirm"), "{ran:#?}");

    let ran = controller.ask(&["policy", "history", "shop"]);
    for word in ["the first", "ann", "applied", "20"] {
        assert!(ran.out.contains(word), "{word}: {ran:#?}");
    }
    let usage = controller.ask(&["policy", "apply", &second, "--confirm-within", "1d"]);
    assert_eq!(usage.code, 3, "{usage:#?}");
}

#[test]
fn a_policy_that_is_not_confirmed_is_put_back() {
    let directory = tempfile::tempdir().unwrap();
    let controller = shop(directory.path());
    let second = file(directory.path(), "shop.nk", SECOND);
    let apply = [
        "policy",
        "apply",
        &second,
        "--confirm-within",
        "1s",
        "-o",
        "json",
    ];
    let ran = controller.ask(&apply);
    let revision = ran.json()[0]["revision"].as_u64().unwrap() + 1;
    let revision = revision.to_string();
    let ran = controller.ask(&["status", "--wait-revision", &revision, "--timeout", "60"]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert_eq!(controller.ask(&["policy", "show", "shop"]).out, FIRST);
    let ran = controller.ask(&["policy", "history", "shop"]);
    assert!(ran.out.contains("not-confirmed"), "{ran:#?}");
}

#[test]
fn texts_are_compared_with_files_with_each_other_and_with_candidates() {
    let directory = tempfile::tempdir().unwrap();
    let controller = shop(directory.path());
    let second = file(directory.path(), "next.nk", SECOND);
    let same = file(directory.path(), "shop.nk", FIRST);
    let ran = controller.ask(&["policy", "diff", &same]);
    assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{ran:#?}");
    let ran = controller.ask(&["policy", "diff", &second, "--name", "shop"]);
    assert_eq!(ran.code, 1, "{ran:#?}");
    assert!(ran.out.contains("-policy main = if icmp"), "{ran:#?}");
    assert!(ran.out.contains("+policy main = if tcp"), "{ran:#?}");

    let ran = controller.ask(&["policy", "stage", &second, "--name", "shop"]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    let staged = controller.ask(&["policy", "diff", "--name", "shop", "--staged"]);
    assert_eq!(staged.code, 1, "{staged:#?}");
    assert!(staged.out.contains("candidate"), "{staged:#?}");
    let ran = controller.ask(&["policy", "stage", "--status", "shop"]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert!(ran.out.contains("0 of 0 packets"), "{ran:#?}");
    let ran = controller.ask(&["policy", "stage", "--apply", "shop"]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert_eq!(controller.ask(&["policy", "show", "shop"]).out, SECOND);
    let ran = controller.ask(&["policy", "unstage", "shop"]);
    assert!(ran.err.contains("code: nothing-staged"), "{ran:#?}");

    let ran = controller.ask(&["policy", "diff", "--name", "shop", "-o", "json"]);
    assert_eq!(ran.code, 1, "{ran:#?}");
    assert_eq!(ran.json()["same"], false);
    let history = controller
        .ask(&["policy", "history", "shop", "-o", "json"])
        .json();
    let first = history["items"][0]["revision"].to_string();
    let ran = controller.ask(&["policy", "rollback", "shop", &first]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    let ran = controller.ask(&["policy", "diff", "--name", "shop", "--from", &first]);
    assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{ran:#?}");
    let ran = controller.ask(&["policy", "show", "shop", "--revision", &first]);
    assert_eq!(ran.out, FIRST);
}

#[test]
fn a_plan_says_what_would_change_and_whether_it_would_be_refused() {
    let directory = tempfile::tempdir().unwrap();
    let controller = shop(directory.path());
    let second = file(directory.path(), "next.nk", SECOND);
    let ran = controller.ask(&["policy", "plan", &second, "--name", "shop"]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert!(ran.out.contains("+ ") && ran.out.contains("- "), "{ran:#?}");
    assert!(ran.out.contains("compared with revision"), "{ran:#?}");
    let same = file(directory.path(), "shop.nk", FIRST);
    let ran = controller.ask(&["policy", "plan", &same, "-o", "json"]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert_eq!(ran.json()["changes"], serde_json::json!([]));
    let wrong = file(directory.path(), "shop.nk", WRONG);
    let ran = controller.ask(&["policy", "plan", &wrong]);
    assert_eq!(ran.code, 1, "{ran:#?}");
    assert!(ran.out.contains("it would be refused"), "{ran:#?}");
    assert_eq!(controller.ask(&["policy", "show", "shop"]).out, FIRST);
}

#[test]
fn a_policy_that_does_not_do_what_it_claims_needs_force() {
    let directory = tempfile::tempdir().unwrap();
    let controller = shop(directory.path());
    let wrong = file(directory.path(), "shop.nk", WRONG);
    let ran = controller.ask(&["policy", "apply", &wrong]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{ran:#?}");
    assert!(ran.err.contains("code: assertion-violated"), "{ran:#?}");
    assert!(
        ran.err.contains("main <= icmp") && ran.err.contains('^'),
        "{ran:#?}"
    );
    assert_eq!(controller.ask(&["policy", "show", "shop"]).out, FIRST);
    let ran = controller.ask(&["policy", "apply", &wrong, "--force"]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert!(
        ran.out.contains("violated") && ran.err.contains("violated:"),
        "{ran:#?}"
    );
}
