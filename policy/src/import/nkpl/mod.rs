//! KATch's language, NKPL: NetKAT with set operations, definitions, loops, imports and checks.
//!
//! ```text
//! statement = "check" expr ("≡" | "≢") expr | NAME "=" (expr | NUMBER) | "import" "path"
//!           | "for" NAME ("∈" | "in" | "=") NUMBER ".." NUMBER "do" statement
//!           | "print" expr | "graphviz" "path" expr | "forward" expr | "backward" expr
//! expr      = "rangesum" @f NUMBER ".." NUMBER | ("exists" | "forall") @f union | union
//! union     = sequence { "∪" sequence }      sequence = combined { "⋅" combined }
//! combined  = postfix { ("∩" | "∖" | "⊕") postfix }
//! postfix   = { "¬" } atom { "⋆" | "?" }
//! atom      = "∅" | "ε" | "δ" | @f "=" v | @f "≠" v | @f "←" v | NAME | "(" expr ")"
//! ```
//!
//! `⊤` is `ε` and `⊥` is `∅`, as in KATch; `?` after a test or a predicate changes nothing; both
//! ends of a range are included. Definitions are read in order and may be made anew. Fields hold
//! 64-bit integers. Statements that only print are read and have no effect; `forward` and
//! `backward` inside a checked expression are refused, as no program expresses them.
//!
//! ```
//! use sunwire_policy::import::nkpl;
//!
//! let text = "A = 0\nnet = (@sw=A⋅@sw←1⋅δ)⋆\ncheck @sw=A⋅net⋅@sw=1 ≢ ∅\n";
//! let imported = nkpl::parse(text, &mut nkpl::no_imports).unwrap();
//! assert_eq!(imported.checks.len(), 1);
//! assert!(!imported.checks[0].equal);
//! ```

mod expression;
mod lexer;
pub(crate) mod path;
mod quantifier;
mod reader;
mod statement;
mod world;

use std::collections::BTreeMap;

use crate::diagnostic::{Code, Diagnostic, Span};
use crate::verify::program::{NodeId, Program};

use reader::Reader;
use world::World;

/// Gives the text of an imported file by its path, or says why it cannot.
///
/// Paths are relative to the folder of the first text: what an imported file imports is already
/// joined to that file's own path.
pub type Loader<'l> = dyn FnMut(&str) -> Result<String, String> + 'l;

/// What a text holds.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The nodes that definitions and checks refer to.
    pub program: Program,
    /// What is defined at the end, by name.
    pub definitions: BTreeMap<String, Definition>,
    /// The checks, in the order in which they are read.
    pub checks: Vec<Check>,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Definition {
    /// A value of fields.
    Number(i64),
    /// A program.
    Program(NodeId),
}

/// A question with its expected answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The left side.
    pub left: NodeId,
    /// The right side.
    pub right: NodeId,
    /// Whether both shall be equivalent (`≡`), or different (`≢`).
    pub equal: bool,
    /// The imported file that holds it; `None` for the text itself.
    pub file: Option<String>,
    /// Where, in bytes of that file.
    pub span: Span,
    /// The line where it begins, from 1.
    pub line: u32,
    /// The check as it is written, shortened when it is long.
    pub text: String,
    /// The variables of the loops around it and their values, outermost first.
    pub loops: Vec<(String, i64)>,
}

/// Reads a text of statements.
///
/// # Errors
/// Everything that is wrong with it, located; mistakes in imported files are located at the import
/// and name the place in the file.
pub fn parse(text: &str, loader: &mut Loader<'_>) -> Result<Imported, Vec<Diagnostic>> {
    let mut program = Program::new();
    let (definitions, checks) = statements(&mut program, text, loader)?;
    Ok(Imported {
        program,
        definitions,
        checks,
    })
}

/// Reads one more program into `program`: a text that is one expression, or statements that define
/// `main`.
///
/// # Errors
/// Everything that is wrong with it, located. `program` then holds nodes without use.
pub fn parse_into(
    program: &mut Program,
    text: &str,
    loader: &mut Loader<'_>,
) -> Result<NodeId, Vec<Diagnostic>> {
    let mut world = World::new(program, loader);
    let mut reader = Reader::new(&mut world, text, None, false);
    if !reader.begins_statement() {
        let node = reader.only_expression();
        let diagnostics = reader.finish();
        return node.ok_or(diagnostics);
    }
    drop(world);
    let (definitions, _) = statements(program, text, loader)?;
    match definitions.get("main") {
        Some(Definition::Program(node)) => Ok(*node),
        _ => Err(vec![Diagnostic::new(
            text,
            Code::ForeignName,
            Span::default(),
            "the text defines no program `main`",
        )]),
    }
}

type Statements = (BTreeMap<String, Definition>, Vec<Check>);

fn statements(
    program: &mut Program,
    text: &str,
    loader: &mut Loader<'_>,
) -> Result<Statements, Vec<Diagnostic>> {
    let mut world = World::new(program, loader);
    let mut reader = Reader::new(&mut world, text, None, true);
    reader.statements();
    let failed = reader.failed();
    let diagnostics = reader.finish();
    if failed {
        return Err(diagnostics);
    }
    Ok((world.definitions.into_iter().collect(), world.checks))
}

/// A loader for texts that may import nothing.
///
/// # Errors
/// Always.
pub fn no_imports(_path: &str) -> Result<String, String> {
    Err("files are not imported here".to_owned())
}
