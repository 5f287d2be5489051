//! Answers: is a program empty, are two the same, is one part of another?
//!
//! ```
//! use sunwire_policy::verify::decide::{Answer, contained, equivalent};
//! use sunwire_policy::verify::options::Options;
//! use sunwire_policy::verify::program::{Domain, Program, Value};
//!
//! let mut program = Program::new();
//! let port = program.field("port", Domain::Number { max: 65535 });
//! let low = program.test(port, [(Value::number(0), Value::number(1023))]);
//! let web = program.test_value(port, Value::number(80));
//!
//! let options = Options::default();
//! assert_eq!(contained(&program, web, low, &options)?, Answer::Holds);
//! let Answer::Fails(why) = equivalent(&program, web, low, &options)? else { panic!() };
//! assert_eq!(why.to_string(), "in   port=1\nout  port=1");
//! assert_eq!(why.side.to_string(), "right", "only `low` lets it through");
//! # Ok::<(), sunwire_policy::verify::options::Limit>(())
//! ```

use super::automaton::Automaton;
use super::counterexample::{Counterexample, Side};
use super::options::{Limit, Options};
use super::program::{Node, NodeId, Program};
use super::search::{Question, Search, Trace};
use super::symbolic::Symbolic;

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Yes, for every packet.
    Holds,
    /// No: this history shows it.
    Fails(Box<Counterexample>),
}

impl Answer {
    /// Whether it holds.
    #[must_use]
    pub fn holds(&self) -> bool {
        matches!(self, Answer::Holds)
    }

    /// What shows that it does not hold.
    #[must_use]
    pub fn counterexample(&self) -> Option<&Counterexample> {
        match self {
            Answer::Holds => None,
            Answer::Fails(counterexample) => Some(counterexample),
        }
    }
}

/// Answers questions about nodes of one program; what is worked out for one helps the next.
pub struct Verifier<'p> {
    symbolic: Symbolic<'p>,
    automaton: Automaton,
}

/// Whether nothing ever comes out of a node; if not, the counterexample is a history of it.
///
/// # Errors
/// [`Limit`] when the options do not permit enough.
pub fn empty(program: &Program, node: NodeId, options: &Options) -> Result<Answer, Limit> {
    Verifier::new(program, &[node], options)?.empty(node)
}

/// Whether two nodes have the same histories, for every packet.
///
/// # Errors
/// [`Limit`] when the options do not permit enough.
pub fn equivalent(
    program: &Program,
    left: NodeId,
    right: NodeId,
    options: &Options,
) -> Result<Answer, Limit> {
    Verifier::new(program, &[left, right], options)?.equivalent(left, right)
}

/// Whether all histories of the left node are histories of the right one.
///
/// # Errors
/// [`Limit`] when the options do not permit enough.
pub fn contained(
    program: &Program,
    left: NodeId,
    right: NodeId,
    options: &Options,
) -> Result<Answer, Limit> {
    Verifier::new(program, &[left, right], options)?.contained(left, right)
}

impl<'p> Verifier<'p> {
    /// Ready for questions about these nodes and what they are made of.
    ///
    /// # Errors
    /// [`Limit`], as everywhere here.
    pub fn new(program: &'p Program, roots: &[NodeId], options: &Options) -> Result<Self, Limit> {
        Ok(Verifier {
            symbolic: Symbolic::new(program, roots, options)?,
            automaton: Automaton::new(options.limits.states),
        })
    }

    /// The engine, for whatever else there is to ask.
    pub fn symbolic(&mut self) -> &mut Symbolic<'p> {
        &mut self.symbolic
    }

    /// See [`empty`].
    ///
    /// # Errors
    /// [`Limit`].
    pub fn empty(&mut self, node: NodeId) -> Result<Answer, Limit> {
        // Difference and symmetric difference are empty just when a comparison holds, and that is
        // less work.
        match *self.symbolic.program().node(node) {
            Node::SymmetricDifference(left, right) => {
                Ok(self.equivalent(left, right)?.of(Side::Left))
            }
            Node::Difference(left, right) => self.contained(left, right),
            _ if self.symbolic.has_dup(node) => self.search(Question::Empty, node, node),
            _ => {
                let spp = self.symbolic.spp_of(node)?;
                Ok(self.by_pair(spp, Side::Left, &[node]))
            }
        }
    }

    /// See [`equivalent`].
    ///
    /// # Errors
    /// [`Limit`].
    pub fn equivalent(&mut self, left: NodeId, right: NodeId) -> Result<Answer, Limit> {
        if left == right {
            return Ok(Answer::Holds);
        }
        match (
            self.symbolic.program().node(left),
            self.symbolic.program().node(right),
        ) {
            (_, Node::Drop) => return self.empty(left),
            (Node::Drop, _) => return Ok(self.empty(right)?.of(Side::Right)),
            _ => {}
        }
        if self.symbolic.has_dup(left) || self.symbolic.has_dup(right) {
            return self.search(Question::Equal, left, right);
        }
        let roots = [left, right];
        let (left, right) = (self.symbolic.spp_of(left)?, self.symbolic.spp_of(right)?);
        let diagrams = &mut self.symbolic.diagrams;
        let (more, less) = (
            diagrams.difference(left, right)?,
            diagrams.difference(right, left)?,
        );
        Ok(match more.is_drop() {
            true => self.by_pair(less, Side::Right, &roots),
            false => self.by_pair(more, Side::Left, &roots),
        })
    }

    /// See [`contained`].
    ///
    /// # Errors
    /// [`Limit`].
    pub fn contained(&mut self, left: NodeId, right: NodeId) -> Result<Answer, Limit> {
        if left == right {
            return Ok(Answer::Holds);
        }
        if self.symbolic.has_dup(left) || self.symbolic.has_dup(right) {
            return self.search(Question::Contained, left, right);
        }
        let roots = [left, right];
        let (left, right) = (self.symbolic.spp_of(left)?, self.symbolic.spp_of(right)?);
        let more = self.symbolic.diagrams.difference(left, right)?;
        Ok(self.by_pair(more, Side::Left, &roots))
    }

    fn search(&mut self, question: Question, left: NodeId, right: NodeId) -> Result<Answer, Limit> {
        let search = Search::new(question, &mut self.symbolic, &mut self.automaton);
        Ok(match search.run(left, right)? {
            None => Answer::Holds,
            Some(trace) => self.fails(&trace, &[left, right]),
        })
    }

    /// A difference between programs without `dup`, if there is one.
    fn by_pair(&self, difference: super::spp::Spp, side: Side, roots: &[NodeId]) -> Answer {
        match self.symbolic.diagrams.pick(difference) {
            None => Answer::Holds,
            Some((input, output)) => {
                let packets = vec![input];
                let trace = Trace {
                    packets,
                    output,
                    side,
                };
                self.fails(&trace, roots)
            }
        }
    }

    fn fails(&self, trace: &Trace, roots: &[NodeId]) -> Answer {
        let space = self.symbolic.space();
        let program = self.symbolic.program();
        let mut mentioned = vec![None; program.fields().len()];
        for node in program.reachable(roots) {
            if let Node::Test(field, _) | Node::Assign(field, _) = program.node(node) {
                let field = usize::from(field.0);
                mentioned[field] = Some(program.fields()[field].clone());
            }
        }
        let mut packets = trace.packets.iter().map(|bits| space.decode(bits));
        Answer::Fails(Box::new(Counterexample {
            input: packets.next().expect("a trace begins with a packet"),
            hops: packets.collect(),
            output: space.decode(&trace.output),
            side: trace.side,
            mentioned,
        }))
    }
}

impl Answer {
    fn of(self, side: Side) -> Answer {
        match self {
            Answer::Holds => Answer::Holds,
            Answer::Fails(counterexample) => Answer::Fails(Box::new(Counterexample {
                side,
                ..*counterexample
            })),
        }
    }
}
