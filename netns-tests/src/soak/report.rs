//! What a soak found, for people and for programs.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::{
    judge::{Excess, Judgement, Unexplained},
    plan::Event,
    streams::{Requests, Transfer},
    world::{ENDPOINTS, NODES},
};

/// The whole report. Times are milliseconds since the traffic began, where nothing else is said.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The seed: the same gives the same events.
    pub seed: u64,
    /// How long events were made, seconds.
    pub seconds: f64,
    /// Whether tunnels between clouds were encrypted.
    pub encrypted: bool,
    /// The sources' commit.
    pub commit: String,
    /// Whether everything holds.
    pub held: bool,
    /// What does not, in words.
    pub findings: Vec<String>,
    /// Flows of numbered datagrams.
    pub flows: usize,
    /// Datagrams sent.
    pub sent: u64,
    /// Different ones that arrived.
    pub arrived: u64,
    /// Arrived, but had waited somewhere: under way for longer than links and queues explain.
    pub late: u64,
    /// The longest that one was under way, ms.
    pub slowest_ms: f64,
    /// Lost, and in the emulator's drop log.
    pub dropped_by_emulator: u64,
    /// Lost in blackouts of moves.
    pub lost_in_blackouts: u64,
    /// Lost without a reason.
    pub unexplained: Vec<Unexplained>,
    /// Losses in blackouts beyond rate x blackout.
    pub excesses: Vec<Excess>,
    /// Datagrams that arrived again.
    pub duplicates: u64,
    /// Frames that the machine dropped and the emulator never saw.
    pub machine_drops: u64,
    /// Packets that nodes dropped, by node and reason.
    pub node_drops: BTreeMap<String, BTreeMap<String, u64>>,
    /// TCP transfers.
    pub transfers: Vec<Transfer>,
    /// TCP requests.
    pub requests: Requests,
    /// What was done, in order.
    pub events: Vec<Happened>,
    /// When the traffic began, ns of `CLOCK_MONOTONIC`.
    pub began_at_ns: u64,
}

/// An event as it went.
#[derive(Clone, Debug, Serialize)]
pub struct Happened {
    /// When it began.
    pub at_ms: f64,
    /// How long it took.
    pub took_ms: f64,
    /// What.
    #[serde(flatten)]
    pub event: Event,
    /// In words.
    pub words: String,
    /// When the blackout that it made began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blackout_at_ms: Option<f64>,
    /// How long it was, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blackout_ms: Option<f64>,
    /// Datagrams lost in that blackout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
    /// Why it could not be carried out, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// An event in words.
#[must_use]
pub fn words(event: &Event) -> String {
    let endpoint = |number: &usize| ENDPOINTS[*number].0;
    let node = |number: &usize| NODES[*number].0;
    match event {
        Event::Move {
            endpoint: e,
            from,
            to,
        } => {
            format!("{} moves from {} to {}", endpoint(e), node(from), node(to))
        }
        Event::LossyMove {
            endpoint: e,
            from,
            to,
            loss,
        } => format!(
            "{} moves from {} to {} while {:.0} % of the frames between them are lost",
            endpoint(e),
            node(from),
            node(to),
            loss * 100.0
        ),
        Event::Flip { policy } => format!("policy {policy} is put in force"),
        Event::RestartAgent { node: n, signal } => {
            format!(
                "the agent of {} is restarted by {}",
                node(n),
                signal.signal()
            )
        }
        Event::RestartController { signal } => {
            format!("the controller is restarted by {}", signal.signal())
        }
        Event::LinkDown { a, b, for_ms } => {
            format!(
                "the link between {} and {} is down for {for_ms} ms",
                node(a),
                node(b)
            )
        }
        Event::FlipWithoutAgent { node: n, policy } => {
            format!(
                "policy {policy} is put in force while {} has no agent",
                node(n)
            )
        }
    }
}

impl Report {
    /// Adds the judgement and what the rest of the report says, and decides.
    pub(super) fn decide(&mut self, judgement: Judgement) {
        self.sent = judgement.sent;
        self.arrived = judgement.arrived;
        self.dropped_by_emulator = judgement.dropped;
        self.lost_in_blackouts = judgement.in_blackouts.values().sum();
        self.unexplained = judgement.unexplained;
        self.excesses = judgement.excesses;
        for (number, event) in self.events.iter_mut().enumerate() {
            if event.blackout_ms.is_some() {
                event.lost = Some(judgement.in_blackouts.get(&number).copied().unwrap_or(0));
            }
        }
        let mut findings = Vec::new();
        if self.unexplained.len() as u64 > self.machine_drops {
            let mut by_event = BTreeMap::<Option<usize>, u64>::new();
            for lost in &self.unexplained {
                *by_event.entry(self.event_at(lost.sent_at_ns)).or_default() += 1;
            }
            for (event, lost) in by_event {
                let when = event.map_or("before all events".to_owned(), |event| {
                    let event = &self.events[event];
                    format!("after: {} (at {:.0} ms)", event.words, event.at_ms)
                });
                findings.push(format!("{lost} datagrams lost without a reason {when}"));
            }
        }
        for excess in &self.excesses {
            findings.push(format!(
                "flow {} lost {} datagrams in the blackout of event {}, which may cost {}",
                excess.flow, excess.lost, excess.event, excess.at_most
            ));
        }
        if self.duplicates > 0 {
            findings.push(format!(
                "{} datagrams arrived more than once",
                self.duplicates
            ));
        }
        for transfer in self
            .transfers
            .iter()
            .filter(|transfer| !transfer.is_whole())
        {
            findings.push(format!("a connection broke: {transfer:?}"));
        }
        for failure in &self.requests.failures {
            let at_ms = self.ms(failure.sent_at_ns);
            findings.push(format!(
                "a request at {at_ms:.0} ms failed: {}",
                failure.what
            ));
        }
        for event in self.events.iter().filter(|event| event.failed.is_some()) {
            let why = event.failed.as_deref().unwrap_or_default();
            findings.push(format!(
                "{} (at {:.0} ms) failed: {why}",
                event.words, event.at_ms
            ));
        }
        self.held = findings.is_empty();
        self.findings = findings;
    }

    /// Milliseconds since the traffic began.
    #[must_use]
    pub fn ms(&self, at_ns: u64) -> f64 {
        at_ns.saturating_sub(self.began_at_ns) as f64 / 1e6
    }

    /// The last event that had begun.
    fn event_at(&self, at_ns: u64) -> Option<usize> {
        let at_ms = self.ms(at_ns);
        self.events.iter().rposition(|event| event.at_ms <= at_ms)
    }

    /// The report as people read it.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (number, event) in self.events.iter().enumerate() {
            let blackout = match (event.blackout_ms, event.lost) {
                (Some(ms), Some(lost)) => format!(": blackout {ms:.0} ms, {lost} datagrams lost"),
                _ => String::new(),
            };
            text.push_str(&format!(
                "{number:>4} {:>9.0} ms {:>7.0} ms  {}{blackout}\n",
                event.at_ms, event.took_ms, event.words
            ));
        }
        let retransmits: u64 = self
            .transfers
            .iter()
            .map(|t| u64::from(t.retransmits))
            .sum();
        text.push_str(&format!(
            "\nseed {}, {:.0} s, {}: {} events\n\
             {} datagrams in {} flows: {} arrived, {} dropped by the emulator, {} lost in blackouts, \
             {} unexplained; {} were late, the slowest took {:.0} ms; the machine dropped {} frames\n\
             {} TCP transfers, {} whole, {retransmits} segments retransmitted; \
             {} requests answered, {} failed\n",
            self.seed,
            self.seconds,
            if self.encrypted { "encrypted between clouds" } else { "in the clear" },
            self.events.len(),
            self.sent,
            self.flows,
            self.arrived,
            self.dropped_by_emulator,
            self.lost_in_blackouts,
            self.unexplained.len(),
            self.late,
            self.slowest_ms,
            self.machine_drops,
            self.transfers.len(),
            self.transfers.iter().filter(|transfer| transfer.is_whole()).count(),
            self.requests.answered,
            self.requests.failures.len(),
        ));
        for (node, drops) in &self.node_drops {
            let drops = drops
                .iter()
                .map(|(reason, packets)| format!("{packets} {reason}"));
            let drops: Vec<_> = drops.collect();
            text.push_str(&format!("dropped by {node}: {}\n", drops.join(", ")));
        }
        for finding in &self.findings {
            text.push_str(&format!("FOUND: {finding}\n"));
        }
        text.push_str(if self.held { "held\n" } else { "NOT HELD\n" });
        text
    }

    /// Writes the report as JSON.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)
                .with_context(|| format!("cannot make {}", directory.display()))?;
        }
        let text = serde_json::to_string_pretty(self)?;
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}
