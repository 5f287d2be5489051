//! Counters as the controller hears them.

use sunwire_api::agent as wire;
use sunwire_dataplane_common::{drop_reason::DropReason, entries::Counter};

use crate::{
    audit::{AuditTotal, StagedTotals},
    counters::Totals,
};

/// The message of all counters.
///
/// Packets that were handed to be encrypted and could not be sent are drops like those that the
/// kernel counts.
pub(crate) fn counters(
    totals: Totals,
    staged: Vec<StagedTotals>,
    tunnels: Vec<wire::Tunnel>,
    unsent_elsewhere: u64,
) -> wire::Counters {
    let labels = totals.labels.into_iter().map(|label| wire::LabelCounter {
        vni: label.vni,
        label: label.label,
        packets: label.total.packets,
        bytes: label.total.bytes,
    });
    let counts = totals.counts.into_iter().map(|count| wire::LabelCounter {
        vni: count.vni,
        label: count.label,
        packets: count.total.packets,
        bytes: count.total.bytes,
    });
    let drops = totals
        .drops
        .into_iter()
        .map(|(reason, total)| wire::DropCounter {
            reason: reason.name().to_owned(),
            packets: total.packets,
            bytes: total.bytes,
        });
    let mut drops: Vec<_> = drops.collect();
    let unsent: u64 = tunnels.iter().map(|tunnel| tunnel.unsent_packets).sum();
    let unsent = unsent + unsent_elsewhere;
    let no_tunnel = DropReason::NoTunnel.name();
    match drops.iter_mut().find(|drop| drop.reason == no_tunnel) {
        Some(drop) => drop.packets += unsent,
        None if unsent > 0 => drops.push(wire::DropCounter {
            reason: no_tunnel.to_owned(),
            packets: unsent,
            bytes: 0,
        }),
        None => {}
    }
    let wires = totals.wires.into_iter().map(|wire| wire::WireCounter {
        wire: wire.number,
        from_b: wire.from_b,
        packets: wire.total.packets,
        bytes: wire.total.bytes,
    });
    let named = |name: &str, total: Counter| wire::NamedCounter {
        name: name.to_owned(),
        packets: total.packets,
        bytes: total.bytes,
    };
    let asked = totals.asked.iter();
    wire::Counters {
        asked: asked
            .map(|(kind, total)| named(kind.name(), *total))
            .collect(),
        copies: vec![
            named("endpoints", totals.local_copies),
            named("nodes", totals.tunnel_copies),
        ],
        wires: wires.collect(),
        labels: labels.collect(),
        counts: counts.collect(),
        drops,
        tunnels,
        staged: staged.into_iter().map(staged_audit).collect(),
    }
}

fn staged_audit(staged: StagedTotals) -> wire::StagedAudit {
    wire::StagedAudit {
        vni: staged.vni,
        revision: staged.revision,
        refused: staged.refused.unwrap_or_default(),
        counts: staged.counts.into_iter().map(audit_count).collect(),
        uncounted_packets: staged.uncounted.packets,
    }
}

fn audit_count(count: AuditTotal) -> wire::AuditCount {
    wire::AuditCount {
        live_label: count.live_label.unwrap_or_default(),
        staged_label: count.staged_label,
        live_allowed: count.live_allowed,
        staged_allowed: count.staged_allowed,
        packets: count.total.packets,
        bytes: count.total.bytes,
    }
}
