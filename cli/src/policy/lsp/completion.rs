//! What may be written at a place: names of the text and of the network, fields, and words.
//!
//! What fits the word before comes first. Nothing is offered in comments; within quotes, endpoints
//! and nodes are, which is how those with a name of the language are written.

use lsp_types::{CompletionItem, CompletionItemKind, Documentation, MarkupContent, MarkupKind};
use sunwire_policy::field::subject_names;

use super::analysis::Analysis;
use super::hover::{self, Place, place_at};
use super::index::Kind;
use super::words::{self, WORDS};

/// Endpoints that are offered; the editor narrows them down only when it has all of them.
const ENDPOINTS: usize = 5000;

/// What is needed at a place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// A set, an endpoint, a value.
    Value,
    /// A policy or predicate.
    Expression,
}

/// What may be written at a byte of the text.
pub(super) fn complete(analysis: &Analysis, offset: u32) -> Vec<CompletionItem> {
    let text = analysis.bundle.source(0);
    match place_at(text, offset as usize) {
        Place::Comment => return Vec::new(),
        Place::Quoted => return outside(analysis).collect(),
        Place::Code => {}
    }
    let wanted = wanted(text, offset as usize);
    let mut out: Vec<CompletionItem> = Vec::new();
    let place = analysis.place(offset).unwrap_or(0);
    for definition in analysis.index.visible(place) {
        let (kind, value) = match definition.kind {
            Kind::Network => (CompletionItemKind::MODULE, true),
            Kind::Set => (CompletionItemKind::ENUM, true),
            Kind::Parameter => (CompletionItemKind::VARIABLE, true),
            Kind::Function => (CompletionItemKind::FUNCTION, false),
            Kind::Let | Kind::Local => (CompletionItemKind::CONSTANT, false),
            Kind::Policy => (CompletionItemKind::METHOD, false),
        };
        let whole = analysis.text(definition.whole);
        let first = whole.lines().next().unwrap_or("").to_owned();
        out.push(CompletionItem {
            label: definition.name.clone(),
            kind: Some(kind),
            detail: Some(first),
            sort_text: Some(rank(value == (wanted == Wanted::Value), &definition.name)),
            ..CompletionItem::default()
        });
    }
    out.extend(outside(analysis).map(|item| CompletionItem {
        sort_text: Some(rank(wanted == Wanted::Value, &item.label)),
        ..item
    }));
    for name in subject_names() {
        out.push(CompletionItem {
            label: name.to_owned(),
            kind: Some(CompletionItemKind::FIELD),
            documentation: documented(name),
            sort_text: Some(rank(wanted == Wanted::Expression, name)),
            ..CompletionItem::default()
        });
    }
    for word in WORDS {
        out.push(CompletionItem {
            label: word.name.to_owned(),
            kind: Some(match word.kind {
                words::Kind::Keyword => CompletionItemKind::KEYWORD,
                words::Kind::Verb => CompletionItemKind::OPERATOR,
                words::Kind::Predicate => CompletionItemKind::VALUE,
                words::Kind::Claim => CompletionItemKind::EVENT,
            }),
            detail: Some(word.form.to_owned()),
            documentation: documented(word.name),
            sort_text: Some(rank(wanted == Wanted::Expression, word.name)),
            ..CompletionItem::default()
        });
    }
    // The text may define what it also uses before: once is enough.
    out.sort_by(|a, b| (&a.label, &a.sort_text).cmp(&(&b.label, &b.sort_text)));
    out.dedup_by(|a, b| a.label == b.label);
    out
}

/// Endpoints, networks and nodes.
fn outside(analysis: &Analysis) -> impl Iterator<Item = CompletionItem> {
    let environment = &analysis.environment;
    let item = |label: &str, kind, detail: String| CompletionItem {
        label: label.to_owned(),
        kind: Some(kind),
        detail: Some(detail),
        ..CompletionItem::default()
    };
    let endpoints = environment.endpoints.iter().take(ENDPOINTS).map(move |e| {
        let addresses: Vec<String> = e.addresses.iter().map(ToString::to_string).collect();
        let detail = format!("endpoint of {}: {}", e.network, addresses.join(", "));
        item(&e.name, CompletionItemKind::UNIT, detail)
    });
    let networks = environment.networks.iter();
    let networks =
        networks.map(move |n| item(&n.name, CompletionItemKind::MODULE, "network".to_owned()));
    let nodes = environment.nodes.iter();
    let nodes = nodes.map(move |n| item(&n.name, CompletionItemKind::STRUCT, "node".to_owned()));
    endpoints.chain(networks).chain(nodes)
}

fn documented(name: &str) -> Option<Documentation> {
    let value = hover::of_word(name)?;
    Some(Documentation::MarkupContent(MarkupContent {
        kind: MarkupKind::Markdown,
        value,
    }))
}

/// Sorts what is wanted before the rest.
fn rank(fits: bool, name: &str) -> String {
    format!("{}{name}", if fits { 0 } else { 1 })
}

/// What the word or sign before the one that is being written calls for.
fn wanted(text: &str, offset: usize) -> Wanted {
    let before = text.get(..offset).unwrap_or("");
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let before = before.trim_end_matches(is_word).trim_end();
    let last = &before[before.rfind(|c| !is_word(c)).map_or(0, |at| {
        at + before[at..].chars().next().map_or(1, char::len_utf8)
    })..];
    if matches!(
        last,
        "in" | "to" | "from" | "via" | "multicast" | "snat" | "dnat"
    ) {
        return Wanted::Value;
    }
    // `=` begins the body of a definition, or the value of a field.
    let line = before.lines().next_back().unwrap_or("").trim_start();
    let defines = ["let ", "policy "]
        .iter()
        .any(|word| line.starts_with(word));
    match before.chars().next_back() {
        Some('{') => Wanted::Value,
        Some('=') if !defines || line.matches('=').count() > 1 => Wanted::Value,
        Some(',') | Some('(') if is_within_values(before) => Wanted::Value,
        _ => Wanted::Expression,
    }
}

/// Whether the innermost bracket that is open holds values.
fn is_within_values(before: &str) -> bool {
    let mut depth = 0usize;
    for (at, character) in before.char_indices().rev().take(4096) {
        match character {
            ')' | '}' => depth += 1,
            '(' | '{' if depth > 0 => depth -= 1,
            '{' => return true,
            '(' => {
                let word = before[..at].trim_end();
                let words = [
                    "balance", "reach", "isolated", "both", "waypoint", "snat", "dnat",
                ];
                return words.iter().any(|claim| word.ends_with(claim));
            }
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_wanted_where_values_stand() {
        for (text, value) in [
            ("policy main = if src in ", true),
            ("policy main = if src in w", true),
            ("set a = { x, ", true),
            ("policy main = src = ", true),
            ("policy main = ", false),
            ("policy main = if tcp then ", false),
            ("assert reach(web, ", true),
            ("policy p = forward to ", true),
            ("policy p = balance(a, ", true),
            ("policy p = (a; f(", false),
        ] {
            assert_eq!(wanted(text, text.len()) == Wanted::Value, value, "{text}");
        }
    }
}
