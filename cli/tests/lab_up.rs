//! `lab up`, from the file to packets and back to nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::io::{BufReader, Read};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use common::{command, sunwire};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use sunwire_lab::eventually;
use sunwire_lab::traffic::ping::{self, PingOptions};

const TOPOLOGY: &str = r#"
[[node]]
name = "aws"
region = "aws:us-east-1"
[[node]]
name = "azure"
region = "azure:westeurope"
[controller]
region = "aws:us-east-1"
[[workload]]
name = "web1"
node = "aws"
network = "shop"
addresses = ["10.20.0.10/16", "fd00:20::10/64"]
gateways = ["10.20.0.1", "fd00:20::1"]
[[workload]]
name = "client1"
node = "azure"
network = "shop"
addresses = ["10.20.0.20/16", "fd00:20::20/64"]
gateways = ["10.20.0.1", "fd00:20::1"]
"#;

const POLICY: &str = r#"network shop { subnet 10.20.0.0/16, fd00:20::/64 }
policy main =
    if icmp and src = client1 and dst = web1 then forward "ask"
    else if icmp and src = web1 and dst = client1 then forward "answer"
    else drop "default deny"
"#;

/// How long anything may take that should happen at once, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether this machine can run a lab with agents; says what is missing when it cannot.
fn can_run(test: &str) -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        eprintln!("SKIPPED {test}: root is missing");
    }
    let has_bpf = Path::new("/sys/kernel/btf/vmlinux").exists();
    if is_root && !has_bpf {
        eprintln!("SKIPPED {test}: the kernel has no BTF (/sys/kernel/btf/vmlinux)");
    }
    is_root && has_bpf
}

/// Ends the lab's owner however the test goes; its children end with it.
struct Owner(Child);

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = sunwire(&["lab", "sweep"]);
    }
}

#[test]
fn lab_up_makes_a_working_network_out_of_one_file_and_leaves_nothing_behind() {
    if !can_run("lab_up_makes_a_working_network_out_of_one_file_and_leaves_nothing_behind") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (topology, policy) = (
        directory.path().join("lab.toml"),
        directory.path().join("shop.nk"),
    );
    std::fs::write(&topology, TOPOLOGY).unwrap();
    std::fs::write(&policy, POLICY).unwrap();
    let id = format!("cli{}", std::process::id() % 1_000_000);
    let owner = command()
        .args(["-o", "json", "lab", "up", "--id", &id])
        .arg(&topology)
        .arg("--policy")
        .arg(&policy)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut owner = Owner(owner);
    // One JSON object, written once all is up; the pipe stays open while the lab is up.
    let mut out = BufReader::new(owner.0.stdout.take().unwrap());
    let mut values = serde_json::Deserializer::from_reader(&mut out).into_iter::<Value>();
    let up = values.next().expect("the lab came up").unwrap();
    assert_eq!(up["id"], id.as_str());
    assert_eq!(up["workloads"].as_array().unwrap().len(), 2);

    let list = sunwire(&["endpoint", "list", "--lab", &id, "-o", "json"]).json();
    let states: Vec<&Value> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|endpoint| &endpoint["status"]["state"])
        .collect();
    assert_eq!(states, ["attached", "attached"]);
    assert_eq!(
        sunwire(&["policy", "show", "shop", "--lab", &id]).out,
        POLICY
    );
    let code = sunwire(&["lab", "exec", &id, "web1", "--", "sh", "-c", "exit 42"]).code;
    assert_eq!(code, 42);
    let missing = sunwire(&["lab", "exec", &id, "web1", "--", "no-such-program"]);
    assert_eq!(missing.code, 2, "{}", missing.err);
    let hint = "cannot run no-such-program on web1: it is not installed on this machine";
    assert!(missing.err.contains(hint), "{}", missing.err);
    expect_answer(&id, "10.20.0.10");
    expect_answer(&id, "fd00:20::10");
    let links = sunwire(&[
        "lab", "link", &id, "aws", "azure", "--loss", "0.5", "-o", "json",
    ]);
    assert_eq!(links.json()[1]["params"]["loss"], 0.5, "{links:#?}");

    sunwire(&["lab", "link", &id, "aws", "azure", "--loss", "0"]).done();
    expect_moves(&id);
    expect_interrupted_move(&id);

    kill(Pid::from_raw(owner.0.id().cast_signed()), Signal::SIGINT).unwrap();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!((owner.0.wait().unwrap().code(), rest.trim()), (Some(0), ""));
    assert_eq!(sunwire(&["lab", "status", &id]).code, 2);
    let left = std::fs::read_dir("/run/netns").unwrap().flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    let prefix = format!("sw-{id}-");
    let ours = |name: &&std::ffi::OsString| name.to_string_lossy().starts_with(&prefix);
    assert_eq!(left.iter().find(ours), None);
}

/// `lab move` carries endpoints with their devices, says what it cannot do, and takes up a move that
/// stopped half-way.
fn expect_moves(id: &str) {
    let place = |name: &str| {
        let endpoint = sunwire(&["endpoint", "get", name, "--lab", id, "-o", "json"]).json();
        let status = &endpoint["status"];
        assert_eq!(status["state"], "attached", "{status}");
        status["node"].as_str().unwrap().to_owned()
    };
    let moved = sunwire(&["lab", "move", id, "web1", "azure", "-o", "json"]).json();
    assert_eq!(
        (&moved["from"], &moved["to"]),
        (&"aws".into(), &"azure".into())
    );
    assert!(moved["gap_ms"].as_f64() > Some(0.0), "{moved}");
    assert!(
        moved["published_ms"].as_f64() >= moved["gap_ms"].as_f64(),
        "{moved}"
    );
    // The pings of before are remembered flows.
    assert!(moved["connections"].as_u64() >= Some(1), "{moved}");
    assert_eq!(place("web1"), "azure");
    expect_answer(id, "10.20.0.10");

    let refused = |arguments: &[&str], code: u8, says: &str| {
        let answer = sunwire(&[&["lab", "move", id], arguments].concat());
        assert_eq!(answer.code, i32::from(code), "{answer:#?}");
        assert!(answer.err.contains(says), "{answer:#?}");
    };
    refused(&["web1", "azure"], 1, "is on node azure already");
    refused(&["web1", "gcp"], 2, "has no node `gcp`");
    refused(&["nobody", "aws"], 2, "has no workload `nobody`");
    refused(&["web1", "controller"], 3, "runs no agent");

    // Begun elsewhere and left alone with the device released: taken up from the beginning.
    sunwire(&["endpoint", "move", "web1", "aws", "--lab", id]).done();
    let azure = format!("/run/sunwire/lab/{id}/node/azure");
    eventually("the agent to know of the move", PATIENCE, || {
        sunwire(&["agent", "release", "web1", "--state-dir", &azure]).code == 0
    })
    .unwrap();
    sunwire(&["lab", "move", id, "web1", "aws"]).done();
    assert_eq!(place("web1"), "aws");
    expect_answer(id, "10.20.0.10");

    // The device has moved and the one who moved it is gone: only the rest is waited for.
    sunwire(&["endpoint", "move", "web1", "azure", "--lab", id]).done();
    sunwire_lab::client::move_host_side(id, "web1", "azure").unwrap();
    let answer = sunwire(&["lab", "move", id, "web1", "azure"]);
    assert!(
        answer.code == 0 || answer.err.contains("already"),
        "{answer:#?}"
    );
    assert_eq!(place("web1"), "azure");
    expect_answer(id, "10.20.0.10");
}

/// Ctrl-C before the device is released gives the move up, and the endpoint goes on where it is.
fn expect_interrupted_move(id: &str) {
    let agent = agent_of(id, "azure");
    // It holds the move up: the new place is not known everywhere before it says so.
    kill(agent, Signal::SIGSTOP).unwrap();
    let moving = command()
        .args(["lab", "move", id, "web1", "aws"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = eventually("the move to have begun", PATIENCE, || {
        let endpoint = sunwire(&["endpoint", "get", "web1", "--lab", id, "-o", "json"]).json();
        endpoint["status"]["moving_to"] == "aws"
    });
    kill(Pid::from_raw(moving.id().cast_signed()), Signal::SIGINT).unwrap();
    let given_up = eventually("the move to be given up", PATIENCE, || {
        let endpoint = sunwire(&["endpoint", "get", "web1", "--lab", id, "-o", "json"]).json();
        endpoint["status"]["moving_to"].is_null()
    });
    kill(agent, Signal::SIGCONT).unwrap();
    begun.and(given_up).unwrap();
    let ended = moving.wait_with_output().unwrap();
    let says = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(2), "{says}");
    assert!(says.contains("web1 stays on azure"), "{says}");
    assert!(says.contains("interrupted"), "{says}");
    expect_answer(id, "10.20.0.10");
}

/// The process of a node's agent, by the lab's own state directory among its arguments.
fn agent_of(id: &str, node: &str) -> Pid {
    let directory = format!("/run/sunwire/lab/{id}/node/{node}");
    let mut processes = std::fs::read_dir("/proc").unwrap().flatten();
    let found = processes.find_map(|process| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        let arguments = std::fs::read_to_string(process.path().join("cmdline")).ok()?;
        let mut arguments = arguments.split('\0').skip(1);
        let is_agent = arguments.next() == Some("agent");
        (is_agent && arguments.any(|argument| argument == directory)).then_some(pid)
    });
    Pid::from_raw(found.expect("the node has an agent"))
}

/// An echo request of the lab's own from client1 is answered.
fn expect_answer(id: &str, to: &str) {
    let namespace = sunwire_lab::client::namespace(id, "client1").unwrap();
    let report = ping::ping(&namespace, to.parse().unwrap(), PingOptions::default()).unwrap();
    assert!(report.median_ms().is_some(), "{to} does not answer");
}
