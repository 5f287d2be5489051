//! The whole way from text to flow tables, as the controller takes it.

use std::collections::BTreeSet;

use crate::compile::{Options, compile};
use crate::diagnostic::{Code, Diagnostic};
use crate::environment::Environment;
use crate::lower::{Capacity, lower};
use crate::parser::parse;
use crate::resolve::resolve_with_warnings;
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
    /// What the policy may mean otherwise than meant.
    pub warnings: Vec<Diagnostic>,
}

/// Compiles a policy text, with the default capacity, and proves that the tables do what it says.
///
/// # Errors
/// Every mistake in the text, of all stages that could run, and the warnings.
pub fn compile_text(text: &str, environment: &Environment) -> Result<Compiled, Vec<Diagnostic>> {
    let (resolved, mut diagnostics) = resolve_text(text, environment)?;
    let refused = resolved.refused_features();
    if !refused.is_empty() {
        diagnostics.extend(refused);
        diagnostics.sort_by_key(|d| (d.span.start, d.code));
        return Err(diagnostics);
    }
    let tables = compile(&resolved, &Options::for_policy(&resolved))
        .map_err(|too_large| {
            Diagnostic::new(
                text,
                Code::CompilingTooLong,
                resolved.span,
                too_large.to_string(),
            )
            .with_hint("use fewer rules, or fewer copies with `+` and `*`")
        })
        .and_then(|fdd| {
            lower(&fdd, &resolved, &Capacity::default())
                .map_err(|refused| refused.locate(&resolved))
        })
        .and_then(|tables| {
            validate(&resolved, &tables, &ProofOptions::default())
                .map(|()| tables)
                .map_err(|invalid| invalid.locate(&resolved))
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
    let (document, mut diagnostics) = parse(text);
    let unread = diagnostics.iter().any(Diagnostic::is_error);
    let resolved = match resolve_with_warnings(&document, environment) {
        Ok((resolved, warnings)) => {
            diagnostics.extend(warnings);
            Some(resolved)
        }
        Err(errors) => {
            // What could not be read may be all there is.
            let mut errors = errors;
            errors.retain(|d| !(unread && d.code == Code::NoPolicy));
            diagnostics.extend(errors);
            None
        }
    };
    diagnostics.sort_by_key(|d| (d.span.start, d.code));
    match resolved {
        Some(resolved) if !unread => Ok((resolved, diagnostics)),
        _ => Err(diagnostics),
    }
}
