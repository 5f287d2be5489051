//! The engine: programs to symbolic packet programs, over the space of one question.
//!
//! ```
//! use sunwire_policy::verify::options::Options;
//! use sunwire_policy::verify::program::{Domain, Program, Value};
//! use sunwire_policy::verify::symbolic::Symbolic;
//!
//! let mut program = Program::new();
//! let port = program.field("port", Domain::Number { max: 65535 });
//! let low = program.test(port, [(Value::number(0), Value::number(1023))]);
//! let web = program.test_value(port, Value::number(80));
//!
//! let mut symbolic = Symbolic::new(&program, &[low, web], &Options::default())?;
//! let (low, web) = (symbolic.spp_of(low)?, symbolic.spp_of(web)?);
//! let rest = symbolic.diagrams.difference(low, web)?;
//! let rest = symbolic.diagrams.domain(rest)?;
//! let cubes: Vec<_> = symbolic.cubes(rest).collect();
//! assert_eq!(cubes.len(), 1);
//! assert_eq!(cubes[0].to_string(&program), "port in 0-79, 81-1023");
//! # Ok::<(), sunwire_policy::verify::options::Limit>(())
//! ```

use std::collections::{BTreeSet, HashMap};

use super::choice::first;
use super::cubes::Cubes;
use super::options::{Limit, Options};
use super::program::{FieldId, Node, NodeId, Program, SetId, Value};
use super::set::Set;
use super::space::{Packet, Space};
use super::spp::{Diagrams, Spp};

/// Programs as diagrams. All nodes that will be asked about are given when it is made, because they
/// decide which values are told apart.
pub struct Symbolic<'p> {
    program: &'p Program,
    space: Space,
    /// The diagrams, and what can be done with them.
    pub diagrams: Diagrams,
    /// Packets that exist; see [`Space`].
    valid: Set,
    /// By node: what is known of it.
    known: Vec<Known>,
    sets: HashMap<(FieldId, SetId), Set>,
    assignments: HashMap<(FieldId, Value), Spp>,
}

/// What a node is, as far as it has been worked out.
#[derive(Clone, Copy)]
struct Known {
    /// No assignment, `dup` or star: it only lets packets through or not.
    predicate: bool,
    dup: bool,
    set: Option<Set>,
    spp: Option<Spp>,
}

impl<'p> Symbolic<'p> {
    /// The engine for these nodes and all that they are made of.
    ///
    /// # Errors
    /// [`Limit::Bits`] when they tell apart too much.
    pub fn new(program: &'p Program, roots: &[NodeId], options: &Options) -> Result<Self, Limit> {
        let nodes = program.reachable(roots);
        let space = Space::new(program, &nodes, &options.order, options.limits.bits)?;
        let mut symbolic = Symbolic {
            program,
            diagrams: Diagrams::new(space.levels(), nodes.len() * 4, options),
            valid: Set::ALL,
            known: Vec::new(),
            sets: HashMap::new(),
            assignments: HashMap::new(),
            space,
        };
        symbolic.classify(&nodes);
        for field in symbolic.space.fields().iter().rev() {
            let codes = field.valid();
            let sets = &mut symbolic.diagrams.sets;
            let valid = sets.of_numbers(field.level, field.width, &codes)?;
            symbolic.valid = sets.intersection(symbolic.valid, valid)?;
        }
        Ok(symbolic)
    }

    /// The program that is asked about.
    #[must_use]
    pub fn program(&self) -> &'p Program {
        self.program
    }

    /// How packets are coded.
    #[must_use]
    pub fn space(&self) -> &Space {
        &self.space
    }

    /// All packets that exist. Programs are restricted to them by whoever compares them:
    /// [`Symbolic::spp_of`] does.
    #[must_use]
    pub fn valid(&self) -> Set {
        self.valid
    }

    /// Whether `dup` occurs in a node.
    #[must_use]
    pub fn has_dup(&self, node: NodeId) -> bool {
        self.known[node.0 as usize].dup
    }

    /// What comes out of a node without passing a `dup`: everything, when it has none. Nodes that
    /// mean the same for packets that exist give the same.
    ///
    /// # Errors
    /// [`Limit`], as everywhere here.
    pub fn spp_of(&mut self, node: NodeId) -> Result<Spp, Limit> {
        let spp = self.compile(node)?;
        self.diagrams.restrict_input(self.valid, spp)
    }

    /// The packets for which something comes out of a node.
    ///
    /// # Errors
    /// [`Limit`].
    pub fn set_of(&mut self, node: NodeId) -> Result<Set, Limit> {
        self.compile(node)?;
        let set = self.passing(node)?;
        self.diagrams.sets.intersection(set, self.valid)
    }

    /// What comes out of a program for one packet.
    ///
    /// # Panics
    /// When the packet has not a value for every field of the program.
    #[must_use]
    pub fn outputs(&self, spp: Spp, packet: &Packet) -> BTreeSet<Packet> {
        let input = self.space.encode(packet);
        let ends = self.diagrams.outputs(spp, &input);
        (ends.into_iter())
            .map(|bits| {
                let mut output = self.space.decode(&bits);
                for (field, value) in output.iter_mut().enumerate() {
                    // What keeps its code keeps its value: a code that is assigned has one value.
                    let coded = self.space.field(FieldId(field as u16));
                    let kept = coded.is_none_or(|coded| {
                        let levels = coded.level as usize..(coded.level + coded.width) as usize;
                        bits[levels.clone()] == input[levels]
                    });
                    if kept {
                        *value = packet[field];
                    }
                }
                output
            })
            .collect()
    }

    /// A set as disjoint products of values per field.
    #[must_use]
    pub fn cubes(&self, set: Set) -> Cubes<'_> {
        Cubes::new(self, set)
    }

    fn classify(&mut self, nodes: &[NodeId]) {
        let unknown = Known {
            predicate: false,
            dup: false,
            set: None,
            spp: None,
        };
        self.known = vec![unknown; self.program.len()];
        for id in nodes {
            let node = self.program.node(*id);
            let mut predicate = !matches!(node, Node::Dup | Node::Assign(..) | Node::Star(_));
            let mut dup = *node == Node::Dup;
            node.for_each_operand(|operand| {
                let known = self.known[operand.0 as usize];
                predicate &= known.predicate;
                dup |= known.dup;
            });
            // The result of a negation is a predicate, whatever it is of.
            predicate |= matches!(node, Node::Not(_));
            dup &= !matches!(node, Node::Not(_));
            self.known[id.0 as usize] = Known {
                predicate,
                dup,
                ..unknown
            };
        }
    }

    /// What comes out without passing a `dup`, for valid packets.
    pub(super) fn compile(&mut self, root: NodeId) -> Result<Spp, Limit> {
        if !self.is_known(root) {
            // Operands first, by an explicit stack: programs may be nested as deep as they like.
            let mut waiting = vec![(root, false)];
            while let Some((node, operands_known)) = waiting.pop() {
                if self.is_known(node) {
                    continue;
                }
                if operands_known {
                    self.compile_one(node)?;
                    continue;
                }
                waiting.push((node, true));
                self.program.node(node).for_each_operand(|operand| {
                    if !self.is_known(operand) {
                        waiting.push((operand, false));
                    }
                });
            }
        }
        self.spp(root)
    }

    fn is_known(&self, node: NodeId) -> bool {
        let known = self.known[node.0 as usize];
        known.set.is_some() || known.spp.is_some()
    }

    fn compile_one(&mut self, id: NodeId) -> Result<(), Limit> {
        if self.known[id.0 as usize].predicate {
            let set = self.predicate(id)?;
            self.known[id.0 as usize].set = Some(set);
        } else {
            let spp = self.action(id)?;
            self.known[id.0 as usize].spp = Some(spp);
        }
        Ok(())
    }

    /// The program of a node that is known.
    pub(super) fn spp(&mut self, node: NodeId) -> Result<Spp, Limit> {
        let known = self.known[node.0 as usize];
        match (known.spp, known.set) {
            (Some(spp), _) => Ok(spp),
            (None, set) => {
                let set = set.expect("operands are compiled before what they are part of");
                let spp = self.diagrams.test(set)?;
                self.known[node.0 as usize].spp = Some(spp);
                Ok(spp)
            }
        }
    }

    /// The packets that a node, which is known, lets through.
    pub(super) fn passing(&mut self, node: NodeId) -> Result<Set, Limit> {
        match self.known[node.0 as usize].set {
            Some(set) => Ok(set),
            None => {
                let spp = self.spp(node)?;
                let set = self.diagrams.domain(spp)?;
                self.known[node.0 as usize].set = Some(set);
                Ok(set)
            }
        }
    }

    fn predicate(&mut self, id: NodeId) -> Result<Set, Limit> {
        let program = self.program;
        match program.node(id) {
            Node::Drop => Ok(Set::EMPTY),
            Node::Test(field, set) => self.test(*field, *set),
            Node::Not(operand) => {
                let operand = self.passing(*operand)?;
                self.diagrams.sets.complement(operand)
            }
            Node::Union(parts) => {
                let sets = (parts.iter())
                    .map(|part| self.passing(*part))
                    .collect::<Result<_, _>>()?;
                self.diagrams.sets.union_all(sets)
            }
            Node::Sequence(parts) => {
                let mut set = Set::ALL;
                for part in parts.iter().rev() {
                    let part = self.passing(*part)?;
                    set = self.diagrams.sets.intersection(part, set)?;
                }
                Ok(set)
            }
            Node::Conditional(arms, last) => self.conditional_set(arms, *last),
            Node::Intersection(left, right) => {
                let (left, right) = (self.passing(*left)?, self.passing(*right)?);
                self.diagrams.sets.intersection(left, right)
            }
            Node::Difference(left, right) => {
                let (left, right) = (self.passing(*left)?, self.passing(*right)?);
                self.diagrams.sets.difference(left, right)
            }
            Node::SymmetricDifference(left, right) => {
                let (left, right) = (self.passing(*left)?, self.passing(*right)?);
                self.diagrams.sets.symmetric_difference(left, right)
            }
            Node::Id | Node::Dup | Node::Assign(..) | Node::Star(_) => Ok(Set::ALL),
        }
    }

    fn action(&mut self, id: NodeId) -> Result<Spp, Limit> {
        let program = self.program;
        match program.node(id) {
            Node::Assign(field, value) => self.assign(*field, *value),
            Node::Union(parts) => {
                let (mut sets, mut spps) = (Vec::new(), Vec::with_capacity(parts.len()));
                for part in parts {
                    if self.known[part.0 as usize].predicate {
                        sets.push(self.passing(*part)?);
                    } else {
                        spps.push(self.spp(*part)?);
                    }
                }
                let set = self.diagrams.sets.union_all(sets)?;
                spps.push(self.diagrams.test(set)?);
                self.diagrams.union_all(spps)
            }
            Node::Sequence(parts) => self.sequence(Spp::ID, parts),
            Node::Star(body) => {
                let body = self.spp(*body)?;
                self.diagrams.star(body)
            }
            Node::Conditional(arms, last) => self.conditional_spp(arms, *last),
            Node::Intersection(left, right) => {
                let (left, right) = (self.spp(*left)?, self.spp(*right)?);
                self.diagrams.intersection(left, right)
            }
            Node::Difference(left, right) => {
                let (left, right) = (self.spp(*left)?, self.spp(*right)?);
                self.diagrams.difference(left, right)
            }
            Node::SymmetricDifference(left, right) => {
                let (left, right) = (self.spp(*left)?, self.spp(*right)?);
                self.diagrams.symmetric_difference(left, right)
            }
            // A `dup` is no way around `dup`s.
            Node::Dup => Ok(Spp::DROP),
            Node::Drop | Node::Id | Node::Test(..) | Node::Not(_) => {
                let set = self.predicate(id)?;
                self.diagrams.test(set)
            }
        }
    }

    /// Parts one after the other, then `after`: from the last, so that tests and assignments only
    /// ever meet what follows them.
    fn sequence(&mut self, after: Spp, parts: &[NodeId]) -> Result<Spp, Limit> {
        let mut spp = after;
        for part in parts.iter().rev() {
            if spp.is_drop() {
                return Ok(spp);
            }
            spp = if self.known[part.0 as usize].predicate {
                let set = self.passing(*part)?;
                self.diagrams.restrict_input(set, spp)?
            } else {
                let part = self.spp(*part)?;
                self.diagrams.sequence(part, spp)?
            };
        }
        Ok(spp)
    }

    fn conditional_set(&mut self, arms: &[(NodeId, NodeId)], last: NodeId) -> Result<Set, Limit> {
        let otherwise = self.passing(last)?;
        let arms: Vec<(Set, Set)> = (arms.iter())
            .map(|(guard, then)| Ok((self.passing(*guard)?, self.passing(*then)?)))
            .collect::<Result<_, _>>()?;
        first(&mut self.diagrams, arms, otherwise)
    }

    fn conditional_spp(&mut self, arms: &[(NodeId, NodeId)], last: NodeId) -> Result<Spp, Limit> {
        let otherwise = self.spp(last)?;
        let arms: Vec<(Set, Spp)> = (arms.iter())
            .map(|(guard, then)| Ok((self.passing(*guard)?, self.spp(*then)?)))
            .collect::<Result<_, _>>()?;
        first(&mut self.diagrams, arms, otherwise)
    }

    fn test(&mut self, field: FieldId, set: SetId) -> Result<Set, Limit> {
        if let Some(known) = self.sets.get(&(field, set)) {
            return Ok(*known);
        }
        let coded = self
            .space
            .field(field)
            .expect("the space has every field that is tested");
        let codes = coded.codes(self.program.set(set));
        let made = (self.diagrams.sets).of_numbers(coded.level, coded.width, &codes)?;
        self.sets.insert((field, set), made);
        Ok(made)
    }

    fn assign(&mut self, field: FieldId, value: Value) -> Result<Spp, Limit> {
        if let Some(known) = self.assignments.get(&(field, value)) {
            return Ok(*known);
        }
        let coded = self
            .space
            .field(field)
            .expect("the space has every field that is assigned");
        let code = coded.code(value);
        let made = self
            .diagrams
            .assign_number(coded.level, coded.width, code)?;
        self.assignments.insert((field, value), made);
        Ok(made)
    }
}
