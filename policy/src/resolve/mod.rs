//! Syntax tree to resolved policy: names, values, kinds.
//!
//! Definitions are visible after the place where they stand. A definition without parameters is
//! read once, however often it is used; one with parameters is read once for each use, under a
//! limit on the whole expansion. What is already reported stays silent: an erroneous part is
//! `Meaning::Erroneous`, which every operation absorbs.

mod addresses;
mod arena;
mod assertions;
mod balance;
mod document;
mod expression;
mod groups;
mod image;
pub(crate) mod index;
mod peers;
mod reverse;
mod scope;
mod test_blocks;
mod values;
mod verbs;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use sunwire_dataplane_common::limit::Limit;

use crate::ast::{Document, ItemKind, Rate};
use crate::claim::{Claim, PacketTest};
use crate::diagnostic::{Code, Diagnostic, Lines, Sink, Span};
use crate::environment::{Environment, Network};
use crate::feature::Feature;
use crate::field::Subject;
use crate::packet::LabelId;
use crate::term::{AssignedField, PredId, Resolved, SetId, TermId};
use addresses::Addresses;
use arena::Arena;
use index::{Dependencies, EnvironmentIndex, Lookup};
use scope::{Local, Scope};

/// Steps that resolving one document may take: a bound on what parameters expand to.
const MAX_STEPS: usize = 16 << 20;
/// Greatest nesting of definitions and expressions together.
const MAX_DEPTH: usize = 512;

/// What an expression turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// A predicate.
    Pred(PredId),
    /// A policy.
    Term(TermId),
    /// Neither; already reported.
    Erroneous,
}

/// Resolves the names of a document.
///
/// # Errors
/// Everything that is wrong, and warnings.
pub fn resolve(
    document: &Document,
    environment: &Environment,
) -> Result<Resolved, Vec<Diagnostic>> {
    resolve_with_warnings(document, environment).map(|(resolved, _)| resolved)
}

/// Resolves the names of a document and also returns the warnings.
///
/// # Errors
/// Everything that is wrong, and warnings.
pub fn resolve_with_warnings(
    document: &Document,
    environment: &Environment,
) -> Result<(Resolved, Vec<Diagnostic>), Vec<Diagnostic>> {
    let index = EnvironmentIndex::new(environment);
    resolve_indexed(document, environment, &index)
        .map(|(resolved, warnings, _)| (resolved, warnings))
}

/// The same with an index at hand; and says on which endpoints the result depends.
///
/// # Errors
/// Everything that is wrong, and warnings.
pub(crate) fn resolve_indexed(
    document: &Document,
    environment: &Environment,
    index: &EnvironmentIndex,
) -> Result<(Resolved, Vec<Diagnostic>, Dependencies), Vec<Diagnostic>> {
    resolve_part(document, environment, index, false)
}

/// As [`resolve_indexed`]; with `alone`, not composed with the policies of peers and without claims: a
/// policy that another one is composed with.
fn resolve_part(
    document: &Document,
    environment: &Environment,
    index: &EnvironmentIndex,
    alone: bool,
) -> Result<(Resolved, Vec<Diagnostic>, Dependencies), Vec<Diagnostic>> {
    let mut resolver = Resolver {
        alone,
        shared: Vec::new(),
        mirrored: BTreeSet::new(),
        document,
        environment,
        lookup: Lookup::new(environment, index),
        network: None,
        lines: Lines::new(&document.source),
        sink: Sink::new(document.source.clone()),
        arena: Arena::default(),
        policy: "main".to_owned(),
        globals: HashMap::new(),
        sets: HashMap::new(),
        declared: HashSet::new(),
        address_sets: HashMap::new(),
        labels: BTreeMap::new(),
        label_spans: BTreeMap::new(),
        groups: BTreeMap::new(),
        needs: BTreeMap::new(),
        transparent: BTreeSet::new(),
        reverse: None,
        asks_reverse: false,
        links: false,
        rates: None,
        hashes: None,
        assertions: Vec::new(),
        tests: Vec::new(),
        assigned: BTreeMap::new(),
        depth: 0,
        steps: 0,
        exhausted: false,
    };
    let root = resolver.document();
    let limit = resolver.rate();
    if limit != Limit::default() {
        // What `token` is decided by is there.
        resolver.needs.remove(&Feature::Limit);
    }
    let bucket = resolver.bucket_key();
    let (limit, bucket) = resolver.shared_with_peers(limit, bucket);
    let Resolver {
        mirrored,
        lookup,
        network,
        sink,
        arena,
        policy,
        labels,
        label_spans,
        groups,
        needs,
        transparent,
        reverse,
        links,
        assertions,
        tests,
        assigned,
        ..
    } = resolver;
    match (root, network) {
        (Some((root, whole, span)), Some(network)) if !sink.has_errors() => {
            let resolved = Resolved {
                peers: network.peers.iter().cloned().collect(),
                whole,
                network: crate::term::PolicyNetwork {
                    name: network.name.clone(),
                    vni: network.vni,
                },
                policy,
                endpoints: environment
                    .endpoints
                    .iter()
                    .filter(|e| e.network == network.name)
                    .map(|e| e.number)
                    .chain(mirrored)
                    .collect(),
                terms: arena.terms,
                predicates: arena.predicates,
                sets: arena.sets,
                root,
                labels,
                groups,
                label_spans,
                needs,
                bucket,
                transparent,
                reverse,
                limit,
                links,
                assertions,
                tests,
                assigned,
                span,
                source: document.source.clone(),
            };
            Ok((resolved, sink.finish(), lookup.into_dependencies()))
        }
        _ => Err(sink.finish()),
    }
}

struct Resolver<'d> {
    /// The policy is not composed with others, and what it claims is not read.
    alone: bool,
    /// What the policies of peers have that a packet has one of.
    shared: Vec<peers::Shared>,
    /// Endpoints of peers that copies of what crosses go to.
    mirrored: BTreeSet<u32>,
    document: &'d Document,
    environment: &'d Environment,
    /// The only way to the environment's endpoints, so that what depends on them is known.
    lookup: Lookup<'d>,
    network: Option<&'d Network>,
    lines: Lines,
    sink: Sink,
    arena: Arena,
    /// Name of the policy, for labels.
    policy: String,
    globals: HashMap<&'d str, Global<'d>>,
    sets: HashMap<&'d str, NamedSet<'d>>,
    /// Names defined anywhere in the document, for hints about order.
    declared: HashSet<&'d str>,
    address_sets: HashMap<String, SetId>,
    labels: BTreeMap<LabelId, String>,
    label_spans: BTreeMap<LabelId, Span>,
    groups: crate::lower::group::Named,
    needs: BTreeMap<Feature, Span>,
    transparent: BTreeSet<u32>,
    reverse: Option<PredId>,
    /// Something asked whether the policy admits the reverse of a packet.
    asks_reverse: bool,
    links: bool,
    /// The rate and key of the first `limit`, and the key of the first `balance`: a packet has one
    /// token and one bucket.
    rates: Option<(Rate, Vec<Subject>)>,
    hashes: Option<Vec<Subject>>,
    assertions: Vec<Claim>,
    tests: Vec<PacketTest>,
    assigned: BTreeMap<AssignedField, Span>,
    depth: usize,
    steps: usize,
    /// The limit on the expansion was reported.
    exhausted: bool,
}

/// A definition by `let` or `policy` outside of any expression.
#[derive(Clone, Copy)]
struct Global<'d> {
    /// Where its name stands.
    span: Span,
    kind: GlobalKind<'d>,
}

#[derive(Clone, Copy)]
enum GlobalKind<'d> {
    /// One without parameters, already read.
    Meaning(Meaning),
    /// One with parameters.
    Parametric(&'d crate::ast::Let),
}

/// A definition by `set`.
struct NamedSet<'d> {
    value: &'d crate::ast::Value,
    span: Span,
    /// Its addresses; `None` when it is a set of numbers.
    addresses: Option<Addresses>,
}

impl<'d> Resolver<'d> {
    /// Counts `steps` against the limit; says `false`, and reports once, beyond it.
    fn spend(&mut self, steps: usize, span: Span) -> bool {
        self.steps = self.steps.saturating_add(steps);
        if self.steps <= MAX_STEPS {
            return true;
        }
        if !self.exhausted {
            self.exhausted = true;
            self.sink
                .report(
                    Code::ExpandsTooFar,
                    span,
                    "the definitions of this policy expand to more than 16 million operations",
                )
                .hint("definitions with parameters are expanded at each use: use fewer levels of them");
        }
        false
    }

    fn too_deep(&mut self, span: Span) {
        if !self.exhausted {
            self.exhausted = true;
            self.sink
                .report(
                    Code::ExpandsTooFar,
                    span,
                    format!("definitions and expressions together nest more than {MAX_DEPTH} deep"),
                )
                .hint("use fewer levels of definitions");
        }
    }

    /// Names defined later in the document, for a hint.
    fn is_defined_later(&self, name: &str) -> bool {
        self.declared.contains(name)
            && !self.globals.contains_key(name)
            && !self.sets.contains_key(name)
    }

    fn collect_declared(&mut self) {
        for item in &self.document.items {
            match &item.kind {
                ItemKind::Set { name, .. } => self.declared.insert(&name.text),
                ItemKind::Let(definition) => self.declared.insert(&definition.name.text),
                ItemKind::Policy { name, .. } => self.declared.insert(&name.text),
                _ => false,
            };
        }
    }

    /// The innermost local definition of a name.
    fn local(&self, scope: &Scope<'d>, name: &str) -> Option<Local<'d>> {
        scope.find(name)
    }
}
