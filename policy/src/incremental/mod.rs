//! Compilations that follow one another: after a change, what the change reaches is done anew.
//!
//! ```text
//! text ------> document -> resolved policy -> diagram -> tables -> difference to the tables before
//! endpoints -> sets ------> classes of addresses -------/
//! ```
//!
//! A [`Session`] keeps every stage and enters it where the change does:
//!
//! - A label of an endpoint that only says in which sets its addresses are: the sets and the classes
//!   of those addresses. When the classes are old ones, no rule is looked at and no node changes.
//! - Any other change of endpoints that the policy asked for: names are resolved anew, and from there
//!   on everything is remembered. Operations on diagrams are remembered by their operands, so a part
//!   of the policy that did not change costs its look-ups.
//! - The text: it is read anew, and the diagram of a rule that changed is made with those that it is
//!   joined to, in groups that other rules do not move between.
//!
//! A change of where endpoints are is none: nothing here knows it.
//!
//! The tables are those that [`compile_text`](crate::compile_text) makes of the same text and
//! environment, equal to the last byte, so that it does not matter who compiled after how many
//! changes; but they are not proved: [`validate`](crate::validate::validate) does that. Classes and
//! nodes are named by what they are; what has not changed keeps its name, and its number in the
//! kernel.
//!
//! What no compilation uses any more is thrown away with everything that can be made again, when it
//! is several times as much as what is in use.

mod delta;
mod labels;
mod surroundings;
mod workshop;

use std::sync::Arc;

use crate::ast::Document;
use crate::atoms::RegionChange;
use crate::diagnostic::Diagnostic;
use crate::environment::{Endpoint, Environment};
use crate::fdd::Order;
use crate::lower::{Capacity, check};
use crate::parser::parse;
use crate::pipeline::{Read, read, refuse_features};
use crate::resolve::index::Dependencies;
use crate::tables::size::Size;
use crate::tables::{Digest, FlowTables};
use crate::term::Resolved;
pub use delta::Delta;
use delta::Live;
pub use surroundings::EndpointChange;
use surroundings::{Changed, Surroundings, follows_by_sets};
use workshop::{GARBAGE, LITTLE, Workshop};

/// A policy and its environment, with everything that was made of them.
pub struct Session {
    surroundings: Surroundings,
    capacity: Capacity,
    text: Option<Text>,
    policy: Option<Policy>,
    workshop: Workshop,
    live: Live,
    statistics: Statistics,
}

/// What the last compilation did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// The text was read and names were resolved anew.
    pub resolved: bool,
    /// Sets of addresses that changed.
    pub sets_changed: usize,
    /// Edges that operations on diagrams made: the work that was not remembered.
    pub steps: usize,
    /// Everything made so far was thrown away first.
    pub collected: bool,
    /// Nodes, edges and remembered results that are kept.
    pub kept: usize,
}

/// A policy text that could be read.
struct Text {
    source: Arc<str>,
    document: Document,
    diagnostics: Vec<Diagnostic>,
}

/// The resolved policy of the text, in this environment.
struct Policy {
    resolved: Resolved,
    dependencies: Dependencies,
    warnings: Vec<Diagnostic>,
}

impl Session {
    /// A session without a policy.
    #[must_use]
    pub fn new(environment: Environment, capacity: Capacity) -> Self {
        Session {
            surroundings: Surroundings::new(environment),
            capacity,
            text: None,
            policy: None,
            workshop: Workshop::new(Order::default()),
            live: Live::new(),
            statistics: Statistics::default(),
        }
    }

    /// The environment as the session knows it.
    #[must_use]
    pub fn environment(&self) -> &Environment {
        &self.surroundings.environment
    }

    /// The tables of the last compilation that succeeded; without nodes and leaves before the first.
    #[must_use]
    pub fn tables(&self) -> &FlowTables {
        &self.live.tables
    }

    /// The policy that the tables are of, resolved; `None` while there is none, or it is wrong.
    #[must_use]
    pub fn policy(&self) -> Option<&Resolved> {
        self.policy.as_ref().map(|policy| &policy.resolved)
    }

    /// What the policy may mean otherwise than meant.
    #[must_use]
    pub fn warnings(&self) -> &[Diagnostic] {
        self.policy.as_ref().map_or(&[], |policy| &policy.warnings)
    }

    /// What the last compilation did.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// Compiles another text; on an error, the text before stays in force.
    ///
    /// # Errors
    /// Every mistake in the text, and the warnings.
    pub fn set_text(&mut self, text: &str) -> Result<Delta, Vec<Diagnostic>> {
        if self
            .text
            .as_ref()
            .is_some_and(|known| *known.source == *text)
            && self.policy.is_some()
        {
            self.statistics = Statistics::default();
            return Ok(Delta::default());
        }
        let (document, diagnostics) = parse(text);
        let text = Text {
            source: text.into(),
            document,
            diagnostics,
        };
        let before = self.text.replace(text);
        let done = self.resolve();
        if done.is_err() {
            self.text = before;
        }
        done
    }

    /// Follows changes of endpoints.
    ///
    /// # Errors
    /// What is wrong with the policy now; the changes are made all the same, and the tables stay as
    /// they were until the policy is right again.
    pub fn change(&mut self, changes: &[EndpointChange]) -> Result<Delta, Vec<Diagnostic>> {
        let changed: Vec<Changed> = changes
            .iter()
            .filter_map(|change| self.surroundings.apply(change))
            .collect();
        self.follow(&changed)
    }

    /// Follows all differences to another environment.
    ///
    /// # Errors
    /// As [`change`](Session::change).
    pub fn set_environment(&mut self, environment: &Environment) -> Result<Delta, Vec<Diagnostic>> {
        let own = &mut self.surroundings.environment;
        let same = own.networks == environment.networks && own.nodes == environment.nodes;
        if !same {
            own.networks.clone_from(&environment.networks);
            own.nodes.clone_from(&environment.nodes);
        }
        let changes = self.surroundings.difference(environment);
        let changed: Vec<Changed> = changes
            .iter()
            .filter_map(|change| self.surroundings.apply(change))
            .collect();
        if same {
            return self.follow(&changed);
        }
        // It may be wrong in this environment, and is not that of the tables any more.
        self.policy = None;
        self.resolve()
    }

    fn follow(&mut self, changed: &[Changed]) -> Result<Delta, Vec<Diagnostic>> {
        self.statistics = Statistics::default();
        if self.text.is_none() || (changed.is_empty() && self.policy.is_some()) {
            return Ok(Delta::default());
        }
        let Some(mut policy) = self.policy.take() else {
            return self.resolve();
        };
        let by_sets = |changed| follows_by_sets(&policy.resolved, &policy.dependencies, changed);
        if self.workshop.is_littered() || !changed.iter().all(by_sets) {
            return self.resolve();
        }
        for changed in changed {
            let moved = self.surroundings.memberships(&policy.resolved, changed);
            for (set, prefix, is_in) in moved {
                let content = &mut policy.resolved.sets[set];
                self.workshop.move_prefix(set, content, prefix, is_in);
                self.statistics.sets_changed += 1;
            }
            self.renumber(&mut policy.resolved, changed);
        }
        self.make(policy, false)
    }

    /// Keeps the numbers of the network's endpoints.
    fn renumber(&self, policy: &mut Resolved, changed: &Changed) {
        let own = |endpoint: &&Endpoint| endpoint.network == policy.network.name;
        let before = changed.before.as_ref().filter(own).map(|e| e.number);
        let after = changed.after.as_ref().filter(own).map(|e| e.number);
        if before == after {
            return;
        }
        if let Some(number) = before {
            policy.endpoints.remove(&number);
        }
        policy.endpoints.extend(after);
    }

    /// Resolves the text anew and compiles it.
    fn resolve(&mut self) -> Result<Delta, Vec<Diagnostic>> {
        self.statistics = Statistics {
            resolved: true,
            ..Statistics::default()
        };
        let Some(text) = &self.text else {
            return Ok(Delta::default());
        };
        let Surroundings { environment, index } = &self.surroundings;
        let read = read(&text.document, &text.diagnostics, environment, index);
        let Read {
            resolved,
            dependencies,
            mut warnings,
        } = read?;
        refuse_features(&resolved, &mut warnings)?;
        let policy = Policy {
            resolved,
            dependencies,
            warnings,
        };
        let order = Order::for_policy(&policy.resolved);
        self.statistics.collected = self.workshop.is_littered();
        if self.statistics.collected || order != *self.workshop.fdd.store.order() {
            self.workshop = Workshop::new(order);
        }
        self.statistics.sets_changed = self.workshop.take_sets(&policy.resolved);
        self.workshop.take_labels(&policy.resolved);
        self.make(policy, true)
    }

    /// Makes the tables of a policy whose sets the classes know.
    fn make(&mut self, policy: Policy, anew: bool) -> Result<Delta, Vec<Diagnostic>> {
        let workshop = &mut self.workshop;
        let generation = workshop.fdd.atoms.generation();
        let changes = workshop.fdd.atoms.settle();
        // Classes that are the old ones are in the old sets, and no rule says anything else.
        let made = if anew || generation != workshop.fdd.atoms.generation() {
            let made = workshop.compile(&policy.resolved);
            self.statistics.steps = workshop.fdd.store.steps();
            made.map(Some)
        } else {
            Ok(None)
        };
        let made = made.and_then(|root| self.adopt(changes, root, &policy.resolved));
        let workshop = &mut self.workshop;
        self.statistics.kept = workshop.fdd.store.size() + workshop.lowered.len();
        match made {
            Ok(delta) => {
                let kept = workshop.fdd.store.size();
                workshop.kept_at_first.get_or_insert(kept);
                self.policy = Some(policy);
                Ok(delta)
            }
            Err(diagnostic) => {
                // The classes have moved on, and the tables have not.
                self.workshop = Workshop::new(Order::default());
                self.policy = None;
                let mut diagnostics = policy.warnings;
                diagnostics.push(*diagnostic);
                Err(diagnostics)
            }
        }
    }

    /// Puts new tables in force when they fit: new classes, and another root if there is one.
    fn adopt(
        &mut self,
        changes: Vec<RegionChange>,
        root: Option<Digest>,
        policy: &Resolved,
    ) -> Result<Delta, Box<Diagnostic>> {
        let Workshop {
            fdd,
            lowered,
            kept_at_first,
            ..
        } = &mut self.workshop;
        let changes = match kept_at_first {
            // Classes made for the first time are no change of the tables in force.
            None => delta::differences(&self.live.tables.classes, &crate::lower::classes(fdd)),
            Some(_) => changes,
        };
        let come = changes
            .iter()
            .filter(|change| change.before.is_none())
            .count();
        let go = changes
            .iter()
            .filter(|change| change.after.is_none())
            .count();
        let mut size = match root {
            Some(root) if root != self.live.tables.root => {
                Size::of(root, &lowered.nodes, &lowered.leaves)
            }
            _ => Size::default(),
        };
        size.prefixes = self.live.tables.classes.len() + come - go;
        check(&size, &self.capacity).map_err(|refused| Box::new(refused.locate(policy)))?;
        let mut delta = Delta::default();
        if self.live.tables.limit != policy.limit {
            self.live.tables.limit = policy.limit;
            delta.limit = Some(policy.limit);
        }
        if self.live.tables.bucket != policy.bucket {
            self.live.tables.bucket = policy.bucket;
            delta.bucket = Some(policy.bucket);
        }
        if let Some(root) = root {
            self.live.start_at(root, lowered, &mut delta);
        }
        let class_none = fdd.atoms.digest(fdd.atoms.none());
        self.live.classify(changes, class_none, &mut delta);
        if lowered.len() > GARBAGE * self.live.len() + LITTLE {
            lowered.retain(|digest| self.live.holds(digest));
        }
        Ok(delta)
    }
}
