//! What programs of KATch mean here: every construct against the node it stands for.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::HashMap;

use sunwire_policy::diagnostic::{Code, Diagnostic};
use sunwire_policy::import::nkpl::{self, Definition, Imported, no_imports};
use sunwire_policy::verify::decide::equivalent;
use sunwire_policy::verify::options::Options;
use sunwire_policy::verify::program::{Domain, Node, NodeId, Program, Value};

/// A text of one expression, beside the node it shall be.
#[track_caller]
fn means(text: &str, expected: impl FnOnce(&mut Program) -> NodeId) {
    let mut program = Program::new();
    let expected = expected(&mut program);
    let read = nkpl::parse_into(&mut program, text, &mut no_imports).unwrap();
    assert_eq!(read, expected, "{text}: {:?}", program.node(read));
}

/// Two texts that shall be one node.
#[track_caller]
fn same(left: &str, right: &str) {
    means(left, |program| {
        nkpl::parse_into(program, right, &mut no_imports).unwrap()
    });
}

fn statements(text: &str) -> Result<Imported, Vec<Diagnostic>> {
    nkpl::parse(text, &mut no_imports)
}

/// Reads a text with files at hand.
fn with_files(text: &str, files: &[(&str, &str)]) -> Result<Imported, Vec<Diagnostic>> {
    let files: HashMap<&str, &str> = files.iter().copied().collect();
    nkpl::parse(text, &mut |path| match files.get(path) {
        Some(text) => Ok((*text).to_owned()),
        None => Err("no such file".to_owned()),
    })
}

#[track_caller]
fn codes(result: Result<Imported, Vec<Diagnostic>>) -> Vec<(Code, u32, u32)> {
    let diagnostics = result.expect_err("the text is wrong");
    for diagnostic in &diagnostics {
        assert!(diagnostic.hint.is_some());
    }
    diagnostics
        .iter()
        .map(|diagnostic| (diagnostic.code, diagnostic.line, diagnostic.column))
        .collect()
}

fn test(program: &mut Program, field: &str, value: i64) -> NodeId {
    let field = program.field(field, Domain::Integer);
    program.test_value(field, Value::integer(value))
}

fn assign(program: &mut Program, field: &str, value: i64) -> NodeId {
    let field = program.field(field, Domain::Integer);
    program.assign(field, Value::integer(value))
}

#[test]
fn constants_tests_and_assignments_are_single_nodes() {
    for text in ["∅", "⊥", "drop", "( ∅ )", "∅?"] {
        means(text, Program::drop);
    }
    for text in ["ε", "⊤", "skip", "⊤?"] {
        means(text, Program::id);
    }
    means("δ", Program::dup);
    means("dup", Program::dup);
    for text in ["@a=1", "@a=1?", "@a = 1 ?", "@a=1??", "(@a=1)?"] {
        means(text, |program| test(program, "a", 1));
    }
    for text in ["@pt←-1", "@pt:=-1", "@pt ← -1"] {
        means(text, |program| assign(program, "pt", -1));
    }
    for text in ["@a≠1", "@a!=1?", "¬@a=1", "!@a=1", "¬¬¬@a=1"] {
        means(text, |program| {
            let test = test(program, "a", 1);
            program.not(test)
        });
    }
}

#[test]
fn every_spelling_of_an_operator_is_the_same_operator() {
    for sign in ["+", "|", "∨"] {
        same(&format!("@a=1{sign}@b←2"), "@a=1∪@b←2");
    }
    for sign in [";", "∧"] {
        same(&format!("@a=1{sign}@b←2"), "@a=1⋅@b←2");
    }
    same("@b←2*", "@b←2⋆");
    same("@a=1^@b←2", "@a=1⊕@b←2");
    same("@a=1 xor @b←2", "@a=1⊕@b←2");
    same("@a=1 intersect @b←2", "@a=1∩@b←2");
    same("@a=1-@b←2", "@a=1∖@b←2");
}

#[test]
fn union_is_loosest_then_sequence_then_set_operations_then_star() {
    same("@a=1 ⋅ δ ∪ @b=1 ⋅ δ", "(@a=1⋅δ)∪(@b=1⋅δ)");
    same("@a=1 ∪ @a=2 ⋅ δ", "@a=1∪(@a=2⋅δ)");
    same("@a←1 ⋅ @b←2 ∩ @c←3 ⋅ δ", "@a←1⋅(@b←2∩@c←3)⋅δ");
    same("@a←1 ∪ @b←2 ∖ @c←3", "@a←1∪(@b←2∖@c←3)");
    same("@a←1 ∖ @b←2 ⊕ @c←3 ∩ δ", "((@a←1∖@b←2)⊕@c←3)∩δ");
    same("@a←1 ∩ @b←2⋆", "@a←1∩(@b←2⋆)");
    same("@a←1 ⋅ @b←2⋆", "@a←1⋅(@b←2⋆)");
    means("¬@a=1⋅@b=1", |program| {
        let (a, b) = (test(program, "a", 1), test(program, "b", 1));
        let not = program.not(a);
        program.sequence([not, b])
    });
}

#[test]
fn set_operations_are_their_own_nodes() {
    for (sign, node) in [
        ("∩", Program::intersection as fn(&mut Program, _, _) -> _),
        ("∖", Program::difference),
        ("⊕", Program::symmetric_difference),
    ] {
        means(&format!("@a←1{sign}δ"), |program| {
            let (left, right) = (assign(program, "a", 1), program.dup());
            node(program, left, right)
        });
    }
}

#[test]
fn negation_of_a_conjunction_is_a_node_of_its_own_and_of_a_policy_a_mistake() {
    means("¬(@a=1∧@b=2)?", |program| {
        let (a, b) = (test(program, "a", 1), test(program, "b", 2));
        let both = program.sequence([a, b]);
        program.not(both)
    });
    for text in [
        "check ¬@a←1 ≡ ε",
        "check ¬δ ≡ ε",
        "p = @a=1⋆⋅δ\ncheck ¬p ≡ ε",
    ] {
        assert_eq!(codes(statements(text))[0].0, Code::ForeignKind, "{text}");
    }
}

#[test]
fn a_range_is_one_test_with_both_ends() {
    means("rangesum @a -1..3", |program| {
        let field = program.field("a", Domain::Integer);
        program.test(field, [(Value::integer(-1), Value::integer(3))])
    });
    same("(rangesum @a 1..1)⋅δ", "@a=1⋅δ");
    same("rangesum @a 2..1", "∅");
}

#[test]
fn quantifiers_free_a_predicate_of_a_field() {
    for (quantified, free) in [
        ("exists @a (@a=1⋅@b=2)", "@b=2"),
        ("exists @a (@a=1⋅@b=2 ∪ @a≠1⋅@b=3)", "@b=2∪@b=3"),
        ("exists @a (@a=1⋅@a=2)", "∅"),
        ("exists @a (¬(@a=1∪@b=2)⊕@b=3)", "@b≠2∪@b=3"),
        ("exists @a @a≠1", "ε"),
        ("forall @a (@a=1∪@b=2)", "@b=2"),
        ("forall @a (@a=1∪@a≠1)", "ε"),
        ("forall @a @a=1", "∅"),
        ("exists @a (@a=9223372036854775807⋅@b=1)", "@b=1"),
        ("exists @a ((rangesum @a 3..5)∖@a=4⋅@b=1)", "@b=1"),
        ("exists @a ((rangesum @a 4..4)∖@a=4⋅@b=1)", "∅"),
    ] {
        let mut program = Program::new();
        let [left, right] = [quantified, free]
            .map(|text| nkpl::parse_into(&mut program, text, &mut no_imports).unwrap());
        let answer = equivalent(&program, left, right, &Options::default()).unwrap();
        assert!(answer.holds(), "{quantified} is not {free}: {answer:?}");
    }
    assert_eq!(
        codes(statements("check exists @a @a←1 ≡ ε")),
        [(Code::ForeignKind, 1, 17)]
    );
}

#[test]
fn definitions_are_read_in_order_and_may_be_made_anew() {
    let text = "N = 3\nM = N\np = @a=M\nN = -4\nq = @a=N ∪ p\np = δ\ncheck q ≡ p\n";
    let imported = statements(text).unwrap();
    assert_eq!(imported.definitions["N"], Definition::Number(-4));
    assert_eq!(imported.definitions["M"], Definition::Number(3));
    let mut program = imported.program.clone();
    let (three, four) = (test(&mut program, "a", 3), test(&mut program, "a", -4));
    let union = program.union([three, four]);
    assert_eq!(imported.definitions["q"], Definition::Program(union));
    assert_eq!(imported.checks[0].left, union);
    assert_eq!(*program.node(imported.checks[0].right), Node::Dup);
}

#[test]
fn checks_keep_their_sides_text_and_place() {
    let text = "-- a comment\ncheck @a=1 ≡ @a=1⋅@a←1\n\ncheck δ\n  ≢ ε -- why not\ncheck δ == ε\ncheck δ !== ε";
    let imported = statements(text).unwrap();
    let told: Vec<(bool, u32, &str)> = imported
        .checks
        .iter()
        .map(|check| (check.equal, check.line, check.text.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (true, 2, "check @a=1 ≡ @a=1⋅@a←1"),
            (false, 4, "check δ\n  ≢ ε"),
            (true, 6, "check δ == ε"),
            (false, 7, "check δ !== ε"),
        ]
    );
    let span = imported.checks[1].span;
    assert!(text[span.start as usize..].starts_with("check δ\n"));
    assert_eq!(imported.checks[1].file, None);
}

#[test]
fn loops_run_their_statement_for_both_ends_and_nest() {
    let text = "for i ∈ -1..1 do for j in 0..1 do check @a=i ≢ @b=j\nlast = i\n";
    let imported = statements(text).unwrap();
    let loops: Vec<Vec<i64>> = imported
        .checks
        .iter()
        .map(|check| check.loops.iter().map(|(_, value)| *value).collect())
        .collect();
    assert_eq!(
        loops,
        [[-1, 0], [-1, 1], [0, 0], [0, 1], [1, 0], [1, 1]].map(Vec::from)
    );
    assert_eq!(imported.checks[0].loops[1].0, "j");
    assert_eq!(imported.definitions["last"], Definition::Number(1));
    let text = "p = ∅\nfor i = 1..3 do p = p ∪ @a=i\ncheck p ≡ rangesum @a 1..3";
    let imported = statements(text).unwrap();
    assert!(matches!(
        imported.program.node(imported.checks[0].left),
        Node::Union(arms) if arms.len() == 3
    ));
}

#[test]
fn a_loop_that_never_runs_is_read_without_effect() {
    let imported = statements("for i ∈ 1..0 do check @a=i ≡ unknown\n").unwrap();
    assert!(imported.checks.is_empty());
    assert!(!imported.definitions.contains_key("i"));
    assert!(statements("for i ∈ 1..0 do check @a=i\n").is_err());
}

#[test]
fn statements_that_only_print_have_no_effect() {
    let text =
        "p = δ\nprint p\nprint 3\ngraphviz \"out/x\" backward (p ∖ ε)\nforward p⋅δ\nbackward p\n";
    let imported = statements(text).unwrap();
    assert!(imported.checks.is_empty());
    assert_eq!(imported.definitions.len(), 1);
}

#[test]
fn sets_of_packets_are_refused_by_name() {
    let told = statements("check forward δ ≡ (backward @a=1)").unwrap_err();
    assert_eq!(told.len(), 2);
    assert_eq!(told[0].code, Code::ForeignConstruct);
    assert!(told[0].message.contains("`forward`"));
    assert!(told[1].message.contains("`backward`"));
}

#[test]
fn words_of_statements_may_be_defined_as_names() {
    let imported = statements("check = @a=1\nfor = 3\ncheck check ≡ @a=for\n").unwrap();
    assert_eq!(imported.checks.len(), 1);
}

#[test]
fn imports_are_relative_to_the_file_that_names_them() {
    let files = [
        (
            "../net/top.nkpl",
            "import \"n/names.nkpl\"\ntop = @sw=N0⋅@sw←1",
        ),
        ("../net/n/names.nkpl", "N0 = 7"),
    ];
    let text = "import \"../net/top.nkpl\"\ncheck top ≢ @sw=N0\n";
    let imported = with_files(text, &files).unwrap();
    assert_eq!(imported.definitions["N0"], Definition::Number(7));
    assert_eq!(imported.checks.len(), 1);
}

#[test]
fn a_check_of_an_imported_file_names_the_file() {
    let imported = with_files("import \"a\"\n", &[("a", "\ncheck δ ≡ δ\n")]).unwrap();
    assert_eq!(imported.checks[0].file.as_deref(), Some("a"));
    assert_eq!(imported.checks[0].line, 2);
}

#[test]
fn a_mistake_in_an_imported_file_is_told_with_its_place_there() {
    let files = [("d/a", "x = δ\n\nimport \"b\""), ("d/b", "y = @a=\n")];
    let told = with_files("-- first\nimport \"d/a\"\n", &files).unwrap_err();
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].line, told[0].column), (2, 1));
    assert_eq!(told[0].code, Code::ForeignToken);
    assert!(
        told[0].message.starts_with("d/a:3:1: d/b:2:1: expected"),
        "{}",
        told[0].message
    );
}

#[test]
fn missing_and_cyclic_imports_are_told() {
    let told = with_files("import \"no\"\nimport \"nor\"", &[]).unwrap_err();
    assert_eq!(told.len(), 2);
    assert_eq!(told[0].code, Code::ImportNotFound);
    assert_eq!(told[0].message, "`no` cannot be read: no such file");
    let files = [("x/a", "import \"../x/b\""), ("x/b", "import \"./a\"")];
    let told = with_files("import \"x/a\"", &files).unwrap_err();
    assert_eq!(told[0].code, Code::ImportCycle);
    assert!(
        told[0].message.contains("x/a → x/b → x/a"),
        "{}",
        told[0].message
    );
}

#[test]
fn every_statement_with_a_mistake_is_told_and_the_others_are_read() {
    let text = "a = @x=1 ∪\nb = @x=\ncheck a ≡ c\ncheck b ≡ δ δ\ncheck ≡ ε\n  ⋅ ∅\nd = ?\nN = 1\ncheck N ≡ δ\ncheck @x=d ≡ $\n";
    assert_eq!(
        codes(statements(text)),
        [
            (Code::ForeignToken, 2, 1),
            (Code::ForeignToken, 3, 1),
            (Code::ForeignName, 3, 11),
            (Code::ForeignToken, 4, 13),
            (Code::ForeignToken, 5, 7),
            (Code::ForeignToken, 7, 5),
            (Code::ForeignKind, 9, 7),
            (Code::UnexpectedCharacter, 10, 14),
        ]
    );
}

#[test]
fn an_unknown_name_is_told_once_with_the_nearest_one() {
    let told = statements("main1 = δ\ncheck mian1 ≡ mian1⋅mian1\n").unwrap_err();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].hint.as_deref(), Some("did you mean `main1`?"));
}

#[test]
fn numbers_beyond_64_bits_are_refused() {
    let least = statements("N = -9223372036854775808\n").unwrap();
    assert_eq!(least.definitions["N"], Definition::Number(i64::MIN));
    assert_eq!(
        codes(statements("N = 9223372036854775808\n")),
        [(Code::ForeignValue, 1, 5)]
    );
}

#[test]
fn a_text_is_one_expression_or_defines_main() {
    same("main = @a=1⋅δ\n", "@a=1⋅δ");
    same("N = 1\nmain = @a=N∪\n  δ", "@a=1∪\nδ");
    let mut program = Program::new();
    let told = nkpl::parse_into(&mut program, "x = δ", &mut no_imports).unwrap_err();
    assert_eq!(told[0].code, Code::ForeignName);
    for text in ["", "δ δ", "δ)", "(δ", "@a=N"] {
        let told = nkpl::parse_into(&mut program, text, &mut no_imports).unwrap_err();
        assert_eq!(told.len(), 1, "{text}");
    }
}

#[test]
fn carriage_returns_and_missing_line_ends_change_nothing() {
    let text = "N0 = 0\r\nmain = @sw=N0⋅\r\n\tδ\r\n-- end\r\ncheck main ≡ main";
    let imported = statements(text).unwrap();
    assert_eq!(imported.checks[0].line, 5);
}
