//! Forwarding does not need the agent or the controller: their restarts lose no packet.

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod common;

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    time::Duration,
};

use common::{
    CLIENT, OPEN, WEB,
    asking::{ask, dhcp, exchange},
    can_run, cloud,
    telling::first_flow,
};
use dhcproto::v4;
use hickory_proto::{
    op::ResponseCode,
    rr::{RData, RecordType},
};
use nix::sys::signal::Signal;
use sunwire_api::{
    EncryptionMode, EncryptionSpec, TunnelState,
    client::{Client, Guard},
};
use sunwire_lab::{
    eventually, eventually_ok,
    traffic::{
        ping::{PingOptions, ping},
        udp::{UdpReceiver, UdpSender},
    },
};
use sunwire_netns_tests::cloud::{Cloud, PATIENCE};
use sunwire_userspace::{
    control::{self, Answer, Request},
    crypt::{self, protocol},
};

/// Frames that the lab or the machine dropped, which are no loss of the system under test.
fn drops_of_the_lab(cloud: &Cloud) -> u64 {
    let report = cloud.lab().report().unwrap();
    let links: u64 = report
        .links
        .iter()
        .flat_map(|link| link.dropped.values())
        .sum();
    links + report.socket_overflow_frames + report.machine_backlog_drops
}

fn loses_nothing(cloud: &mut Cloud, disturb: impl FnOnce(&mut Cloud)) {
    let (client, web) = (
        cloud.lab().workload("client1").expect("the lab has it"),
        cloud.lab().workload("web1").expect("the lab has it"),
    );
    let warm = ping(
        client.namespace(),
        WEB.parse().expect("an address"),
        PingOptions::default(),
    )
    .unwrap();
    assert_eq!(warm.received(), 5);

    let dropped_before = drops_of_the_lab(cloud);
    let receiver = UdpReceiver::start(
        web.namespace(),
        format!("{WEB}:7000").parse().expect("an address"),
    )
    .unwrap();
    let sender =
        UdpSender::start(client.namespace(), receiver.address(), 64, 1_000.0, None).unwrap();
    let flows = |from: u64| {
        eventually("traffic to flow", PATIENCE, || {
            receiver.received() > from + 500
        })
        .unwrap();
    };
    flows(0);
    disturb(cloud);
    flows(receiver.received());
    let sent = sender.stop();
    let all = || receiver.received() >= sent.sent;
    // What is still under way arrives; if something was lost, the figures below say so.
    let _ = eventually("the last packets", Duration::from_secs(5), all);
    let received = receiver.stop();
    let dropped = drops_of_the_lab(cloud) - dropped_before;
    eprintln!(
        "{} of {} packets lost, {dropped} dropped by the lab",
        received.lost(&sent),
        sent.sent
    );
    assert!(
        received.lost(&sent) <= dropped,
        "{} of {} packets were lost and the lab dropped {dropped}",
        received.lost(&sent),
        sent.sent
    );
}

#[test]
fn restarts_of_agents_and_the_controller_lose_no_packet() {
    if !can_run("restarts_of_agents_and_the_controller_lose_no_packet") {
        return;
    }
    let mut cloud = cloud();
    cloud.apply_policy("shop", OPEN).unwrap();
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        for node in ["near", "far"] {
            loses_nothing(&mut cloud, |cloud| {
                cloud.stop_agent(node, signal);
                cloud.start_agent(node).unwrap();
                cloud.wait_connected().unwrap();
                // The new agent has the whole state in force, not only a connection.
                let revision = cloud.rest(|client| client.status()).unwrap().revision;
                cloud.wait_applied(revision).unwrap();
            });
        }
        loses_nothing(&mut cloud, |cloud| {
            cloud.stop_controller(signal);
            cloud.start_controller().unwrap();
            cloud.wait_connected().unwrap();
        });
    }
    // And the policy is still there to be changed.
    cloud
        .apply_policy("shop", "network shop\npolicy main = drop \"closed\"\n")
        .unwrap();
    let client = cloud.lab().workload("client1").unwrap();
    let report = ping(
        client.namespace(),
        WEB.parse().unwrap(),
        PingOptions {
            timeout: Duration::from_millis(300),
            ..PingOptions::default()
        },
    );
    assert_eq!(report.unwrap().received(), 0);
    cloud.down().unwrap();
}

/// Makes what is pinned on a node be of a layout that its next agent does not know.
fn forget_layout(cloud: &Cloud, node: &str) {
    let directory = &cloud.lab().node(node).unwrap().bpf_dir;
    let mut pinned = std::fs::read_dir(directory).unwrap().flatten();
    let maps = pinned.find(|entry| entry.file_name().to_string_lossy().starts_with("maps-v"));
    let maps = maps.expect("the agent pins its maps").path();
    std::fs::rename(maps, directory.join("maps-v0")).unwrap();
}

#[test]
fn lab_agents_of_another_map_layout_lose_no_packet() {
    if !can_run("lab_agents_of_another_map_layout_lose_no_packet") {
        return;
    }
    let mut cloud = cloud();
    cloud.apply_policy("shop", OPEN).unwrap();
    for mode in [EncryptionMode::Never, EncryptionMode::BetweenClouds] {
        let set = |client: &Client| client.put_encryption(&EncryptionSpec { mode }, Guard::Any);
        let set = cloud.rest(set).unwrap();
        cloud.wait_applied(set.revision).unwrap();
        for node in ["near", "far"] {
            loses_nothing(&mut cloud, |cloud| {
                cloud.stop_agent(node, Signal::SIGKILL);
                forget_layout(cloud, node);
                cloud.start_agent(node).unwrap();
                cloud.wait_caught_up().unwrap();
            });
            let directory = &cloud.lab().node(node).unwrap().bpf_dir;
            assert!(!directory.join("maps-v0").exists(), "nobody needs them");
        }
    }
    cloud.down().unwrap();
}

/// Lets pings, a stream of datagrams and one kind of connection through.
const SOME: &str = "network shop
    policy main =
        if icmp then forward \"pings\"
        else if udp and dst port 7000 then forward \"stream\"
        else if tcp and dst port 7100 then forward \"connections\"
        else if established then forward \"replies\"
        else drop \"nothing else\"
";

/// Where an agent keeps the state in force.
fn kept(cloud: &Cloud, node: &str) -> PathBuf {
    cloud.lab().node(node).unwrap().state_dir.join("last-known")
}

/// Whether an agent is connected, the revision that it has, and how its tunnels are.
fn status(cloud: &Cloud, node: &str) -> Result<(bool, u64, Vec<TunnelState>), String> {
    let directory = &cloud.lab().node(node).unwrap().state_dir;
    match control::call(directory, &Request::Status) {
        Ok(Answer::Status {
            connected,
            revision,
            tunnels,
            ..
        }) => {
            let states = tunnels.iter().map(|tunnel| tunnel.state).collect();
            Ok((connected, revision, states))
        }
        other => Err(format!("{other:?}")),
    }
}

/// Waits until an agent without the controller has a revision in force.
fn wait_alone(cloud: &Cloud, node: &str, wanted: u64) {
    eventually_ok(
        "an agent to go by what it has",
        PATIENCE,
        || match status(cloud, node)? {
            (false, revision, _) if revision == wanted => Ok(()),
            other => Err(format!("{node}: {other:?}")),
        },
    )
    .unwrap();
}

/// Connects from `client1` to `web1`.
fn connect(cloud: &Cloud, port: u16, within: Duration) -> bool {
    let at: SocketAddr = format!("{WEB}:{port}").parse().unwrap();
    let client = cloud.lab().workload("client1").unwrap();
    let stream = client
        .namespace()
        .run(|| TcpStream::connect_timeout(&at, within).is_ok());
    stream.unwrap()
}

/// Everything that an agent does of itself for its workloads, as they see it.
fn serves_its_workloads(cloud: &Cloud) {
    let client = cloud.lab().workload("client1").unwrap();
    let offer = exchange(&client, &dhcp(&client, v4::MessageType::Discover));
    assert_eq!(offer.opts().msg_type(), Some(v4::MessageType::Offer));
    assert_eq!(offer.yiaddr().to_string(), CLIENT);
    let gateway = "10.20.0.1".parse().unwrap();
    let answer = ask(&client, gateway, "web1.shop.internal.", RecordType::A);
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    let RData::A(address) = &answer.answers[0].data else {
        panic!("{answer:?}")
    };
    assert_eq!(address.to_string(), WEB);

    for node in ["near", "far"] {
        let flow = first_flow(cloud, node, "from client1 and to web1 and icmp", 1);
        assert_eq!(flow.network.as_deref(), Some("shop"));
        assert_eq!(flow.destination.as_deref(), Some("web1"));
    }
    let sent = first_flow(cloud, "near", "from client1 and icmp", 1);
    assert_eq!(sent.label.as_deref(), Some("pings"));
    assert_eq!(sent.next_node.as_deref(), Some("far"));

    let web = cloud.lab().workload("web1").unwrap();
    let listen = |port: u16| {
        let at: SocketAddr = format!("{WEB}:{port}").parse().unwrap();
        web.namespace()
            .run(|| TcpListener::bind(at))
            .unwrap()
            .unwrap()
    };
    let _listening = (listen(7100), listen(7200));
    assert!(connect(cloud, 7100, PATIENCE), "the policy lets it through");
    assert!(
        !connect(cloud, 7200, Duration::from_millis(500)),
        "it does not"
    );
}

#[test]
fn lab_an_agent_that_starts_without_the_controller_goes_on_as_before() {
    if !can_run("lab_an_agent_that_starts_without_the_controller_goes_on_as_before") {
        return;
    }
    let mut cloud = cloud();
    cloud.apply_policy("shop", SOME).unwrap();
    for node in ["near", "far"] {
        eventually("the state in force to be kept", PATIENCE, || {
            kept(&cloud, node).exists()
        })
        .unwrap();
    }
    let (_, revision, _) = status(&cloud, "near").unwrap();
    cloud.stop_controller(Signal::SIGKILL);
    for node in ["near", "far"] {
        loses_nothing(&mut cloud, |cloud| {
            cloud.stop_agent(node, Signal::SIGKILL);
            cloud.start_agent(node).unwrap();
            wait_alone(cloud, node, revision);
        });
    }
    serves_its_workloads(&cloud);

    // With maps of another layout, or after the node was rebooted, the policy is in the file alone.
    loses_nothing(&mut cloud, |cloud| {
        cloud.stop_agent("near", Signal::SIGKILL);
        forget_layout(cloud, "near");
        cloud.start_agent("near").unwrap();
        wait_alone(cloud, "near", revision);
    });
    serves_its_workloads(&cloud);

    // What encrypts is looked after too.
    let directory = cloud.lab().node("near").unwrap().state_dir.clone();
    crypt::call(&directory, &protocol::Request::End).unwrap();
    eventually_ok("tunnels to be up again", PATIENCE, || {
        match status(&cloud, "near")? {
            (_, _, states) if states.iter().all(|state| *state == TunnelState::Encrypted) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .unwrap();
    serves_its_workloads(&cloud);

    // The controller comes back, and what it says counts.
    cloud.start_controller().unwrap();
    cloud.wait_caught_up().unwrap();
    cloud
        .apply_policy("shop", "network shop policy main = drop \"closed\"")
        .unwrap();
    let flow = first_flow(&cloud, "near", "from client1 and drop and icmp", 1);
    assert_eq!(flow.label.as_deref(), Some("closed"));
    cloud.down().unwrap();
}

#[test]
fn lab_a_damaged_state_on_disk_is_told_and_not_gone_by() {
    if !can_run("lab_a_damaged_state_on_disk_is_told_and_not_gone_by") {
        return;
    }
    let mut cloud = cloud();
    cloud.apply_policy("shop", OPEN).unwrap();
    let file = kept(&cloud, "near");
    eventually("the state in force to be kept", PATIENCE, || file.exists()).unwrap();
    cloud.stop_controller(Signal::SIGKILL);
    loses_nothing(&mut cloud, |cloud| {
        cloud.stop_agent("near", Signal::SIGKILL);
        let bytes = std::fs::read(&file).unwrap();
        std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
        cloud.start_agent("near").unwrap();
        wait_alone(cloud, "near", 0);
    });
    let log = cloud.lab().node("near").unwrap().log_path("agent");
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("it is damaged or cut short"), "{log}");
    cloud.start_controller().unwrap();
    cloud.wait_caught_up().unwrap();
    // What is in force now takes its place.
    cloud.apply_policy("shop", SOME).unwrap();
    eventually("the state in force to be kept", PATIENCE, || {
        std::fs::read(&file).is_ok_and(|bytes| bytes.len() > 16)
    })
    .unwrap();
    cloud.down().unwrap();
}
