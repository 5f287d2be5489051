//! What is under the cursor, in a few lines of Markdown.

use std::fmt::Write as _;

use sunwire_policy::ast::{Expr, ExprKind, ItemKind};
use sunwire_policy::diagnostic::Span;
use sunwire_policy::environment::{Endpoint, Network};
use sunwire_policy::field::Subject;

use super::analysis::Analysis;
use super::index::{Definition, Kind};
use super::members::members;
use super::words;

/// Lines of a definition that are shown.
const LINES: usize = 16;
/// Endpoints that are shown.
const ENDPOINTS: usize = 24;

/// What is at a byte of the text, and where that stands in the text.
pub(super) fn hover(analysis: &Analysis, offset: u32) -> Option<(String, Span)> {
    if let Some(place) = analysis.place(offset)
        && let Some(found) = analysis.index.at(place)
    {
        let (file, span) = analysis.bundle.locate(found.at);
        let shown = match found.definition {
            Some(number) => Some(definition(analysis, &analysis.index.definitions[number])),
            None => outside(analysis, &found.name),
        };
        if let Some(shown) = shown.filter(|_| file == 0) {
            return Some((shown, span));
        }
    }
    let text = analysis.bundle.source(0);
    let span = word_at(text, offset)?;
    let word = text.get(span.start as usize..span.end as usize)?;
    Some((of_word(word)?, span))
}

/// What a word of the language means.
pub(super) fn of_word(word: &str) -> Option<String> {
    if let Some(subject) = Subject::named(word) {
        let name = subject.name();
        let same = match name == word {
            true => String::new(),
            false => format!("The same as `{name}`. "),
        };
        let meaning = words::field(subject);
        return Some(format!(
            "{}\n{same}{meaning}",
            code(&format!("{word} (field)"))
        ));
    }
    let word = words::word(word)?;
    Some(format!("{}\n{}", code(word.form), word.meaning))
}

/// The word at a byte, when that is neither in a comment nor quoted.
fn word_at(text: &str, offset: u32) -> Option<Span> {
    let offset = offset as usize;
    if !text.is_char_boundary(offset) || place_at(text, offset) != Place::Code {
        return None;
    }
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let start = text[..offset].rfind(|c| !is_word(c)).map_or(0, |at| {
        at + text[at..].chars().next().map_or(1, char::len_utf8)
    });
    let rest = &text[offset..];
    let end = offset + rest.find(|c| !is_word(c)).unwrap_or(rest.len());
    let word = &text[start..end];
    // A hyphen at an end is an operator.
    let skipped = word.len() - word.trim_start_matches('-').len();
    let word = word.trim_matches('-');
    let start = start + skipped;
    (!word.is_empty()).then(|| Span::new(start as u32, (start + word.len()) as u32))
}

/// What a place in a text is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Code,
    Quoted,
    Comment,
}

/// What the byte at `offset` is part of; what would be written there.
pub(super) fn place_at(text: &str, offset: usize) -> Place {
    let bytes = text.as_bytes();
    let mut at = 0;
    let mut depth = 0usize;
    while at < offset {
        let two = bytes.get(at..at + 2).unwrap_or(b"");
        match (depth, two) {
            (_, b"(*") => (depth, at) = (depth + 1, at + 2),
            (1.., b"*)") => (depth, at) = (depth - 1, at + 2),
            (1.., _) => at += 1,
            (0, b"--") => {
                let end = text[at..]
                    .find('\n')
                    .map_or(text.len(), |length| at + length);
                if offset <= end {
                    return Place::Comment;
                }
                at = end;
            }
            (0, _) if bytes.get(at) == Some(&b'"') => {
                let line = text[at..].lines().next().unwrap_or("");
                let length = line[1..].find('"').map_or(line.len(), |length| length + 2);
                if offset < at + length {
                    return Place::Quoted;
                }
                at += length;
            }
            (0, _) => at += 1,
        }
    }
    match depth {
        0 => Place::Code,
        _ => Place::Comment,
    }
}

fn definition(analysis: &Analysis, definition: &Definition) -> String {
    let what = match definition.kind {
        Kind::Network => "network",
        Kind::Set => "set",
        Kind::Parameter => "parameter",
        Kind::Policy => "policy",
        Kind::Let | Kind::Function | Kind::Local => sort_of(analysis, definition),
    };
    let mut out = code(&shortened(analysis.text(definition.whole)));
    let (file, _) = analysis.bundle.locate(definition.at);
    let from = match (file, analysis.bundle.files().get(file)) {
        (1.., Some(path)) => format!(" from `{path}`"),
        _ => String::new(),
    };
    let _ = writeln!(out, "{what}{from}");
    match definition.kind {
        Kind::Set => out.push_str(&set(analysis, &definition.name)),
        Kind::Network => {
            let networks = &analysis.environment.networks;
            if let Some(found) = networks.iter().find(|n| n.name == definition.name) {
                out.push_str(&network(analysis, found));
            }
        }
        _ => {}
    }
    out
}

/// The endpoints that a set means.
fn set(analysis: &Analysis, name: &str) -> String {
    let Some(group) = members(analysis, name) else {
        return String::new();
    };
    let mut out = match group.members.len() {
        1 => "\n1 endpoint:\n".to_owned(),
        count => format!("\n{count} endpoints:\n"),
    };
    for member in group.members.iter().take(ENDPOINTS) {
        let addresses: Vec<String> = member.addresses.iter().map(ToString::to_string).collect();
        let _ = writeln!(out, "- `{}` {}", member.name, addresses.join(", "));
    }
    if group.members.len() > ENDPOINTS {
        let _ = writeln!(out, "- and {} more", group.members.len() - ENDPOINTS);
    }
    if group.outside.is_some() {
        out.push_str("\nand everything outside of the network\n");
    }
    if !analysis.is_known {
        out.push_str("\nassumed: no controller or topology says what there is\n");
    }
    out
}

/// Whether a definition is a predicate or a policy.
fn sort_of(analysis: &Analysis, definition: &Definition) -> &'static str {
    let Some(value) = value_of(analysis, definition) else {
        return "definition";
    };
    let mut known = Vec::new();
    match is_predicate(analysis, value, &mut known) {
        Some(true) => "predicate",
        Some(false) => "policy",
        None => "predicate or policy, by its arguments",
    }
}

/// What a global `let` stands for.
fn value_of<'a>(analysis: &'a Analysis, definition: &Definition) -> Option<&'a Expr> {
    analysis
        .document
        .items
        .iter()
        .find_map(|item| match &item.kind {
            ItemKind::Let(found) if found.name.span == definition.at => Some(&found.value),
            _ => None,
        })
}

/// Whether an expression is a predicate; unknown when parameters decide. `known` are the
/// definitions being asked about, so that one that uses itself ends.
fn is_predicate(analysis: &Analysis, expr: &Expr, known: &mut Vec<usize>) -> Option<bool> {
    match &expr.kind {
        ExprKind::True | ExprKind::False | ExprKind::Test { .. } | ExprKind::Word(_) => Some(true),
        ExprKind::Not(_) | ExprKind::And(_) | ExprKind::Or(_) | ExprKind::Established(_) => {
            Some(true)
        }
        ExprKind::Use { name, .. } => {
            let found = analysis.index.at(name.span.start)?.definition?;
            let definition = &analysis.index.definitions[found];
            if definition.kind == Kind::Policy {
                return Some(false);
            }
            if known.contains(&found) {
                return None;
            }
            known.push(found);
            is_predicate(analysis, value_of(analysis, definition)?, known)
        }
        ExprKind::LetIn { body, .. } => is_predicate(analysis, body, known),
        ExprKind::Error => None,
        _ => Some(false),
    }
}

/// What a name means that the text does not define.
fn outside(analysis: &Analysis, name: &str) -> Option<String> {
    let environment = &analysis.environment;
    let mut out = String::new();
    if let Some(found) = environment.endpoints.iter().find(|e| e.name == name) {
        out.push_str(&endpoint(found));
    } else if let Some(found) = environment.networks.iter().find(|n| n.name == name) {
        let _ = writeln!(out, "{}network", code(&format!("network {name}")));
        out.push_str(&network(analysis, found));
    } else if let Some(found) = environment.nodes.iter().find(|n| n.name == name) {
        let _ = writeln!(out, "{}node {}", code(name), found.number);
    } else {
        return None;
    }
    if !analysis.is_known {
        out.push_str("\nassumed: no controller or topology says what there is\n");
    }
    Some(out)
}

fn endpoint(endpoint: &Endpoint) -> String {
    let addresses: Vec<String> = endpoint.addresses.iter().map(ToString::to_string).collect();
    let mac = endpoint.mac.map(|byte| format!("{byte:02x}")).join(":");
    let mut out = code(&endpoint.name);
    let _ = writeln!(
        out,
        "endpoint {} of network `{}`\n\n- addresses: {}\n- MAC address: {mac}",
        endpoint.number,
        endpoint.network,
        addresses.join(", ")
    );
    let labels = endpoint.labels.iter();
    let labels: Vec<String> = labels.map(|(k, v)| format!("{k} = \"{v}\"")).collect();
    if !labels.is_empty() {
        let _ = writeln!(out, "- labels: {}", labels.join(", "));
    }
    out
}

fn network(analysis: &Analysis, network: &Network) -> String {
    let subnets = network.subnets.iter();
    let subnets: Vec<String> = subnets.map(|(a, length)| format!("{a}/{length}")).collect();
    let endpoints = analysis.environment.endpoints.iter();
    let count = endpoints.filter(|e| e.network == network.name).count();
    format!(
        "\n- VNI: {}\n- subnets: {}\n- endpoints: {count}\n",
        network.vni,
        subnets.join(", ")
    )
}

fn shortened(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().take(LINES).collect();
    if text.lines().count() > LINES {
        lines.push("…");
    }
    lines.join("\n")
}

/// A text set as code; one that holds a fence of its own is fenced with more.
fn code(text: &str) -> String {
    let mut fence = "```".to_owned();
    while text.contains(&fence) {
        fence.push('`');
    }
    format!("{fence}sunwire\n{}\n{fence}\n", text.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_quotes_are_told_from_code() {
        let text = "set a = \"x -- y\" -- c \"q\n (* d (* e *) f *) g \"(* h\" i";
        let expected = [
            ('a', Place::Code),
            ('x', Place::Quoted),
            ('y', Place::Quoted),
            ('c', Place::Comment),
            ('q', Place::Comment),
            ('d', Place::Comment),
            ('f', Place::Comment),
            ('g', Place::Code),
            ('h', Place::Quoted),
            ('i', Place::Code),
        ];
        for (letter, place) in expected {
            assert_eq!(
                place_at(text, text.find(letter).unwrap()),
                place,
                "{letter}"
            );
        }
    }

    #[test]
    fn the_word_under_the_cursor_is_whole() {
        let text = "assert loop-free 80-90 -x";
        let word = |at: &str| {
            let span = word_at(text, text.find(at).unwrap() as u32).unwrap();
            &text[span.start as usize..span.end as usize]
        };
        assert_eq!(word("free"), "loop-free");
        assert_eq!(word("ssert"), "assert");
        assert_eq!(word("x"), "x");
        assert_eq!(word_at("ä", 1), None);
    }
}
