//! Workloads and the traffic programs, over a bridge on one node: no agent is
//! needed for two workloads to talk there.

mod common;

use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use sunwire_lab::traffic::tcp_bulk::{BulkReceiver, BulkSender};
use sunwire_lab::traffic::udp::{UdpReceiver, UdpSender};
use sunwire_lab::traffic::{http, ping};
use sunwire_lab::{
    Device, Lab, LabError, LinkChange, LinkEnds, Topology, WorkloadSpec, eventually, expect_ping,
};

const PATIENCE: Duration = Duration::from_secs(30);

fn shop() -> Lab {
    let workload = |name: &str, last: u8| {
        WorkloadSpec::new(name, "east", "shop")
            .address(&format!("10.20.0.{last}/24"))
            .and_then(|spec| spec.address(&format!("fd00:20::{last}/64")))
            .expect("well-formed addresses")
    };
    let topology = Topology::builder()
        .node("east", "aws:us-east-1")
        .node("west", "azure:westeurope")
        .link(LinkEnds::between("east", "west"), LinkChange::delay_ms(1.0))
        .workload(workload("web", 10))
        .workload(workload("client-with-a-long-name", 11))
        .build()
        .expect("a good topology");
    Lab::up(topology).expect("a lab")
}

/// Joins the host-side devices on a node by a bridge, with iproute2.
fn bridge(lab: &Lab, node: &str) {
    let devices: Vec<String> = lab
        .workloads()
        .iter()
        .filter(|workload| workload.node().name == node)
        .map(|workload| workload.host_device_name().to_owned())
        .collect();
    let mut script = "ip link add br0 type bridge && ip link set br0 up".to_owned();
    for device in devices {
        script += &format!(" && ip link set {device} master br0 up");
    }
    let mut command = Command::new("sh");
    command.args(["-c", &script]);
    let namespace = &lab.node(node).expect("the node").namespace;
    let output = namespace.exec(command).expect("a shell");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn workloads_have_the_devices_and_addresses_asked_for() {
    if !common::can_run("workloads_have_the_devices_and_addresses_asked_for") {
        return;
    }
    let lab = shop();
    let web = lab.workload("web").unwrap();
    let inside = web.device().unwrap().unwrap();
    assert_eq!(inside.mac, web.spec().effective_mac());
    assert!(inside.up && inside.mtu == 1300, "{inside:?}");
    let host = web.host_device().unwrap().unwrap();
    assert_eq!(host.name, "sw-web");
    assert!(!host.up, "the agent sets it up");
    let long = lab.workload("client-with-a-long-name").unwrap();
    assert_eq!(long.host_device_name().len(), 15);
    assert!(long.host_device().unwrap().is_some());
    assert_eq!(Device::find(web.namespace(), "none").unwrap(), None);
    let taken = lab.add_workload(WorkloadSpec::new("web", "west", "shop"));
    assert!(matches!(taken, Err(LabError::Name(_))), "{taken:?}");
}

#[test]
fn moved_host_side_arrives_down_with_the_workload_untouched() {
    if !common::can_run("moved_host_side_arrives_down_with_the_workload_untouched") {
        return;
    }
    let lab = shop();
    bridge(&lab, "east");
    let web = lab.workload("web").unwrap();
    let (east, west) = (lab.node("east").unwrap(), lab.node("west").unwrap());
    let wrong = lab.move_host_side(&web, west, east);
    assert!(matches!(wrong, Err(LabError::NotThere { .. })), "{wrong:?}");
    let inside = web.device().unwrap();
    let times = lab.move_host_side(&web, east, west).unwrap();
    assert!(times.started_ns <= times.finished_ns);
    assert_eq!(Device::find(&east.namespace, "sw-web").unwrap(), None);
    let there = Device::find(&west.namespace, "sw-web").unwrap().unwrap();
    assert_eq!((there.up, there.ifindex), (false, times.ifindex));
    // All that the workload sees is a link without a carrier, until its other side is up.
    let unplugged = inside.map(|device| Device {
        running: false,
        ..device
    });
    assert_eq!(web.device().unwrap(), unplugged);
    assert_eq!(web.node().name, "west");
}

#[test]
fn traffic_programs_work_over_both_families() {
    if !common::can_run("traffic_programs_work_over_both_families") {
        return;
    }
    let lab = shop();
    bridge(&lab, "east");
    let (web, client) = (
        lab.workload("web").unwrap(),
        lab.workload("client-with-a-long-name").unwrap(),
    );
    for ip in ["10.20.0.10", "fd00:20::10"] {
        let ip: IpAddr = ip.parse().unwrap();
        expect_ping(&client, ip).unwrap();
        let server = http::HttpServer::start(web.namespace(), (ip, 80).into(), "web").unwrap();
        let answer = http::get(client.namespace(), server.address(), PATIENCE).unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "web"));
        let body = vec![7; 300_000];
        let answer = http::post(client.namespace(), server.address(), PATIENCE, &body).unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "300000"));

        let receiver = BulkReceiver::start(web.namespace(), (ip, 0).into()).unwrap();
        let to = receiver.address();
        let sender = BulkSender::start(client.namespace(), to, Some(50.0), PATIENCE).unwrap();
        eventually("a megabyte", PATIENCE, || receiver.bytes() > 1_000_000).unwrap();
        let sent = sender.stop().unwrap();
        let received = receiver.finish().unwrap();
        assert_eq!((sent.broken, received.broken), (None, None));
        assert_eq!(sent.bytes, received.bytes);
        let counted: u64 = received.bytes_per_interval.iter().sum();
        assert_eq!(counted, received.bytes);

        let receiver = UdpReceiver::start(web.namespace(), (ip, 0).into()).unwrap();
        let to = receiver.address();
        let sender = UdpSender::start(client.namespace(), to, 100, 2_000.0, Some(500)).unwrap();
        let sent = sender.finish();
        assert_eq!(sent.sent, 500);
        eventually("all datagrams", PATIENCE, || receiver.received() == 500).unwrap();
        let received = receiver.stop();
        assert_eq!((received.lost(&sent), received.reordered), (0, 0));
    }
    let nobody = "10.20.0.99".parse().unwrap();
    let options = ping::PingOptions {
        count: 1,
        timeout: Duration::from_millis(100),
        ..ping::PingOptions::default()
    };
    let report = ping::ping(client.namespace(), nobody, options).unwrap();
    assert_eq!(report.received(), 0);
}

#[test]
fn bulk_transfer_crosses_the_emulator_with_whole_frames() {
    if !common::can_run("bulk_transfer_crosses_the_emulator_with_whole_frames") {
        return;
    }
    let lab = shop();
    let (east, west) = (lab.node("east").unwrap(), lab.node("west").unwrap());
    let at = (west.underlay_address, 0).into();
    let receiver = BulkReceiver::start(&west.namespace, at).unwrap();
    let to = receiver.address();
    let sender = BulkSender::start(&east.namespace, to, None, PATIENCE).unwrap();
    eventually("ten megabytes", PATIENCE, || receiver.bytes() > 10_000_000).unwrap();
    let sent = sender.stop().unwrap();
    assert_eq!(receiver.finish().unwrap().bytes, sent.bytes);
    let report = lab.report().unwrap();
    assert!(report.unrouted.is_empty(), "{:?}", report.unrouted);
    let link = report.link("east", "west").unwrap();
    let mean = link.delivered_bytes / link.delivered_frames;
    assert!((600..=1514).contains(&mean), "mean frame of {mean} bytes");
}

#[test]
fn rate_limit_drops_are_in_the_drop_log() {
    if !common::can_run("rate_limit_drops_are_in_the_drop_log") {
        return;
    }
    let lab = shop();
    let slow = LinkChange {
        rate_mbps: Some(1.0),
        queue_packets: Some(5),
        ..LinkChange::default()
    };
    lab.set_link("east", "west", slow).unwrap();
    let (east, west) = (lab.node("east").unwrap(), lab.node("west").unwrap());
    let at = (west.underlay_address, 0).into();
    let receiver = UdpReceiver::start(&west.namespace, at).unwrap();
    let to = receiver.address();
    let sender = UdpSender::start(&east.namespace, to, 1_000, 5_000.0, Some(1_000)).unwrap();
    let sent = sender.finish().sent;
    let accounted = || {
        let report = lab.report().unwrap();
        let link = report.link("east", "west").unwrap();
        let dropped: u64 = link.dropped.values().sum();
        (link.delivered_frames, dropped)
    };
    eventually("every frame accounted for", PATIENCE, || {
        let (delivered, dropped) = accounted();
        delivered + dropped >= sent
    })
    .unwrap();
    let (delivered, dropped) = accounted();
    assert_eq!(delivered + dropped, sent, "{delivered} + {dropped}");
    assert!(dropped > sent / 2, "{dropped} dropped");
    eventually("all delivered", PATIENCE, || {
        receiver.received() == delivered
    })
    .unwrap();
    let report = lab.report().unwrap();
    let link = report.link("east", "west").unwrap();
    assert_eq!(link.recent_drops.len(), 64);
    let last = link.recent_drops[63];
    assert_eq!(last.reason, sunwire_lab::DropReason::QueueFull);
    assert_eq!(last.length_bytes, 1_042);
}
