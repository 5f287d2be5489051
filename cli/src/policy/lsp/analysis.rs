//! A text with all that it imports, what its names mean, and where they are defined.

use std::rc::Rc;

use sunwire_policy::ast::{Document, ItemKind};
use sunwire_policy::diagnostic::Span;
use sunwire_policy::environment::Environment;
use sunwire_policy::imports::{Bundle, Located, bundle};
use sunwire_policy::parse;

use super::super::source;
use super::documents::{Documents, Open};
use super::index::Index;
use super::names::Names;

/// What is known of an open text.
pub(super) struct Analysis {
    /// The text and what it imports; the text itself is file 0.
    pub(super) bundle: Bundle,
    /// Imports that cannot be read.
    pub(super) unread: Vec<Located>,
    /// The tree of the bundle.
    pub(super) document: Document,
    pub(super) index: Index,
    pub(super) environment: Rc<Environment>,
    /// Whether the environment is known and not assumed.
    pub(super) is_known: bool,
}

impl Analysis {
    /// Reads a text; imported files are taken as they are in the editor where they are open.
    pub(super) fn new(open: &Open, documents: &Documents, names: &Names) -> Self {
        let mut load = |path: &str| match documents.at_path(path) {
            Some(open) => Ok(open.text.clone()),
            None => source::import(std::path::Path::new(path)),
        };
        let (bundle, unread) = match bundle(&open.path, &open.text, &mut load) {
            Ok(bundle) => (bundle, Vec::new()),
            Err(found) => found,
        };
        let (document, _) = parse(bundle.text());
        let (environment, is_known) = names.environment(bundle.text());
        Analysis {
            index: Index::new(&document),
            bundle,
            unread,
            document,
            environment,
            is_known,
        }
    }

    /// Whether the text is there to be imported: it defines something, and no policy.
    pub(super) fn is_library(&self) -> bool {
        let policy = |kind: &ItemKind| matches!(kind, ItemKind::Policy { .. });
        let items = &self.document.items;
        !items.is_empty() && !items.iter().any(|item| policy(&item.kind))
    }

    /// The place in the bundle of a byte of the text itself.
    pub(super) fn place(&self, offset: u32) -> Option<u32> {
        self.bundle.place(0, offset)
    }

    /// The text at a place in the bundle.
    pub(super) fn text(&self, span: Span) -> &str {
        let text = self.bundle.text();
        text.get(span.start as usize..span.end as usize)
            .unwrap_or("")
    }
}
