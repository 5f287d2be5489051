//! First light: one virtual network over three clouds.
//!
//! Three nodes in three clouds, an HTTP server, a client and a database port on one network. The
//! claims: every node reaches every other directly, nothing detours, the policy decides, an
//! endpoint moves with its connections, and a change of policy is atomic for every packet.

use std::{net::IpAddr, thread, time::Duration};

use anyhow::{Context as _, Result};
use sunwire_lab::{
    Shutdown, Topology, Workload, WorkloadSpec, eventually,
    traffic::{
        http::{self, HttpServer},
        ping::{PingOptions, ping},
        tcp_bulk::{BulkReceiver, BulkSender},
        udp::{UdpReceiver, UdpSender},
    },
};

use crate::{
    capture::{Capture, Marks, SETTLE},
    cloud::{Cloud, PATIENCE},
    demo::{Claim, Figures, Narrator},
};

/// The demo's name, and that of its report.
pub const NAME: &str = "first-light";

const POLICY: &str = include_str!("../../../examples/first-light.nk");
const POLICY_A: &str = include_str!("../../../examples/atomic-a.nk");
const POLICY_B: &str = include_str!("../../../examples/atomic-b.nk");
/// The name under which the controller keeps the policy.
const POLICY_NAME: &str = "shop";

const NODES: [(&str, &str); 3] = [
    ("aws", "aws:us-east-1"),
    ("azure", "azure:westeurope"),
    ("gcp", "gcp:asia-northeast1-a"),
];
/// Name, node, IPv4, IPv6.
const WORKLOADS: [(&str, &str, &str, &str); 3] = [
    ("client1", "aws", "10.20.0.11", "fd00:20::11"),
    ("web1", "azure", "10.20.0.12", "fd00:20::12"),
    ("db1", "gcp", "10.20.0.13", "fd00:20::13"),
];

/// How much slower than the underlay the overlay may be.
const DETOUR_MS_MAX: f64 = 1.0;
/// How late the emulator may be, for the figures to mean anything.
const LATENESS_P99_MS_MAX: f64 = 1.0;
/// How often round trips are taken while the emulator is late.
const ATTEMPTS_MAX: u32 = 8;
/// Flips of the policy, and packets that must be seen across them.
const FLIPS: usize = 100;
const CAPTURED_MIN: u64 = 100_000;
const PACKETS_PER_S: f64 = 8_000.0;
/// Datagrams beside the transfer of a move.
const DATAGRAMS_PER_S: f64 = 1_000.0;
/// What revisions A and B make of a packet: DSCP and destination port.
const MARK_A: (u8, u16) = (10, 7001);
const MARK_B: (u8, u16) = (20, 7002);

/// Runs the demo; returns whether every claim held.
///
/// # Errors
/// When the cloud does not come up, or the report cannot be written.
pub fn run() -> Result<bool> {
    let shutdown = Shutdown::on_signals()?;
    let mut narrator = Narrator::default();
    narrator.say("lab: three clouds, an underlay with their round-trip times");
    let cloud = Cloud::up(topology()?)?;
    narrator.say("controller and three agents run; making the network shop");
    cloud.create_network("shop", &["10.20.0.0/16", "fd00:20::/64"])?;
    let shop = Shop::new(&cloud, &shutdown)?;
    cloud.apply_policy(POLICY_NAME, POLICY)?;

    narrator.claim("mesh", |_| mesh(&shop));
    narrator.claim("no-detour", |_| no_detour(&shop));
    narrator.claim("policy", |_| policy(&shop));
    narrator.claim("move", |_| move_under_traffic(&shop));
    narrator.claim("atomic", |narrator| atomic(&shop, narrator));
    drop(shop);
    cloud.down()?;
    anyhow::ensure!(!shutdown.is_requested(), "stopped by a signal");
    narrator.finish(NAME)
}

fn topology() -> Result<Topology> {
    let mut builder = Topology::builder().controller(NODES[0].1);
    for (name, region) in NODES {
        builder = builder.node(name, region);
    }
    for (name, node, v4, v6) in WORKLOADS {
        let spec = WorkloadSpec::new(name, node, "shop")
            .address(&format!("{v4}/16"))?
            .address(&format!("{v6}/64"))?;
        builder = builder.workload(spec);
    }
    Ok(builder.build()?)
}

/// The three workloads.
struct Shop<'a> {
    cloud: &'a Cloud,
    shutdown: &'a Shutdown,
    client: Workload,
    web: Workload,
    db: Workload,
}

impl<'a> Shop<'a> {
    fn new(cloud: &'a Cloud, shutdown: &'a Shutdown) -> Result<Self> {
        let [client, web, db] = ["client1", "web1", "db1"].map(|name| cloud.lab().workload(name));
        let shop = Shop {
            cloud,
            shutdown,
            client: client?,
            web: web?,
            db: db?,
        };
        for workload in shop.all() {
            cloud.create_endpoint(workload)?;
        }
        Ok(shop)
    }

    /// An error once Ctrl-C was pressed: asked between steps, so that the rest is not waited for.
    fn go_on(&self) -> Result<()> {
        anyhow::ensure!(!self.shutdown.is_requested(), "stopped by a signal");
        Ok(())
    }

    fn all(&self) -> [&Workload; 3] {
        [&self.client, &self.web, &self.db]
    }

    /// Every ordered pair of different workloads.
    fn pairs(&self) -> Vec<(&Workload, &Workload)> {
        let all = self.all();
        let pairs = all
            .iter()
            .flat_map(|from| all.iter().map(move |to| (*from, *to)));
        pairs
            .filter(|(from, to)| from.name() != to.name())
            .collect()
    }
}

fn address(workload: &Workload, v4: bool) -> Result<IpAddr> {
    let mut addresses = workload.spec().addresses.iter().map(|address| address.ip);
    addresses
        .find(|address| address.is_ipv4() == v4)
        .with_context(|| format!("{} has no such address", workload.name()))
}

/// Every node is connected and every workload reaches every other, IPv4 and IPv6.
fn mesh(shop: &Shop<'_>) -> Result<Claim> {
    let status = shop.cloud.rest(|client| client.status())?;
    let connected = status.nodes.iter().filter(|node| node.connected).count();
    let mut reached = 0;
    let mut missed = Vec::new();
    for (from, to) in shop.pairs() {
        shop.go_on()?;
        for v4 in [true, false] {
            let report = ping(from.namespace(), address(to, v4)?, PingOptions::default())?;
            if report.received() > 0 {
                reached += 1;
            } else {
                let family = if v4 { "IPv4" } else { "IPv6" };
                missed.push(format!("{} to {} over {family}", from.name(), to.name()));
            }
        }
    }
    let wanted = shop.pairs().len() * 2;
    let mut figures = Figures::default();
    figures.set("nodes", connected);
    figures.set("pairs_reached", reached);
    figures.set("pairs", wanted);
    let held = connected == NODES.len() && reached == wanted;
    let summary = if held {
        format!(
            "{connected} nodes in three clouds, {reached} of {wanted} pairs reach each other over IPv4 and IPv6"
        )
    } else {
        format!(
            "{connected} nodes are connected; not reached: {}",
            missed.join(", ")
        )
    };
    Ok(figures.claim("mesh", held, summary))
}

/// The overlay takes as long as the underlay, and HTTP works across clouds.
///
/// Round trips measured while the emulator was late say nothing, so they are taken again; how
/// often is among the figures.
fn no_detour(shop: &Shop<'_>) -> Result<Claim> {
    let lab = shop.cloud.lab();
    let mut attempts = 0;
    let (mut figures, worst_ms, lateness_ms) = loop {
        shop.go_on()?;
        attempts += 1;
        lab.reset_report()?;
        let (figures, worst_ms) = added_round_trips(shop)?;
        let lateness_ms = lab.report()?.worst_lateness().p99_us / 1e3;
        if lateness_ms <= LATENESS_P99_MS_MAX || attempts == ATTEMPTS_MAX {
            break (figures, worst_ms, lateness_ms);
        }
    };
    for v4 in [true, false] {
        let at = (address(&shop.web, v4)?, 80).into();
        let _server = HttpServer::start(shop.web.namespace(), at, "web1")?;
        let answer = http::get(shop.client.namespace(), at, PATIENCE)?;
        anyhow::ensure!(
            answer.status == 200 && answer.body == "web1",
            "HTTP answered {answer:?}"
        );
        let family = if v4 { "ipv4" } else { "ipv6" };
        let elapsed_ms = answer.elapsed.as_secs_f64() * 1e3;
        figures.set_ms(&format!("http_{family}_ms"), elapsed_ms);
    }
    figures.set_ms("added_rtt_ms_max", worst_ms);
    figures.set_ms("emulator_lateness_p99_ms", lateness_ms);
    figures.set("attempts", attempts);
    let held = worst_ms <= DETOUR_MS_MAX && lateness_ms <= LATENESS_P99_MS_MAX;
    let summary = format!(
        "the overlay adds at most {worst_ms:.3} ms to the underlay's round trip (limit \
         {DETOUR_MS_MAX} ms; emulator late by {lateness_ms:.3} ms at the 99th percentile, limit \
         {LATENESS_P99_MS_MAX} ms)"
    );
    Ok(figures.claim("no-detour", held, summary))
}

/// Median round trips of underlay and overlay between all pairs, all at once, and by how much the
/// overlay's exceed the underlay's at most.
fn added_round_trips(shop: &Shop<'_>) -> Result<(Figures, f64)> {
    let options = PingOptions {
        count: 15,
        ..PingOptions::default()
    };
    let median = |from: &sunwire_lab::Namespace, to: IpAddr| -> Result<f64> {
        let report = ping(from, to, options)?;
        report
            .median_ms()
            .with_context(|| format!("{to} does not answer"))
    };
    let pairs = shop.pairs();
    let pairs = pairs.iter().filter(|(from, to)| from.name() < to.name());
    let measured: Vec<Result<_>> = thread::scope(|scope| {
        let threads: Vec<_> = pairs
            .map(|(from, to)| {
                let (from_node, to_node) = (from.node(), to.node());
                let names = format!("{}_{}", from_node.name, to_node.name);
                let underlay = scope.spawn(move || {
                    median(&from_node.namespace, IpAddr::V4(to_node.underlay_address))
                });
                let overlay = [true, false]
                    .map(|v4| scope.spawn(move || median(from.namespace(), address(to, v4)?)));
                (names, underlay, overlay)
            })
            .collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Result<f64>>| {
            thread
                .join()
                .unwrap_or_else(|_| Err(anyhow::anyhow!("a ping panicked")))
        };
        let joined = threads
            .into_iter()
            .map(|(names, underlay, [v4, v6])| Ok((names, join(underlay)?, join(v4)?, join(v6)?)));
        joined.collect()
    });
    let mut figures = Figures::default();
    let mut worst_ms = f64::MIN;
    for pair in measured {
        let (names, underlay, v4, v6) = pair?;
        figures.set_ms(&format!("{names}_underlay_rtt_ms"), underlay);
        figures.set_ms(&format!("{names}_ipv4_rtt_ms"), v4);
        figures.set_ms(&format!("{names}_ipv6_rtt_ms"), v6);
        worst_ms = worst_ms.max(v4 - underlay).max(v6 - underlay);
    }
    Ok((figures, worst_ms))
}

/// Allowed flows work; denied ones do not, and are counted under the policy's label.
fn policy(shop: &Shop<'_>) -> Result<Claim> {
    let mut figures = Figures::default();
    let mut wrong = Vec::new();
    for v4 in [true, false] {
        shop.go_on()?;
        let web = |port| Ok::<_, anyhow::Error>((address(&shop.web, v4)?, port).into());
        let db = (address(&shop.db, v4)?, 5432).into();
        let _http = HttpServer::start(shop.web.namespace(), web(80)?, "web1")?;
        let _ssh = HttpServer::start(shop.web.namespace(), web(22)?, "ssh")?;
        let _db = HttpServer::start(shop.db.namespace(), db, "db1")?;
        let denied_timeout = Duration::from_millis(1_500);

        let before = denied_packets(shop)?;
        for (from, to, what) in [
            (&shop.client, web(80)?, "client1 to web1 port 80"),
            (&shop.db, web(80)?, "db1 to web1 port 80"),
            (&shop.web, db, "web1 to db1 port 5432"),
        ] {
            match http::get(from.namespace(), to, PATIENCE) {
                Ok(answer) if answer.status == 200 => {}
                Ok(answer) => wrong.push(format!("{what} answered {}", answer.status)),
                Err(error) => wrong.push(format!("{what} is allowed and failed: {error}")),
            }
        }
        let between = denied_packets(shop)?;
        if between != before {
            wrong.push(format!(
                "{} packets of allowed flows were denied",
                between - before
            ));
        }
        let denied = [
            (&shop.client, db, "client1 to db1 port 5432"),
            (&shop.client, web(22)?, "client1 to web1 port 22"),
            (
                &shop.web,
                (address(&shop.db, v4)?, 22).into(),
                "web1 to db1 port 22",
            ),
        ];
        for (from, to, what) in denied {
            if http::get(from.namespace(), to, denied_timeout).is_ok() {
                wrong.push(format!("{what} is denied and worked"));
            }
        }
        let counted = denied_packets(shop)? - between;
        // Every denied attempt is at least one SYN.
        if counted < denied.len() as u64 {
            wrong.push(format!(
                "{} denied attempts were counted as {counted} packets",
                denied.len()
            ));
        }
        let family = if v4 { "ipv4" } else { "ipv6" };
        figures.set(&format!("denied_{family}_packets"), counted);
    }
    figures.set("allowed_flows", 6);
    figures.set("denied_flows", 6);
    let held = wrong.is_empty();
    let summary = if held {
        "6 allowed flows work, 6 denied ones do not and are counted under \"default deny\""
            .to_owned()
    } else {
        wrong.join("; ")
    };
    Ok(figures.claim("policy", held, summary))
}

/// Packets under "default deny", once every agent has reported what happened so far.
fn denied_packets(shop: &Shop<'_>) -> Result<u64> {
    // Agents report every second; three reports without a change mean that nothing is missing.
    let mut last = shop.cloud.label_packets("default deny")?;
    let mut same = 0;
    while same < 3 {
        thread::sleep(Duration::from_millis(700));
        let now = shop.cloud.label_packets("default deny")?;
        same = if now == last { same + 1 } else { 0 };
        last = now;
    }
    Ok(last)
}

/// The web server moves to another cloud while a transfer to it runs, and a stream of numbered
/// datagrams beside it tells how many packets the move costs.
fn move_under_traffic(shop: &Shop<'_>) -> Result<Claim> {
    shop.go_on()?;
    // Revision A lets the datagrams through, as port 7001.
    shop.cloud.apply_policy(POLICY_NAME, POLICY_A)?;
    let at = |port| Ok::<_, anyhow::Error>((address(&shop.web, true)?, port).into());
    let lab = shop.cloud.lab();
    let receiver = BulkReceiver::start(shop.web.namespace(), at(80)?)?;
    let datagrams = UdpReceiver::start(shop.web.namespace(), at(MARK_A.1)?)?;
    let sender = BulkSender::start(shop.client.namespace(), at(80)?, Some(40.0), PATIENCE)?;
    let datagrams_out = UdpSender::start(
        shop.client.namespace(),
        at(7000)?,
        64,
        DATAGRAMS_PER_S,
        None,
    )?;
    let flows = |bytes: u64, packets: u64| {
        eventually("the transfer to go on", PATIENCE, || {
            receiver.bytes() > bytes + (256 << 10) && datagrams.received() > packets + 100
        })
    };
    flows(0, 0)?;
    let emulator_before = emulator_drops(lab)?;
    let moved = shop.cloud.move_endpoint(&shop.web, "gcp")?;
    flows(receiver.bytes(), datagrams.received())?;
    let (sent, sent_datagrams) = (sender.stop()?, datagrams_out.stop());
    let received = receiver.finish()?;
    thread::sleep(SETTLE);
    let received_datagrams = datagrams.stop();
    let emulator_dropped = emulator_drops(lab)? - emulator_before;
    // Back to where it was, for the claims that follow.
    shop.cloud.move_endpoint(&shop.web, "azure")?;

    let unbroken = sent.broken.is_none() && received.broken.is_none();
    let lost = received_datagrams.lost(&sent_datagrams);
    let mut figures = Figures::default();
    figures.set_ms("gap_ms", received.largest_gap_ms);
    figures.set("retransmits", sent.retransmits);
    figures.set("bytes", received.bytes);
    figures.set("packets_lost", lost);
    figures.set("packets_sent", sent_datagrams.sent);
    figures.set_ms("packets_gap_ms", received_datagrams.largest_gap_ms);
    figures.set_ms("attached_ms", moved.attached_ms);
    figures.set_ms("published_ms", moved.published_ms);
    figures.set("emulator_dropped_frames", emulator_dropped);
    let held = unbroken && sent.bytes == received.bytes;
    let summary = if held {
        format!(
            "web1 moved from azure to gcp under a TCP transfer: same address, connection unbroken, \
             {:.0} ms gap, {} segments retransmitted; {lost} of {} datagrams beside it lost",
            received.largest_gap_ms, sent.retransmits, sent_datagrams.sent
        )
    } else {
        format!(
            "{} bytes sent and {} received; sender: {:?}, receiver: {:?}",
            sent.bytes, received.bytes, sent.broken, received.broken
        )
    };
    Ok(figures.claim("move", held, summary))
}

fn emulator_drops(lab: &sunwire_lab::Lab) -> Result<u64> {
    Ok(lab
        .report()?
        .links
        .iter()
        .flat_map(|link| link.dropped.values())
        .sum())
}

/// Two revisions rewrite two fields each; no packet ever carries one of each.
fn atomic(shop: &Shop<'_>, narrator: &Narrator) -> Result<Claim> {
    shop.go_on()?;
    let cloud = shop.cloud;
    cloud.apply_policy(POLICY_NAME, POLICY_A)?;
    let at = (address(&shop.web, true)?, 7000).into();
    // From the second packet on the path is warm: neighbours resolved, devices up.
    let warm = UdpSender::start(shop.client.namespace(), at, 64, 100.0, Some(10))?;
    let _ = warm.finish();
    thread::sleep(SETTLE);

    let capture = Capture::start(shop.web.namespace())?;
    let sender = UdpSender::start(shop.client.namespace(), at, 64, PACKETS_PER_S, None)?;
    for flip in 0..FLIPS {
        shop.go_on()?;
        let text = if flip % 2 == 0 { POLICY_B } else { POLICY_A };
        cloud.apply_policy(POLICY_NAME, text)?;
        if flip % 25 == 24 {
            narrator.say(&format!(
                "  {} of {FLIPS} flips, {} packets",
                flip + 1,
                capture.packets()
            ));
        }
    }
    eventually("enough packets to be captured", PATIENCE, || {
        capture.packets() >= CAPTURED_MIN
    })?;
    let sent = sender.stop();
    thread::sleep(SETTLE);
    let marks = capture.finish()?;

    // The last flip was to A; rolling back brings B, and B is what packets then carry.
    let rolled_back = {
        let name = POLICY_NAME.parse()?;
        let policy = cloud
            .rest(|client| client.rollback_policy(&name, None, sunwire_api::client::Guard::Any))?;
        cloud.wait_applied(policy.revision)?;
        let capture = Capture::start(shop.web.namespace())?;
        let _ = UdpSender::start(shop.client.namespace(), at, 64, 1_000.0, Some(100))?.finish();
        eventually("packets after the roll-back", PATIENCE, || {
            capture.packets() >= 100
        })?;
        let marks = capture.finish()?;
        policy.spec.text == POLICY_B && marks.keys().all(|mark| *mark == MARK_B)
    };
    cloud.apply_policy(POLICY_NAME, POLICY)?;
    Ok(judge(&marks, sent.sent, rolled_back))
}

fn judge(marks: &Marks, sent: u64, rolled_back: bool) -> Claim {
    let count = |mark| marks.get(&mark).copied().unwrap_or(0);
    let (a, b) = (count(MARK_A), count(MARK_B));
    let captured: u64 = marks.values().sum();
    let mixed = captured - a - b;
    let mut figures = Figures::default();
    figures.set("flips", FLIPS);
    figures.set("captured_packets", captured);
    figures.set("a_packets", a);
    figures.set("b_packets", b);
    figures.set("mixed_packets", mixed);
    figures.set("sent_packets", sent);
    figures.set("lost_packets", sent.saturating_sub(captured));
    figures.set("rolled_back", rolled_back);
    let held = captured >= CAPTURED_MIN && mixed == 0 && a > 0 && b > 0 && rolled_back;
    let summary = format!(
        "{FLIPS} flips under {captured} packets: {a} as revision A, {b} as revision B, {mixed} \
         mixed; rolling back {}",
        if rolled_back {
            "works"
        } else {
            "DOES NOT WORK"
        }
    );
    figures.claim("atomic", held, summary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_mixed_packet_refutes_the_atomic_claim() {
        let pure = Marks::from([(MARK_A, 60_000), (MARK_B, 60_000)]);
        assert!(judge(&pure, 120_000, true).held);
        assert!(!judge(&pure, 120_000, false).held);
        let mut mixed = pure.clone();
        mixed.insert((MARK_A.0, MARK_B.1), 1);
        assert!(!judge(&mixed, 120_001, true).held);
        let few = Marks::from([(MARK_A, 10), (MARK_B, 10)]);
        assert!(!judge(&few, 20, true).held);
    }
}
