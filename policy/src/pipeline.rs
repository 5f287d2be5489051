//! The whole way from text to flow tables, as the controller takes it.

use std::collections::BTreeSet;

use crate::ast::Document;
use crate::compile::{Options, compile};
use crate::diagnostic::{Code, Diagnostic};
use crate::environment::Environment;
use crate::fdd::{Order, TooLarge};
use crate::judge;
use crate::lower::{Capacity, lower};
use crate::parser::parse;
use crate::resolve::index::{Dependencies, EnvironmentIndex};
use crate::resolve::resolve_indexed;
use crate::tables::FlowTables;
use crate::term::Resolved;
use crate::validate::validate;
use crate::verify::options::Options as ProofOptions;

/// A policy that is ready to be installed.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// Name of the network that it is for.
    pub network: String,
    /// VXLAN network identifier of that network.
    pub vni: u32,
    /// Name of the policy.
    pub policy: String,
    /// The tables.
    pub tables: FlowTables,
    /// Every label that a verdict can have, sorted.
    pub labels: Vec<String>,
    /// How the tables were made.
    pub statistics: Statistics,
    /// What the policy may mean otherwise than meant.
    pub warnings: Vec<Diagnostic>,
}

/// How tables were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// The order of tests that was chosen.
    pub order: Order,
    /// Nodes of diagrams that were made on the way.
    pub diagram_nodes: usize,
    /// Edges that operations on diagrams made.
    pub steps: usize,
}

/// Compiles a policy text, with the order of tests that suits it and the default capacity, and
/// proves that the tables do what it says.
///
/// # Errors
/// Every mistake in the text, of all stages that could run, and the warnings.
pub fn compile_text(text: &str, environment: &Environment) -> Result<Compiled, Vec<Diagnostic>> {
    let (resolved, mut diagnostics) = resolve_text(text, environment)?;
    refuse_features(&resolved, &mut diagnostics)?;
    let options = Options::for_policy(&resolved);
    let mut statistics = Statistics {
        order: options.order,
        diagram_nodes: 0,
        steps: 0,
    };
    let tables = compile(&resolved, &options)
        .map_err(|too_large| too_long(&resolved, too_large))
        .and_then(|fdd| {
            statistics.diagram_nodes = fdd.store.len();
            statistics.steps = fdd.store.steps();
            lower(&fdd, &resolved, &Capacity::default())
                .map_err(|refused| refused.locate(&resolved))
        })
        .and_then(|tables| {
            validate(&resolved, &tables, &ProofOptions::default())
                .map_err(|invalid| invalid.locate(&resolved))?;
            judge::check(&resolved, &tables, environment)?;
            Ok(tables)
        });
    match tables {
        Ok(tables) => Ok(Compiled {
            labels: tables
                .leaves
                .values()
                .map(|leaf| leaf.label.clone())
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
            network: resolved.network.name,
            vni: resolved.network.vni,
            policy: resolved.policy,
            tables,
            statistics,
            warnings: diagnostics,
        }),
        Err(refused) => {
            diagnostics.push(refused);
            Err(diagnostics)
        }
    }
}

/// Parses and resolves a text; the policy, and the warnings.
///
/// # Errors
/// Every mistake in the text, of both stages, and the warnings.
pub fn resolve_text(
    text: &str,
    environment: &Environment,
) -> Result<(Resolved, Vec<Diagnostic>), Vec<Diagnostic>> {
    let (document, parsed) = parse(text);
    let index = EnvironmentIndex::new(environment);
    let read = read(&document, &parsed, environment, &index)?;
    Ok((read.resolved, read.warnings))
}

/// A policy that was read without a mistake.
pub(crate) struct Read {
    pub(crate) resolved: Resolved,
    pub(crate) dependencies: Dependencies,
    pub(crate) warnings: Vec<Diagnostic>,
}

/// Resolves a document that was parsed with these diagnostics.
///
/// # Errors
/// Every mistake in the text, of both stages, and the warnings.
pub(crate) fn read(
    document: &Document,
    parsed: &[Diagnostic],
    environment: &Environment,
    index: &EnvironmentIndex,
) -> Result<Read, Vec<Diagnostic>> {
    let mut diagnostics = parsed.to_vec();
    let unread = diagnostics.iter().any(Diagnostic::is_error);
    // Names are checked even when the syntax is wrong: all mistakes in one answer.
    let resolved = match resolve_indexed(document, environment, index) {
        Ok((resolved, warnings, dependencies)) => {
            diagnostics.extend(warnings);
            Some((resolved, dependencies))
        }
        Err(mut errors) => {
            // What could not be read may be all there is.
            errors.retain(|d| !(unread && d.code == Code::NoPolicy));
            diagnostics.extend(errors);
            None
        }
    };
    diagnostics.sort_by_key(|d| (d.span.start, d.code));
    match resolved {
        Some((resolved, dependencies)) if !unread => Ok(Read {
            resolved,
            dependencies,
            warnings: diagnostics,
        }),
        _ => Err(diagnostics),
    }
}

/// Refuses, by name, what the data plane does not have.
///
/// # Errors
/// The refusals, among the warnings.
pub(crate) fn refuse_features(
    policy: &Resolved,
    warnings: &mut Vec<Diagnostic>,
) -> Result<(), Vec<Diagnostic>> {
    let refused = policy.refused_features();
    if refused.is_empty() {
        return Ok(());
    }
    let mut diagnostics = std::mem::take(warnings);
    diagnostics.extend(refused);
    diagnostics.sort_by_key(|d| (d.span.start, d.code));
    Err(diagnostics)
}

/// What to say of a policy that takes too many steps to compile.
pub(crate) fn too_long(policy: &Resolved, too_large: TooLarge) -> Diagnostic {
    let message = too_large.to_string();
    Diagnostic::new(
        policy.source(),
        Code::CompilingTooLong,
        policy.span,
        message,
    )
    .with_hint("use fewer rules, or fewer copies with `+` and `*`")
}
