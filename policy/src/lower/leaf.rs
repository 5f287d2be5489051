//! Leaves to verdicts.

use std::sync::LazyLock;

use sunwire_dataplane_common::tables::{MAX_COPIES, MAX_COUNTS};

use super::{Refused, group};
use crate::address::Address;
use crate::compile::{Fdd, is_address};
use crate::fdd::{Action, Leaf};
use crate::field::{Field, OWNER, Subject};
use crate::packet::{NO_LABEL, Note};
use crate::tables::{self, Copied, Digest, Out};
use crate::term::Resolved;

pub(super) fn lower_leaf(
    fdd: &Fdd,
    policy: &Resolved,
    leaf: &Leaf,
    sender: Option<u32>,
) -> Result<tables::Leaf, Refused> {
    let mut copies = Vec::new();
    let mut first = NO_LABEL;
    for (action, label) in fdd.store.copies(leaf) {
        let label = fdd.labels.label(label);
        copies.push((copied(fdd, policy, action)?, label));
        first = first.min(label);
    }
    let mut copies = group::gather(copies, sender, &policy.groups);
    // What is translated goes first: the data plane remembers a flow by its first copy.
    copies.sort_by_cached_key(|copy| (!copy.translated, bytes(copy)));
    copies.dedup();
    let label = if copies.is_empty() {
        policy.label(fdd.labels.label(leaf.dropped), true)
    } else {
        policy.label(first, false)
    };
    if copies.len() > MAX_COPIES {
        return Err(Refused::TooManyCopies {
            copies: copies.len(),
            label,
        });
    }
    if copies.iter().filter(|copy| copy.translated).count() > 1 {
        return Err(Refused::TranslatedTwice { label });
    }
    let (mut counts, mut log) = (Vec::new(), None);
    for note in fdd.store.notes(leaf) {
        match note {
            Note::Count(name) => counts.push(name.to_string()),
            // Several statements may log one packet: one event says so, by the first in order.
            Note::Log(text) => log = log.or_else(|| Some(text.to_string())),
        }
    }
    if counts.len() > MAX_COUNTS {
        return Err(Refused::TooManyCounts {
            counts: counts.len(),
            label,
        });
    }
    Ok(tables::Leaf {
        label,
        counts,
        log,
        copies,
    })
}

fn copied(fdd: &Fdd, policy: &Resolved, action: &Action) -> Result<Copied, Refused> {
    let mut out = Copied::default();
    for (rank, value) in action.iter() {
        let field = fdd.store.order().0[usize::from(*rank)];
        if is_address(field) {
            let address = fdd
                .assigned
                .get(&(*value as u32))
                .copied()
                .unwrap_or_default();
            match (field, address) {
                (Field::Source, Address::V4(v4)) => out.ip4_src = Some(v4),
                (Field::Destination, Address::V4(v4)) => out.ip4_dst = Some(v4),
                (Field::Source, Address::V6(v6)) => out.ip6_src = Some(v6),
                (Field::Destination, Address::V6(v6)) => out.ip6_dst = Some(v6),
                _ => return Err(Refused::address(field, address)),
            }
            continue;
        }
        match field {
            Field::Port if *value == OWNER => out.out = Some(Out::Owner),
            Field::Port => {
                let number = *value as u32;
                if !policy.endpoints.contains(&number) {
                    return Err(Refused::UnknownEndpoint(number));
                }
                out.out = Some(Out::Endpoint(number));
            }
            // Behind links a node is a place inside the policy.
            Field::Node if policy.links => {}
            Field::Dscp => out.dscp = Some(*value as u8),
            Field::SourcePort => out.src_port = Some(*value as u16),
            Field::DestinationPort => out.dst_port = Some(*value as u16),
            Field::EthSource => out.eth_src = Some(mac(*value)),
            Field::EthDestination => out.eth_dst = Some(mac(*value)),
            Field::Translated => out.translated = *value != 0,
            _ => return Err(Refused::NotWritable(Subject::Field(field))),
        }
    }
    Ok(out)
}

fn mac(number: u64) -> [u8; 6] {
    let bytes = number.to_be_bytes();
    [bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]]
}

/// The name of a verdict.
pub(super) fn digest(leaf: &tables::Leaf) -> Digest {
    static KEYED: LazyLock<blake3::Hasher> =
        LazyLock::new(|| blake3::Hasher::new_derive_key("sunwire leaf v1"));
    let mut hasher = KEYED.clone();
    hasher.update(&(leaf.label.len() as u64).to_le_bytes());
    hasher.update(leaf.label.as_bytes());
    for copy in &leaf.copies {
        hasher.update(&bytes(copy));
    }
    // No copy begins like this.
    let notes = leaf.counts.iter().map(|name| (0xfe, name));
    for (tag, text) in notes.chain(leaf.log.iter().map(|text| (0xff, text))) {
        hasher.update(&[tag]);
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    Digest(*hasher.finalize().as_bytes())
}

/// A copy as bytes, one to one, for the digest and for a stable order.
fn bytes(copy: &Copied) -> Vec<u8> {
    let mut out = Vec::with_capacity(16);
    let mut put = |tag: u8, value: Option<&[u8]>| {
        if let Some(value) = value {
            out.push(tag);
            out.extend_from_slice(value);
        }
    };
    put(1, matches!(copy.out, Some(Out::Owner)).then_some(&[]));
    if let Some(Out::Endpoint(number)) = copy.out {
        put(2, Some(&number.to_be_bytes()));
    }
    put(3, copy.eth_src.as_ref().map(|mac| mac.as_slice()));
    put(4, copy.eth_dst.as_ref().map(|mac| mac.as_slice()));
    put(5, copy.dscp.as_ref().map(std::slice::from_ref));
    put(
        6,
        copy.src_port
            .map(u16::to_be_bytes)
            .as_ref()
            .map(|b| b.as_slice()),
    );
    put(
        7,
        copy.dst_port
            .map(u16::to_be_bytes)
            .as_ref()
            .map(|b| b.as_slice()),
    );
    put(
        8,
        copy.ip4_src
            .map(|a| a.octets())
            .as_ref()
            .map(|b| b.as_slice()),
    );
    put(
        9,
        copy.ip4_dst
            .map(|a| a.octets())
            .as_ref()
            .map(|b| b.as_slice()),
    );
    let members: Vec<u8> = copy.members.iter().flat_map(|m| m.to_be_bytes()).collect();
    let count = (copy.members.len() as u32).to_be_bytes();
    put(
        10,
        (!members.is_empty()).then_some(&[&count[..], &members].concat()),
    );
    put(
        10,
        copy.ip6_src
            .map(|a| a.octets())
            .as_ref()
            .map(|b| b.as_slice()),
    );
    put(
        11,
        copy.ip6_dst
            .map(|a| a.octets())
            .as_ref()
            .map(|b| b.as_slice()),
    );
    put(12, copy.translated.then_some(&[]));
    // Copies follow one another in the digest.
    out.push(0);
    out
}
