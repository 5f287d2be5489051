//! What is told of tunnels is what the links between the nodes do to packets.

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod common;

use common::can_run;
use nix::sys::signal::Signal;
use sunwire_api::{
    EncryptionMode, EncryptionSpec, TraceRequest, TunnelLiveness, TunnelProbes, TunnelState,
    TunnelStatus, client::Guard,
};
use sunwire_dataplane_common::probe;
use sunwire_lab::{
    DroppedFrame, LinkChange, LinkEnds, Topology, WorkloadSpec, eventually, eventually_ok,
    traffic::udp::{UdpReceiver, UdpSender},
};
use sunwire_netns_tests::cloud::{Cloud, PATIENCE};
use sunwire_userspace::control::{self, Answer, Request};

/// Delays of the links between `near` and `far`, which differ by direction.
const THERE_MS: f64 = 20.0;
const BACK_MS: f64 = 30.0;
/// What a node takes for its part of a round trip on a machine that is busy.
const NODES_S: f64 = 0.015;

fn cloud(mode: EncryptionMode) -> Cloud {
    let workload = |name: &str, node: &str, address: &str| {
        WorkloadSpec::new(name, node, "shop")
            .address(address)
            .unwrap()
    };
    let topology = Topology::builder()
        .node("near", "aws:us-east-1")
        .node("far", "azure:westeurope")
        .node("third", "gcp:asia-northeast1-a")
        .controller("aws:us-east-1")
        .link(
            LinkEnds::one_way("near", "far"),
            LinkChange::delay_ms(THERE_MS),
        )
        .link(
            LinkEnds::one_way("far", "near"),
            LinkChange::delay_ms(BACK_MS),
        )
        .workload(workload("client1", "near", "10.20.0.11/16"))
        .workload(workload("web1", "far", "10.20.0.12/16"))
        .build()
        .unwrap();
    let cloud = Cloud::up(topology).unwrap();
    cloud.create_network("shop", &["10.20.0.0/16"]).unwrap();
    for name in ["client1", "web1"] {
        let workload = cloud.lab().workload(name).unwrap();
        cloud.create_endpoint(&workload).unwrap();
    }
    cloud.apply_policy("shop", common::OPEN).unwrap();
    let spec = EncryptionSpec { mode };
    let set = cloud.rest(|client| client.put_encryption(&spec, Guard::Any));
    cloud.wait_applied(set.unwrap().revision).unwrap();
    let state = match mode {
        EncryptionMode::Never => TunnelState::Plaintext,
        _ => TunnelState::Encrypted,
    };
    for (from, to) in [("near", "far"), ("far", "near")] {
        eventually("the state of a tunnel", PATIENCE, || {
            tunnel(&cloud, from, to).is_ok_and(|tunnel| tunnel.state == state)
        })
        .unwrap();
    }
    cloud
}

/// What the agent of `from` says of the tunnel to `to`.
fn tunnel(cloud: &Cloud, from: &str, to: &str) -> anyhow::Result<TunnelStatus> {
    let state = &cloud.lab().node(from)?.state_dir;
    let Answer::Status { tunnels, .. } = control::call(state, &Request::Status)? else {
        anyhow::bail!("no status");
    };
    let mut tunnels = tunnels.into_iter();
    let found = tunnels.find(|tunnel| tunnel.node.as_str() == to);
    found.ok_or_else(|| anyhow::anyhow!("{from} says nothing of {to}"))
}

fn probes(cloud: &Cloud, from: &str, to: &str) -> anyhow::Result<TunnelProbes> {
    let probes = tunnel(cloud, from, to)?.probes;
    probes.ok_or_else(|| anyhow::anyhow!("{to} is not probed"))
}

/// Waits until the probes from one node to another are as told.
fn wait(
    cloud: &Cloud,
    (from, to): (&str, &str),
    what: &str,
    is_so: impl Fn(&TunnelProbes) -> bool,
) -> TunnelProbes {
    eventually_ok(what, PATIENCE, || {
        let probes = probes(cloud, from, to)?;
        match is_so(&probes) {
            true => Ok(probes),
            false => Err(anyhow::anyhow!("{probes:?}")),
        }
    })
    .unwrap()
}

fn wait_liveness(cloud: &Cloud, ends: (&str, &str), liveness: TunnelLiveness) {
    wait(cloud, ends, "the tunnel's state", |probes| {
        probes.liveness == liveness
    });
}

/// The shortest round trip is what the emulator makes of it: what the links delay, and at most what the
/// emulator says it was late, and what the nodes take.
fn assert_round_trip(cloud: &Cloud, probes: &TunnelProbes) {
    let rtt = probes.rtt.unwrap();
    let report = cloud.lab().report().unwrap();
    let late_s = |from: &str, to: &str| report.link(from, to).unwrap().lateness.max_us / 1e6;
    let least = (THERE_MS + BACK_MS) / 1e3;
    let most = least + late_s("near", "far") + late_s("far", "near") + NODES_S;
    assert!(rtt.min_s >= least, "{rtt:?}, not {least} s");
    assert!(rtt.min_s <= most, "{rtt:?}, not at most {most} s");
    assert!(
        rtt.min_s <= rtt.median_s && rtt.median_s <= rtt.max_s,
        "{rtt:?}"
    );
}

/// Whether a frame that a link dropped is a probe of this kind.
fn is_probe(frame: &DroppedFrame, from: &str, to: &str, kind: u32) -> bool {
    let payload = 50 + probe::PAYLOAD;
    frame.from == from
        && frame.to.as_deref() == Some(to)
        && frame.head[62..64] == probe::ETHER_PROBE.to_be_bytes()
        && frame.head[payload..payload + 4] == probe::MAGIC
        && frame.head[payload + 4..payload + 8] == kind.to_be_bytes()
}

#[test]
fn lab_probes_tell_the_round_trip_and_the_loss_that_the_links_have() {
    if !can_run("lab_probes_tell_the_round_trip_and_the_loss_that_the_links_have") {
        return;
    }
    let mut cloud = cloud(EncryptionMode::Never);
    let both = [("near", "far"), ("far", "near")];
    for ends in both {
        let probes = wait(&cloud, ends, "answers", |probes| probes.asked >= 5);
        assert_eq!(probes.liveness, TunnelLiveness::Up);
        assert_round_trip(&cloud, &probes);
    }
    // A trace says how long the tunnel takes that it goes through, at both ends.
    let request = TraceRequest::new("client1".parse().unwrap(), "web1");
    let traced = cloud.rest(|client| client.trace(&request)).unwrap();
    let [first, second] = &traced.hops[..] else {
        panic!("{traced:#?}");
    };
    for hop in [first, second] {
        let rtt_s = hop.flow.tunnel_rtt_s.unwrap();
        assert!(rtt_s >= (THERE_MS + BACK_MS) / 1e3, "{rtt_s}");
    }
    // An answer needs no agent.
    let before = probes(&cloud, "near", "far").unwrap();
    cloud.stop_agent("far", Signal::SIGKILL);
    let after = wait(&cloud, both[0], "answers without an agent", |probes| {
        probes.asked_total >= before.asked_total + 5
    });
    assert_eq!(after.lost_total, before.lost_total);
    cloud.start_agent("far").unwrap();
    cloud.wait_caught_up().unwrap();
    for ends in both {
        wait_liveness(&cloud, ends, TunnelLiveness::Up);
    }

    // Every probe that is told as lost is one that a link dropped, or the answer to it.
    let lost_before: Vec<u64> = both
        .iter()
        .map(|(from, to)| probes(&cloud, from, to).unwrap().lost_total)
        .collect();
    cloud.lab().keep_dropped(1 << 20).unwrap();
    let lossy = |loss: f64| {
        let lab = cloud.lab();
        lab.set_link("near", "far", LinkChange::loss(loss)).unwrap();
    };
    lossy(0.5);
    for (ends, before) in both.iter().zip(&lost_before) {
        wait(&cloud, *ends, "loss", |probes| {
            probes.lost_total >= before + 5
        });
    }
    lossy(0.0);
    let mut dropped = Vec::new();
    eventually_ok("the loss that the links tell", PATIENCE, || {
        dropped.append(&mut cloud.lab().take_dropped()?.frames);
        let of = |(from, to): (&str, &str), kind: u32| {
            let frames = dropped.iter();
            frames
                .filter(|frame| is_probe(frame, from, to, kind))
                .count() as u64
        };
        for (index, ends) in both.iter().enumerate() {
            let there = of(*ends, probe::kind::ASK);
            let back = of(both[1 - index], probe::kind::ANSWER);
            let told = probes(&cloud, ends.0, ends.1)?.lost_total - lost_before[index];
            if told != there + back {
                anyhow::bail!("{ends:?}: {told} are told, {there} and {back} were dropped");
            }
        }
        Ok(())
    })
    .unwrap();

    // A dead way is told of, also by the controller, and others are not concerned.
    let up = |up: bool| {
        let lab = cloud.lab();
        lab.set_link_both("near", "far", LinkChange::up(up))
            .unwrap();
    };
    up(false);
    for ends in both {
        wait_liveness(&cloud, ends, TunnelLiveness::Down);
    }
    eventually_ok("the controller to tell", PATIENCE, || {
        let all = cloud.rest(|client| client.tunnels())?;
        let told = |from: &str, to: &str| {
            let mut tunnels = all.tunnels.iter();
            let found = tunnels.find(|t| t.from.as_str() == from && t.to.as_str() == to);
            found.and_then(|tunnel| Some(tunnel.status.probes?.liveness))
        };
        let down = told("near", "far") == Some(TunnelLiveness::Down);
        let rest = told("near", "third") == Some(TunnelLiveness::Up);
        match down && rest {
            true => Ok(()),
            false => Err(anyhow::anyhow!("{all:?}")),
        }
    })
    .unwrap();
    up(true);
    for ends in both {
        wait_liveness(&cloud, ends, TunnelLiveness::Up);
    }

    // What workloads send is counted at both ends, and probes are not.
    let arrived = |from: &str, to: &str| tunnel(&cloud, from, to).unwrap().arrived.totals;
    let sent = |from: &str, to: &str| tunnel(&cloud, from, to).unwrap().transmitted.totals;
    let (client, web) = (
        cloud.lab().workload("client1").unwrap(),
        cloud.lab().workload("web1").unwrap(),
    );
    let (sent_before, arrived_before) = (sent("near", "far"), arrived("far", "near"));
    let to = "10.20.0.12:7000".parse().unwrap();
    let receiver = UdpReceiver::start(web.namespace(), to).unwrap();
    let sender = UdpSender::start(client.namespace(), to, 1000, 1_000.0, Some(200)).unwrap();
    assert_eq!(sender.finish().sent, 200);
    eventually("all to arrive", PATIENCE, || receiver.received() == 200).unwrap();
    // Ethernet, IPv4, UDP.
    let (packets, bytes) = (200, 200 * (14 + 20 + 8 + 1000));
    eventually_ok("both ends to have counted", PATIENCE, || {
        let (sent, arrived) = (sent("near", "far"), arrived("far", "near"));
        let more = [(sent, sent_before), (arrived, arrived_before)]
            .map(|(now, before)| (now.packets - before.packets, now.bytes - before.bytes));
        match more == [(packets, bytes); 2] {
            true => Ok(()),
            false => Err(anyhow::anyhow!("{more:?}")),
        }
    })
    .unwrap();
    cloud.down().unwrap();
}

#[test]
fn lab_probes_of_an_encrypted_tunnel_go_through_its_encryption() {
    if !can_run("lab_probes_of_an_encrypted_tunnel_go_through_its_encryption") {
        return;
    }
    let cloud = cloud(EncryptionMode::Always);
    let both = [("near", "far"), ("far", "near")];
    for (from, to) in both {
        let probes = wait(&cloud, (from, to), "answers", |probes| probes.asked >= 5);
        assert_eq!(probes.liveness, TunnelLiveness::Up);
        assert_round_trip(&cloud, &probes);
    }
    // Nothing of them is in the clear: all that a link drops is one of the encryption's datagrams.
    cloud.lab().keep_dropped(1 << 20).unwrap();
    let lab = cloud.lab();
    lab.set_link_both("near", "far", LinkChange::loss(1.0))
        .unwrap();
    for ends in both {
        wait_liveness(&cloud, ends, TunnelLiveness::Down);
    }
    lab.set_link_both("near", "far", LinkChange::loss(0.0))
        .unwrap();
    for ends in both {
        wait_liveness(&cloud, ends, TunnelLiveness::Up);
    }
    let dropped = lab.take_dropped().unwrap().frames;
    let is_udp = |frame: &&DroppedFrame| frame.head[12..14] == [8, 0] && frame.head[23] == 17;
    let datagrams: Vec<&DroppedFrame> = dropped.iter().filter(is_udp).collect();
    assert!(datagrams.len() >= 10, "{}", datagrams.len());
    for frame in datagrams {
        assert_eq!(frame.head[36..38], 51820_u16.to_be_bytes(), "{frame:?}");
    }
    cloud.down().unwrap();
}
