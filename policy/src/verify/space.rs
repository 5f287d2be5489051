//! Fields as bits: which values a question tells apart, and the code of each.
//!
//! No test or assignment of the question tells the values of a *class* apart, so a packet is coded
//! as the class numbers of its fields, each in as many bits as it needs. Codes follow the order of
//! values, so that ranges stay ranges.
//!
//! When the number of classes is no power of two, some codes are left over. A class that is never
//! assigned takes them all: they act as further values of it, which makes no difference, because a
//! value that nothing assigns can only be carried along, and one of them can stand for another in
//! any history. Where every class is assigned the codes that are left over stay out of
//! [`Space::fields`]' valid codes, and every program is restricted to packets that exist.

use super::options::Limit;
use super::program::{Domain, FieldId, Kind, Node, NodeId, Program, Range, SetId, Value};
use super::refinement::Refinement;

/// A packet: a value for each field of the program.
pub type Packet = Vec<Value>;

/// A field of a question.
#[derive(Clone, Debug)]
pub struct FieldSpace {
    /// Which one.
    pub field: FieldId,
    /// Its values in the program.
    pub domain: Domain,
    /// The level of its most significant bit.
    pub level: u32,
    /// How many bits it has.
    pub width: u32,
    /// The values of each class, by code; codes from here on belong to the last class when it
    /// `takes_spare`, else to nothing.
    pub classes: Vec<Vec<Range>>,
    /// Whether the last class has all codes that are left over.
    pub takes_spare: bool,
    /// The first value of each elementary interval and its class.
    starts: Vec<(Value, u32)>,
}

/// The fields that a question mentions, in the order in which diagrams test them.
#[derive(Clone, Debug)]
pub struct Space {
    fields: Vec<FieldSpace>,
    /// Position in `fields` by field of the program.
    positions: Vec<Option<u16>>,
    /// A packet with a value for every field, also those that are not mentioned.
    plain: Packet,
    levels: u32,
}

/// What a question does with a field.
#[derive(Clone, Debug, Default)]
struct Use {
    sets: Vec<SetId>,
    assigned: Vec<Value>,
}

impl Space {
    /// The space of these nodes, which hold all their operands.
    ///
    /// # Errors
    /// [`Limit::Bits`] when there are more than `bits`.
    pub fn new(
        program: &Program,
        nodes: &[NodeId],
        order: &[FieldId],
        bits: usize,
    ) -> Result<Self, Limit> {
        let uses = uses(program, nodes);
        let mut space = Space {
            fields: Vec::new(),
            positions: vec![None; program.fields().len()],
            plain: (program.fields().iter())
                .map(|field| friendly(field.domain, &field.domain.all()))
                .collect(),
            levels: 0,
        };
        for field in super::order::fields(program, nodes, order) {
            let used = uses[usize::from(field.0)]
                .as_ref()
                .expect("only fields that are used are in the order");
            let domain = program.fields()[usize::from(field.0)].domain;
            let mut coded = FieldSpace::new(program, field, domain, used);
            coded.level = space.levels;
            space.levels += coded.width;
            if space.levels as usize > bits {
                return Err(Limit::Bits);
            }
            space.positions[usize::from(field.0)] = Some(space.fields.len() as u16);
            space.fields.push(coded);
        }
        Ok(space)
    }

    /// The fields, in the order in which diagrams test them.
    #[must_use]
    pub fn fields(&self) -> &[FieldSpace] {
        &self.fields
    }

    /// How a field is coded, unless the question does not mention it.
    #[must_use]
    pub fn field(&self, field: FieldId) -> Option<&FieldSpace> {
        let position = (*self.positions.get(usize::from(field.0))?)?;
        self.fields.get(usize::from(position))
    }

    /// Bits of a packet.
    #[must_use]
    pub fn levels(&self) -> u32 {
        self.levels
    }

    /// The bits that stand for a packet.
    #[must_use]
    pub fn encode(&self, packet: &[Value]) -> Vec<bool> {
        let mut bits = Vec::with_capacity(self.levels as usize);
        for field in &self.fields {
            let code = field.code(packet[usize::from(field.field.0)]);
            bits.extend((0..field.width).rev().map(|bit| code >> bit & 1 == 1));
        }
        bits
    }

    /// A packet that these bits stand for; fields that are not mentioned have a plain value.
    #[must_use]
    pub fn decode(&self, bits: &[bool]) -> Packet {
        let mut packet = self.plain.clone();
        for field in &self.fields {
            let code = bits[field.level as usize..][..field.width as usize]
                .iter()
                .fold(0, |code, bit| code << 1 | u32::from(*bit));
            packet[usize::from(field.field.0)] = field.example(code);
        }
        packet
    }
}

impl FieldSpace {
    fn new(program: &Program, field: FieldId, domain: Domain, used: &Use) -> Self {
        let intervals = intervals(program, domain, used);
        let covered = |range: &Range| {
            let from = intervals.partition_point(|interval| interval.0 < range.0);
            let to = intervals.partition_point(|interval| interval.0 <= range.1);
            from..to
        };
        let mut partition = Refinement::new(intervals.len());
        for value in &used.assigned {
            partition.refine(covered(&(*value, *value)));
        }
        for set in &used.sets {
            let ranges = program.set(*set);
            let count: usize = ranges.iter().map(|range| covered(range).len()).sum();
            if count * 2 <= intervals.len() {
                partition.refine(ranges.iter().flat_map(covered));
            } else {
                // What a set leaves out separates as well as what it holds.
                let ends = ranges.iter().map(|range| covered(range).end);
                let starts = ranges.iter().map(|range| covered(range).start);
                let gaps = std::iter::once(0)
                    .chain(ends)
                    .zip(starts.chain([intervals.len()]));
                partition.refine(gaps.flat_map(|(from, to)| from..to));
            }
        }
        let mut classes: Vec<Vec<usize>> = vec![Vec::new(); partition.sizes.len()];
        for (interval, class) in partition.class_of.iter().enumerate() {
            classes[*class].push(interval);
        }
        classes.sort_unstable_by_key(|intervals| intervals[0]);
        let spare = !classes.len().is_power_of_two();
        let mut takes_spare = false;
        if spare {
            let assigned = |class: &[usize]| {
                class.len() == 1 && {
                    let (first, last) = intervals[class[0]];
                    first == last && used.assigned.binary_search(&first).is_ok()
                }
            };
            let size = |class: &[usize]| {
                class.iter().fold(0u128, |size, at| {
                    size.saturating_add(intervals[*at].1.number - intervals[*at].0.number)
                })
            };
            let widest = (0..classes.len())
                .filter(|class| !assigned(&classes[*class]))
                .max_by_key(|class| (classes[*class].len() > 1, size(&classes[*class])));
            if let Some(widest) = widest {
                let class = classes.remove(widest);
                classes.push(class);
                takes_spare = true;
            }
        }
        let mut starts: Vec<(Value, u32)> =
            intervals.iter().map(|interval| (interval.0, 0)).collect();
        for (code, class) in (0u32..).zip(&classes) {
            for interval in class {
                starts[*interval].1 = code;
            }
        }
        FieldSpace {
            field,
            domain,
            level: 0,
            width: usize::BITS - (classes.len() - 1).leading_zeros(),
            classes: (classes.iter())
                .map(|class| class.iter().map(|interval| intervals[*interval]).collect())
                .collect(),
            takes_spare,
            starts,
        }
    }

    /// The code of a value: its class.
    #[must_use]
    pub fn code(&self, value: Value) -> u32 {
        let after = self.starts.partition_point(|(start, _)| *start <= value);
        self.starts[after.saturating_sub(1)].1
    }

    /// The values that a code stands for; none for a code of nothing.
    #[must_use]
    pub fn values(&self, code: u32) -> &[Range] {
        let last = self.classes.len() - 1;
        match self.classes.get(code as usize) {
            Some(class) => class,
            None if self.takes_spare => &self.classes[last],
            None => &[],
        }
    }

    /// A value that a code stands for, one that is easy to read.
    #[must_use]
    pub fn example(&self, code: u32) -> Value {
        let code = code.min(self.classes.len() as u32 - 1);
        friendly(self.domain, self.values(code))
    }

    /// The codes of a set of values, in order; the set is one of those that made the classes.
    #[must_use]
    pub fn codes(&self, ranges: &[Range]) -> Vec<u32> {
        let mut codes = Vec::new();
        for (first, last) in ranges {
            let from = self.starts.partition_point(|(start, _)| start < first);
            let to = self.starts.partition_point(|(start, _)| start <= last);
            codes.extend(self.starts[from..to.max(from)].iter().map(|(_, code)| code));
        }
        codes.sort_unstable();
        codes.dedup();
        let last = self.classes.len() as u32 - 1;
        if self.takes_spare && codes.last() == Some(&last) {
            codes.extend(last + 1..1 << self.width);
        }
        codes
    }

    /// The codes of packets that exist, in order.
    #[must_use]
    pub fn valid(&self) -> Vec<u32> {
        let end = if self.takes_spare {
            1 << self.width
        } else {
            self.classes.len() as u32
        };
        (0..end).collect()
    }
}

/// What the nodes do with each field of the program; `None` where they do nothing.
fn uses(program: &Program, nodes: &[NodeId]) -> Vec<Option<Use>> {
    let mut uses: Vec<Option<Use>> = vec![None; program.fields().len()];
    for node in nodes {
        let (field, set, value) = match *program.node(*node) {
            Node::Test(field, set) => (field, Some(set), None),
            Node::Assign(field, value) => (field, None, Some(value)),
            _ => continue,
        };
        let used = uses[usize::from(field.0)].get_or_insert_default();
        used.sets.extend(set);
        used.assigned.extend(value);
    }
    for used in uses.iter_mut().flatten() {
        used.assigned.sort_unstable();
        used.assigned.dedup();
    }
    uses
}

/// The domain cut wherever a set begins or ends and around each assigned value, in order.
fn intervals(program: &Program, domain: Domain, used: &Use) -> Vec<Range> {
    let after = |value: Value| {
        let number = value.number.checked_add(1)?;
        Some(Value { number, ..value })
    };
    let mut pieces = domain.all();
    for value in &used.assigned {
        // An assigned value belongs to the domain, whatever was declared.
        if !pieces
            .iter()
            .any(|(first, last)| first <= value && value <= last)
        {
            pieces.push((*value, *value));
        }
    }
    pieces.sort_unstable();
    let mut cuts = Vec::new();
    for value in &used.assigned {
        cuts.push(*value);
        cuts.extend(after(*value));
    }
    for set in &used.sets {
        for (first, last) in program.set(*set) {
            cuts.push(*first);
            cuts.extend(after(*last));
        }
    }
    cuts.sort_unstable();
    cuts.dedup();
    let mut intervals = Vec::with_capacity(pieces.len() + cuts.len());
    for (first, last) in pieces {
        let mut start = first;
        let from = cuts.partition_point(|cut| *cut <= first);
        for cut in &cuts[from..] {
            if *cut > last {
                break;
            }
            let number = cut.number - 1;
            intervals.push((start, Value { number, ..*cut }));
            start = *cut;
        }
        intervals.push((start, last));
    }
    intervals
}

/// A value of these ranges that is easy to read: a small number, but not 0 when there is another;
/// an address for documentation (RFC 5737, RFC 3849), or a host rather than its network.
fn friendly(domain: Domain, ranges: &[Range]) -> Value {
    let holding = |value: Value| {
        ranges
            .iter()
            .find(|(first, last)| *first <= value && value <= *last)
    };
    let least = |from: Value| {
        ranges
            .iter()
            .find(|(_, last)| *last >= from)
            .map(|(first, _)| (*first).max(from))
    };
    let of = |kind, number| Value { kind, number };
    let chosen = match domain {
        Domain::Number { .. } => least(Value::number(1)),
        Domain::Integer => least(Value::integer(0)),
        Domain::Address => [
            of(Kind::V4, 0xc000_0201),
            of(Kind::V6, 0x2001_0db8 << 96 | 1),
        ]
        .into_iter()
        .find(|value| holding(*value).is_some_and(|(first, last)| first < last))
        .or_else(|| {
            let (first, last) = ranges
                .iter()
                .find(|(first, _)| first.kind != Kind::Nothing)?;
            Some(of(first.kind, first.number.saturating_add(1)).min(*last))
        }),
    };
    // Negative integers: the one nearest to 0.
    let (_, last) = ranges.last().expect("a class has values");
    chosen.unwrap_or(*last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coded(domain: Domain, sets: &[&[Range]], assigned: &[Value]) -> FieldSpace {
        let mut program = Program::new();
        let field = program.field("f", domain);
        let mut roots: Vec<NodeId> = sets
            .iter()
            .map(|set| program.test(field, set.iter().copied()))
            .collect();
        roots.extend(assigned.iter().map(|value| program.assign(field, *value)));
        let nodes = program.reachable(&roots);
        let space = Space::new(&program, &nodes, &[], 64).unwrap();
        space.field(field).unwrap().clone()
    }

    fn number(number: u64) -> Value {
        Value::number(number)
    }

    #[test]
    fn values_that_nothing_tells_apart_have_one_code() {
        let domain = Domain::Number { max: 65535 };
        let low: &[Range] = &[(number(0), number(1023))];
        let some: &[Range] = &[(number(80), number(80)), (number(8080), number(8080))];
        let field = coded(domain, &[low, some], &[]);
        assert_eq!(field.classes.len(), 4);
        assert_eq!(field.code(number(0)), field.code(number(1023)));
        assert_eq!(field.code(number(1024)), field.code(number(65535)));
        assert_ne!(field.code(number(80)), field.code(number(8080)));
        assert_eq!(field.codes(low), [0, 1]);
    }

    #[test]
    fn codes_left_over_go_to_a_class_that_nothing_assigns() {
        let domain = Domain::Number { max: 9 };
        let field = coded(domain, &[], &[number(3), number(4)]);
        assert_eq!((field.classes.len(), field.width), (3, 2));
        assert!(field.takes_spare);
        let others = field.code(number(0));
        assert_eq!(field.values(3), field.values(others));
        let field = coded(Domain::Number { max: 2 }, &[], &[0, 1, 2].map(number));
        assert!(!field.takes_spare);
        assert_eq!(field.valid(), [0, 1, 2]);
    }

    #[test]
    fn examples_are_easy_to_read() {
        let integers = coded(
            Domain::Integer,
            &[],
            &[Value::integer(0), Value::integer(-7)],
        );
        let shown = |field: &FieldSpace, value| field.domain.show(field.example(field.code(value)));
        assert_eq!(shown(&integers, Value::integer(100)), "1");
        assert_eq!(shown(&integers, Value::integer(-7)), "-7");
        let v4 = |number| Value {
            kind: Kind::V4,
            number,
        };
        let prefix = (v4(10 << 24), v4((11 << 24) - 1));
        let addresses = coded(Domain::Address, &[&[prefix]], &[]);
        assert_eq!(shown(&addresses, v4(10 << 24 | 5)), "10.0.0.1");
        assert_eq!(shown(&addresses, v4(0)), "192.0.2.1");
    }
}
