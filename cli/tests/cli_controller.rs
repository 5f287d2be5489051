//! Commands against a real controller, and the controller command itself.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use common::{Running, command, run};

const GOOD: &str = "network shop\npolicy main = if icmp then forward else drop \"default deny\"\n";
const BAD: &str = "network shop\npolicy main =\n  if icmp and dst prt 5 then forward else forwrd\n";

/// A policy file of this name.
fn file(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn networks_are_created_shown_and_deleted_in_both_formats() {
    let directory = tempfile::tempdir().unwrap();
    let controller = Running::start(directory.path());
    let ran = controller.ask(&[
        "network",
        "create",
        "shop",
        "--subnet",
        "10.20.0.0/16",
        "--subnet",
        "fd00:20::/64",
    ]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:#?}");
    assert!(ran.out.contains("10.20.0.1,fd00:20::1"), "{ran:#?}");

    let ran = controller.ask(&["network", "get", "shop", "-o", "json"]);
    assert_eq!(ran.json()["spec"]["mtu"], 1300, "{ran:#?}");
    let ran = controller.ask(&["-o", "json", "network", "list"]);
    assert_eq!(ran.json()[0]["name"], "shop", "{ran:#?}");
    let ran = controller.ask(&["network", "list"]);
    assert_eq!(ran.out.lines().count(), 2, "{ran:#?}");

    let ran = controller.ask(&["network", "delete", "shop", "--if-revision", "999"]);
    assert_eq!(ran.code, 1, "{ran:#?}");
    assert!(ran.err.contains("code: stale-revision"), "{ran:#?}");
    let ran = controller.ask(&["network", "delete", "shop"]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    let ran = controller.ask(&["network", "get", "shop"]);
    assert_eq!(ran.code, 1, "{ran:#?}");
}

#[test]
fn json_of_every_list_parses() {
    let directory = tempfile::tempdir().unwrap();
    let controller = Running::start(directory.path());
    for arguments in [
        &["network", "list"][..],
        &["node", "list"],
        &["endpoint", "list"],
        &["policy", "list"],
        &["status"],
        &["counters"],
    ] {
        let ran = controller.ask(&[arguments, &["-o", "json"]].concat());
        assert_eq!(
            (ran.code, ran.err.as_str()),
            (0, ""),
            "{arguments:?} {ran:#?}"
        );
        assert!(ran.json().is_array() || ran.json().is_object());
        let table = controller.ask(arguments);
        assert_eq!(table.code, 0, "{table:#?}");
        assert!(!table.out.starts_with(['{', '[']), "{table:#?}");
    }
}

#[test]
fn a_refusal_is_one_block_with_its_code_and_in_json_the_problem() {
    let directory = tempfile::tempdir().unwrap();
    let controller = Running::start(directory.path());
    let create = [
        "endpoint",
        "create",
        "web1",
        "--network",
        "shop",
        "--node",
        "aws1",
    ];
    let ran = controller.ask(&create);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{ran:#?}");
    assert!(ran.err.starts_with("error: "), "{ran:#?}");
    let code = ran.err.lines().last().unwrap();
    assert!(code.trim_start().starts_with("code: unknown-"), "{ran:#?}");

    let ran = controller.ask(&[&create[..], &["-o", "json"]].concat());
    let problem: serde_json::Value = serde_json::from_str(&ran.err).unwrap();
    assert_eq!(ran.code, 1);
    assert_eq!(problem["status"], 422, "{ran:#?}");
}

#[test]
fn a_policy_with_mistakes_is_shown_with_caret_and_hint_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let controller = Running::start(&directory.path().join("data"));
    controller.ask(&["network", "create", "shop", "--subnet", "10.20.0.0/16"]);
    let bad = file(directory.path(), "bad.nk", BAD);

    let applied = controller.ask(&["policy", "apply", &bad]);
    assert_eq!(
        (applied.code, applied.out.as_str()),
        (1, ""),
        "{applied:#?}"
    );
    assert!(applied.err.contains("code: policy-invalid"), "{applied:#?}");
    for ran in [&applied, &controller.ask(&["policy", "check", &bad])] {
        assert_eq!(ran.code, 1, "{ran:#?}");
        assert!(
            ran.err.contains('^') && ran.err.contains("bad.nk:3:"),
            "{ran:#?}"
        );
        assert!(ran.err.contains("hint:"), "{ran:#?}");
    }
    let list = controller.ask(&["policy", "list", "-o", "json"]);
    assert_eq!(list.json(), serde_json::json!([]));
}

#[test]
fn a_policy_is_applied_twice_shown_byte_for_byte_and_rolled_back() {
    let directory = tempfile::tempdir().unwrap();
    let controller = Running::start(&directory.path().join("data"));
    controller.ask(&["network", "create", "shop", "--subnet", "10.20.0.0/16"]);
    let good = file(directory.path(), "shop.nk", GOOD);
    let ran = controller.ask(&["policy", "apply", &good, "--wait"]);
    assert_eq!(ran.code, 0, "{ran:#?}");

    let second = GOOD.replace("icmp", "tcp");
    file(directory.path(), "shop.nk", &second);
    let ran = controller.ask(&["policy", "apply", &good, "-o", "json"]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert_eq!(ran.json()[0]["name"], "shop");
    assert_eq!(controller.ask(&["policy", "show", "shop"]).out, second);

    let history = controller
        .ask(&["policy", "history", "shop", "-o", "json"])
        .json();
    let first = history["items"][0]["revision"].to_string();
    let ran = controller.ask(&["policy", "rollback", "shop", "--to", &first]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert_eq!(controller.ask(&["policy", "show", "shop"]).out, GOOD);
    let history = controller.ask(&["policy", "history", "shop"]);
    assert_eq!(history.out.lines().count(), 4, "{history:#?}");
    assert_eq!(controller.ask(&["policy", "delete", "shop"]).code, 0);
}

#[test]
fn the_controller_ends_in_good_order_on_sigterm() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = command()
        .args([
            "controller",
            "--rest",
            "127.0.0.1:0",
            "--agents",
            "127.0.0.1:0",
        ])
        .arg("--data-dir")
        .arg(directory.path())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("agents are served") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "it ended early");
    }
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let rest: Vec<String> = log.lines().map(Result::unwrap).collect();
    assert!(rest.iter().any(|line| line.contains("SIGTERM")), "{rest:?}");
    // The log is not held any more.
    drop(Running::start(directory.path()));
}

#[test]
fn output_that_nobody_reads_is_no_failure() {
    let directory = tempfile::tempdir().unwrap();
    let controller = Running::start(&directory.path().join("data"));
    let (read, write) = std::io::pipe().unwrap();
    drop(read);
    let ran = {
        let mut command = command();
        command.args(["status", "--server", &controller.server()]);
        let child = command
            .stdout(write)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.wait_with_output().unwrap()
    };
    let err = String::from_utf8(ran.stderr).unwrap();
    assert_eq!((ran.status.code(), err.as_str()), (Some(0), ""));
    // And a run with a reader answers.
    assert_eq!(
        run(command().args(["status", "--server", &controller.server()])).code,
        0
    );
}
