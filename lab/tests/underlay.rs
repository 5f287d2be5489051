//! The underlay of a lab as its nodes see it.

mod common;

use std::process::Command;
use std::time::Duration;

use sunwire_lab::traffic::ping::{PingOptions, ping};
use sunwire_lab::{DropReason, Lab, LinkChange, LinkEnds, Topology, expect_no_ping, expect_ping};

fn two_nodes() -> Topology {
    Topology::builder()
        .node("east", "aws:us-east-1")
        .node("west", "azure:westeurope")
        .link(
            LinkEnds::between("east", "west"),
            LinkChange::delay_ms(10.0),
        )
        .build()
        .expect("a topology of known regions")
}

#[test]
fn ping_between_nodes_takes_at_least_the_configured_round_trip() {
    if !common::can_run("ping_between_nodes_takes_at_least_the_configured_round_trip") {
        return;
    }
    let lab = Lab::up(two_nodes()).unwrap();
    let (east, west) = (lab.node("east").unwrap(), lab.node("west").unwrap());
    expect_ping(east, west.underlay_address.into()).unwrap();
    let options = PingOptions {
        count: 50,
        ..PingOptions::default()
    };
    let report = ping(&east.namespace, west.underlay_address.into(), options).unwrap();
    assert_eq!(report.received(), 50);
    assert!(report.min_ms().unwrap() >= 20.0, "{report:?}");
    let emulator = lab.report().unwrap();
    let link = emulator.link("east", "west").unwrap();
    assert!(link.lateness.frames >= 50, "{link:?}");
    assert_eq!(link.delivered_frames, link.lateness.frames);
    println!(
        "2 x 10 ms: RTT median {:.3} ms, max {:.3} ms; emulator {:?}",
        report.median_ms().unwrap(),
        report.max_ms().unwrap(),
        link.lateness
    );
    lab.down().unwrap();
}

#[test]
fn link_taken_down_while_running_stops_pings_until_it_is_up_again() {
    if !common::can_run("link_taken_down_while_running_stops_pings_until_it_is_up_again") {
        return;
    }
    let lab = Lab::up(two_nodes()).unwrap();
    let (east, west) = (lab.node("east").unwrap(), lab.node("west").unwrap());
    expect_ping(east, west.underlay_address.into()).unwrap();
    lab.set_link("west", "east", LinkChange::up(false)).unwrap();
    let patience = Duration::from_millis(300);
    expect_no_ping(east, west.underlay_address.into(), patience).unwrap();
    let report = lab.report().unwrap();
    let drops = &report.link("west", "east").unwrap().dropped;
    assert_eq!(drops[&DropReason::LinkDown], 3);
    lab.set_link("west", "east", LinkChange::up(true)).unwrap();
    expect_ping(east, west.underlay_address.into()).unwrap();
}

#[test]
fn frames_for_another_hardware_address_than_the_gateways_are_not_forwarded() {
    let name = "frames_for_another_hardware_address_than_the_gateways_are_not_forwarded";
    if !common::can_run(name) {
        return;
    }
    let lab = Lab::up(two_nodes()).unwrap();
    let (east, west) = (lab.node("east").unwrap(), lab.node("west").unwrap());
    expect_ping(east, west.underlay_address.into()).unwrap();
    let gateway = east.underlay_gateway;
    let neighbour = |arguments: &str| {
        let mut ip = Command::new("ip");
        ip.args(format!("neigh {arguments}").split(' '));
        let output = east.namespace.exec(ip).unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    neighbour(&format!(
        "replace {gateway} lladdr 02:00:00:00:00:99 dev wan0"
    ));
    let patience = Duration::from_millis(200);
    expect_no_ping(east, west.underlay_address.into(), patience).unwrap();
    let unrouted = lab.report().unwrap().unrouted;
    assert_eq!(unrouted[0].from, "east");
    assert_eq!(unrouted[0].dropped[&DropReason::NotForwardable], 3);
    neighbour(&format!("del {gateway} dev wan0"));
    expect_ping(east, west.underlay_address.into()).unwrap();
}

#[test]
fn address_of_no_node_is_a_drop_of_its_sender() {
    if !common::can_run("address_of_no_node_is_a_drop_of_its_sender") {
        return;
    }
    let lab = Lab::up(two_nodes()).unwrap();
    let east = lab.node("east").unwrap();
    let nobody = "10.99.99.99".parse().unwrap();
    expect_no_ping(east, nobody, Duration::from_millis(200)).unwrap();
    let unrouted = lab.report().unwrap().unrouted;
    assert_eq!(unrouted[0].dropped[&DropReason::NoRoute], 3);
    assert_eq!(unrouted[0].recent_drops.len(), 3);
    lab.reset_report().unwrap();
    assert!(lab.report().unwrap().unrouted.is_empty());
}
