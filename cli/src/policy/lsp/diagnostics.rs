//! Findings of a text in the editor's form.
//!
//! What is wrong in an imported file is shown at its `import`, with the place in that file beside
//! it. A text that is there to be imported need not hold a policy. Names that had to be assumed,
//! because neither a controller nor a topology says what there is, are hints and no mistakes.

use lsp_types::{
    DiagnosticRelatedInformation, DiagnosticSeverity, Location, NumberOrString, Range, Uri,
};
use sunwire_policy::ast::{ItemKind, Word};
use sunwire_policy::check_claims;
use sunwire_policy::compile_text;
use sunwire_policy::diagnostic::{Code, Diagnostic, Severity, Span};
use sunwire_policy::imports::Located;
use sunwire_policy::prove::Verdict;
use sunwire_policy::verify::options::{Cancelled, Limits, Options};

use super::analysis::Analysis;
use super::position::{self, Lines};

/// Who says it, in the editor's list.
const SOURCE: &str = "sunwire";
/// What proofs may use while editing: a few hundred MiB, a quarter of what `check` may.
const LIMITS: Limits = Limits {
    nodes: 4 << 20,
    states: 1 << 20,
    bits: 1024,
};

/// What the compiler finds, and what was assumed.
pub(super) fn found(analysis: &Analysis) -> Vec<lsp_types::Diagnostic> {
    let text = analysis.bundle.text();
    let show = Show::new(analysis);
    let unread = analysis.unread.iter();
    let mut out: Vec<_> = unread.map(|located| show.located(located)).collect();
    let findings = match compile_text(text, &analysis.environment) {
        Ok(compiled) => compiled.warnings,
        Err(findings) => findings,
    };
    let library = analysis.is_library();
    for finding in &findings {
        let needless = match finding.code {
            // The importing text says which policy and, where there are several, which network.
            Code::NoPolicy => analysis.document.items.is_empty(),
            Code::UnknownNetwork => library && finding.span.start == finding.span.end,
            _ => false,
        };
        if needless {
            continue;
        }
        let mut shown = show.diagnostic(finding);
        if finding.code == Code::NoPolicy && library {
            shown.severity = Some(DiagnosticSeverity::HINT);
            shown.message = "there is no policy here: this text can only be imported".to_owned();
        }
        out.push(shown);
    }
    if !analysis.is_known {
        out.extend(assumed(analysis, &show));
    }
    out
}

/// Assertions that do not hold and tests that fail; nothing when the work was given up.
pub(super) fn claims(
    analysis: &Analysis,
    given_up: Cancelled,
) -> Option<Vec<lsp_types::Diagnostic>> {
    let options = Options {
        limits: LIMITS,
        cancelled: Some(given_up.clone()),
        ..Options::default()
    };
    let checked = check_claims(analysis.bundle.text(), &analysis.environment, &options);
    if given_up() {
        return None;
    }
    let Ok(checked) = checked else {
        return Some(Vec::new());
    };
    let show = Show::new(analysis);
    let source = checked.policy.source();
    let proofs = checked.proofs.iter().filter_map(|proof| {
        let mut shown = show.diagnostic(&proof.diagnostic(source)?);
        // What takes more than an editor should is no mistake.
        if matches!(proof.verdict, Verdict::Undecided(_)) {
            shown.severity = Some(DiagnosticSeverity::INFORMATION);
        }
        Some(shown)
    });
    let tests = checked
        .tests
        .iter()
        .flat_map(|test| test.diagnostics(source));
    let tests = tests.map(|failure| show.diagnostic(&failure));
    Some(proofs.chain(tests).collect())
}

/// Whether a text claims anything of itself.
pub(super) fn has_claims(analysis: &Analysis) -> bool {
    let mut items = analysis.document.items.iter();
    items.any(|item| matches!(item.kind, ItemKind::Assert(_) | ItemKind::Test(_)))
}

/// A hint at the first place of each name that was taken to be an endpoint's or node's.
fn assumed(analysis: &Analysis, show: &Show<'_>) -> Vec<lsp_types::Diagnostic> {
    let environment = &analysis.environment;
    let mut seen = std::collections::BTreeSet::new();
    let uses = analysis.index.occurrences.iter();
    uses.filter(|found| found.definition.is_none() && Word::named(&found.name).is_none())
        .filter(|found| seen.insert(found.name.as_str()))
        .filter_map(|found| {
            let what = if environment.endpoints.iter().any(|e| e.name == found.name) {
                "an endpoint"
            } else if environment.nodes.iter().any(|n| n.name == found.name) {
                "a node"
            } else {
                return None;
            };
            let (file, span) = analysis.bundle.locate(found.at);
            (file == 0).then(|| lsp_types::Diagnostic {
                range: show.lines.range(show.text, span),
                severity: Some(DiagnosticSeverity::HINT),
                source: Some(SOURCE.to_owned()),
                message: format!(
                    "`{}` is taken to be {what}: no controller or topology says what there is",
                    found.name
                ),
                ..lsp_types::Diagnostic::default()
            })
        })
        .collect()
}

/// Turns findings into the editor's form.
struct Show<'a> {
    analysis: &'a Analysis,
    text: &'a str,
    lines: Lines,
    /// Where the text imports.
    imports: Vec<Span>,
}

impl<'a> Show<'a> {
    fn new(analysis: &'a Analysis) -> Self {
        let text = analysis.bundle.source(0);
        let imports = match text.contains("import") {
            true => sunwire_policy::parse(text).0.items,
            false => Vec::new(),
        };
        let imports = imports.into_iter();
        Show {
            analysis,
            text,
            lines: Lines::new(text),
            imports: imports
                .filter(|item| matches!(item.kind, ItemKind::Import { .. }))
                .map(|item| item.span)
                .collect(),
        }
    }

    /// A finding in the bundle.
    fn diagnostic(&self, finding: &Diagnostic) -> lsp_types::Diagnostic {
        let (file, span) = self.analysis.bundle.locate(finding.span);
        let (range, mut related) = self.place(file, span, Some(finding.span.start));
        related.extend(finding.labels.iter().filter_map(|(span, message)| {
            let (file, span) = self.analysis.bundle.locate(*span);
            self.related(file, span, message)
        }));
        self.shown(finding, range, related)
    }

    /// A finding about an import.
    fn located(&self, located: &Located) -> lsp_types::Diagnostic {
        let span = located.diagnostic.span;
        let (range, related) = self.place(located.file, span, None);
        self.shown(&located.diagnostic, range, related)
    }

    fn shown(
        &self,
        finding: &Diagnostic,
        range: Range,
        related: Vec<DiagnosticRelatedInformation>,
    ) -> lsp_types::Diagnostic {
        let mut message = finding.message.clone();
        if let Some(hint) = &finding.hint {
            message.push_str("\nhint: ");
            message.push_str(hint);
        }
        lsp_types::Diagnostic {
            range,
            severity: Some(match finding.severity {
                Severity::Error => DiagnosticSeverity::ERROR,
                Severity::Warning => DiagnosticSeverity::WARNING,
            }),
            code: Some(NumberOrString::String(finding.code.text().to_owned())),
            source: Some(SOURCE.to_owned()),
            message,
            related_information: (!related.is_empty()).then_some(related),
            ..lsp_types::Diagnostic::default()
        }
    }

    /// Where in the text a place in a file is shown: for an imported file, at its import.
    fn place(
        &self,
        file: usize,
        span: Span,
        in_bundle: Option<u32>,
    ) -> (Range, Vec<DiagnosticRelatedInformation>) {
        if file == 0 {
            return (self.lines.range(self.text, span), Vec::new());
        }
        let bundle = &self.analysis.bundle;
        // An imported text stands where the import stood, at the end of the piece before it.
        let before = |at: &Span| match in_bundle {
            Some(place) => bundle
                .place(0, at.start)
                .is_some_and(|start| start <= place),
            None => true,
        };
        let import = self.imports.iter().copied().rfind(before);
        let range = self.lines.range(self.text, import.unwrap_or_default());
        let related = self.related(file, span, "it is here");
        (range, related.into_iter().collect())
    }

    fn related(
        &self,
        file: usize,
        span: Span,
        message: &str,
    ) -> Option<DiagnosticRelatedInformation> {
        Some(DiagnosticRelatedInformation {
            location: location(self.analysis, file, span)?,
            message: message.to_owned(),
        })
    }
}

/// A place in a file of the bundle, for the editor.
pub(super) fn location(analysis: &Analysis, file: usize, span: Span) -> Option<Location> {
    let text = analysis.bundle.source(file);
    let path = analysis.bundle.files().get(file).copied()?;
    Some(Location {
        uri: file_uri(path)?,
        range: Lines::new(text).range(text, span),
    })
}

/// The URI of a path; a text without a file has its URI in its place.
pub(super) fn file_uri(path: &str) -> Option<Uri> {
    match path.starts_with('/') {
        true => position::uri(path),
        false => path.parse().ok(),
    }
}
