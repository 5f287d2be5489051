//! The outline of a text: its definitions, assertions and tests.

use lsp_types::{DocumentSymbol, SymbolKind};
use sunwire_policy::ast::{ItemKind, Name};
use sunwire_policy::diagnostic::Span;

use super::position::Lines;

/// The outline.
pub(super) fn symbols(text: &str) -> Vec<DocumentSymbol> {
    let lines = Lines::new(text);
    let (document, _) = sunwire_policy::parse(text);
    let mut out = Vec::new();
    for item in &document.items {
        let written = |span: Span| {
            text.get(span.start as usize..span.end as usize)
                .unwrap_or("")
        };
        let (name, at, kind) = match &item.kind {
            ItemKind::Network { name, .. } => named(name, SymbolKind::MODULE),
            ItemKind::Set { name, .. } => named(name, SymbolKind::ENUM),
            ItemKind::Let(definition) if definition.params.is_empty() => {
                named(&definition.name, SymbolKind::CONSTANT)
            }
            ItemKind::Let(definition) => named(&definition.name, SymbolKind::FUNCTION),
            ItemKind::Policy { name, .. } => named(name, SymbolKind::METHOD),
            ItemKind::Assert(_) => {
                let first = written(item.span).lines().next().unwrap_or("");
                (first.to_owned(), item.span, SymbolKind::EVENT)
            }
            ItemKind::Test(test) => (
                format!("test \"{}\"", test.name),
                item.span,
                SymbolKind::EVENT,
            ),
            ItemKind::Import { path } => {
                (format!("import \"{path}\""), item.span, SymbolKind::FILE)
            }
        };
        // Editors refuse symbols without a name, which only mistakes leave behind.
        if name.is_empty() {
            continue;
        }
        #[allow(deprecated, reason = "the field is deprecated and has no default")]
        out.push(DocumentSymbol {
            name,
            detail: None,
            kind,
            tags: None,
            deprecated: None,
            range: lines.range(text, item.span.to(at)),
            selection_range: lines.range(text, at),
            children: None,
        });
    }
    out
}

fn named(name: &Name, kind: SymbolKind) -> (String, Span, SymbolKind) {
    (name.text.clone(), name.span, kind)
}
