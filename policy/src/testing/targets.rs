//! What the fuzzers feed: each target takes any bytes and panics only when a promise is broken.
//!
//! The fuzzers (`cargo xtask fuzz`) look for inputs; a plain test replays those that were kept. The
//! work is bounded, so that every input is done within a moment.

use crate::compile::{Options, compile};
use crate::diagnostic::{Diagnostic, render_all};
use crate::format::format;
use crate::import::{kat, nkpl};
use crate::lower::{Capacity, lower};
use crate::verify::decide::equivalent;
use crate::verify::options::{Limits, Options as Effort};
use crate::verify::program::{NodeId, Program};
use crate::{parse, resolve};

use super::environment;

/// Something that is fed.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which is also the folder of its inputs.
    pub name: &'static str,
    /// Takes one input.
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: [Target; 4] = [
    Target {
        name: "policy",
        run: policy,
    },
    Target {
        name: "format",
        run: formatted,
    },
    Target {
        name: "nkpl",
        run: katch,
    },
    Target {
        name: "kat",
        run: frenetic,
    },
];

/// The whole way of a policy from text to tables. What is refused is located in the text.
pub fn policy(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (document, diagnostics) = parse(&text);
    located(&diagnostics, &text);
    let environment = environment();
    match resolve(&document, &environment) {
        Err(diagnostics) => located(&diagnostics, &text),
        Ok(resolved) if resolved.refused_features().is_empty() => {
            let bounded = Options {
                max_steps: 1 << 16,
                ..Options::default()
            };
            if let Ok(fdd) = compile(&resolved, &bounded) {
                let _ = lower(&fdd, &resolved, &Capacity::default());
            }
        }
        Ok(_) => {}
    }
}

/// The formatter: what it writes is a policy, and is left as it is when formatted again.
pub fn formatted(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    match format(&text) {
        Err(diagnostics) => located(&diagnostics, &text),
        Ok(once) => {
            let again = format(&once);
            assert_eq!(again.as_deref(), Ok(&*once), "formatting is not idempotent");
        }
    }
}

/// The importer of KATch's language, and the verifier on what it reads.
pub fn katch(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut loader = |path: &str| match path {
        "self" => Ok(text.to_string()),
        "names" => Ok("N0 = 0\nN1 = 1\n".to_owned()),
        _ => Err("there is no such file".to_owned()),
    };
    match nkpl::parse(&text, &mut loader) {
        Err(diagnostics) => refused(&diagnostics, &text),
        Ok(imported) => {
            for check in imported.checks.iter().take(2) {
                asked(&imported.program, check.left, check.right);
            }
        }
    }
    let mut program = Program::new();
    match nkpl::parse_into(&mut program, &text, &mut loader) {
        Err(diagnostics) => refused(&diagnostics, &text),
        Ok(node) => {
            let nothing = program.drop();
            asked(&program, node, nothing);
        }
    }
}

/// The importer of Frenetic's syntax, and the verifier on what it reads.
pub fn frenetic(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    match kat::parse(&text) {
        Err(diagnostics) => refused(&diagnostics, &text),
        Ok((mut program, node)) => {
            let nothing = program.drop();
            asked(&program, node, nothing);
        }
    }
}

/// A bounded question to the verifier, for the sake of its not panicking. Whatever it answers, a
/// program is equivalent to itself.
fn asked(program: &Program, left: NodeId, right: NodeId) {
    let effort = || Effort {
        limits: Limits {
            nodes: 20_000,
            states: 200,
            ..Limits::default()
        },
        ..Effort::default()
    };
    let _ = equivalent(program, left, right, &effort());
    if let Ok(answer) = equivalent(program, left, left, &effort()) {
        assert!(answer.holds(), "a program differs from itself");
    }
}

fn refused(diagnostics: &[Diagnostic], text: &str) {
    assert!(!diagnostics.is_empty(), "refused without a reason");
    located(diagnostics, text);
}

/// Every place lies in the text, and every message can be shown.
fn located(diagnostics: &[Diagnostic], text: &str) {
    for diagnostic in diagnostics {
        let places = diagnostic.labels.iter().map(|(span, _)| *span);
        for span in places.chain([diagnostic.span]) {
            assert!(
                span.start <= span.end && span.end as usize <= text.len(),
                "{diagnostic:?} is outside of the text"
            );
        }
    }
    let _ = render_all(&diagnostics[..diagnostics.len().min(4)], text);
}
