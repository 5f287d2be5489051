//! Imports: a file and all that it imports, as one text.
//!
//! `import "common.nk"` stands for the definitions of that file, at the place where it stands, once
//! for the whole text. What follows only ever sees one text, which also is what a controller keeps:
//! a policy in force never depends on files. A [`Bundle`] knows which file each byte came from, so
//! that mistakes are shown where people can mend them.
//!
//! ```
//! use sunwire_policy::imports::bundle;
//!
//! let main = "import \"sets.nk\"\npolicy main = if src in web then forward else drop\n";
//! let bundle = bundle("shop/main.nk", main, &mut |path| match path {
//!     "shop/sets.nk" => Ok("set web = { web1 }\n".to_owned()),
//!     other => Err(format!("there is no {other}")),
//! })
//! .unwrap();
//! assert!(bundle.text().starts_with("set web = { web1 }"));
//! assert_eq!(bundle.files(), ["shop/main.nk", "shop/sets.nk"]);
//! ```

use std::collections::HashMap;
use std::fmt::Write as _;

use crate::ast::ItemKind;
use crate::diagnostic::{Code, Diagnostic, Span, position};
use crate::import::nkpl::path::joined;
use crate::parser::{MAX_SOURCE_BYTES, parse};

/// Files that one text may import, directly and indirectly.
pub const MAX_FILES: usize = 256;
/// Greatest depth of imports.
pub const MAX_DEPTH: usize = 32;

/// A file with all that it imports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundle {
    text: String,
    /// Where each piece of the text comes from, in the order of the text.
    pieces: Vec<Piece>,
    paths: Vec<String>,
    sources: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    /// First byte in the bundle.
    start: u32,
    /// File that it is from.
    file: usize,
    /// First byte in that file.
    at: u32,
}

/// A diagnostic at its place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Index of the file in [`Bundle::files`].
    pub file: usize,
    /// The diagnostic with places in that file; labels in other files are left out.
    pub diagnostic: Diagnostic,
}

/// Puts the texts that a text imports in the place of its imports.
///
/// `load` gets paths relative to where `path` is relative to, and returns the text or says why not.
///
/// # Errors
/// Files that cannot be loaded, import themselves or are too many, located in the file that imports
/// them; with the bundle, for rendering.
pub fn bundle(
    path: &str,
    text: &str,
    load: &mut dyn FnMut(&str) -> Result<String, String>,
) -> Result<Bundle, (Bundle, Vec<Located>)> {
    let mut collector = Collector {
        bundle: Bundle::default(),
        known: HashMap::new(),
        open: Vec::new(),
        problems: Vec::new(),
        load,
    };
    collector.file(path.to_owned(), text.to_owned());
    match collector.problems.is_empty() {
        true => Ok(collector.bundle),
        false => Err((collector.bundle, collector.problems)),
    }
}

impl Bundle {
    /// The one text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Paths of the files, the importing one first.
    #[must_use]
    pub fn files(&self) -> Vec<&str> {
        self.paths.iter().map(String::as_str).collect()
    }

    /// The text of a file, by its index.
    #[must_use]
    pub fn source(&self, file: usize) -> &str {
        self.sources.get(file).map_or("", String::as_str)
    }

    /// The file that a place is in, and the place there.
    #[must_use]
    pub fn locate(&self, span: Span) -> (usize, Span) {
        let after = self
            .pieces
            .partition_point(|piece| piece.start <= span.start);
        let Some(piece) = after.checked_sub(1).map(|at| self.pieces[at]) else {
            return (0, span);
        };
        // A span may end in a later piece: then it ends with this one.
        let end = match self.pieces.get(after) {
            Some(next) => span.end.min(next.start.max(span.start)),
            None => span.end,
        };
        let shift = |offset: u32| offset - piece.start + piece.at;
        (piece.file, Span::new(shift(span.start), shift(end)))
    }

    /// The place in the bundle of a place in a file; `None` for one in an `import`.
    #[must_use]
    pub fn place(&self, file: usize, offset: u32) -> Option<u32> {
        let pieces = self
            .pieces
            .iter()
            .enumerate()
            .filter(|(_, p)| p.file == file);
        let (at, piece) = pieces
            .filter(|(_, p)| p.at <= offset)
            .max_by_key(|(_, p)| p.at)?;
        let end = self
            .pieces
            .get(at + 1)
            .map_or(self.text.len() as u32, |next| next.start);
        let place = piece.start + (offset - piece.at);
        (place <= end).then_some(place)
    }

    /// A diagnostic of the bundle at its place in a file.
    #[must_use]
    pub fn localise(&self, diagnostic: &Diagnostic) -> Located {
        let (file, span) = self.locate(diagnostic.span);
        let (line, column) = position(self.source(file), span.start);
        let labels = diagnostic.labels.iter().filter_map(|(span, text)| {
            let (there, span) = self.locate(*span);
            (there == file).then(|| (span, text.clone()))
        });
        Located {
            file,
            diagnostic: Diagnostic {
                span,
                line,
                column,
                labels: labels.collect(),
                ..diagnostic.clone()
            },
        }
    }

    /// Diagnostics of the bundle as plain text, each with its file.
    #[must_use]
    pub fn render_all(&self, diagnostics: &[Diagnostic]) -> String {
        let rendered: Vec<String> = diagnostics
            .iter()
            .map(|diagnostic| {
                let mut out = self.render(&self.localise(diagnostic));
                for (span, text) in &diagnostic.labels {
                    let (file, there) = self.locate(*span);
                    if file != self.locate(diagnostic.span).0 {
                        let (line, column) = position(self.source(file), there.start);
                        let path = &self.paths[file];
                        let _ = writeln!(out, "  = note: {path}:{line}:{column}: {text}");
                    }
                }
                out
            })
            .collect();
        rendered.join("\n")
    }

    /// One diagnostic as plain text, with its file.
    #[must_use]
    pub fn render(&self, located: &Located) -> String {
        let path = self.paths.get(located.file).map_or("", String::as_str);
        let text = located.diagnostic.render(self.source(located.file));
        text.replace(" --> ", &format!(" --> {path}:"))
    }
}

struct Collector<'l> {
    bundle: Bundle,
    /// Index of every file that is in the bundle.
    known: HashMap<String, usize>,
    /// Files whose text is being put together, outermost first.
    open: Vec<usize>,
    problems: Vec<Located>,
    load: &'l mut dyn FnMut(&str) -> Result<String, String>,
}

impl Collector<'_> {
    fn file(&mut self, path: String, text: String) {
        let file = self.bundle.paths.len();
        self.known.insert(path.clone(), file);
        self.bundle.paths.push(path.clone());
        self.bundle.sources.push(text.clone());
        self.open.push(file);
        let mut at = 0;
        // Most texts import nothing, and need not be parsed for that.
        if text.contains("import") {
            for item in parse(&text).0.items {
                let ItemKind::Import { path: wanted } = &item.kind else {
                    continue;
                };
                self.piece(file, &text, at, item.span.start);
                at = item.span.end;
                self.import(file, &text, &joined(Some(&path), wanted), item.span);
            }
        }
        self.piece(file, &text, at, text.len() as u32);
        self.open.pop();
    }

    /// Adds a piece of a file's text.
    fn piece(&mut self, file: usize, text: &str, from: u32, to: u32) {
        let bundle = &mut self.bundle;
        bundle.pieces.push(Piece {
            start: bundle.text.len() as u32,
            file,
            at: from,
        });
        bundle.text.push_str(&text[from as usize..to as usize]);
    }

    fn import(&mut self, file: usize, text: &str, path: &str, span: Span) {
        let problem = |code, message: String| Located {
            file,
            diagnostic: Diagnostic::new(text, code, span, message),
        };
        if let Some(known) = self.known.get(path) {
            if self.open.contains(known) {
                let found = problem(Code::ImportCycle, format!("`{path}` imports itself"));
                self.problems.push(found);
            }
            return;
        }
        if self.bundle.paths.len() >= MAX_FILES || self.open.len() >= MAX_DEPTH {
            let message = format!(
                "more than {MAX_FILES} files are imported, or more than {MAX_DEPTH} one by the other"
            );
            self.problems.push(problem(Code::SourceTooLarge, message));
            return;
        }
        let loaded = match (self.load)(path) {
            Ok(loaded) => loaded,
            Err(reason) => {
                let message = format!("cannot import `{path}`: {reason}");
                self.problems.push(problem(Code::ImportNotFound, message));
                return;
            }
        };
        if self.bundle.text.len() + loaded.len() > MAX_SOURCE_BYTES {
            let message = format!(
                "with `{path}` the text is larger than {} MiB",
                MAX_SOURCE_BYTES >> 20
            );
            self.problems.push(problem(Code::SourceTooLarge, message));
            return;
        }
        self.file(path.to_owned(), loaded);
        // The importing text goes on behind the imported one, not in its last line.
        if !self.bundle.text.ends_with('\n') {
            self.bundle.text.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files<'a>(
        files: &'a [(&'a str, &'a str)],
    ) -> impl FnMut(&str) -> Result<String, String> + 'a {
        move |path| {
            let found = files.iter().find(|(name, _)| *name == path);
            found
                .map(|(_, text)| (*text).to_owned())
                .ok_or_else(|| "no such file".to_owned())
        }
    }

    #[test]
    fn a_file_that_is_imported_twice_stands_once_where_it_is_first() {
        let main = "import \"a.nk\"\nimport \"b.nk\"\npolicy main = drop";
        let loaded = [
            ("a.nk", "import \"b.nk\" set a = { }"),
            ("b.nk", "set b = { }"),
        ];
        let bundle = bundle("main.nk", main, &mut files(&loaded)).unwrap();
        let text: Vec<&str> = bundle.text().split_whitespace().collect();
        assert_eq!(text.join(" "), "set b = { } set a = { } policy main = drop");
    }

    #[test]
    fn every_byte_is_found_in_its_file_and_back() {
        let main = "let x = tcp\nimport \"a.nk\"\npolicy main = x";
        let loaded = [
            ("a.nk", "set wäb = { }\nimport \"b.nk\"\nset c = { }"),
            ("b.nk", "set b = { }"),
        ];
        let bundle = bundle("main.nk", main, &mut files(&loaded)).unwrap();
        for (offset, character) in bundle.text().char_indices() {
            let place = Span::new(offset as u32, offset as u32 + 1);
            let (file, span) = bundle.locate(place);
            let found = bundle.source(file)[span.start as usize..].chars().next();
            if let Some(found) = found {
                assert_eq!(found, character, "{offset}");
                assert_eq!(bundle.place(file, span.start), Some(offset as u32));
            }
        }
    }

    #[test]
    fn mistakes_name_the_file_they_are_in() {
        let main = "import \"a.nk\"\npolicy main = drop";
        let loaded = [("a.nk", "\nset web = { 80 81 }")];
        let bundle = bundle("main.nk", main, &mut files(&loaded)).unwrap();
        let (_, diagnostics) = parse(bundle.text());
        let text = bundle.render_all(&diagnostics);
        assert!(text.contains("--> a.nk:2:"), "{text}");
    }

    #[test]
    fn cycles_and_missing_files_are_located_in_the_importing_file() {
        let main = "import \"a.nk\"";
        let loaded = [("a.nk", "set a = { }\nimport \"main.nk\" import \"c.nk\"")];
        let (bundle, problems) = bundle("main.nk", main, &mut files(&loaded)).unwrap_err();
        let codes: Vec<_> = problems
            .iter()
            .map(|p| (p.file, p.diagnostic.code))
            .collect();
        assert_eq!(codes, [(1, Code::ImportCycle), (1, Code::ImportNotFound)]);
        assert!(bundle.render(&problems[0]).contains("--> a.nk:2:1"));
    }
}
