//! NetKAT programs over named fields: what the verifier decides about.
//!
//! A program is NetKAT with `dup` (Anderson et al., POPL 2014) and the set operations of KATch
//! (Moeller et al., PLDI 2024), over any fields with values of any [`Domain`]. Nodes stand in one
//! vector, refer to each other backwards and exist once each: equal subterms are one node, so every
//! memo can be keyed by [`NodeId`].
//!
//! ```
//! use sunwire_policy::verify::program::{Domain, Program, Value};
//!
//! let mut program = Program::new();
//! let port = program.field("port", Domain::Number { max: 65535 });
//! let web = program.test_value(port, Value::number(80));
//! let rewrite = program.assign(port, Value::number(8080));
//! let both = program.sequence([web, rewrite]);
//! assert_eq!(both, program.sequence([web, rewrite]), "equal subterms are one node");
//! ```

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::address::{Address, Family};

/// Index of a field of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldId(pub u16);

/// Index of a node of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

/// Index of a set of values of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetId(pub u32);

/// What kind of value it is; values of different kinds are different.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// No address: the value of an address field of a packet that is no IP packet.
    Nothing,
    /// An integer, shifted by 2^63 in the domain [`Domain::Integer`].
    Number,
    /// An IPv4 address.
    V4,
    /// An IPv6 address.
    V6,
}

/// A value of a field: its kind and, within the kind, its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value {
    /// The kind.
    pub kind: Kind,
    /// The number; addresses by their bits in network order.
    pub number: u128,
}

/// What values a field can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Domain {
    /// Numbers from 0 to `max`.
    Number {
        /// The greatest.
        max: u64,
    },
    /// 64-bit integers, of which a program can never name all.
    Integer,
    /// [`Kind::Nothing`], all IPv4 addresses and all IPv6 addresses.
    Address,
}

/// A field of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldDeclaration {
    /// Its name.
    pub name: String,
    /// Its values.
    pub domain: Domain,
}

/// Values from `first` to `last`, both included and of one kind.
pub type Range = (Value, Value);

/// A program.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// Nothing comes out.
    Drop,
    /// The packet comes out as it is.
    Id,
    /// The packet comes out and is recorded in the history.
    Dup,
    /// The packet comes out when the field's value is in the set.
    Test(FieldId, SetId),
    /// The field gets the value.
    Assign(FieldId, Value),
    /// What a predicate lets not through. The operand has no assignment, `dup` or star.
    Not(NodeId),
    /// All of these on copies of the packet.
    Union(Box<[NodeId]>),
    /// One after the other.
    Sequence(Box<[NodeId]>),
    /// Any number of times.
    Star(NodeId),
    /// The first arm whose predicate lets the packet through, else the last program.
    Conditional(Box<[(NodeId, NodeId)]>, NodeId),
    /// The histories that come out of both.
    Intersection(NodeId, NodeId),
    /// The histories that come out of the first and not of the second.
    Difference(NodeId, NodeId),
    /// The histories that come out of exactly one.
    SymmetricDifference(NodeId, NodeId),
}

/// Nodes, sets and fields of programs that are asked about together.
#[derive(Clone, Debug, Default)]
pub struct Program {
    fields: Vec<FieldDeclaration>,
    names: HashMap<String, FieldId>,
    sets: Vec<Box<[Range]>>,
    set_ids: HashMap<Box<[Range]>, SetId>,
    nodes: Vec<Node>,
    node_ids: HashMap<Node, NodeId>,
}

impl Value {
    /// A number of [`Domain::Number`].
    #[must_use]
    pub const fn number(number: u64) -> Self {
        Value {
            kind: Kind::Number,
            number: number as u128,
        }
    }

    /// An integer of [`Domain::Integer`].
    #[must_use]
    pub const fn integer(integer: i64) -> Self {
        Value {
            kind: Kind::Number,
            number: (integer as u64 ^ 1 << 63) as u128,
        }
    }

    /// The address of a family with this number.
    #[must_use]
    pub const fn of_family(family: Family, number: u128) -> Self {
        let kind = match family {
            Family::V4 => Kind::V4,
            Family::V6 => Kind::V6,
        };
        Value { kind, number }
    }

    /// An address, or none.
    #[must_use]
    pub const fn address(address: Address) -> Self {
        let (kind, number) = match address {
            Address::None => (Kind::Nothing, 0),
            Address::V4(v4) => (Kind::V4, v4.to_bits() as u128),
            Address::V6(v6) => (Kind::V6, v6.to_bits()),
        };
        Value { kind, number }
    }
}

impl Node {
    /// Calls `visit` with every node that this one is made of, some perhaps more than once.
    pub fn for_each_operand(&self, mut visit: impl FnMut(NodeId)) {
        match self {
            Node::Drop | Node::Id | Node::Dup | Node::Test(..) | Node::Assign(..) => {}
            Node::Not(operand) | Node::Star(operand) => visit(*operand),
            Node::Union(parts) | Node::Sequence(parts) => parts.iter().copied().for_each(visit),
            Node::Conditional(arms, otherwise) => {
                for (predicate, then) in arms {
                    visit(*predicate);
                    visit(*then);
                }
                visit(*otherwise);
            }
            Node::Intersection(left, right)
            | Node::Difference(left, right)
            | Node::SymmetricDifference(left, right) => {
                visit(*left);
                visit(*right);
            }
        }
    }
}

impl Kind {
    /// The greatest number of this kind in a domain, or `None` where the domain has no such kind.
    #[must_use]
    pub const fn greatest(self, domain: Domain) -> Option<u128> {
        match (self, domain) {
            (Kind::Number, Domain::Number { max }) => Some(max as u128),
            (Kind::Number, Domain::Integer) => Some(u64::MAX as u128),
            (Kind::Nothing, Domain::Address) => Some(0),
            (Kind::V4, Domain::Address) => Some(u32::MAX as u128),
            (Kind::V6, Domain::Address) => Some(u128::MAX),
            _ => None,
        }
    }
}

impl Domain {
    /// Every value, as ranges in order.
    #[must_use]
    pub fn all(self) -> Vec<Range> {
        [Kind::Nothing, Kind::Number, Kind::V4, Kind::V6]
            .into_iter()
            .filter_map(|kind| {
                let greatest = kind.greatest(self)?;
                Some((
                    Value { kind, number: 0 },
                    Value {
                        kind,
                        number: greatest,
                    },
                ))
            })
            .collect()
    }

    /// Every value outside of ranges, in order; the ranges are in order, and may overlap.
    #[must_use]
    pub fn complement(self, ranges: &[Range]) -> Vec<Range> {
        let mut out = Vec::new();
        for (start, end) in self.all() {
            let at = |number| Value { number, ..start };
            // Where the next gap may start; `None` behind the last value.
            let mut next = Some(start.number);
            for (first, last) in ranges.iter().filter(|(first, _)| first.kind == start.kind) {
                let Some(from) = next else { break };
                if first.number > from {
                    out.push((at(from), at(first.number - 1)));
                }
                if last.number >= from {
                    next = (last.number < end.number).then(|| last.number + 1);
                }
            }
            out.extend(next.map(|from| (at(from), end)));
        }
        out
    }

    /// Ranges as people write them, a single value as such.
    #[must_use]
    pub fn show_ranges(self, ranges: &[Range]) -> Vec<String> {
        let show = |(first, last): &Range| match first == last {
            true => self.show(*first),
            false => format!("{}-{}", self.show(*first), self.show(*last)),
        };
        ranges.iter().map(show).collect()
    }

    /// A value as people write it.
    #[must_use]
    pub fn show(self, value: Value) -> String {
        match (value.kind, self) {
            (Kind::Nothing, _) => "none".to_owned(),
            (Kind::V4, _) => Ipv4Addr::from_bits(value.number as u32).to_string(),
            (Kind::V6, _) => Ipv6Addr::from_bits(value.number).to_string(),
            (Kind::Number, Domain::Integer) => ((value.number as u64 ^ 1 << 63) as i64).to_string(),
            (Kind::Number, _) => value.number.to_string(),
        }
    }
}

impl Program {
    /// A program without fields and nodes.
    #[must_use]
    pub fn new() -> Self {
        Program::default()
    }

    /// The field of this name, declared now unless it is known; a known field keeps its domain.
    pub fn field(&mut self, name: &str, domain: Domain) -> FieldId {
        if let Some(known) = self.names.get(name) {
            return *known;
        }
        let id = FieldId(u16::try_from(self.fields.len()).expect("fewer than 65,536 fields"));
        self.fields.push(FieldDeclaration {
            name: name.to_owned(),
            domain,
        });
        self.names.insert(name.to_owned(), id);
        id
    }

    /// The fields, in the order in which they were declared.
    #[must_use]
    pub fn fields(&self) -> &[FieldDeclaration] {
        &self.fields
    }

    /// A node.
    #[must_use]
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    /// These nodes and all that they are made of, operands before what they are part of.
    #[must_use]
    pub fn reachable(&self, roots: &[NodeId]) -> Vec<NodeId> {
        let mut seen = vec![false; self.nodes.len()];
        let mut waiting = roots.to_vec();
        while let Some(id) = waiting.pop() {
            if !std::mem::replace(&mut seen[id.0 as usize], true) {
                self.node(id).for_each_operand(|operand| {
                    if !seen[operand.0 as usize] {
                        waiting.push(operand);
                    }
                });
            }
        }
        // Nodes refer backwards, so the order of ids is an order of dependence.
        (0u32..)
            .zip(seen)
            .filter_map(|(id, seen)| seen.then_some(NodeId(id)))
            .collect()
    }

    /// How many nodes there are; their ids are the numbers below.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no node.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The ranges of a set: in order, disjoint, not adjacent.
    #[must_use]
    pub fn set(&self, id: SetId) -> &[Range] {
        &self.sets[id.0 as usize]
    }

    /// How many sets there are; their ids are the numbers below.
    #[must_use]
    pub fn set_count(&self) -> usize {
        self.sets.len()
    }

    /// Nothing comes out.
    pub fn drop(&mut self) -> NodeId {
        self.add(Node::Drop)
    }

    /// The packet as it is.
    pub fn id(&mut self) -> NodeId {
        self.add(Node::Id)
    }

    /// `dup`.
    pub fn dup(&mut self) -> NodeId {
        self.add(Node::Dup)
    }

    /// `FIELD = value`.
    pub fn test_value(&mut self, field: FieldId, value: Value) -> NodeId {
        self.test(field, [(value, value)])
    }

    /// `FIELD in ranges`: in any order, they may overlap.
    pub fn test(&mut self, field: FieldId, ranges: impl IntoIterator<Item = Range>) -> NodeId {
        let ranges = normal(ranges.into_iter().collect());
        if ranges.is_empty() {
            return self.drop();
        }
        if *ranges == *self.fields[usize::from(field.0)].domain.all() {
            return self.id();
        }
        let set = match self.set_ids.get(&ranges) {
            Some(known) => *known,
            None => {
                let id = SetId(u32::try_from(self.sets.len()).expect("memory ends before"));
                self.sets.push(ranges.clone());
                self.set_ids.insert(ranges, id);
                id
            }
        };
        self.add(Node::Test(field, set))
    }

    /// `FIELD := value`.
    pub fn assign(&mut self, field: FieldId, value: Value) -> NodeId {
        self.add(Node::Assign(field, value))
    }

    /// `not p`, of a predicate.
    pub fn not(&mut self, predicate: NodeId) -> NodeId {
        match self.node(predicate) {
            Node::Drop => self.id(),
            Node::Id => self.drop(),
            Node::Not(inner) => *inner,
            _ => self.add(Node::Not(predicate)),
        }
    }

    /// `p + q + …`; `drop` when there is none.
    pub fn union(&mut self, arms: impl IntoIterator<Item = NodeId>) -> NodeId {
        let mut kept = Vec::new();
        for arm in arms {
            match self.node(arm) {
                Node::Drop => {}
                Node::Union(inner) => kept.extend_from_slice(inner),
                _ => kept.push(arm),
            }
        }
        // The order means nothing, and equal unions shall be one node.
        kept.sort_unstable();
        kept.dedup();
        match *kept {
            [] => self.drop(),
            [one] => one,
            _ => self.add(Node::Union(kept.into())),
        }
    }

    /// `p; q; …`; `id` when there is none.
    pub fn sequence(&mut self, parts: impl IntoIterator<Item = NodeId>) -> NodeId {
        let mut kept = Vec::new();
        for part in parts {
            match self.node(part) {
                Node::Drop => return self.drop(),
                Node::Id => {}
                Node::Sequence(inner) => kept.extend_from_slice(inner),
                _ => kept.push(part),
            }
        }
        match *kept {
            [] => self.id(),
            [one] => one,
            _ => self.add(Node::Sequence(kept.into())),
        }
    }

    /// `p*`.
    pub fn star(&mut self, body: NodeId) -> NodeId {
        match self.node(body) {
            Node::Drop | Node::Id => self.id(),
            Node::Star(_) => body,
            _ => self.add(Node::Star(body)),
        }
    }

    /// `if p then q else if … else otherwise`.
    pub fn conditional(
        &mut self,
        arms: impl IntoIterator<Item = (NodeId, NodeId)>,
        otherwise: NodeId,
    ) -> NodeId {
        let arms: Box<[_]> = arms.into_iter().collect();
        if arms.is_empty() {
            return otherwise;
        }
        self.add(Node::Conditional(arms, otherwise))
    }

    /// `p ∩ q`.
    pub fn intersection(&mut self, left: NodeId, right: NodeId) -> NodeId {
        let (left, right) = (left.min(right), left.max(right));
        self.add(Node::Intersection(left, right))
    }

    /// `p ∖ q`.
    pub fn difference(&mut self, left: NodeId, right: NodeId) -> NodeId {
        self.add(Node::Difference(left, right))
    }

    /// `p ⊕ q`.
    pub fn symmetric_difference(&mut self, left: NodeId, right: NodeId) -> NodeId {
        let (left, right) = (left.min(right), left.max(right));
        self.add(Node::SymmetricDifference(left, right))
    }

    fn add(&mut self, node: Node) -> NodeId {
        if let Some(known) = self.node_ids.get(&node) {
            return *known;
        }
        let id = NodeId(u32::try_from(self.nodes.len()).expect("memory ends before"));
        self.nodes.push(node.clone());
        self.node_ids.insert(node, id);
        id
    }
}

/// In order, disjoint, adjacent ranges of one kind joined.
fn normal(mut ranges: Vec<Range>) -> Box<[Range]> {
    ranges.retain(|(first, last)| first.kind == last.kind && first <= last);
    ranges.sort_unstable();
    let mut out: Vec<Range> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match out.last_mut() {
            Some((_, end))
                if end.kind == first.kind && first.number <= end.number.saturating_add(1) =>
            {
                *end = last.max(*end);
            }
            _ => out.push((first, last)),
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sets_are_one_node_however_they_are_written() {
        let mut program = Program::new();
        let port = program.field("port", Domain::Number { max: 65535 });
        let range = |a, b| (Value::number(a), Value::number(b));
        let whole = program.test(port, [range(10, 20)]);
        let parts = program.test(port, [range(15, 20), range(10, 12), range(12, 14)]);
        assert_eq!(whole, parts);
        let all = program.test(port, [range(1, 65535), range(0, 0)]);
        assert_eq!(*program.node(all), Node::Id);
    }

    #[test]
    fn negative_integers_come_before_positive_ones_and_read_back() {
        assert!(Value::integer(-1) < Value::integer(0));
        assert!(Value::integer(0) < Value::integer(i64::MAX));
        for integer in [i64::MIN, -1, 0, 1, i64::MAX] {
            let shown = Domain::Integer.show(Value::integer(integer));
            assert_eq!(shown, integer.to_string());
        }
    }

    #[test]
    fn the_kinds_of_an_address_never_join() {
        let mut program = Program::new();
        let source = program.field("src", Domain::Address);
        let all = program.test(source, Domain::Address.all());
        assert_eq!(*program.node(all), Node::Id);
        let v4 = program.test(source, [Domain::Address.all()[1]]);
        assert!(matches!(*program.node(v4), Node::Test(..)));
    }
}
