//! Changes to texts: formatting and renaming.

use lsp_types::{Location, TextEdit};
use sunwire_policy::ast::{ItemKind, Word};
use sunwire_policy::diagnostic::Span;
use sunwire_policy::field::Subject;
use sunwire_policy::format::format;
use sunwire_policy::imports::bundle;
use sunwire_policy::parser::RESERVED;

use super::analysis::Analysis;
use super::diagnostics::location;
use super::index::Occurrence;
use super::position::Lines;

/// The changes that format a text; nothing when it does not parse. Lines at the start and the end
/// that stay are not touched, so that the cursor stays where it is as far as that can be.
pub(super) fn formatting(text: &str) -> Option<Vec<TextEdit>> {
    let formatted = format(text).ok()?;
    if formatted == text {
        return Some(Vec::new());
    }
    let equal = |(a, b): &(&str, &str)| a == b;
    let before = text.split_inclusive('\n');
    let after = formatted.split_inclusive('\n');
    let head: usize = before
        .zip(after)
        .take_while(equal)
        .map(|(a, _)| a.len())
        .sum();
    let before = text[head..].split_inclusive('\n').rev();
    let after = formatted[head..].split_inclusive('\n').rev();
    let tail: usize = before
        .zip(after)
        .take_while(equal)
        .map(|(a, _)| a.len())
        .sum();
    let span = Span::new(head as u32, (text.len() - tail) as u32);
    Some(vec![TextEdit {
        range: Lines::new(text).range(text, span),
        new_text: formatted[head..formatted.len() - tail].to_owned(),
    }])
}

/// Where the name at a byte is defined; of an `import`, the file.
pub(super) fn definition(analysis: &Analysis, offset: u32) -> Option<Location> {
    if let Some(file) = imported(analysis, offset) {
        return location(analysis, file, Span::default());
    }
    let found = at(analysis, offset)?;
    let definition = &analysis.index.definitions[found.definition?];
    let (file, span) = analysis.bundle.locate(definition.at);
    location(analysis, file, span)
}

/// The file that the `import` at a byte names.
fn imported(analysis: &Analysis, offset: u32) -> Option<usize> {
    let text = analysis.bundle.source(0);
    if !text.contains("import") {
        return None;
    }
    let items = sunwire_policy::parse(text).0.items;
    let import = items.iter().find(|item| {
        let here = item.span.start <= offset && offset <= item.span.end;
        here && matches!(item.kind, ItemKind::Import { .. })
    })?;
    let files = analysis.bundle.files();
    let statement = text.get(import.span.start as usize..import.span.end as usize)?;
    // What the path means is asked of who reads imports.
    let mut named = None;
    let _ = bundle(files.first()?, statement, &mut |path| {
        named = Some(path.to_owned());
        Err(String::new())
    });
    let named = named?;
    files.iter().position(|file| *file == named)
}

/// All places of the name at a byte, its definition among them when asked for.
pub(super) fn references(analysis: &Analysis, offset: u32, with_definition: bool) -> Vec<Location> {
    let Some(found) = at(analysis, offset) else {
        return Vec::new();
    };
    let places: Vec<Span> = match found.definition {
        Some(definition) => {
            let at = analysis.index.definitions[definition].at;
            let uses = analysis.index.uses(definition);
            uses.filter(|span| with_definition || *span != at).collect()
        }
        // Endpoints and nodes are the same everywhere.
        None => {
            let all = analysis.index.occurrences.iter();
            all.filter(|other| other.definition.is_none() && other.name == found.name)
                .map(|other| other.at)
                .collect()
        }
    };
    let places = places.into_iter().filter(|span| span.start < span.end);
    places
        .filter_map(|span| {
            let (file, span) = analysis.bundle.locate(span);
            location(analysis, file, span)
        })
        .collect()
}

/// The name at a byte that can be renamed, and where it stands in the text.
pub(super) fn renamed(analysis: &Analysis, offset: u32) -> Result<(String, Span), String> {
    let found = at(analysis, offset).ok_or("there is no name here")?;
    if found.definition.is_none() {
        return Err(format!("`{}` is not defined in this text", found.name));
    }
    let (_, span) = analysis.bundle.locate(found.at);
    Ok((found.name.clone(), span))
}

/// The places to change for a new name, or why it cannot be had.
pub(super) fn rename(analysis: &Analysis, offset: u32, to: &str) -> Result<Vec<Location>, String> {
    let (name, _) = renamed(analysis, offset)?;
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let parts_are_words = to
        .split('-')
        .all(|part| !part.is_empty() && part.chars().all(is_word));
    if !parts_are_words || to.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(format!(
            "`{to}` is no name: names hold letters, digits, `_` and single hyphens"
        ));
    }
    let reserved = RESERVED.contains(&to) || Word::named(to).is_some();
    if reserved || Subject::named(to).is_some() {
        return Err(format!("`{to}` is a word of the language"));
    }
    let taken = analysis
        .index
        .occurrences
        .iter()
        .any(|found| found.name == to);
    if taken && to != name {
        return Err(format!("`{to}` already means something in this text"));
    }
    Ok(references(analysis, offset, true))
}

fn at(analysis: &Analysis, offset: u32) -> Option<&Occurrence> {
    analysis.index.at(analysis.place(offset)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formatting_touches_only_the_lines_that_change() {
        let text = "set a = { x }\nset b={ y }\nset c = { z }\n";
        let edits = formatting(text).unwrap();
        assert_eq!(edits.len(), 1);
        assert_eq!(edits[0].new_text, "set b = { y }\n");
        assert_eq!((edits[0].range.start.line, edits[0].range.end.line), (1, 2));
        assert_eq!(formatting("set a = { x }\n").unwrap(), []);
        assert_eq!(formatting("set a = {"), None);
    }
}
