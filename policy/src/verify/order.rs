//! In which order diagrams test fields: chosen for each question.
//!
//! What a program tests first, and under which most of it lies, comes first: then what the program
//! says for one value of that field stays together, and parts for different values never meet.

use super::program::{FieldId, Node, NodeId, Program};

/// Fields that nodes test or assign, in order: those that are `named` first. The nodes come with
/// all their operands, operands first.
pub(super) fn fields(program: &Program, nodes: &[NodeId], named: &[FieldId]) -> Vec<FieldId> {
    let mut weights = Weights::new(program);
    for node in nodes {
        weights.add(program, *node);
    }
    let mut fields: Vec<FieldId> = (0u16..)
        .map(FieldId)
        .zip(&weights.used)
        .filter_map(|(field, used)| used.is_some().then_some(field))
        .collect();
    fields.sort_by_key(|field| {
        let at = usize::from(field.0);
        let named = named.iter().position(|named| named == field);
        (
            named.unwrap_or(usize::MAX),
            std::cmp::Reverse(weights.under[at]),
            weights.used[at],
        )
    });
    fields
}

struct Weights {
    /// By node: how large it is.
    sizes: Vec<u64>,
    /// By node: which fields it tests; only the first 64 of a program, others have no weight.
    tests: Vec<u64>,
    /// By field: when it was met first.
    used: Vec<Option<usize>>,
    /// By field: how much lies under tests of it.
    under: Vec<u64>,
    met: usize,
}

impl Weights {
    fn new(program: &Program) -> Self {
        Weights {
            sizes: vec![0; program.len()],
            tests: vec![0; program.len()],
            used: vec![None; program.fields().len()],
            under: vec![0; program.fields().len()],
            met: 0,
        }
    }

    fn add(&mut self, program: &Program, id: NodeId) {
        let node = program.node(id);
        let (mut size, mut tests) = (1u64, 0);
        node.for_each_operand(|operand| {
            size = size.saturating_add(self.sizes[operand.0 as usize]);
            tests |= self.tests[operand.0 as usize];
        });
        match node {
            Node::Test(field, _) | Node::Assign(field, _) => {
                self.met += 1;
                self.used[usize::from(field.0)].get_or_insert(self.met);
                if matches!(node, Node::Test(..)) && field.0 < 64 {
                    tests |= 1 << field.0;
                }
            }
            Node::Sequence(parts) => {
                let mut after = 0;
                for part in parts.iter().rev() {
                    let first = match program.node(*part) {
                        Node::Test(..) | Node::Not(_) => self.tests[part.0 as usize],
                        _ => 0,
                    };
                    self.weigh(first, after);
                    after = self.sizes[part.0 as usize].saturating_add(after);
                }
            }
            Node::Conditional(arms, _) => {
                for (guard, then) in arms {
                    let (guard, then) = (guard.0 as usize, then.0 as usize);
                    self.weigh(self.tests[guard], self.sizes[then]);
                }
            }
            _ => {}
        }
        self.sizes[id.0 as usize] = size;
        self.tests[id.0 as usize] = tests;
    }

    fn weigh(&mut self, mut fields: u64, size: u64) {
        while fields != 0 {
            let field = fields.trailing_zeros() as usize;
            fields &= fields - 1;
            self.under[field] = self.under[field].saturating_add(size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::program::{Domain, Value};

    #[test]
    fn outer_fields_come_before_inner_ones_and_named_ones_before_all() {
        let mut program = Program::new();
        let [port, switch, host] =
            ["pt", "sw", "dst"].map(|name| program.field(name, Domain::Integer));
        let mut arms = Vec::new();
        for place in 0..3 {
            let mut routes = Vec::new();
            for to in 0..3 {
                let to_test = program.test_value(host, Value::integer(to));
                let out = program.assign(port, Value::integer(to + place));
                routes.push(program.sequence([to_test, out]));
            }
            let here = program.test_value(switch, Value::integer(place));
            let routes = program.union(routes);
            arms.push(program.sequence([here, routes]));
        }
        let all = program.union(arms);
        let nodes = program.reachable(&[all]);
        assert_eq!(fields(&program, &nodes, &[]), [switch, host, port]);
        assert_eq!(fields(&program, &nodes, &[port]), [port, switch, host]);
    }
}
