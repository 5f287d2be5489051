//! Intervals to exact edges.
//!
//! The data plane compares values exactly. A test with wide intervals is therefore made in levels:
//! first the high bits, where most intervals are whole, then the low bits under those high bits in
//! which an interval ends. A range of ports needs two levels and fewer than 768 edges.

use std::collections::BTreeMap;

use crate::tables::Digest;

/// Edges that one level may always have.
const FEW: u64 = 256;
/// Bits by which levels are cut.
const STEP: u32 = 8;

/// A table node without its field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Exact {
    pub(super) shift: u8,
    pub(super) width: u8,
    /// Sorted by value.
    pub(super) edges: Vec<(u32, Digest)>,
    pub(super) default: Digest,
}

/// Lowers intervals over `bits` bits; `parts` holds where each starts, from 0, and its child.
pub(super) fn lower(
    parts: &[(u64, Digest)],
    bits: u32,
    insert: &mut dyn FnMut(Exact) -> Digest,
) -> Digest {
    let mut parts = parts.to_vec();
    parts.dedup_by_key(|(_, child)| *child);
    if let [(_, only)] = parts.as_slice() {
        return *only;
    }
    let shift = (0..bits)
        .step_by(STEP as usize)
        .find(|shift| is_small(&parts, bits, *shift))
        .unwrap_or((bits - 1) / STEP * STEP);
    let mut upper = upper_part(&parts, bits, shift, &mut |inner| {
        lower(inner, shift, insert)
    });
    upper.dedup_by_key(|(_, child)| *child);
    if let [(_, only)] = upper.as_slice() {
        return *only;
    }
    let count = 1 << (bits - shift);
    let default = most_frequent(&upper, count);
    let mut edges = Vec::new();
    for (at, (start, child)) in upper.iter().enumerate() {
        let end = upper.get(at + 1).map_or(count, |(next, _)| *next);
        if *child != default {
            edges.extend((*start..end).map(|value| (value as u32, *child)));
        }
    }
    insert(Exact {
        shift: shift as u8,
        width: (bits - shift) as u8,
        edges,
        default,
    })
}

/// Lowers some intervals.
type Inner<'a> = dyn FnMut(&[(u64, Digest)]) -> Digest + 'a;

/// A run of blocks: where it starts, and the interval that it lies in or the intervals inside it.
enum Run<'a> {
    Whole(u64, Digest),
    Cut(u64, &'a [(u64, Digest)]),
}

/// Splits intervals over `bits` bits into runs of whole blocks of `2^shift` values and blocks in
/// which an interval ends.
fn runs(parts: &[(u64, Digest)], bits: u32, shift: u32) -> Vec<Run<'_>> {
    let mut out = Vec::new();
    let (blocks, size) = (1u64 << (bits - shift), 1u64 << shift);
    let mut block = 0;
    while block < blocks {
        let low = block << shift;
        let first = parts.partition_point(|(start, _)| *start <= low) - 1;
        let next = parts.get(first + 1).map_or(1 << bits, |(next, _)| *next);
        if next >= low + size {
            out.push(Run::Whole(block, parts[first].1));
            block = next >> shift;
        } else {
            let end = parts.partition_point(|(start, _)| *start < low + size);
            out.push(Run::Cut(block, &parts[first..end]));
            block += 1;
        }
    }
    out
}

/// The intervals of the bits from `shift` up; `inner` lowers the intervals of the bits below it
/// for every block in which an interval ends.
pub(super) fn upper_part(
    parts: &[(u64, Digest)],
    bits: u32,
    shift: u32,
    inner: &mut Inner<'_>,
) -> Vec<(u64, Digest)> {
    let lowered = |run| match run {
        Run::Whole(block, child) => (block, child),
        Run::Cut(block, within) => {
            let low = block << shift;
            let within: Vec<(u64, Digest)> = within
                .iter()
                .map(|(start, child)| (start.saturating_sub(low), *child))
                .collect();
            (block, inner(&within))
        }
    };
    runs(parts, bits, shift).into_iter().map(lowered).collect()
}

/// Whether one exact node for the bits from `shift` up has few edges, or hardly more of them than
/// there are intervals to tell apart.
fn is_small(parts: &[(u64, Digest)], bits: u32, shift: u32) -> bool {
    let runs = runs(parts, bits, shift);
    let blocks = 1u64 << (bits - shift);
    let mut whole: BTreeMap<Digest, u64> = BTreeMap::new();
    for (at, run) in runs.iter().enumerate() {
        if let Run::Whole(block, child) = run {
            let end = runs.get(at + 1).map_or(blocks, |next| match next {
                Run::Whole(block, _) | Run::Cut(block, _) => *block,
            });
            *whole.entry(*child).or_default() += end - block;
        }
    }
    let edges = blocks - whole.values().max().copied().unwrap_or(0);
    edges <= FEW || edges <= 2 * runs.len() as u64
}

/// The child that covers the most of `count` values; of several, the least digest.
pub(super) fn most_frequent(parts: &[(u64, Digest)], count: u64) -> Digest {
    let mut covered: BTreeMap<Digest, u64> = BTreeMap::new();
    for (at, (start, child)) in parts.iter().enumerate() {
        let end = parts.get(at + 1).map_or(count, |(next, _)| *next);
        *covered.entry(*child).or_default() += end - start;
    }
    let mut best = (0, parts[0].1);
    for (child, values) in covered {
        if values > best.0 {
            best = (values, child);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn child(number: u8) -> Digest {
        Digest([number; 32])
    }

    /// Lowers into a list and walks it for a value.
    fn check(parts: &[(u64, Digest)], bits: u32, values: impl Iterator<Item = u64>) -> usize {
        let mut nodes: BTreeMap<Digest, Exact> = BTreeMap::new();
        let mut insert = |node: Exact| {
            let mut name = [0xee; 32];
            name[..8].copy_from_slice(&(nodes.len() as u64).to_le_bytes());
            nodes.insert(Digest(name), node);
            Digest(name)
        };
        let root = lower(parts, bits, &mut insert);
        for value in values {
            let mut at = root;
            while let Some(node) = nodes.get(&at) {
                let bits = (value >> node.shift) & ((1u64 << node.width) - 1);
                let edge = node.edges.iter().find(|(v, _)| u64::from(*v) == bits);
                at = edge.map_or(node.default, |(_, child)| *child);
            }
            let index = parts.partition_point(|(start, _)| *start <= value) - 1;
            assert_eq!(at, parts[index].1, "{value}");
        }
        nodes.values().map(|node| node.edges.len()).sum()
    }

    #[test]
    fn every_port_finds_its_interval_and_a_range_has_fewer_than_768_edges() {
        let (a, b) = (child(1), child(2));
        for (first, last) in [
            (0, 0),
            (1, 65534),
            (1024, 65535),
            (80, 80),
            (300, 40_000),
            (255, 256),
        ] {
            let mut parts = vec![(0, a), (first, b), (last + 1, a)];
            parts.retain(|(start, _)| *start <= 65535);
            if first == 0 {
                parts.remove(0);
            }
            let edges = check(&parts, 16, 0..65536);
            assert!(edges < 768, "{first}-{last}: {edges}");
        }
    }

    #[test]
    fn many_single_ports_stay_one_exact_node() {
        let mut parts = vec![(0, child(0))];
        for port in 0..1000u64 {
            parts.push((port * 50 + 1, child((port % 200) as u8 + 1)));
            parts.push((port * 50 + 2, child(0)));
        }
        assert_eq!(check(&parts, 16, 0..65536), 1000);
    }

    #[test]
    fn wide_fields_are_lowered_without_counting_through_them() {
        let parts = vec![
            (0, child(1)),
            (1000, child(2)),
            (0x8000_0001, child(3)),
            (0xffff_ffff, child(4)),
        ];
        let values = [
            0,
            999,
            1000,
            1001,
            0x8000_0000,
            0x8000_0001,
            0xffff_fffe,
            0xffff_ffff,
        ];
        assert!(check(&parts, 32, values.into_iter()) < 3000);
    }
}
