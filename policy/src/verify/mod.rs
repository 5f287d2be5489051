//! Proving: questions about programs answered for all packets at once.
//!
//! ```text
//! Program --space--> classes of values, as bits
//!         --symbolic--> symbolic packet programs (spp) and sets of packets (set)
//!         --derivative--> automaton, where there is dup
//!         --search--> decide: holds, or a counterexample
//! ```
//!
//! - [`program`]: NetKAT programs over named fields, with `dup`, the common input of the verifier.
//!   Policies of this language and imported ones are both turned into it.
//! - [`semantics`]: what a program means, packet by packet; the oracle of everything here.
//! - [`space`], [`symbolic`]: programs without `dup` as diagrams, and what can be done with those
//!   ([`set`], [`spp`], [`cubes`]).
//! - [`decide`]: emptiness, equivalence and containment of programs with `dup`.
//! - [`options`]: limits, so that no program can exhaust memory or stack.
//!
//! # Example
//!
//! ```
//! use sunwire_policy::verify::decide::{Answer, Verifier};
//! use sunwire_policy::verify::options::Options;
//! use sunwire_policy::verify::program::{Domain, Program, Value};
//!
//! // A line of three switches: packets go right until they are at switch 2.
//! let mut program = Program::new();
//! let switch = program.field("sw", Domain::Number { max: 255 });
//! let hop = |program: &mut Program, from, to| {
//!     let here = program.test_value(switch, Value::number(from));
//!     let there = program.assign(switch, Value::number(to));
//!     program.sequence([here, there])
//! };
//! let hops = [hop(&mut program, 0, 1), hop(&mut program, 1, 2)];
//! let hops = program.union(hops);
//! let dup = program.dup();
//! let step = program.sequence([hops, dup]);
//! let network = program.star(step);
//! let (start, end) = (program.test_value(switch, Value::number(0)), program.test_value(switch, Value::number(2)));
//! let arrives = program.sequence([start, network, end]);
//! let returns = program.sequence([end, network, start]);
//!
//! let mut verifier = Verifier::new(&program, &[arrives, returns], &Options::default())?;
//! assert_eq!(verifier.empty(returns)?, Answer::Holds);
//! let answer = verifier.empty(arrives)?;
//! let way = answer.counterexample().unwrap();
//! assert_eq!(way.to_string(), "in   sw=0\ndup  sw=1\ndup  sw=2\nout  sw=2");
//! # Ok::<(), sunwire_policy::verify::options::Limit>(())
//! ```

mod automaton;
mod choice;
pub mod counterexample;
pub mod cubes;
pub mod decide;
mod derivative;
mod image;
pub mod options;
mod order;
mod partition;
pub mod program;
mod project;
mod refinement;
mod search;
pub mod semantics;
mod sequence;
pub mod set;
pub mod space;
pub mod spp;
pub mod symbolic;
mod table;
