//! Tunnels by the kernel's own WireGuard: they carry what those of the process carry, understand
//! them, and change keys without a lost packet. `cargo xtask vmtest --suite wireguard` runs this
//! where the kernel at hand has none.

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod common;

use std::{process::Command, time::Duration};

use common::{CLIENT, OPEN, WEB, can_run};
use sunwire_api::{Name, PublicKey, Totals, TunnelState};
use sunwire_lab::{
    Topology, UNDERLAY_DEVICE, WorkloadSpec, eventually, eventually_ok, patient,
    traffic::{
        ping::{PingOptions, ping},
        tcp_bulk::{BulkReceiver, BulkSender},
        udp::{UdpReceiver, UdpSender},
    },
};
use sunwire_netns_tests::cloud::{Cloud, PATIENCE};
use sunwire_userspace::{
    control::{Answer, Request, call},
    crypt::{
        keeper::Backend,
        kernel::{DEVICES, KernelWireguard},
    },
};

const NODES: [&str; 2] = ["near", "far"];

/// Says why a test cannot run here; `true` when it can.
fn has_wireguard(test: &str) -> bool {
    if !can_run(test) {
        return false;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    match runtime.block_on(KernelWireguard::offered()) {
        Ok(()) => true,
        Err(error) => {
            eprintln!("SKIPPED {test}: {error}; `cargo xtask vmtest --suite wireguard` has one");
            false
        }
    }
}

/// Two nodes in two clouds, whose agents use the WireGuard that is said here.
fn cloud(near: &str, far: &str) -> Cloud {
    let mut topology = Topology::builder()
        .node(NODES[0], "aws:us-east-1")
        .node(NODES[1], "azure:westeurope")
        .controller("aws:us-east-1");
    let workloads = [("client1", NODES[0], CLIENT), ("web1", NODES[1], WEB)];
    for (name, node, address) in workloads {
        let workload = WorkloadSpec::new(name, node, "shop");
        topology = topology.workload(workload.address(&format!("{address}/16")).unwrap());
    }
    let each = [
        (NODES[0], ["--wireguard", near]),
        (NODES[1], ["--wireguard", far]),
    ];
    let cloud = Cloud::up_with_each(topology.build().unwrap(), &each).unwrap();
    cloud.create_network("shop", &["10.20.0.0/16"]).unwrap();
    for (name, ..) in workloads {
        let workload = cloud.lab().workload(name).unwrap();
        cloud.create_endpoint(&workload).unwrap();
    }
    cloud.apply_policy("shop", OPEN).unwrap();
    for (node, whose) in [(NODES[0], near), (NODES[1], far)] {
        let expected = match whose {
            "user" => Backend::User,
            _ => Backend::Kernel,
        };
        assert_eq!(backend(&cloud, node), Some(expected), "{node}");
        let devices = cloud
            .lab()
            .node(node)
            .unwrap()
            .namespace
            .run(|| DEVICES.map(|device| nix::net::if_::if_nametoindex(device).is_ok()));
        let is_kernel = expected == Backend::Kernel;
        assert_eq!(devices.unwrap(), [is_kernel, false], "{node}");
    }
    cloud
}

fn backend(cloud: &Cloud, node: &str) -> Option<Backend> {
    let directory = &cloud.lab().node(node).unwrap().state_dir;
    match call(directory, &Request::Status).unwrap() {
        Answer::Status { wireguard, .. } => wireguard,
        other => panic!("{other:?}"),
    }
}

/// Has the kernel itself delay and lose what a node sends on the underlay. Returns whether it can.
fn netem(cloud: &Cloud, node: &str, how: &[&str]) -> bool {
    let mut command = Command::new("tc");
    command
        .args(["qdisc", "replace", "dev", UNDERLAY_DEVICE, "root", "netem"])
        .args(how);
    let output = cloud.lab().node(node).unwrap().namespace.exec(command);
    match output {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            eprintln!("netem: {}", String::from_utf8_lossy(&output.stderr));
            false
        }
        Err(error) => {
            eprintln!("netem: {error}");
            false
        }
    }
}

fn transfers(cloud: &Cloud, from: &str, to: &str, address: &str, bytes: u64) {
    let workload = |name| cloud.lab().workload(name).unwrap();
    let (from, to) = (workload(from), workload(to));
    let address = format!("{address}:7100").parse().unwrap();
    let receiver = BulkReceiver::start(to.namespace(), address).unwrap();
    let patience = patient(PATIENCE);
    let sender = BulkSender::start(from.namespace(), receiver.address(), None, patience).unwrap();
    eventually("the bytes", PATIENCE, || receiver.bytes() > bytes).unwrap();
    assert_eq!(sender.stop().unwrap().broken, None);
    assert_eq!(receiver.finish().unwrap().broken, None);
}

fn answers(cloud: &Cloud) {
    let client = cloud.lab().workload("client1").unwrap();
    let options = PingOptions {
        timeout: patient(Duration::from_secs(2)),
        ..PingOptions::default()
    };
    eventually_ok("an answer", PATIENCE, || {
        let report = ping(client.namespace(), WEB.parse().unwrap(), options)?;
        anyhow::ensure!(report.received() > 0, "none");
        Ok(())
    })
    .unwrap();
}

fn keys(cloud: &Cloud, node: &str) -> Vec<PublicKey> {
    let name: Name = node.parse().unwrap();
    let node = cloud.rest(|client| client.node(&name)).unwrap();
    node.spec.public_keys
}

fn states(cloud: &Cloud) -> Vec<TunnelState> {
    let states = NODES.iter().flat_map(|node| {
        let name: Name = node.parse().unwrap();
        let node = cloud.rest(|client| client.node(&name)).unwrap();
        let tunnels = node.status.tunnels.into_iter();
        tunnels.map(|tunnel| tunnel.state).collect::<Vec<_>>()
    });
    states.collect()
}

/// What both nodes tell of their tunnels: packets and bytes, sent and received.
fn counted(cloud: &Cloud) -> Vec<u64> {
    let tunnels = NODES.iter().flat_map(|node| {
        let name: Name = node.parse().unwrap();
        cloud
            .rest(|client| client.node(&name))
            .unwrap()
            .status
            .tunnels
    });
    let counts = tunnels.flat_map(|tunnel| {
        let of = |totals: Totals| [totals.packets, totals.bytes];
        [of(tunnel.sent), of(tunnel.received)].concat()
    });
    counts.collect()
}

/// What every part counts, for whoever looks for lost packets.
fn tell(cloud: &Cloud) {
    eprintln!("{:#?}", cloud.rest(|client| client.counters()).unwrap());
    for node in NODES {
        let handle = cloud.lab().node(node).unwrap();
        eprintln!("{node}: {:#?}", call(&handle.state_dir, &Request::Status));
        for (program, arguments) in [
            ("ip", &["-s", "-s", "link"][..]),
            ("cat", &["/proc/net/snmp"]),
        ] {
            let mut command = Command::new(program);
            command.args(arguments);
            let output = handle.namespace.exec(command).unwrap();
            eprintln!("{node}: {}", String::from_utf8_lossy(&output.stdout));
        }
        let log = std::fs::read_to_string(handle.state_dir.join("crypt.log"));
        eprintln!("{node}: {}", log.unwrap_or_default());
    }
    let logs = std::fs::read_dir(cloud.lab().log_dir()).unwrap();
    for log in logs.flatten() {
        let text = std::fs::read_to_string(log.path()).unwrap_or_default();
        eprintln!("{}: {text}", log.path().display());
    }
    eprintln!("{:#?}", cloud.lab().report());
}

/// Both nodes replace their keys while numbered datagrams flow; none is lost.
fn keys_change_without_loss(cloud: &Cloud) {
    let (client, web) = (
        cloud.lab().workload("client1").unwrap(),
        cloud.lab().workload("web1").unwrap(),
    );
    let address = format!("{WEB}:7000").parse().unwrap();
    let receiver = UdpReceiver::start(web.namespace(), address).unwrap();
    let sender =
        UdpSender::start(client.namespace(), receiver.address(), 200, 200.0, None).unwrap();
    let flows = |from: u64| {
        eventually("traffic to flow", PATIENCE, || {
            receiver.received() > from + 100
        })
        .unwrap();
    };
    flows(0);
    let before = NODES.map(|node| keys(cloud, node));
    for node in NODES {
        let directory = &cloud.lab().node(node).unwrap().state_dir;
        assert_eq!(
            call(directory, &Request::RotateKey).unwrap(),
            Answer::Accepted
        );
    }
    eventually("the older keys to be given up", PATIENCE, || {
        let now = NODES.map(|node| keys(cloud, node));
        now.iter().all(|keys| keys.len() == 1)
            && now.iter().zip(&before).all(|(now, before)| now != before)
    })
    .unwrap();
    let revision = cloud.rest(|client| client.status()).unwrap().revision;
    cloud.wait_applied(revision).unwrap();
    flows(receiver.received());
    let sent = sender.stop();
    let all = || receiver.received() >= sent.sent;
    // What is still under way arrives; if something was lost, the figures below say so.
    let _ = eventually("the last packets", Duration::from_secs(5), all);
    let received = receiver.stop();
    eprintln!("{} of {} packets lost", received.lost(&sent), sent.sent);
    if received.lost(&sent) > 0 {
        tell(cloud);
    }
    assert_eq!(received.lost(&sent), 0, "{received:?} of {sent:?}");
    eventually("tunnels by the new keys", PATIENCE, || {
        states(cloud) == [TunnelState::Encrypted; 2]
    })
    .unwrap();
    eventually("both to count packets and bytes", PATIENCE, || {
        counted(cloud).iter().all(|count| *count > 0)
    })
    .unwrap();
    answers(cloud);
}

#[test]
fn lab_kernel_wireguard_carries_tcp_and_replaces_keys_without_a_lost_packet() {
    let test = "lab_kernel_wireguard_carries_tcp_and_replaces_keys_without_a_lost_packet";
    if !has_wireguard(test) {
        return;
    }
    let cloud = cloud("kernel", "kernel");
    answers(&cloud);
    transfers(&cloud, "client1", "web1", WEB, 1_000_000);
    keys_change_without_loss(&cloud);
    let can_lose = NODES.map(|node| netem(&cloud, node, &["delay", "10ms", "2ms", "loss", "1%"]));
    if can_lose == [true; 2] {
        transfers(&cloud, "client1", "web1", WEB, 300_000);
        transfers(&cloud, "web1", "client1", CLIENT, 300_000);
    } else {
        eprintln!("SKIPPED delay and loss by the kernel: it has no netem, or there is no `tc`");
    }
    cloud.down().unwrap();
}

#[test]
fn lab_kernel_and_user_space_wireguard_understand_each_other() {
    if !has_wireguard("lab_kernel_and_user_space_wireguard_understand_each_other") {
        return;
    }
    let cloud = cloud("auto", "user");
    answers(&cloud);
    transfers(&cloud, "client1", "web1", WEB, 300_000);
    transfers(&cloud, "web1", "client1", CLIENT, 300_000);
    keys_change_without_loss(&cloud);
    cloud.down().unwrap();
}

#[test]
fn lab_an_agents_restart_keeps_the_kernels_sessions() {
    if !has_wireguard("lab_an_agents_restart_keeps_the_kernels_sessions") {
        return;
    }
    let mut cloud = cloud("kernel", "kernel");
    answers(&cloud);
    let indices = |cloud: &Cloud| {
        let near = cloud.lab().node(NODES[0]).unwrap();
        let found = near
            .namespace
            .run(|| nix::net::if_::if_nametoindex(DEVICES[0]));
        found.unwrap().unwrap()
    };
    let before = indices(&cloud);
    cloud
        .restart_agent(NODES[0], nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    assert_eq!(indices(&cloud), before, "the device was adopted");
    answers(&cloud);
    cloud.down().unwrap();
}
