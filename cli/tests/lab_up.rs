//! `lab up`, from the file to packets and back to nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::io::{BufReader, Read};
use std::path::Path;
use std::process::{Child, Stdio};

use common::{command, sunwire};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
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
    expect_answer(&id, "10.20.0.10");
    expect_answer(&id, "fd00:20::10");
    let links = sunwire(&[
        "lab", "link", &id, "aws", "azure", "--loss", "0.5", "-o", "json",
    ]);
    assert_eq!(links.json()[1]["params"]["loss"], 0.5, "{links:#?}");

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

/// An echo request of the lab's own from client1 is answered.
fn expect_answer(id: &str, to: &str) {
    let namespace = sunwire_lab::client::namespace(id, "client1").unwrap();
    let report = ping::ping(&namespace, to.parse().unwrap(), PingOptions::default()).unwrap();
    assert!(report.median_ms().is_some(), "{to} does not answer");
}
