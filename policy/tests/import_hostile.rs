//! Hostile programs are refused with a located message: no panic, no exhausted stack, no growth
//! without bound. What is merely large and flat is read.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::HashMap;

use proptest::prelude::*;
use proptest::sample::select;
use sunwire_policy::diagnostic::{Code, Diagnostic, render_all};
use sunwire_policy::import::kat;
use sunwire_policy::import::limits::{
    MAX_CHECKS, MAX_DEPTH, MAX_FIELDS, MAX_IMPORT_DEPTH, MAX_NESTING, MAX_SOURCE_BYTES,
};
use sunwire_policy::import::nkpl::{self, Imported, no_imports};
use sunwire_policy::testing::for_all;
use sunwire_policy::verify::decide::{empty, equivalent};
use sunwire_policy::verify::options::Options;
use sunwire_policy::verify::program::{Node, Program};

fn statements(text: &str) -> Result<Imported, Vec<Diagnostic>> {
    nkpl::parse(text, &mut no_imports)
}

/// The one code of what is wrong with a text.
#[track_caller]
fn refused(result: Result<impl Sized, Vec<Diagnostic>>) -> Code {
    let diagnostics = result.err().expect("the text is hostile");
    let codes: Vec<Code> = diagnostics.iter().map(|d| d.code).collect();
    assert_eq!(codes.len(), 1, "{}", render_all(&diagnostics, ""));
    codes[0]
}

#[test]
fn long_chains_do_not_nest() {
    const ARMS: usize = 100_000;
    const FEWER: usize = 20_000;
    let chain = |sign: &str, arm: &dyn Fn(usize) -> String, length: usize| {
        let arms: Vec<String> = (0..length).map(arm).collect();
        arms.join(sign)
    };
    let mut program = Program::new();
    let union = chain("∪", &|index| format!("@a={index}?⋅@b←{index}"), ARMS);
    let union = nkpl::parse_into(&mut program, &union, &mut no_imports).unwrap();
    assert!(matches!(program.node(union), Node::Union(arms) if arms.len() == ARMS));
    let sequence = chain("⋅", &|index| format!("@a←{index}"), FEWER);
    let sequence = nkpl::parse_into(&mut program, &sequence, &mut no_imports).unwrap();
    assert!(matches!(program.node(sequence), Node::Sequence(parts) if parts.len() == FEWER));

    let mut program = Program::new();
    let union = chain(
        " + ",
        &|index| format!("switch={index}; port:={index}"),
        ARMS,
    );
    let union = kat::parse_into(&mut program, &union).unwrap();
    assert!(matches!(program.node(union), Node::Union(arms) if arms.len() == ARMS));
    let or = chain(
        " or ",
        &|index| format!("switch={index} and port={index}"),
        FEWER,
    );
    let or = kat::parse_into(&mut program, &or).unwrap();
    assert!(matches!(program.node(or), Node::Union(arms) if arms.len() == FEWER));
    let arm = |index| format!("if switch={index} then port:={index}");
    let choice = chain(" else ", &arm, ARMS);
    let choice = kat::parse_into(&mut program, &format!("{choice} else drop")).unwrap();
    assert!(matches!(program.node(choice), Node::Conditional(arms, _) if arms.len() == ARMS));
}

#[test]
fn runs_of_prefix_and_postfix_signs_do_not_nest() {
    let text = format!("{}@a=1{}", "¬".repeat(200_001), "⋆?".repeat(100_000));
    nkpl::parse_into(&mut Program::new(), &text, &mut no_imports).unwrap();
    let text = format!("{}port=1{}", "not ".repeat(200_001), "*".repeat(100_000));
    kat::parse(&text).unwrap();
}

#[test]
fn deep_nesting_is_refused_where_it_is_too_deep() {
    let depth = 100_000;
    let nkpl = format!("check ε ≡ {}δ{}\n", "(".repeat(depth), ")".repeat(depth));
    let told = statements(&nkpl).unwrap_err();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].code, Code::ForeignNesting);
    assert_eq!(told[0].column as usize, 11 + MAX_NESTING + 1);
    assert_eq!(
        refused(statements(&"for i ∈ 1..1 do ".repeat(depth))),
        Code::ForeignNesting
    );
    for (open, close) in [
        ("(", ")"),
        ("if port=1 then ", " else id"),
        ("if port=1 then id else (", ")"),
        ("while port=1 do ", ""),
        ("let `x := 1 in ", ""),
        ("begin ", " end"),
        ("not (", ")"),
    ] {
        let text = format!("{}id{}", open.repeat(depth), close.repeat(depth));
        assert_eq!(refused(kat::parse(&text)), Code::ForeignNesting, "{open}");
        let fits = MAX_NESTING / 2;
        let text = format!("{}id{}", open.repeat(fits), close.repeat(fits));
        kat::parse(&text).unwrap();
    }
}

#[test]
fn definitions_that_double_are_refused() {
    for sign in ["⋅", "∪", "∩", "⊕"] {
        let mut text = String::from("x0 = @a←1 ∪ @b←2⋅δ\n");
        for step in 1..64 {
            let last = step - 1;
            text += &format!("x{step} = (x{last}⋅@c←{step}){sign}(x{last}⋅@c←0)\n");
        }
        // Shared, not copied, wherever the program can share.
        if let Err(told) = statements(&text) {
            assert_eq!(told[0].code, Code::ForeignTooLarge, "{sign}");
        }
    }
    let mut text = String::from("x0 = @a←1⋅δ\n");
    for step in 1..64 {
        text += &format!("x{step} = x{0}⋅x{0}\n", step - 1);
    }
    assert_eq!(refused(statements(&text)), Code::ForeignTooLarge);
}

#[test]
fn definitions_that_nest_without_bound_are_refused_and_up_to_it_decided() {
    let tower = |height: usize| {
        let mut text = String::from("x = @a=0⋅δ\n");
        for step in 1..height {
            text += &format!("x = (x ∪ @a={step}⋅δ)⋆⋅@b←{step}\n");
        }
        text + "check x ≢ ∅\n"
    };
    assert_eq!(
        refused(statements(&tower(usize::from(MAX_DEPTH)))),
        Code::ForeignTooLarge
    );
    // Star, union and sequence: three levels each step.
    let imported = statements(&tower(usize::from(MAX_DEPTH) / 3 - 1)).unwrap();
    let check = &imported.checks[0];
    // A limit is an answer too; an exhausted stack is none.
    let _ = equivalent(
        &imported.program,
        check.left,
        check.right,
        &Options::default(),
    );
    let chain = format!("check @a←1{} ≡ ∅", "∖@b←1⋅δ∩@a←2".repeat(100));
    let imported = statements(&chain).unwrap();
    let _ = empty(
        &imported.program,
        imported.checks[0].left,
        &Options::default(),
    );
    let chain = format!("check @a←1{} ≡ ∅", "∖@b←1".repeat(100_000));
    assert_eq!(refused(statements(&chain)), Code::ForeignTooLarge);
}

#[test]
fn loops_that_run_too_long_are_refused() {
    for text in [
        "for i ∈ 0..9223372036854775807 do x = @a=i\n",
        "for i ∈ -9223372036854775808..9223372036854775807 do for j ∈ 0..99999999 do x = @a=j\n",
        "for i ∈ 0..9999999999 do for j ∈ 1..0 do x = @a=j\n",
        "p = ∅\nfor i ∈ 0..9999999999 do p = p∪@a=i\n",
        "for i ∈ 0..9999999999 do print δ\n",
    ] {
        assert_eq!(refused(statements(text)), Code::ForeignTooLarge, "{text}");
    }
    let text = format!("for i ∈ 1..{} do check @a=i ≢ ∅\n", MAX_CHECKS + 1);
    assert_eq!(refused(statements(&text)), Code::ForeignTooLarge);
}

#[test]
fn too_many_fields_are_refused() {
    let fields: Vec<String> = (0..70_000).map(|index| format!("@f{index}=1")).collect();
    assert_eq!(
        refused(statements(&format!("check {} ≢ ∅", fields.join("∪")))),
        Code::ForeignTooLarge
    );
    let text = format!("check {} ≢ ∅", fields[..MAX_FIELDS].join("∪"));
    statements(&text).unwrap();
}

#[test]
fn too_large_texts_are_refused() {
    let text = " ".repeat(MAX_SOURCE_BYTES + 1);
    assert_eq!(refused(statements(&text)), Code::ForeignTooLarge);
    assert_eq!(refused(kat::parse(&text)), Code::ForeignTooLarge);
    let mut long = |_: &str| Ok(" ".repeat(MAX_SOURCE_BYTES + 1));
    assert_eq!(
        refused(nkpl::parse("import \"a\"", &mut long)),
        Code::ForeignTooLarge
    );
}

#[test]
fn imports_that_multiply_or_never_end_are_refused() {
    let mut files: HashMap<String, String> = HashMap::new();
    for level in 0..30 {
        let next = level + 1;
        files.insert(
            format!("f{level}"),
            format!("import \"f{next}\"\nimport \"f{next}\"\n"),
        );
    }
    files.insert("f30".to_owned(), "x = δ\n".to_owned());
    let mut loader = |path: &str| Ok(files[path].clone());
    let told = nkpl::parse("import \"f0\"", &mut loader).unwrap_err();
    assert!(told.iter().all(|d| d.code == Code::ForeignTooLarge));

    let mut number = 0;
    let mut endless = |_: &str| {
        number += 1;
        Ok(format!("import \"f{number}\"\n"))
    };
    assert_eq!(
        refused(nkpl::parse("import \"f0\"", &mut endless)),
        Code::ForeignTooLarge
    );
    assert_eq!(number, MAX_IMPORT_DEPTH);

    let long = format!("x = δ{}\n", "⋅ε".repeat(1 << 20));
    let mut same = |_: &str| Ok(long.clone());
    let text = "import \"a\"\n".repeat(100);
    let told = nkpl::parse(&text, &mut same).unwrap_err();
    assert_eq!(told[0].code, Code::ForeignTooLarge);
}

#[test]
fn very_many_mistakes_are_told_in_bounded_number() {
    for result in [
        statements(&"x = $\n".repeat(100_000)).err(),
        statements(&"$".repeat(1_000_000)).err(),
        kat::parse(&"$;".repeat(100_000)).err(),
        kat::parse(&"(port;".repeat(100_000)).err(),
    ] {
        assert!(result.unwrap().len() <= 101);
    }
}

/// Texts that come near to what the importers read.
fn texts() -> impl Strategy<Value = String> {
    let words = select(vec![
        "@a",
        "@b",
        "=",
        "≠",
        "!=",
        "←",
        ":=",
        "1",
        "-1",
        "0",
        "N",
        "main",
        "x",
        "δ",
        "dup",
        "ε",
        "⊤",
        "∅",
        "drop",
        "skip",
        "⋅",
        ";",
        "∪",
        "+",
        "|",
        "⋆",
        "*",
        "?",
        "∩",
        "∖",
        "-",
        "⊕",
        "^",
        "xor",
        "intersect",
        "¬",
        "!",
        "(",
        ")",
        "check",
        "≡",
        "==",
        "≢",
        "!==",
        "import",
        "\"a\"",
        "\"",
        "for",
        "∈",
        "in",
        "..",
        "do",
        "print",
        "graphviz",
        "forward",
        "exists",
        "forall",
        "rangesum",
        "\n",
        " ",
        "--",
        "(*",
        "*)",
        "port",
        "switch",
        "ip4Src",
        "ethSrc",
        "10.0.0.1",
        "/8",
        "00:00:00:00:00:01",
        "if",
        "then",
        "else",
        "while",
        "let",
        "var",
        "`x",
        "filter",
        "and",
        "or",
        "not",
        "id",
        "true",
        "1@2",
        "=>",
        "=>>",
        "pipe(\"x\")",
        "begin",
        "end",
        "9223372036854775808",
        "0x",
        "é",
        "\0",
    ]);
    prop_oneof![
        3 => prop::collection::vec(words, 0..40).prop_map(|words| words.join(" ")),
        1 => prop::collection::vec(any::<u8>(), 0..80)
            .prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
    ]
}

#[test]
fn importers_never_panic_and_locate_what_they_refuse() {
    for_all("importers never panic", 4_000, &texts(), |text| {
        let located = |diagnostics: Vec<Diagnostic>| {
            if diagnostics.is_empty() {
                return Err("refused without a reason".to_owned());
            }
            for diagnostic in &diagnostics {
                let span = diagnostic.span;
                if span.start > span.end || span.end as usize > text.len() {
                    return Err(format!("{diagnostic:?} is outside of the text"));
                }
            }
            let _ = render_all(&diagnostics, &text);
            Ok(())
        };
        let mut one = |path: &str| match path {
            "a" => Ok("N = 1\n".to_owned()),
            _ => Err("none".to_owned()),
        };
        nkpl::parse(&text, &mut one).map(drop).or_else(located)?;
        let mut program = Program::new();
        nkpl::parse_into(&mut program, &text, &mut one)
            .map(drop)
            .or_else(located)?;
        kat::parse(&text).map(drop).or_else(located)
    });
}
