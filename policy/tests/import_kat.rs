//! What programs of Frenetic mean here: every construct against the node it stands for.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use sunwire_policy::diagnostic::{Code, Diagnostic};
use sunwire_policy::import::kat;
use sunwire_policy::verify::decide::equivalent;
use sunwire_policy::verify::options::Options;
use sunwire_policy::verify::program::{Domain, Node, NodeId, Program, Value};

/// A text beside the node it shall be.
#[track_caller]
fn means(text: &str, expected: impl FnOnce(&mut Program) -> NodeId) {
    let mut program = Program::new();
    let expected = expected(&mut program);
    let read = kat::parse_into(&mut program, text).unwrap();
    assert_eq!(read, expected, "{text}: {:?}", program.node(read));
}

/// Two texts that shall be one node.
#[track_caller]
fn same(left: &str, right: &str) {
    means(left, |program| kat::parse_into(program, right).unwrap());
}

#[track_caller]
fn mistakes(text: &str) -> Vec<Diagnostic> {
    let diagnostics = kat::parse(text).expect_err("the text is wrong");
    assert!(diagnostics.iter().all(|d| d.hint.is_some()));
    diagnostics
}

#[track_caller]
fn codes(text: &str) -> Vec<(Code, u32, u32)> {
    mistakes(text)
        .iter()
        .map(|diagnostic| (diagnostic.code, diagnostic.line, diagnostic.column))
        .collect()
}

fn field(program: &mut Program, name: &str) -> sunwire_policy::verify::program::FieldId {
    let max = match name {
        "switch" | "vswitch" | "vport" => u64::MAX,
        "port" | "ip4Src" | "ip4Dst" => 0xffff_ffff,
        "ethSrc" | "ethDst" => 0xffff_ffff_ffff,
        "vlanPcp" | "ipProto" => 0xff,
        _ => 0xffff,
    };
    program.field(name, Domain::Number { max })
}

fn test(program: &mut Program, name: &str, value: u64) -> NodeId {
    let field = field(program, name);
    program.test_value(field, Value::number(value))
}

fn assign(program: &mut Program, name: &str, value: u64) -> NodeId {
    let field = field(program, name);
    program.assign(field, Value::number(value))
}

#[test]
fn constants_are_single_nodes() {
    means("drop", Program::drop);
    means("false", Program::drop);
    means("id", Program::id);
    means("skip", Program::id);
    means("filter true", Program::id);
    means("dup", Program::dup);
    means("begin dup end", Program::dup);
}

#[test]
fn every_field_is_tested_and_assigned_in_each_notation() {
    for name in [
        "switch",
        "port",
        "vswitch",
        "vport",
        "vlanId",
        "vlanPcp",
        "ethTyp",
        "ipProto",
        "tcpSrcPort",
        "tcpDstPort",
        "ethSrc",
        "ethDst",
        "ip4Src",
        "ip4Dst",
    ] {
        for text in [
            "FIELD = 18",
            "filter FIELD=0x12",
            "FIELD == 18L",
            "(FIELD = 0x12l)",
        ] {
            means(&text.replace("FIELD", name), |program| {
                test(program, name, 18)
            });
        }
        means(&format!("{name} := 18"), |program| {
            assign(program, name, 18)
        });
        means(&format!("{name} != 18"), |program| {
            let test = test(program, name, 18);
            program.not(test)
        });
    }
    means("ethSrc := aB:00:00:00:00:01", |program| {
        assign(program, "ethSrc", 0xab00_0000_0001)
    });
    means("ethDst = 00:00:00:00:00:0f", |program| {
        test(program, "ethDst", 15)
    });
    means("ip4Src := 10.0.0.1", |program| {
        assign(program, "ip4Src", 0x0a00_0001)
    });
}

#[test]
fn prefixes_are_ranges_of_addresses() {
    means("ip4Src = 10.1.2.3/8", |program| {
        let field = field(program, "ip4Src");
        let range = (Value::number(0x0a00_0000), Value::number(0x0aff_ffff));
        program.test(field, [range])
    });
    same("ip4Dst = 10.0.0.1/32", "ip4Dst = 10.0.0.1");
    same("ip4Dst = 10.0.0.1/0", "true");
    same("ip4Dst = 10.0.0.1/0x20", "ip4Dst = 167772161");
}

#[test]
fn sequence_binds_tighter_than_union() {
    same(
        "filter port=1; port:=2 + port:=3",
        "(filter port=1; port:=2) + port:=3",
    );
    means("port=1; (port:=2 + port:=3)", |program| {
        let (two, three) = (assign(program, "port", 2), assign(program, "port", 3));
        let either = program.union([two, three]);
        let one = test(program, "port", 1);
        program.sequence([one, either])
    });
}

#[test]
fn a_conditional_ends_before_a_semicolon_and_a_plus() {
    same(
        "if port=1 then port:=2 else port:=3; dup",
        "(if port=1 then port:=2 else port:=3); dup",
    );
    same(
        "if port=1 then port:=2 else port:=3 + dup",
        "(if port=1 then port:=2 else port:=3) + dup",
    );
    same(
        "if port=1 then port:=2; dup + id else port:=3*",
        "if port=1 then ((port:=2; dup) + id) else (port:=3*)",
    );
    means(
        "if port=1 then port:=2 else if port=2 then dup else drop",
        |program| {
            let (one, two) = (test(program, "port", 1), test(program, "port", 2));
            let (then, dup, drop) = (assign(program, "port", 2), program.dup(), program.drop());
            program.conditional([(one, then), (two, dup)], drop)
        },
    );
}

#[test]
fn while_is_a_star_that_ends_where_the_test_fails() {
    means("while port=1 do port:=2", |program| {
        let (test, body) = (test(program, "port", 1), assign(program, "port", 2));
        let round = program.sequence([test, body]);
        let (rounds, end) = (program.star(round), program.not(test));
        program.sequence([rounds, end])
    });
    same(
        "while port=1 do dup; id + drop",
        "((while port=1 do dup); id) + drop",
    );
    same("while port=1 do dup*", "while port=1 do (dup*)");
}

#[test]
fn predicates_bind_not_then_and_then_or() {
    same(
        "not port=1 and port=2 or port=3 and port=4",
        "((not port=1) and port=2) or (port=3 and port=4)",
    );
    same(
        "! port=1 && port=2 || port=3",
        "(not port=1 and port=2) or port=3",
    );
    same("port=1 | port:=2", "port=1 + port:=2");
    means("not (port=1 and vlanId=2)", |program| {
        let (port, vlan) = (test(program, "port", 1), test(program, "vlanId", 2));
        let both = program.sequence([port, vlan]);
        program.not(both)
    });
    means("not not not port=1", |program| {
        let test = test(program, "port", 1);
        program.not(test)
    });
}

#[test]
fn a_star_belongs_to_the_whole_predicate_or_assignment_before_it() {
    means("port:=1; port:=2*", |program| {
        let (one, two) = (assign(program, "port", 1), assign(program, "port", 2));
        let star = program.star(two);
        program.sequence([one, star])
    });
    same("port=1 and port=2*", "(port=1 and port=2)*");
    same("filter not port=1*", "(filter not port=1)*");
    same("(port=1) or port=2", "port=1 or port=2");
    same("dup**", "dup*");
}

#[test]
fn a_link_records_both_ends() {
    for (sign, switch, port) in [("=>", "switch", "port"), ("=>>", "vswitch", "vport")] {
        means(&format!("1@2 {sign} 3@0x4"), |program| {
            let parts = [
                test(program, switch, 1),
                test(program, port, 2),
                program.dup(),
                assign(program, switch, 3),
                assign(program, port, 4),
                program.dup(),
            ];
            program.sequence(parts)
        });
    }
    same(
        "port:=3; 1@3=>3@3; port:=1",
        "port:=3; (1@3 => 3@3); port:=1",
    );
}

#[test]
fn comments_nest_and_end_lines() {
    same(
        "(* a (* b *) c *) dup (* + *); id -- rest ) (\n + drop",
        "dup",
    );
    assert_eq!(codes("dup (* (* *)"), [(Code::UnterminatedComment, 1, 5)]);
}

#[test]
fn an_immutable_constant_is_decided_where_it_is_tested() {
    same(
        "let `x := 2 in `x = 2; port:=1 + `x != 2; port:=3",
        "port:=1",
    );
    same("let `x := 1 in let `x := 2 in (`x = 2; dup)", "dup");
    same("let `a.b' := 10.0.0.1 in filter `a.b' = 167772161", "id");
}

#[test]
fn a_binding_reaches_as_far_as_it_can() {
    same(
        "dup; let `x := 1 in `x=2 + dup",
        "dup; (let `x := 1 in (`x=2 + dup))",
    );
    same("(let `x := 1 in `x=1); dup", "dup");
}

#[test]
fn a_variable_is_a_field_that_is_forgotten_at_the_end() {
    let text = "var `x := 5 in (port=1; `x := 6); `x = 6; port := 2";
    let (program, node) = kat::parse(text).unwrap();
    let Node::Sequence(parts) = program.node(node) else {
        panic!("a sequence")
    };
    let shown: Vec<&Node> = parts.iter().map(|part| program.node(*part)).collect();
    let meta = program
        .fields()
        .iter()
        .position(|f| f.name.starts_with('`'));
    let meta = sunwire_policy::verify::program::FieldId(meta.unwrap() as u16);
    // Packets come in without it; it begins as 5, becomes 6, is tested, and is forgotten.
    assert!(matches!(shown[0], Node::Test(f, _) if *f == meta));
    assert_eq!(*shown[1], Node::Assign(meta, Value::number(5)));
    assert_eq!(*shown[3], Node::Assign(meta, Value::number(6)));
    assert!(matches!(shown[4], Node::Test(f, _) if *f == meta));
    assert_eq!(*shown[6], Node::Assign(meta, Value::number(0)));
}

#[test]
fn an_alias_has_the_value_its_field_had_at_the_beginning() {
    let text = "let `in := port in port := 9; (`in = 1; port := 2 + `in = 0; port := 3)";
    let (program, node) = kat::parse(text).unwrap();
    let Node::Sequence(parts) = program.node(node) else {
        panic!("a sequence")
    };
    let Node::Conditional(arms, otherwise) = program.node(parts[1]) else {
        panic!("the copy comes first")
    };
    assert_eq!(arms.len(), 2);
    // Neither 0 nor 1: all other values are one that is never tested.
    assert!(matches!(program.node(*otherwise), Node::Assign(_, v) if *v == Value::number(2)));
}

#[test]
fn meta_fields_leave_no_trace_outside_of_their_scope() {
    for (with, without) in [
        ("var `x := 5 in id", "id"),
        (
            "let `in := port in port := 9; (`in = 1; port := 2 + `in = 0; port := 3)",
            "port = 1; port := 2 + port = 0; port := 3",
        ),
        (
            "let `in := ethSrc in ethSrc := 1; `in != 7",
            "ethSrc != 7; ethSrc := 1",
        ),
        (
            "(var `x := 0 in (`x = 0; `x := 1; vlanId := 1 + id)*); filter vlanId = 1",
            "(vlanId := 1 + id); filter vlanId = 1",
        ),
        (
            "var `x := switch in (if `x = 3 then `x := 4 else `x := 3); (var `y := 1 in `x = 4)",
            "switch = 3",
        ),
    ] {
        let mut program = Program::new();
        let sides = [with, without].map(|text| kat::parse_into(&mut program, text).unwrap());
        let [left, right] = kat::close(&mut program, sides);
        let answer = equivalent(&program, left, right, &Options::default()).unwrap();
        assert!(answer.holds(), "{with}: {answer:?}");
    }
}

#[test]
fn meta_fields_are_refused_where_they_have_no_meaning() {
    for (text, code) in [
        ("`x = 1", Code::ForeignName),
        ("let `x := 1 in `y = 1", Code::ForeignName),
        ("let `x := 1 in `x := 2", Code::ForeignKind),
        ("let `x := switch in `x := 2", Code::ForeignKind),
        ("var `x := 1 in dup", Code::ForeignConstruct),
        (
            "let `x := port in (`x = 1; 1@1 => 2@2)",
            Code::ForeignConstruct,
        ),
        ("(let `x := 1 in id); `x = 1", Code::ForeignName),
    ] {
        assert_eq!(mistakes(text)[0].code, code, "{text}");
    }
}

#[test]
fn what_has_no_meaning_here_is_refused_by_name() {
    for (text, word) in [
        ("port := pipe(\"ctrl\")", "`pipe`"),
        ("port := query(\"q\"); port := 1", "`query`"),
        ("from = \"h1\"", "`from`"),
        ("loc := \"h1\"", "`loc`"),
    ] {
        let told = mistakes(text);
        assert_eq!(told[0].code, Code::ForeignConstruct, "{text}");
        assert!(told[0].message.contains(word), "{}", told[0].message);
    }
    assert_eq!(mistakes("port := query(\"q\"); port := 1").len(), 1);
}

#[test]
fn values_beyond_a_field_are_refused() {
    for (text, column) in [
        ("vlanPcp = 256", 11),
        ("tcpDstPort := 65536", 15),
        ("port = 0x100000000", 8),
        ("1@4294967296 => 2@1", 3),
        ("ethSrc = 0x1000000000000", 10),
        ("ip4Src = 10.0.0.256", 10),
        ("ip4Src = 10.0.0.0/33", 19),
        ("ip4Src := 10.0.0.0/8", 11),
        ("switch = 18446744073709551616", 10),
        ("switch = 12abc", 10),
    ] {
        assert_eq!(codes(text), [(Code::ForeignValue, 1, column)], "{text}");
    }
    assert_eq!(codes("port = 10.0.0.1"), [(Code::ForeignToken, 1, 8)]);
    assert_eq!(
        codes("switch = 00:00:00:00:00:01"),
        [(Code::ForeignToken, 1, 10)]
    );
}

#[test]
fn a_policy_where_a_predicate_is_needed_is_told() {
    for (text, column) in [
        ("filter port := 1", 8),
        ("port = 1 and port := 2", 14),
        ("not (dup)", 5),
        ("if dup then id else id", 4),
        ("while port := 1 do id", 7),
        ("port = 1 or (port = 2)*; (dup or port=1)", 27),
    ] {
        assert_eq!(codes(text), [(Code::ForeignKind, 1, column)], "{text}");
    }
}

#[test]
fn every_mistake_is_told() {
    let text = "(prot = 1; port := 2) +\n(port = ; dup) +\nvlanId = 70000 +\nif port = 1 then id + $; (dup";
    assert_eq!(
        codes(text),
        [
            (Code::ForeignName, 1, 2),
            (Code::ForeignToken, 2, 9),
            (Code::ForeignValue, 3, 10),
            (Code::UnexpectedCharacter, 4, 23),
            (Code::ForeignToken, 4, 30),
        ]
    );
    assert_eq!(
        mistakes("prot = 1")[0].hint.as_deref(),
        Some("did you mean `port`?")
    );
}

#[test]
fn an_empty_or_unfinished_text_is_told_where_it_ends() {
    for (text, column) in [
        ("", 1),
        ("  ", 3),
        ("dup;", 5),
        ("(dup", 5),
        ("if port=1 then id", 18),
    ] {
        assert_eq!(codes(text), [(Code::ForeignToken, 1, column)], "{text:?}");
    }
    assert_eq!(codes("dup dup"), [(Code::ForeignToken, 1, 5)]);
    assert_eq!(codes("dup)"), [(Code::ForeignToken, 1, 4)]);
}
