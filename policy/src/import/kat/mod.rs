//! Frenetic's concrete syntax.
//!
//! ```text
//! policy   = sequence { "+" sequence }
//! sequence = unary { ";" unary }
//! unary    = "if" or "then" policy "else" unary | "while" or "do" unary
//!          | ("let" | "var") `NAME ":=" (VALUE | FIELD) "in" policy
//!          | ["filter"] or { "*" } | FIELD ":=" VALUE { "*" } | link
//! or       = and { "or" and }        and = not { "and" not }        not = "not" not | atom
//! atom     = "drop" | "id" | "dup" | "true" | "false" | FIELD "=" VALUE | "(" policy ")"
//! link     = SWITCH "@" PORT ("=>" | "=>>") SWITCH "@" PORT
//! ```
//!
//! So `if a then p else q; r` is `(if a then p else q); r`, and a star belongs to the whole
//! predicate before it. Also read are `|` for `+`, `==`, `!=`, `&&`, `||`, `!`, `skip`, and `begin`
//! and `end` for parentheses.
//!
//! A link is `filter switch = s and port = p; dup; switch := s2; port := p2; dup`; `=>>` speaks of
//! `vswitch` and `vport`. Addresses are numbers of 32 bits, prefixes are ranges of them. Fields are
//! as wide as in Frenetic. `pipe("…")` and `query("…")`, which send packets out of the network, and
//! Frenetic's portless mode are refused by name.
//!
//! ```
//! use sunwire_policy::import::kat;
//! use sunwire_policy::verify::program::Program;
//!
//! let mut program = Program::new();
//! let left = kat::parse_into(&mut program, "filter port = 1; port := 2").unwrap();
//! let right = kat::parse_into(&mut program, "port = 1; port := 2 + drop").unwrap();
//! assert_eq!(left, right);
//! ```

mod expression;
mod field;
mod lexer;
mod meta;
mod reader;
mod value;

use crate::diagnostic::Diagnostic;
use crate::verify::program::{Domain, FieldId, NodeId, Program, Value};

use reader::Reader;

/// Reads a text.
///
/// # Errors
/// Everything that is wrong with it, located.
pub fn parse(text: &str) -> Result<(Program, NodeId), Vec<Diagnostic>> {
    let mut program = Program::new();
    let node = parse_into(&mut program, text)?;
    let [node] = close(&mut program, [node]);
    Ok((program, node))
}

/// Reads one more text into `program`. Programs that use meta-fields want [`close`] before they are
/// asked about.
///
/// # Errors
/// Everything that is wrong with it, located. `program` then holds nodes without use.
pub fn parse_into(program: &mut Program, text: &str) -> Result<NodeId, Vec<Diagnostic>> {
    let mut reader = Reader::new(program, text);
    let node = reader.whole();
    let diagnostics = reader.finish();
    node.ok_or(diagnostics)
}

/// Restricts programs that are asked about together to packets without meta-fields.
///
/// A meta-field (`` `name ``) exists inside its `let` or `var` only. In a [`Program`] it is a field,
/// zero outside; without this restriction a program that uses one would differ from one that does
/// not by what becomes of packets that come in with the field set, of which there are none.
pub fn close<const N: usize>(program: &mut Program, nodes: [NodeId; N]) -> [NodeId; N] {
    let fields = program.fields().iter().enumerate();
    let metas: Vec<FieldId> = fields
        .filter(|(_, field)| field.name.starts_with('`'))
        .map(|(index, _)| FieldId(index as u16))
        .collect();
    if metas.is_empty() {
        return nodes;
    }
    let unset: Vec<NodeId> = metas
        .into_iter()
        .map(|field| program.test_value(field, Value::number(0)))
        .collect();
    nodes.map(|node| program.sequence(unset.iter().copied().chain([node])))
}

/// What meta-fields and Frenetic's fields hold.
const fn numbers(max: u64) -> Domain {
    Domain::Number { max }
}
