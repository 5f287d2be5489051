//! IGMP and MLD snooping: asks every endpoint of a network with a gateway what it listens to, and
//! remembers what it reports.
//!
//! ```text
//! attached ---> what is known of it elsewhere, believed anew; a query at once, again soon, then
//!               every two minutes
//! report -----> groups, until they are left or not reported again
//! gone -------> forgotten here: whoever it is attached to next knows
//! ```
//!
//! The node is the only querier of each endpoint's link, and what workloads say of groups goes no
//! further than here: no host hears the report of another one and keeps its own back (RFC 4541,
//! 2.1.1). So nobody is elected, and a workload that queries is not answered.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sunwire_dataplane_common::{entries::Counter, punt::Kind};
use tokio::sync::watch;

use super::{
    directory::Asker,
    handler::{Answer, Handler, Malformed, Node},
    igmp, mld,
    ring::Punt,
};
use crate::groups::{
    listeners::Groups,
    membership::{Change, Memberships, QUERY_EVERY, RESPONSE_WITHIN},
};

/// Groups of all endpoints of a network on this node; what is joined beyond them is refused.
const NETWORK_GROUPS_MAX: usize = 8_192;
/// After how long the first queries are repeated: an answer may be lost, and the device may not have
/// been up yet.
const SOON: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(31),
];
/// How soon the first queries are answered.
const SOON_WITHIN: Duration = Duration::from_millis(500);

/// What endpoints joined and were refused, as it is told to others.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Refusals {
    /// Reports that were refused, at least in part.
    pub(crate) fn counter(&self) -> Counter {
        Counter {
            packets: self.packets.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

/// An endpoint here.
#[derive(Debug)]
struct Here {
    vni: u32,
    ifindex: u32,
    memberships: Memberships,
    /// How many queries it was sent, and when the next one is due.
    queries: usize,
    due: Instant,
}

/// The handler.
#[derive(Debug)]
pub(crate) struct Listening {
    here: BTreeMap<u32, Here>,
    /// What is known of endpoints that were elsewhere.
    seeds: watch::Receiver<Arc<Groups>>,
    /// What the endpoints here listen to; each has an entry.
    heard: watch::Sender<Arc<Groups>>,
    refused: Arc<Refusals>,
}

impl Listening {
    pub(crate) fn new(
        seeds: watch::Receiver<Arc<Groups>>,
        heard: watch::Sender<Arc<Groups>>,
        refused: Arc<Refusals>,
    ) -> Self {
        Listening {
            here: BTreeMap::new(),
            seeds,
            heard,
            refused,
        }
    }

    /// Follows who is here: an endpoint that has come is known by what was heard of it before.
    fn follow(&mut self, node: &Node<'_>) {
        let directory = node.directory;
        self.here.retain(|number, here| {
            let asker = directory.at(here.ifindex);
            asker.is_some_and(|asker| asker.number == *number && asker.vni == here.vni)
        });
        for asker in directory.here() {
            if self.here.contains_key(&asker.number) || !is_asked(&asker) {
                continue;
            }
            let known = self.seeds.borrow().get(&asker.number).cloned();
            let here = Here {
                vni: asker.vni,
                ifindex: asker.ifindex,
                memberships: Memberships::seeded(known.unwrap_or_default(), node.now),
                queries: 0,
                due: node.now,
            };
            self.here.insert(asker.number, here);
        }
    }

    fn hear(
        &mut self,
        number: u32,
        reports: Vec<(IpAddr, Change)>,
        now: Instant,
    ) -> Result<(), &'static str> {
        let vni = self.here.get(&number).map(|here| here.vni);
        let others = self.here.values().filter(|here| Some(here.vni) == vni);
        let mut room =
            NETWORK_GROUPS_MAX.saturating_sub(others.map(|here| here.memberships.len()).sum());
        let Some(here) = self.here.get_mut(&number) else {
            return Ok(());
        };
        let mut refused = Ok(());
        for (group, change) in reports {
            let before = here.memberships.len();
            if room == 0 && !here.memberships.contains(group) {
                refused =
                    Err("the endpoints of its network here listen to as many groups as they may");
                continue;
            }
            if here.memberships.hear(group, change, now).is_err() {
                refused = Err("it listens to as many groups as it may");
            }
            room = (room + before).saturating_sub(here.memberships.len());
        }
        refused
    }

    /// Tells what is listened to, if it is not what was told last.
    fn tell(&self) {
        self.heard.send_if_modified(|heard| {
            let is_same = heard.len() == self.here.len()
                && self.here.iter().all(|(number, here)| {
                    let told = heard.get(number);
                    told.is_some_and(|told| here.memberships.groups().eq(told.iter().copied()))
                });
            if !is_same {
                let here = self.here.iter();
                let groups =
                    here.map(|(number, here)| (*number, here.memberships.groups().collect()));
                *heard = Arc::new(groups.collect());
            }
            !is_same
        });
    }
}

/// Whether an endpoint is asked: it has a gateway that does.
fn is_asked(asker: &Asker<'_>) -> bool {
    asker.network.v4.is_some() || asker.network.v6.is_some()
}

impl Handler for Listening {
    fn asked(&mut self, punt: &Punt<'_>, node: &mut Node<'_>) -> Result<(), Malformed> {
        let reports = match punt.kind {
            Kind::Igmp => igmp::reports(punt.frame)?,
            _ => mld::reports(punt.frame)?,
        };
        if node.directory.asker(punt).is_none() {
            return Ok(());
        }
        // A report may come before the first tick after its endpoint.
        self.follow(node);
        if let Err(reason) = self.hear(punt.endpoint, reports, node.now) {
            self.refused.packets.fetch_add(1, Ordering::Relaxed);
            let bytes = punt.frame.len() as u64;
            self.refused.bytes.fetch_add(bytes, Ordering::Relaxed);
            tracing::debug!(
                endpoint = punt.endpoint,
                reason,
                "a group is not listened to"
            );
        }
        self.tell();
        Ok(())
    }

    fn tick(&mut self, node: &mut Node<'_>) {
        self.follow(node);
        for (number, here) in &mut self.here {
            here.memberships.expire(node.now);
            if here.due > node.now {
                continue;
            }
            let Some(asker) = node.directory.at(here.ifindex) else {
                continue;
            };
            let soon = SOON.get(here.queries);
            let within = soon.map_or(RESPONSE_WITHIN, |_| SOON_WITHIN);
            let queries = queries(&asker, within);
            let answers = queries.map(|query| Answer::to(&asker, query));
            node.answers.extend(answers);
            here.queries += 1;
            here.due = node.now + soon.copied().unwrap_or(QUERY_EVERY);
            debug_assert_eq!(asker.number, *number, "who is gone is not here");
        }
        self.tell();
    }
}

/// General queries of both families.
fn queries(asker: &Asker<'_>, within: Duration) -> impl Iterator<Item = Vec<u8>> {
    let ms = within.as_millis() as u16;
    let v4 = igmp::query(asker, (ms / 100) as u8);
    v4.into_iter().chain(mld::query(asker, ms))
}
