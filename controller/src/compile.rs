//! The one place where the controller calls the policy compiler.

use std::panic::catch_unwind;
use std::sync::Arc;

use sunwire_api::problem::{Span, line_and_column};
use sunwire_api::{Diagnostic, Name, Severity};
use sunwire_policy::ast::ItemKind;
use sunwire_policy::environment::Environment;
use sunwire_policy::tables::FlowTables;
use sunwire_policy::{diagnostic, parse};

use crate::compilations;

/// What a network's policy compiled to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Compiled {
    /// The network that the text names.
    pub(crate) network: Name,
    /// The tables.
    pub(crate) tables: Arc<FlowTables>,
    /// Findings that are no errors.
    pub(crate) warnings: Vec<Diagnostic>,
    /// Whether it has assertions or tests.
    pub(crate) claims: bool,
}

/// Compiles a policy. The same text in the same environment gives the same tables.
///
/// # Errors
/// All errors that the compiler found, in the order of the text, and the warnings among them.
pub(crate) fn compile(text: &str, environment: &Environment) -> Result<Compiled, Vec<Diagnostic>> {
    let all = |findings: Vec<diagnostic::Diagnostic>| -> Vec<Diagnostic> {
        let findings = findings.iter();
        findings.map(|finding| located(finding, text)).collect()
    };
    // A mistake in the compiler must cost one policy, not the controller. The compiler is pure:
    // nothing is left half done.
    let outcome = catch_unwind(|| compilations::compile(text, environment));
    let compiled = outcome.map_err(|_| vec![compiler_failed()])?.map_err(all)?;
    Ok(Compiled {
        network: compiled
            .network
            .parse()
            .expect("a policy that compiles is for a network of the environment"),
        tables: compiled.tables,
        claims: compiled.claims,
        warnings: all(compiled.warnings),
    })
}

/// The finding when the compiler panicked.
fn compiler_failed() -> Diagnostic {
    about_text(
        "the compiler failed at this policy".to_owned(),
        "report it, with the policy; meanwhile, say the same otherwise",
    )
}

/// A finding about a text as a whole that is the controller's own.
pub(crate) fn about_text(message: String, hint: &str) -> Diagnostic {
    Diagnostic {
        code: "SW0000".to_owned(),
        severity: Severity::Error,
        rendered: format!("error[SW0000]: {message}\n"),
        message,
        line: 1,
        column: 1,
        end_line: 1,
        end_column: 1,
        span: Span { start: 0, end: 0 },
        hint: Some(hint.to_owned()),
    }
}

/// The network that a text names, as far as it can be read.
pub(crate) fn network_of(text: &str) -> Option<Name> {
    let (document, _) = catch_unwind(|| parse(text)).ok()?;
    let mut items = document.items.iter();
    items.find_map(|item| match &item.kind {
        ItemKind::Network { name, .. } => name.text.parse().ok(),
        _ => None,
    })
}

/// A finding of the policy crate as clients see it.
pub(crate) fn located(finding: &diagnostic::Diagnostic, text: &str) -> Diagnostic {
    let (end_line, end_column) = line_and_column(text, finding.span.end);
    Diagnostic {
        code: finding.code.text().to_owned(),
        severity: match finding.severity {
            diagnostic::Severity::Error => Severity::Error,
            diagnostic::Severity::Warning => Severity::Warning,
        },
        message: finding.message.clone(),
        line: finding.line,
        column: finding.column,
        end_line,
        end_column,
        span: Span {
            start: finding.span.start,
            end: finding.span.end,
        },
        hint: finding.hint.clone(),
        rendered: finding.render(text),
    }
}
