//! What an endpoint listens to, as its reports say: the groups, and until when they are believed.
//!
//! A group is listened to as long as its endpoint wants packets from anybody (EXCLUDE), or from at
//! least one source (INCLUDE); packets of sources that it does not want reach it all the same, and
//! its own kernel leaves them out (RFC 3376, 4.1; RFC 3810, 4.1). There is one host behind a device,
//! so what it leaves is left at once: no other one can listen there still.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use sunwire_dataplane_common::group::is_group_listened_for;

use crate::state::kernel_address;

/// How often what is listened to is asked for (RFC 3376, 8.2).
pub const QUERY_EVERY: Duration = Duration::from_secs(125);
/// How long a workload may take to answer (RFC 3376, 8.3).
pub const RESPONSE_WITHIN: Duration = Duration::from_secs(10);
/// How many reports may be lost in a row, and one (RFC 3376, 8.1).
pub const ROBUSTNESS: u32 = 2;
/// How long a report is believed: the group membership interval (RFC 3376, 8.4).
pub const BELIEVED: Duration =
    Duration::from_secs(ROBUSTNESS as u64 * QUERY_EVERY.as_secs() + RESPONSE_WITHIN.as_secs());

/// Groups of one endpoint; what it joins beyond them is refused.
pub const GROUPS_MAX: usize = 128;
/// Sources of one group; one with more counts as wanted from anybody.
const SOURCES_MAX: usize = 64;

/// What a report says of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is wanted from these sources alone; with none, it is left.
    Include(BTreeSet<IpAddr>),
    /// It is wanted from anybody, or from anybody but some.
    Exclude,
    /// It is wanted from these sources too.
    Allow(BTreeSet<IpAddr>),
    /// It is not wanted from these sources any more.
    Block(BTreeSet<IpAddr>),
}

/// An endpoint listens to as many groups as it may; one more is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the endpoint listens to {GROUPS_MAX} groups; another one is refused")]
pub struct TooMany;

/// A group that is listened to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Membership {
    /// From whom; `None` from anybody.
    sources: Option<BTreeSet<IpAddr>>,
    until: Instant,
}

/// The groups of one endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memberships {
    groups: BTreeMap<IpAddr, Membership>,
}

impl Memberships {
    /// Takes over what was known of the endpoint elsewhere, or by an earlier agent: believed as if
    /// it had just been reported.
    #[must_use]
    pub fn seeded(groups: impl IntoIterator<Item = IpAddr>, now: Instant) -> Self {
        let mut memberships = Memberships::default();
        for group in groups {
            // What does not fit was never believed there either.
            let _ = memberships.hear(group, Change::Exclude, now);
        }
        memberships
    }

    /// Takes a report in. What everybody gets anyway is not remembered.
    ///
    /// # Errors
    /// [`TooMany`]; nothing has changed then.
    pub fn hear(&mut self, group: IpAddr, change: Change, now: Instant) -> Result<(), TooMany> {
        if !is_group_listened_for(kernel_address(group), group.is_ipv4()) {
            return Ok(());
        }
        let known = self.groups.get(&group);
        let sources = match (change, known.map(|known| &known.sources)) {
            (Change::Exclude, _) => None,
            (Change::Include(sources), _) => Some(sources),
            // From anybody: some more change nothing, and some less are for its own kernel.
            (Change::Allow(_) | Change::Block(_), Some(None)) => None,
            (Change::Allow(more), known) => {
                let known = known.and_then(Option::as_ref);
                Some(
                    more.into_iter()
                        .chain(known.into_iter().flatten().copied())
                        .collect(),
                )
            }
            (Change::Block(less), Some(Some(known))) => Some(known - &less),
            (Change::Block(_), None) => return Ok(()),
        };
        if sources.as_ref().is_some_and(BTreeSet::is_empty) {
            self.groups.remove(&group);
            return Ok(());
        }
        if known.is_none() && self.groups.len() >= GROUPS_MAX {
            return Err(TooMany);
        }
        let membership = Membership {
            sources: sources.filter(|sources| sources.len() <= SOURCES_MAX),
            until: now + BELIEVED,
        };
        self.groups.insert(group, membership);
        Ok(())
    }

    /// Forgets what was not reported again in time.
    pub fn expire(&mut self, now: Instant) {
        self.groups.retain(|_, membership| membership.until > now);
    }

    /// What is listened to.
    pub fn groups(&self) -> impl Iterator<Item = IpAddr> {
        self.groups.keys().copied()
    }

    /// Whether a group is listened to.
    #[must_use]
    pub fn contains(&self, group: IpAddr) -> bool {
        self.groups.contains_key(&group)
    }

    /// How many groups there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether nothing is listened to.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: &str = "239.1.2.3";

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn sources(texts: &[&str]) -> BTreeSet<IpAddr> {
        texts.iter().map(|text| ip(text)).collect()
    }

    /// What is listened to after these changes of one group.
    fn after(changes: impl IntoIterator<Item = Change>) -> BTreeSet<IpAddr> {
        let (mut memberships, now) = (Memberships::default(), Instant::now());
        for change in changes {
            memberships.hear(ip(GROUP), change, now).unwrap();
        }
        memberships.groups().collect()
    }

    #[test]
    fn a_group_is_listened_to_while_a_source_of_it_is_wanted() {
        let listened = sources(&[GROUP]);
        let include = |texts: &[&str]| Change::Include(sources(texts));
        let allow = |texts: &[&str]| Change::Allow(sources(texts));
        let block = |texts: &[&str]| Change::Block(sources(texts));
        assert_eq!(after([Change::Exclude]), listened);
        assert_eq!(after([Change::Exclude, block(&["10.0.0.1"])]), listened);
        assert_eq!(after([Change::Exclude, include(&["10.0.0.1"])]), listened);
        assert_eq!(after([allow(&["10.0.0.1"])]), listened);
        let two = ["10.0.0.1", "10.0.0.2"];
        assert_eq!(after([include(&two), block(&["10.0.0.1"])]), listened);
        for left in [
            vec![Change::Exclude, include(&[])],
            vec![include(&two), block(&two)],
            vec![allow(&["10.0.0.1"]), block(&["10.0.0.1"])],
            vec![block(&["10.0.0.1"])],
            vec![],
        ] {
            assert_eq!(after(left.clone()), BTreeSet::new(), "{left:?}");
        }
    }

    #[test]
    fn what_is_not_reported_again_is_forgotten() {
        let (mut memberships, now) = (Memberships::default(), Instant::now());
        for group in [GROUP, "ff15::1"] {
            memberships.hear(ip(group), Change::Exclude, now).unwrap();
        }
        let later = now + QUERY_EVERY;
        memberships.hear(ip(GROUP), Change::Exclude, later).unwrap();
        memberships.expire(now + BELIEVED - Duration::from_secs(1));
        assert_eq!(memberships.len(), 2);
        memberships.expire(now + BELIEVED);
        assert_eq!(
            memberships.groups().collect::<BTreeSet<_>>(),
            sources(&[GROUP])
        );
        memberships.expire(later + BELIEVED);
        assert!(memberships.is_empty());
    }

    #[test]
    fn an_endpoint_listens_to_no_more_groups_than_it_may() {
        let now = Instant::now();
        let group = |number: usize| IpAddr::from([239, 1, (number >> 8) as u8, number as u8]);
        let mut memberships = Memberships::seeded((0..GROUPS_MAX).map(group), now);
        let refused = memberships.hear(group(GROUPS_MAX), Change::Exclude, now);
        assert_eq!((refused, memberships.len()), (Err(TooMany), GROUPS_MAX));
        // What it listens to already it may go on with, and what it leaves makes room.
        memberships.hear(group(0), Change::Exclude, now).unwrap();
        let leave = Change::Include(BTreeSet::new());
        memberships.hear(group(0), leave, now).unwrap();
        memberships
            .hear(group(GROUPS_MAX), Change::Exclude, now)
            .unwrap();
        // Many sources are remembered as anybody.
        let many = (0..=SOURCES_MAX).map(|number| IpAddr::from([10, 0, 0, number as u8]));
        let many: BTreeSet<IpAddr> = many.collect();
        let mut memberships = Memberships::default();
        memberships
            .hear(ip(GROUP), Change::Include(many.clone()), now)
            .unwrap();
        memberships
            .hear(ip(GROUP), Change::Block(many), now)
            .unwrap();
        assert_eq!(memberships.len(), 1);
    }

    #[test]
    fn what_everybody_gets_is_not_remembered() {
        let (mut memberships, now) = (Memberships::default(), Instant::now());
        for group in [
            "224.0.0.251",
            "ff02::fb",
            "ff02::1:ff00:1",
            "10.0.0.1",
            "fd00::1",
        ] {
            memberships.hear(ip(group), Change::Exclude, now).unwrap();
        }
        assert!(memberships.is_empty());
    }
}
