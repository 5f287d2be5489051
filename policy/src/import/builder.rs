//! Building a program within limits: the only way in which importers make nodes.
//!
//! [`Program`] flattens unions and sequences, so definitions that use each other twice would grow
//! without bound, and chains of definitions nest without bound although their text does not. The
//! builder counts both, and knows which nodes are predicates.

use crate::verify::program::{Domain, FieldId, Node, NodeId, Program, Range, Value};

use super::limits::{MAX_DEPTH, MAX_FIELDS, MAX_NODES, MAX_OPERANDS};

/// Which limit a program exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Excess {
    Nodes,
    Operands,
    Depth,
    Fields,
    /// A field of this name holds other values in a program read before.
    Domain,
}

impl Excess {
    /// What is too large, in one sentence.
    pub(super) fn message(self) -> String {
        match self {
            Excess::Nodes => format!("the program has more than {MAX_NODES} nodes"),
            Excess::Operands => {
                format!("the unions and sequences have more than {MAX_OPERANDS} operands in all")
            }
            Excess::Depth => format!("the program nests more than {MAX_DEPTH} deep"),
            Excess::Fields => format!("the program has more than {MAX_FIELDS} fields"),
            Excess::Domain => {
                "a field of this name holds values of another kind in the other program".to_owned()
            }
        }
    }
}

/// What is known of a node.
#[derive(Clone, Copy)]
struct Facts {
    /// Greatest number of nodes below each other, itself included.
    depth: u16,
    /// Whether it is made of tests alone.
    predicate: bool,
    /// Whether it records packets in the history.
    records: bool,
}

/// Makes the nodes of one program.
pub(super) struct Builder<'p> {
    program: &'p mut Program,
    /// Of the nodes up to the last one asked about.
    facts: Vec<Facts>,
    operands: usize,
}

impl<'p> Builder<'p> {
    pub(super) fn new(program: &'p mut Program) -> Self {
        Builder {
            program,
            facts: Vec::new(),
            operands: 0,
        }
    }

    pub(super) fn program(&self) -> &Program {
        self.program
    }

    pub(super) fn field(&mut self, name: &str, domain: Domain) -> Result<FieldId, Excess> {
        let id = self.program.field(name, domain);
        if self.program.fields().len() > MAX_FIELDS {
            return Err(Excess::Fields);
        }
        if self.program.fields()[usize::from(id.0)].domain != domain {
            return Err(Excess::Domain);
        }
        Ok(id)
    }

    pub(super) fn drop(&mut self) -> NodeId {
        self.program.drop()
    }

    pub(super) fn id(&mut self) -> NodeId {
        self.program.id()
    }

    pub(super) fn dup(&mut self) -> NodeId {
        self.program.dup()
    }

    pub(super) fn test(
        &mut self,
        field: FieldId,
        ranges: impl IntoIterator<Item = Range>,
    ) -> Result<NodeId, Excess> {
        let id = self.program.test(field, ranges);
        self.checked(id)
    }

    pub(super) fn assign(&mut self, field: FieldId, value: Value) -> Result<NodeId, Excess> {
        let id = self.program.assign(field, value);
        self.checked(id)
    }

    pub(super) fn union(&mut self, arms: &[NodeId]) -> Result<NodeId, Excess> {
        if let [one] = arms {
            return Ok(*one);
        }
        self.count(arms, |node| match node {
            Node::Union(inner) => inner.len(),
            _ => 1,
        })?;
        let id = self.program.union(arms.iter().copied());
        self.checked(id)
    }

    pub(super) fn sequence(&mut self, parts: &[NodeId]) -> Result<NodeId, Excess> {
        if let [one] = parts {
            return Ok(*one);
        }
        self.count(parts, |node| match node {
            Node::Sequence(inner) => inner.len(),
            _ => 1,
        })?;
        let id = self.program.sequence(parts.iter().copied());
        self.checked(id)
    }

    fn count(&mut self, of: &[NodeId], length: fn(&Node) -> usize) -> Result<(), Excess> {
        // One operand cannot overflow the sum: each has at most as many as were counted before.
        let operands = of.iter().map(|id| length(self.program.node(*id))).sum();
        self.spend(operands)
    }

    /// Counts work that grows the program otherwise.
    pub(super) fn spend(&mut self, operands: usize) -> Result<(), Excess> {
        self.operands = self.operands.saturating_add(operands);
        if self.operands > MAX_OPERANDS {
            return Err(Excess::Operands);
        }
        Ok(())
    }

    pub(super) fn star(&mut self, body: NodeId) -> Result<NodeId, Excess> {
        let id = self.program.star(body);
        self.checked(id)
    }

    /// The first arm whose predicate holds, else `otherwise`.
    pub(super) fn conditional(
        &mut self,
        arms: &[(NodeId, NodeId)],
        otherwise: NodeId,
    ) -> Result<NodeId, Excess> {
        self.spend(2 * arms.len() + 1)?;
        let id = self.program.conditional(arms.iter().copied(), otherwise);
        self.checked(id)
    }

    /// Of a predicate.
    pub(super) fn not(&mut self, predicate: NodeId) -> Result<NodeId, Excess> {
        let id = self.program.not(predicate);
        self.checked(id)
    }

    pub(super) fn intersection(&mut self, left: NodeId, right: NodeId) -> Result<NodeId, Excess> {
        let id = self.program.intersection(left, right);
        self.checked(id)
    }

    pub(super) fn difference(&mut self, left: NodeId, right: NodeId) -> Result<NodeId, Excess> {
        let id = self.program.difference(left, right);
        self.checked(id)
    }

    pub(super) fn symmetric_difference(
        &mut self,
        left: NodeId,
        right: NodeId,
    ) -> Result<NodeId, Excess> {
        let id = self.program.symmetric_difference(left, right);
        self.checked(id)
    }

    /// Whether a node is made of tests alone.
    pub(super) fn is_predicate(&mut self, id: NodeId) -> bool {
        self.facts(id).predicate
    }

    /// Whether a node holds `dup`.
    pub(super) fn records(&mut self, id: NodeId) -> bool {
        self.facts(id).records
    }

    fn checked(&mut self, id: NodeId) -> Result<NodeId, Excess> {
        if self.program.len() > MAX_NODES {
            return Err(Excess::Nodes);
        }
        if self.facts(id).depth > MAX_DEPTH {
            return Err(Excess::Depth);
        }
        Ok(id)
    }

    fn facts(&mut self, id: NodeId) -> Facts {
        let wanted = id.0 as usize;
        for number in self.facts.len()..=wanted {
            let facts = self.facts_of(self.program.node(NodeId(number as u32)));
            self.facts.push(facts);
        }
        self.facts[wanted]
    }

    /// Of a node whose operands, which come before it, are known.
    fn facts_of(&self, node: &Node) -> Facts {
        let leaf = |predicate| Facts {
            depth: 1,
            predicate,
            records: false,
        };
        let above = |operands: &[NodeId]| {
            let mut facts = leaf(true);
            for operand in operands {
                let below = self.facts[operand.0 as usize];
                facts.depth = facts.depth.max(below.depth.saturating_add(1));
                facts.predicate &= below.predicate;
                facts.records |= below.records;
            }
            facts
        };
        match node {
            Node::Drop | Node::Id | Node::Test(..) => leaf(true),
            Node::Assign(..) => leaf(false),
            Node::Dup => Facts {
                records: true,
                ..leaf(false)
            },
            Node::Not(operand) => above(&[*operand]),
            Node::Star(operand) => Facts {
                predicate: false,
                ..above(&[*operand])
            },
            Node::Union(operands) | Node::Sequence(operands) => above(operands),
            Node::Intersection(left, right)
            | Node::Difference(left, right)
            | Node::SymmetricDifference(left, right) => above(&[*left, *right]),
            Node::Conditional(arms, otherwise) => {
                let operands: Vec<NodeId> = arms
                    .iter()
                    .flat_map(|(test, then)| [*test, *then])
                    .chain([*otherwise])
                    .collect();
                above(&operands)
            }
        }
    }
}
