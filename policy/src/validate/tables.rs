//! Flow tables as a program.

use std::collections::HashMap;

use sunwire_dataplane_common::flow_key::Field as TableField;

use super::{Invalid, classes};
use crate::address::{Address, mac_number};
use crate::field::{Field, OWNER};
use crate::prove::translate::Translation;
use crate::tables::{Copied, Digest, FlowTables, Leaf, Out, TableNode, Value};
use crate::verify::program::{NodeId, Range, Value as Number};

/// Ranges that one test may need when the bits above the tested ones are not known.
const MAX_RANGES: u64 = 1 << 16;
/// Deepest walk; the data plane's is far smaller.
const MAX_DEPTH: usize = 256;

/// What is known of a field that is tested a few bits at a time: the bits from `shift` on are those
/// of `base`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Known {
    field: Field,
    shift: u32,
    base: u64,
}

struct Reading<'a> {
    to: &'a mut Translation,
    tables: &'a FlowTables,
    classes: HashMap<Digest, Vec<Range>>,
    done: HashMap<(Digest, Option<Known>), NodeId>,
    /// Fields that are tested below a node, one bit each.
    below: HashMap<Digest, u32>,
}

/// The program that tables are.
pub(super) fn program(to: &mut Translation, tables: &FlowTables) -> Result<NodeId, Invalid> {
    let classes = classes::by_class(tables)?;
    let mut reading = Reading {
        to,
        tables,
        classes,
        done: HashMap::new(),
        below: HashMap::new(),
    };
    reading.fields_below(tables.root, 0)?;
    reading.node(tables.root, None)
}

impl Reading<'_> {
    /// The fields that are tested at or below a node; also refuses tables that go in circles.
    fn fields_below(&mut self, digest: Digest, depth: usize) -> Result<u32, Invalid> {
        if let Some(known) = self.below.get(&digest) {
            return Ok(*known);
        }
        if depth > MAX_DEPTH {
            return Err(Invalid::Damaged("a walk does not end"));
        }
        let tables = self.tables;
        let mut fields = 0;
        if let Some(node) = tables.nodes.get(&digest) {
            fields |= 1 << (policy_field(node.field).0 as u32);
            fields |= self.fields_below(node.default, depth + 1)?;
            for (_, child) in &node.edges {
                fields |= self.fields_below(*child, depth + 1)?;
            }
        }
        self.below.insert(digest, fields);
        Ok(fields)
    }

    fn node(&mut self, digest: Digest, known: Option<Known>) -> Result<NodeId, Invalid> {
        let below = self.below.get(&digest).copied().unwrap_or(0);
        // What is known matters only where the field is tested again.
        let known = known.filter(|known| below & 1 << (known.field as u32) != 0);
        if let Some(done) = self.done.get(&(digest, known)) {
            return Ok(*done);
        }
        let tables = self.tables;
        let made = match (tables.nodes.get(&digest), tables.leaves.get(&digest)) {
            (Some(node), _) => self.test(node, known)?,
            (None, Some(leaf)) => self.leaf(leaf),
            (None, None) => return Err(Invalid::Damaged("an edge leads nowhere")),
        };
        self.done.insert((digest, known), made);
        Ok(made)
    }

    fn test(&mut self, node: &TableNode, known: Option<Known>) -> Result<NodeId, Invalid> {
        let (field, offset) = policy_field(node.field);
        // Edges with one child are one arm.
        let mut arms: HashMap<(Digest, Option<Known>), Vec<Range>> = HashMap::new();
        let mut order = Vec::new();
        for (value, child) in &node.edges {
            let (ranges, then) = match value {
                Value::Class(class) => (self.classes.get(class).cloned().unwrap_or_default(), None),
                Value::Number(number) => numbers(node, field, offset, u64::from(*number), known)?,
            };
            let below = self.below.get(child).copied().unwrap_or(0);
            let then = then.filter(|known| below & 1 << (known.field as u32) != 0);
            let arm = arms.entry((*child, then)).or_insert_with(|| {
                order.push((*child, then));
                Vec::new()
            });
            arm.extend(ranges);
        }
        let mut made = Vec::with_capacity(order.len());
        for key in order {
            let ranges = arms.remove(&key).unwrap_or_default();
            let id = self.to.field(field);
            let test = self.to.program.test(id, ranges);
            made.push((test, self.node(key.0, key.1)?));
        }
        let otherwise = self.node(node.default, known)?;
        Ok(self.to.program.conditional(made, otherwise))
    }

    fn leaf(&mut self, leaf: &Leaf) -> NodeId {
        let copies: Vec<NodeId> = leaf.copies.iter().map(|copy| self.copy(copy)).collect();
        self.to.program.union(copies)
    }

    fn copy(&mut self, copy: &Copied) -> NodeId {
        let port = copy.out.map(|out| match out {
            Out::Owner => OWNER,
            Out::Endpoint(number) => number.into(),
        });
        let numbers = [
            (Field::Port, port),
            (Field::EthSource, copy.eth_src.map(mac_number)),
            (Field::EthDestination, copy.eth_dst.map(mac_number)),
            (Field::Dscp, copy.dscp.map(u64::from)),
            (Field::SourcePort, copy.src_port.map(u64::from)),
            (Field::DestinationPort, copy.dst_port.map(u64::from)),
            (Field::Translated, copy.translated.then_some(1)),
        ];
        let addresses = [
            (Field::Source, copy.ip4_src.map(Address::V4)),
            (Field::Destination, copy.ip4_dst.map(Address::V4)),
            (Field::Source, copy.ip6_src.map(Address::V6)),
            (Field::Destination, copy.ip6_dst.map(Address::V6)),
        ];
        let mut parts = Vec::new();
        for (field, value) in numbers {
            parts.extend(value.map(|value| self.to.assign(field, value)));
        }
        for (field, address) in addresses {
            let id = self.to.field(field);
            let address = address.map(Number::address);
            parts.extend(address.map(|address| self.to.program.assign(id, address)));
        }
        if copy.members.is_empty() {
            return self.to.program.sequence(parts);
        }
        let port = self.to.field(Field::Port);
        let members = copy.members.iter().map(|member| {
            let number = Number::number((*member).into());
            let here = self.to.program.test(port, [(number, number)]);
            let elsewhere = self.to.program.not(here);
            let mut parts = parts.clone();
            parts.insert(0, elsewhere);
            parts.push(self.to.assign(Field::Port, (*member).into()));
            self.to.program.sequence(parts)
        });
        let members: Vec<NodeId> = members.collect();
        self.to.program.union(members)
    }
}

/// The values of a field whose tested bits are `number`, and what is known of the field then.
fn numbers(
    node: &TableNode,
    field: Field,
    offset: u32,
    number: u64,
    known: Option<Known>,
) -> Result<(Vec<Range>, Option<Known>), Invalid> {
    let (low, width) = (u32::from(node.shift) + offset, u32::from(node.width));
    let top = (low + width).min(field.bits());
    let above = known.filter(|known| known.field == field).unwrap_or(Known {
        field,
        shift: field.bits(),
        base: 0,
    });
    if top > above.shift || low >= field.bits() {
        return Err(Invalid::Damaged("a test looks at bits that are decided"));
    }
    if number >= 1 << (top - low) {
        return Err(Invalid::Damaged(
            "an edge compares with more bits than there are",
        ));
    }
    // Bits between the tested and the known ones may be anything.
    let free = above.shift - top;
    if free >= u64::BITS || 1u64 << free > MAX_RANGES {
        return Err(Invalid::Damaged("a test skips bits of a field"));
    }
    let ranges = (0..1u64 << free).map(|middle| {
        let first = above.base | middle << top | number << low;
        let last = first | ((1 << low) - 1);
        (Number::number(first), Number::number(last))
    });
    let then = (free == 0).then(|| Known {
        field,
        shift: low,
        base: above.base | number << low,
    });
    Ok((ranges.collect(), then))
}

/// The field that a table tests, and where in it its bits are.
const fn policy_field(field: TableField) -> (Field, u32) {
    match field {
        TableField::SourceClass => (Field::Source, 0),
        TableField::DestinationClass => (Field::Destination, 0),
        TableField::Endpoint => (Field::Port, 0),
        TableField::Node => (Field::Node, 0),
        TableField::EtherType => (Field::EtherType, 0),
        TableField::Protocol => (Field::Protocol, 0),
        TableField::Dscp => (Field::Dscp, 0),
        TableField::SourcePort => (Field::SourcePort, 0),
        TableField::DestinationPort => (Field::DestinationPort, 0),
        TableField::IcmpType => (Field::IcmpType, 0),
        TableField::IcmpCode => (Field::IcmpCode, 0),
        TableField::EthSrcHigh => (Field::EthSource, 32),
        TableField::EthSrcLow => (Field::EthSource, 0),
        TableField::EthDstHigh => (Field::EthDestination, 32),
        TableField::EthDstLow => (Field::EthDestination, 0),
        TableField::Connection => (Field::Connection, 0),
        TableField::Token => (Field::Token, 0),
        TableField::Bucket => (Field::Bucket, 0),
    }
}
