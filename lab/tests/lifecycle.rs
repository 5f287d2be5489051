//! Labs come up, do not collide, and leave nothing, even when killed.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use sunwire_lab::{
    Lab, LabError, LinkChange, NETNS_DIR, STATE_DIR, Shutdown, Topology, WorkloadSpec, client,
    eventually, sweep,
};

const PATIENCE: Duration = Duration::from_secs(30);
/// Tells this test program to own a lab of that id instead of testing.
const OWN: &str = "SUNWIRE_LAB_TEST_OWN";

fn topology(id: &str) -> Topology {
    let web = WorkloadSpec::new("web", "east", "shop").address("10.20.0.10/24");
    Topology::builder()
        .id(id)
        .node("east", "aws:us-east-1")
        .controller("azure:westeurope")
        .workload(web.expect("a good address"))
        .build()
        .expect("a good topology")
}

/// What is left of a lab anywhere.
fn traces(id: &str) -> Vec<String> {
    let namespaces = fs::read_dir(NETNS_DIR).into_iter().flatten().flatten();
    let prefix = format!("sw-{id}-");
    let mut traces: Vec<String> = namespaces
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(&prefix))
        .collect();
    let dir = format!("{STATE_DIR}/{id}");
    if Path::new(&dir).exists() {
        traces.push(dir.clone());
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let of_lab = |line: &&str| line.contains(&format!("{dir}/")) || line.contains(&prefix);
    traces.extend(mounts.lines().filter(of_lab).map(str::to_owned));
    traces
}

/// Not a test by itself: the owner of a lab in a process of its own, started by
/// the tests below.
#[test]
fn owner_in_another_process() {
    let Ok(id) = std::env::var(OWN) else {
        return;
    };
    let shutdown = Shutdown::on_signals().unwrap();
    let lab = Lab::up(topology(&id)).unwrap();
    let mut sleeper = Command::new("sh");
    // The shell's child must end too, although it is no child of the owner.
    sleeper.args(["-c", "sleep 3600 & echo started; wait"]);
    let node = lab.node("east").unwrap();
    let mut child = node.spawn_logged("sleeper", sleeper).unwrap();
    let log = node.log_path("sleeper");
    let started = || fs::read_to_string(&log).is_ok_and(|text| text.contains("started"));
    eventually("the sleeper", PATIENCE, started).unwrap();
    println!("\nup {id}");
    shutdown.wait();
    lab.down().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
}

/// An owner in a process of its own, and its output: kept open, for it writes on.
fn start_owner(id: &str) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().expect("this program has a path"))
        .args(["--exact", "owner_in_another_process", "--nocapture"])
        .env(OWN, id)
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program can be started again");
    let mut output = BufReader::new(child.stdout.take().expect("a pipe was asked for"));
    let mut lines = output.by_ref().lines().map_while(Result::ok);
    assert!(
        lines.any(|line| line == format!("up {id}")),
        "no lab came up"
    );
    (child, output)
}

#[test]
fn down_leaves_nothing() {
    if !common::can_run("down_leaves_nothing") {
        return;
    }
    let lab = Lab::up(topology("tdown")).unwrap();
    assert!(traces("tdown").len() >= 6, "{:?}", traces("tdown"));
    assert!(lab.node("east").unwrap().bpf_dir.is_dir());
    lab.down().unwrap();
    assert_eq!(traces("tdown"), Vec::<String>::new());
}

#[test]
fn killed_owner_leaves_nothing_after_the_next_sweep() {
    if !common::can_run("killed_owner_leaves_nothing_after_the_next_sweep") {
        return;
    }
    let other = Lab::up(topology("tother")).unwrap();
    let (mut owner, _output) = start_owner("tkilled");
    let namespace = client::namespace("tkilled", "east").unwrap();
    let inode = namespace.inode().unwrap();
    let inside = || processes_in(inode);
    assert_eq!(inside().len(), 2, "the shell and its child");
    owner.kill().unwrap();
    let status = owner.wait().unwrap();
    assert_eq!(status.signal(), Some(9));
    assert!(!traces("tkilled").is_empty());
    // Another test's sweep may come first: what counts is that nothing is left.
    match client::find("tkilled") {
        Err(LabError::OwnerKilled(_)) => {}
        other => assert_eq!(traces("tkilled"), Vec::<String>::new(), "{other:?}"),
    }
    sweep().unwrap();
    assert_eq!(traces("tkilled"), Vec::<String>::new());
    eventually("the end of all processes", PATIENCE, || inside().is_empty()).unwrap();
    assert!(other.node("east").unwrap().namespace.path().exists());
    assert_eq!(client::status("tother").unwrap().id, "tother");
}

fn processes_in(inode: u64) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    let processes = fs::read_dir("/proc").expect("/proc is there").flatten();
    processes
        .filter(|process| {
            let namespace = fs::metadata(process.path().join("ns/net"));
            namespace.is_ok_and(|namespace| namespace.ino() == inode)
        })
        .map(|process| process.file_name().to_string_lossy().into_owned())
        .collect()
}

#[test]
fn same_id_is_refused_while_its_owner_lives_and_other_ids_are_not() {
    if !common::can_run("same_id_is_refused_while_its_owner_lives_and_other_ids_are_not") {
        return;
    }
    let one = Lab::up(topology("ttwice")).unwrap();
    let again = Lab::up(topology("ttwice"));
    let Err(LabError::AlreadyUp { id, pid }) = again else {
        panic!("{again:?}");
    };
    assert_eq!((id.as_str(), pid), ("ttwice", std::process::id()));
    let two = Lab::up(topology("ttwice2")).unwrap();
    assert_eq!(client::find("ttwice").unwrap().namespaces.len(), 4);
    two.down().unwrap();
    assert!(one.node("east").unwrap().namespace.path().exists());
    one.down().unwrap();
    assert_eq!(traces("ttwice"), Vec::<String>::new());
}

#[test]
fn another_process_sees_changes_and_ends_a_lab() {
    if !common::can_run("another_process_sees_changes_and_ends_a_lab") {
        return;
    }
    let (mut owner, _output) = start_owner("tremote");
    let labs = client::list().unwrap();
    assert!(labs.iter().any(|lab| lab.id == "tremote"));
    let record = client::status("tremote").unwrap();
    assert_eq!(record.owner.pid, owner.id());
    assert_eq!(record.workloads[0].name, "web");
    let mut command = Command::new("cat");
    command.arg("/proc/net/dev");
    let output = client::exec("tremote", "web", command).unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("eth0"));
    let change = LinkChange::delay_ms(3.0);
    let params = client::set_link("tremote", "east", "controller", change).unwrap();
    assert_eq!(params.delay, Duration::from_millis(3));
    let report = client::report("tremote").unwrap();
    let link = report.link("east", "controller").unwrap();
    assert_eq!(link.params, params);
    let refused = client::set_link("tremote", "east", "controller", LinkChange::loss(2.0));
    let Err(LabError::Refused { reason, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert!(reason.contains("loss = 2"), "{reason}");
    let missing = client::set_link("tremote", "east", "nowhere", change);
    assert!(missing.unwrap_err().to_string().contains("nowhere"));
    client::down("tremote", PATIENCE).unwrap();
    assert!(owner.wait().unwrap().success());
    assert_eq!(traces("tremote"), Vec::<String>::new());
    assert!(matches!(
        client::find("tremote"),
        Err(LabError::NoSuchLab(_))
    ));
}

#[test]
fn foreign_namespace_is_neither_used_nor_removed() {
    if !common::can_run("foreign_namespace_is_neither_used_nor_removed") {
        return;
    }
    let name = "sw-tforeign-wan";
    let ip = |verb: &str| {
        let status = Command::new("ip").args(["netns", verb, name]).status();
        assert!(status.unwrap().success());
    };
    ip("add");
    let refused = Lab::up(topology("tforeign"));
    let is_named = matches!(&refused, Err(LabError::NamespaceExists(other)) if other == name);
    let kept = Path::new(NETNS_DIR).join(name).exists();
    ip("del");
    assert!(is_named, "{refused:?}");
    assert!(kept);
    assert_eq!(traces("tforeign"), Vec::<String>::new());
}

#[test]
fn processes_of_a_node_are_in_its_namespace_and_write_its_log() {
    if !common::can_run("processes_of_a_node_are_in_its_namespace_and_write_its_log") {
        return;
    }
    let lab = Lab::up(topology("tlog")).unwrap();
    let node = lab.node("controller").unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "grep -c wan0 /proc/net/dev; echo oops >&2"]);
    let mut child = node.spawn_logged("probe", command).unwrap();
    assert!(child.wait().unwrap().success());
    let log = fs::read_to_string(lab.log_dir().join("controller-probe.log")).unwrap();
    assert_eq!(log, "1\noops\n");
}
