//! What is counted of staged policies: read for the controller, prepared when a candidate is staged,
//! and deleted when it no longer is.
//!
//! The kernel counts by slots of labels. A slot keeps its label while a count names it, so what is
//! read here has the label that the rule had when it decided.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aya::maps::{MapError, PerCpuValues};
use sunwire_dataplane_common::{
    audit::{AuditKey, AuditLoss, NO_LABEL, allowed},
    entries::Counter,
};

use crate::{
    counters::{label_text, sum},
    maps::Maps,
    pod::Pod,
    shadow::ShadowError,
    state::Program,
};

/// Packets that one rule decided on and another would have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditTotal {
    /// Label of the rule that decided; `None` when no policy was in force.
    pub live_label: Option<String>,
    /// Label of the staged rule.
    pub staged_label: String,
    /// Whether a copy of the packet left.
    pub live_allowed: bool,
    /// Whether one would have.
    pub staged_allowed: bool,
    /// The total since the candidate was staged.
    pub total: Counter,
}

/// What is counted of a candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedTotals {
    /// VNI of its network.
    pub vni: u32,
    /// Revision of the candidate.
    pub revision: u64,
    /// Why nothing is counted of it, if it could not be staged.
    pub refused: Option<String>,
    /// By pair of rules, in no order.
    pub counts: Vec<AuditTotal>,
    /// Packets that are in none of `counts`, because there were too many pairs.
    pub uncounted: Counter,
}

impl StagedTotals {
    /// Nothing is counted yet.
    pub(crate) fn empty(vni: u32, revision: u64) -> Self {
        StagedTotals {
            vni,
            revision,
            refused: None,
            counts: Vec::new(),
            uncounted: Counter::default(),
        }
    }
}

/// Reads what is counted of `candidates`, revisions by VNI.
pub(crate) fn read(
    maps: &Maps,
    candidates: &BTreeMap<u32, u64>,
) -> Result<Vec<StagedTotals>, MapError> {
    let mut all: BTreeMap<u32, StagedTotals> = BTreeMap::new();
    for (vni, revision) in candidates {
        all.insert(*vni, StagedTotals::empty(*vni, *revision));
    }
    let texts: HashMap<u32, String> = maps
        .labels
        .content()
        .iter()
        .map(|(key, slot)| (*slot, label_text(key)))
        .collect();
    for key in maps.audit.keys() {
        let Pod(key) = key?;
        let Some(totals) = all.get_mut(&key.network) else {
            continue;
        };
        if totals.revision != key.revision {
            continue;
        }
        let total = sum(&maps.audit.get(&Pod(key), 0)?);
        if key.staged_label == NO_LABEL {
            totals.uncounted.packets += total.packets;
            totals.uncounted.bytes += total.bytes;
            continue;
        }
        totals.counts.push(AuditTotal {
            live_label: texts.get(&key.live_label).cloned(),
            staged_label: texts.get(&key.staged_label).cloned().unwrap_or_default(),
            live_allowed: key.allowed & allowed::LIVE != 0,
            staged_allowed: key.allowed & allowed::STAGED != 0,
            total,
        });
    }
    Ok(all.into_values().collect())
}

/// Fails when `candidates` leave no room for pairs of rules.
pub(crate) fn check_capacity(maps: &Maps, candidates: usize) -> Result<(), ShadowError> {
    let needed = candidates * (AuditLoss::ALL.len() + 1);
    if needed > maps.audit_capacity {
        return Err(ShadowError::Full {
            map: "AUDIT",
            capacity: maps.audit_capacity,
            needed,
        });
    }
    Ok(())
}

/// Makes the counts of what cannot be counted by pair, before `programs` are staged. What is
/// counted already stays.
pub(crate) fn prepare(
    maps: &mut Maps,
    programs: &BTreeMap<u32, Program>,
) -> Result<(), ShadowError> {
    let cpus =
        aya::util::nr_cpus().map_err(|(_, error)| failed("size")(MapError::IoError(error)))?;
    for (vni, program) in programs {
        for loss in AuditLoss::ALL {
            let key = Pod(AuditKey::lost(*vni, program.revision, loss));
            if maps.audit.get(&key, 0).is_ok() {
                continue;
            }
            let zeros = PerCpuValues::try_from(vec![Pod(Counter::default()); cpus])
                .map_err(|error| failed("size")(MapError::IoError(error)))?;
            maps.audit.insert(key, zeros, 0).map_err(failed("write"))?;
        }
    }
    Ok(())
}

/// Deletes what is counted of other candidates than `programs`; returns the label slots that the
/// remaining counts name.
pub(crate) fn forget(
    maps: &mut Maps,
    programs: &BTreeMap<u32, Program>,
) -> Result<BTreeSet<u32>, ShadowError> {
    let keys = maps.audit.keys().map(|key| key.map(|Pod(key)| key));
    let keys: Vec<AuditKey> = keys.collect::<Result<_, _>>().map_err(failed("read"))?;
    let mut named = BTreeSet::new();
    for key in keys {
        let is_staged = programs
            .get(&key.network)
            .is_some_and(|program| program.revision == key.revision);
        if is_staged {
            named.extend([key.live_label, key.staged_label]);
        } else {
            match maps.audit.remove(&Pod(key)) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(source) => return Err(failed("delete from")(source)),
            }
        }
    }
    Ok(named)
}

fn failed(verb: &'static str) -> impl Fn(MapError) -> ShadowError {
    move |source| ShadowError::Access {
        map: "AUDIT",
        verb,
        source,
    }
}
