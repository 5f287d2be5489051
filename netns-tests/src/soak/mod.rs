//! The soak: mixed traffic while endpoints move, policies flip, agents and the controller restart and
//! links fail, for as long as one likes.
//!
//! The property: outside of the blackouts of moves every numbered datagram that the link emulator did
//! not drop arrives; inside one, no flow loses more than rate x blackout; no TCP connection breaks.
//!
//! ```text
//! plan.rs     what happens, by a seed              pure
//! world.rs    the cloud and its policies
//! flow.rs     numbered datagrams
//! streams.rs  TCP beside them
//! judge.rs    what every lost datagram is owed to  pure
//! report.rs   what is told
//! ```

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use sunwire_lab::{DroppedFrames, HEAD_BYTES, LinkChange, Shutdown, eventually, monotonic_ns};

use crate::cloud::{Cloud, Moved};

pub mod flow;
pub mod judge;
pub mod plan;
pub mod report;
pub mod streams;
pub mod world;

use flow::{DATAGRAM_BYTES, Flow, Spec};
use judge::{Blackout, Drops, judge};
use plan::{Event, Plan};
use report::{Happened, Report, words};
use streams::Streams;
use world::{ENDPOINTS, NODES, POLICIES, POLICY_NAME, WAY_NS, WAY_NS_MAX, World, addresses};

/// Datagrams a second in each flow.
const PER_SECOND: f64 = 40.0;
/// Dropped frames that are kept between two looks.
const KEPT_FRAMES: usize = 1 << 20;
/// How long the last packets may be under way.
const SETTLE: Duration = Duration::from_secs(5);
/// Loss of a link when no event changes it.
const LOSS: f64 = 0.001;
/// Lengths of an encrypted frame with a datagram: outer and inner headers, over IPv4 and IPv6, VXLAN,
/// and what encryption and its padding add.
const OPAQUE_BYTES: std::ops::RangeInclusive<u32> =
    DATAGRAM_BYTES as u32 + 100..=DATAGRAM_BYTES as u32 + 240;
/// UDP port of encrypted tunnels, in an underlay frame without IP options.
const TUNNEL_PORT_AT: usize = 14 + 20 + 2;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What happens.
    pub seed: u64,
    /// How long.
    pub duration: Duration,
    /// Encrypt tunnels between clouds.
    pub is_encrypted: bool,
    /// Say what happens while it does.
    pub is_told: bool,
}

/// Runs a soak. Ctrl-C, by `shutdown`, ends it early, and it is judged all the same.
///
/// # Errors
/// When the cloud does not come up or the emulator stops. What does not hold is in the report.
pub fn run(options: Options, shutdown: Option<&Shutdown>) -> Result<Report> {
    let mut world = World::up(options.seed, options.is_encrypted)?;
    let lab = world.cloud.lab();
    lab.keep_dropped(KEPT_FRAMES)?;
    let machine_drops_before = world.machine_drops()?;
    let flows = start_flows(&world)?;
    let streams = Streams::start(&world)?;
    eventually("all flows to flow", SETTLE, || {
        flows.iter().all(|flow| flow.received() > 0)
    })?;

    let mut soak = Soak {
        began_at_ns: monotonic_ns(),
        events: Vec::new(),
        blackouts: Vec::new(),
        drops: Drops::default(),
        is_told: options.is_told,
    };
    let began = Instant::now();
    let places = (0..ENDPOINTS.len()).collect();
    let mut plan = Plan::new(options.seed, NODES.len(), places, POLICIES.len());
    while began.elapsed() < options.duration {
        let (pause_ms, event) = plan.next_event();
        let pause = Duration::from_millis(pause_ms);
        match shutdown {
            Some(shutdown) if shutdown.wait_for(pause) => break,
            Some(_) => {}
            None => thread::sleep(pause),
        }
        soak.happen(&mut world.cloud, &world.endpoints, event);
        soak.collect(world.cloud.lab().take_dropped()?)?;
        if soak
            .events
            .last()
            .is_some_and(|event| event.failed.is_some())
        {
            // What follows would only tell the same again.
            break;
        }
    }
    let seconds = began.elapsed().as_secs_f64();

    let (transfers, requests) = streams.finish()?;
    let endings: Vec<_> = flows.into_iter().map(Flow::stop_sending).collect();
    // What is still under way arrives; if something was lost this waits in vain, and the books say so.
    let _ = eventually("the last datagrams", SETTLE, || {
        endings.iter().all(flow::Ending::is_complete)
    });
    let books: Vec<_> = endings.into_iter().map(flow::Ending::finish).collect();
    soak.collect(world.cloud.lab().take_dropped()?)?;
    let slowest_ns = books.iter().map(judge::Book::slowest_ns).max().unwrap_or(0);
    let mut report = Report {
        seed: options.seed,
        seconds,
        encrypted: options.is_encrypted,
        commit: std::env::var("SUNWIRE_COMMIT").unwrap_or_else(|_| "unknown".to_owned()),
        held: false,
        findings: Vec::new(),
        flows: books.len(),
        sent: 0,
        arrived: 0,
        late: books.iter().map(|book| book.late(WAY_NS)).sum(),
        slowest_ms: slowest_ns as f64 / 1e6,
        dropped_by_emulator: 0,
        lost_in_blackouts: 0,
        unexplained: Vec::new(),
        excesses: Vec::new(),
        duplicates: books.iter().map(|book| book.duplicates).sum(),
        machine_drops: world.machine_drops()? - machine_drops_before,
        node_drops: BTreeMap::new(),
        transfers,
        requests,
        events: soak.events,
        began_at_ns: soak.began_at_ns,
    };
    report.node_drops = world.node_drops()?;
    // On a busy machine packets that arrived took longer, and those that did not would have, too.
    let way_ns = slowest_ns.clamp(WAY_NS, WAY_NS_MAX);
    report.decide(judge(&books, &soak.drops, &soak.blackouts, way_ns));
    if report.held {
        world.cloud.down()?;
    } else {
        keep_logs(&world.cloud, options.seed);
    }
    Ok(report)
}

/// Every endpoint to every other, over IPv4 and IPv6.
fn start_flows(world: &World) -> Result<Vec<Flow>> {
    let mut flows = Vec::new();
    for (from, sender) in world.endpoints.iter().enumerate() {
        for (to, receiver) in world.endpoints.iter().enumerate() {
            for address in addresses(to) {
                if from == to {
                    continue;
                }
                let spec = Spec {
                    flow: flows.len() as u32,
                    from,
                    to,
                    address,
                    per_second: PER_SECOND,
                };
                flows.push(Flow::start(spec, sender, receiver)?);
            }
        }
    }
    Ok(flows)
}

/// What has happened so far.
struct Soak {
    began_at_ns: u64,
    events: Vec<Happened>,
    blackouts: Vec<Blackout>,
    drops: Drops,
    is_told: bool,
}

impl Soak {
    fn happen(&mut self, cloud: &mut Cloud, endpoints: &[sunwire_lab::Workload], event: Event) {
        let at_ns = monotonic_ns();
        let outcome = carry_out(cloud, endpoints, &event);
        let took_ms = (monotonic_ns() - at_ns) as f64 / 1e6;
        let mut happened = Happened {
            at_ms: (at_ns - self.began_at_ns) as f64 / 1e6,
            took_ms,
            words: words(&event),
            event,
            blackout_at_ms: None,
            blackout_ms: None,
            lost: None,
            failed: None,
        };
        match outcome {
            Ok(Some((endpoint, moved))) => {
                let released_ns = moved.released_ns.saturating_sub(self.began_at_ns);
                happened.blackout_at_ms = Some(released_ns as f64 / 1e6);
                happened.blackout_ms = Some(moved.running_ms);
                self.blackouts.push(Blackout {
                    event: self.events.len(),
                    endpoint,
                    from_ns: moved.released_ns,
                    to_ns: moved.running_ns,
                });
            }
            Ok(None) => {}
            Err(error) => happened.failed = Some(format!("{error:#}")),
        }
        if self.is_told {
            let (at_s, words) = (happened.at_ms / 1e3, &happened.words);
            let failed = happened.failed.as_deref().unwrap_or_default();
            eprintln!("[{at_s:7.1} s] {words} ({took_ms:.0} ms) {failed}");
        }
        self.events.push(happened);
    }

    fn collect(&mut self, dropped: DroppedFrames) -> Result<()> {
        anyhow::ensure!(
            dropped.unkept == 0,
            "the emulator dropped more frames than it kept: nothing can be said of them"
        );
        for frame in dropped.frames {
            if let Some(datagram) = flow::find(&frame.head) {
                self.drops.known.insert(datagram);
            } else if is_encrypted(&frame.head) && OPAQUE_BYTES.contains(&frame.length_bytes) {
                self.drops.opaque_at_ns.push(frame.at_ns);
            }
        }
        Ok(())
    }
}

// A datagram's number is in what is kept of a frame in the clear: outer and inner headers with IPv6,
// the datagram's own header.
const _: () = assert!(HEAD_BYTES >= 14 + 20 + 8 + 8 + 14 + 40 + 8 + 20);

fn is_encrypted(head: &[u8]) -> bool {
    let port = sunwire_userspace::crypt::supervisor::PORT.to_be_bytes();
    head.get(TUNNEL_PORT_AT..TUNNEL_PORT_AT + 2) == Some(&port)
}

fn carry_out(
    cloud: &mut Cloud,
    endpoints: &[sunwire_lab::Workload],
    event: &Event,
) -> Result<Option<(usize, Moved)>> {
    let node = |number: usize| NODES[number].0;
    match *event {
        Event::Move { endpoint, to, .. } => {
            let moved = cloud.move_endpoint(&endpoints[endpoint], node(to))?;
            return Ok(Some((endpoint, moved)));
        }
        Event::LossyMove {
            endpoint,
            from,
            to,
            loss,
        } => {
            let (a, b) = (node(from), node(to));
            cloud.lab().set_link_both(a, b, LinkChange::loss(loss))?;
            let moved = cloud.move_endpoint(&endpoints[endpoint], b);
            cloud.lab().set_link_both(a, b, LinkChange::loss(LOSS))?;
            return Ok(Some((endpoint, moved?)));
        }
        Event::Flip { policy } => {
            cloud.apply_policy(POLICY_NAME, POLICIES[policy])?;
        }
        Event::RestartAgent {
            node: number,
            signal,
        } => {
            cloud.restart_agent(node(number), signal.signal())?;
        }
        Event::RestartController { signal } => {
            cloud.stop_controller(signal.signal());
            cloud.start_controller()?;
            cloud.wait_caught_up()?;
        }
        Event::LinkDown { a, b, for_ms } => {
            let (a, b) = (node(a), node(b));
            cloud.lab().set_link_both(a, b, LinkChange::up(false))?;
            thread::sleep(Duration::from_millis(for_ms));
            cloud.lab().set_link_both(a, b, LinkChange::up(true))?;
        }
        Event::FlipWithoutAgent {
            node: number,
            policy,
        } => {
            cloud.stop_agent(node(number), plan::Ending::Killed.signal());
            let name = POLICY_NAME.parse()?;
            cloud.rest(|client| {
                client.put_policy(&name, POLICIES[policy], sunwire_api::client::Guard::Any)
            })?;
            cloud.start_agent(node(number))?;
            cloud.wait_caught_up()?;
        }
    }
    Ok(None)
}

/// A lab's logs go with it: those of one that did not hold are copied to look into them.
fn keep_logs(cloud: &Cloud, seed: u64) {
    let to = std::path::PathBuf::from(format!("target/soak/logs-{seed}"));
    let copy = || -> Result<()> {
        std::fs::create_dir_all(&to)?;
        for entry in std::fs::read_dir(cloud.lab().log_dir())? {
            let entry = entry?;
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
        Ok(())
    };
    match copy().context("cannot keep the logs") {
        Ok(()) => eprintln!("the logs are in {}", to.display()),
        Err(error) => eprintln!("{error:#}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use judge::{Judgement, Unexplained};
    use streams::Requests;

    fn empty() -> Report {
        Report {
            seed: 1,
            seconds: 1.0,
            encrypted: false,
            commit: String::new(),
            held: false,
            findings: Vec::new(),
            flows: 1,
            sent: 0,
            arrived: 0,
            late: 0,
            slowest_ms: 0.0,
            dropped_by_emulator: 0,
            lost_in_blackouts: 0,
            unexplained: Vec::new(),
            excesses: Vec::new(),
            duplicates: 0,
            machine_drops: 0,
            node_drops: BTreeMap::new(),
            transfers: Vec::new(),
            requests: Requests::default(),
            events: Vec::new(),
            began_at_ns: 0,
        }
    }

    #[test]
    fn a_report_holds_only_when_nothing_was_found() {
        let lost = Unexplained {
            flow: 1,
            number: 2,
            sent_at_ns: 3,
        };
        let mut report = empty();
        report.decide(Judgement::default());
        assert!(report.held);
        report.decide(Judgement {
            unexplained: vec![lost],
            ..Judgement::default()
        });
        assert!(!report.held && report.text().contains("without a reason"));
        // The machine itself lost a frame: it may have been this one.
        report.machine_drops = 1;
        report.decide(Judgement {
            unexplained: vec![lost],
            ..Judgement::default()
        });
        assert!(report.held);
    }
}
