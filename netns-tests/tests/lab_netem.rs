//! Tunnels over a network that delays, loses and reorders, by the kernel's own netem: what it does not
//! drop arrives, and a move works. `cargo xtask vmtest --suite netem` runs this where the kernel at hand
//! has none.

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod common;

use std::{process::Command, time::Duration};

use common::{CLIENT, OPEN, WEB, can_run, cloud};
use sunwire_api::EncryptionMode;
use sunwire_lab::{
    UNDERLAY_DEVICE, Workload, eventually, patient,
    traffic::{
        ping::{PingOptions, ping},
        tcp_bulk::{BulkReceiver, BulkSender},
        udp::{UdpReceiver, UdpSender},
    },
};
use sunwire_netns_tests::cloud::{Cloud, PATIENCE};

const NODES: [&str; 3] = ["near", "far", "third"];
/// What each node's packets meet on their way out.
const NETEM: [&str; 8] = [
    "delay", "20ms", "5ms", "loss", "1%", "reorder", "10%", "25%",
];
/// The middle one of some round trips takes longer: those that overtake others, which are not delayed, are
/// few.
const RTT_MS_MIN: f64 = 30.0;

/// Has the kernel disturb what every node sends, or says why it cannot.
fn disturb(cloud: &Cloud) -> Result<(), String> {
    for node in NODES {
        let netem = ["replace", "dev", UNDERLAY_DEVICE, "root", "netem"];
        tc(cloud, node, &[&netem[..], &NETEM[..]].concat())?;
    }
    Ok(())
}

/// Runs `tc qdisc` on a node and returns what it says.
fn tc(cloud: &Cloud, node: &str, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new("tc");
    command.args(["-s", "qdisc"]).args(arguments);
    let ran = cloud.lab().node(node).unwrap().namespace.exec(command);
    let output = ran.map_err(|error| format!("there is no `tc`: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

/// Packets that netem has dropped at all nodes.
fn dropped(cloud: &Cloud) -> u64 {
    let of = |node: &&str| -> u64 {
        let shown = tc(cloud, node, &["show", "dev", UNDERLAY_DEVICE]).unwrap();
        let (_, rest) = shown.split_once("(dropped ").unwrap();
        rest.split(',').next().unwrap().parse().unwrap()
    };
    NODES.iter().map(of).sum()
}

/// A cloud whose nodes' packets are disturbed; `None`, after saying why, where none can be.
fn disturbed(test: &str, mode: EncryptionMode) -> Option<Cloud> {
    if !can_run(test) {
        return None;
    }
    let cloud = cloud();
    cloud.encrypt(mode).unwrap();
    cloud.apply_policy("shop", OPEN).unwrap();
    if let Err(error) = disturb(&cloud) {
        eprintln!("SKIPPED {test}: {error}; `cargo xtask vmtest --suite netem` has netem");
        cloud.down().unwrap();
        return None;
    }
    Some(cloud)
}

fn workload(cloud: &Cloud, name: &str) -> Workload {
    cloud.lab().workload(name).unwrap()
}

/// The middle one of some round trips from the client to the server, milliseconds.
fn rtt_ms(cloud: &Cloud) -> f64 {
    let options = PingOptions {
        count: 20,
        timeout: patient(Duration::from_secs(2)),
        ..PingOptions::default()
    };
    let client = workload(cloud, "client1");
    let report = ping(client.namespace(), WEB.parse().unwrap(), options).unwrap();
    assert!(report.received() > 0, "{report:?}");
    report.median_ms().unwrap()
}

/// A connection that has carried so many bytes when it ends, of which some after `meanwhile`.
fn carries(cloud: &Cloud, ends: [(&str, &str); 2], bytes: u64, meanwhile: impl FnOnce(&Cloud)) {
    let [(from, _), (to, address)] = ends;
    let address = format!("{address}:7100").parse().unwrap();
    let receiver = BulkReceiver::start(workload(cloud, to).namespace(), address).unwrap();
    let sender = BulkSender::start(
        workload(cloud, from).namespace(),
        receiver.address(),
        None,
        patient(PATIENCE),
    )
    .unwrap();
    let more = |than: u64| {
        eventually("the bytes", PATIENCE, || receiver.bytes() > than).unwrap();
    };
    more(bytes / 2);
    meanwhile(cloud);
    more(receiver.bytes() + bytes / 2);
    assert_eq!(sender.stop().unwrap().broken, None);
    assert_eq!(receiver.finish().unwrap().broken, None);
}

/// Sends numbered datagrams; what did not arrive was dropped by netem, and some overtook others.
fn only_netem_loses(cloud: &Cloud) {
    let before = dropped(cloud);
    let (client, web) = (workload(cloud, "client1"), workload(cloud, "web1"));
    let receiver =
        UdpReceiver::start(web.namespace(), format!("{WEB}:7000").parse().unwrap()).unwrap();
    let sent = UdpSender::start(
        client.namespace(),
        receiver.address(),
        200,
        200.0,
        Some(1_000),
    )
    .unwrap();
    let sent = sent.finish();
    let all = || receiver.received() + (dropped(cloud) - before) >= sent.sent;
    // What is still under way arrives; if something was lost, the figures below say so.
    let _ = eventually("the last datagrams", PATIENCE, all);
    let received = receiver.stop();
    let (lost, by_netem) = (received.lost(&sent), dropped(cloud) - before);
    eprintln!(
        "{} datagrams, {lost} lost, {} after a later one; netem dropped {by_netem} packets of all",
        sent.sent, received.reordered
    );
    assert!(lost <= by_netem, "{received:?} of {sent:?}");
    assert!(received.reordered > 0, "{received:?}");
    assert_eq!((received.duplicates, received.malformed), (0, 0));
}

/// Traffic of both kinds works before and after the server has moved, and a connection while it does.
fn works_and_moves(cloud: &Cloud) {
    assert!(rtt_ms(cloud) > RTT_MS_MIN, "netem delays");
    let (there, back) = (("client1", CLIENT), ("web1", WEB));
    carries(cloud, [there, back], 200_000, |_| {});
    carries(cloud, [back, there], 200_000, |cloud| {
        let web = workload(cloud, "web1");
        cloud.move_endpoint(&web, "third").unwrap();
    });
    carries(cloud, [there, back], 200_000, |_| {});
}

#[test]
fn lab_netem_in_the_clear_only_what_the_network_drops_is_lost_and_a_move_works() {
    let test = "lab_netem_in_the_clear_only_what_the_network_drops_is_lost_and_a_move_works";
    let Some(cloud) = disturbed(test, EncryptionMode::Never) else {
        return;
    };
    only_netem_loses(&cloud);
    works_and_moves(&cloud);
    only_netem_loses(&cloud);
    cloud.down().unwrap();
}

#[test]
fn lab_netem_encrypted_tunnels_carry_traffic_and_a_move_works() {
    let test = "lab_netem_encrypted_tunnels_carry_traffic_and_a_move_works";
    let Some(cloud) = disturbed(test, EncryptionMode::Always) else {
        return;
    };
    works_and_moves(&cloud);
    cloud.down().unwrap();
}
