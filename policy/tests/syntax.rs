//! Reading policies: what is printed is read back, mistakes are all located, nothing panics.

mod common;

use common::*;
use proptest::prelude::*;
use proptest::sample::select;
use sunwire_policy::compile::{Options, compile};
use sunwire_policy::diagnostic::{Code, Diagnostic, render_all};
use sunwire_policy::testing::{Kind, document, for_all, policies, strip_places};
use sunwire_policy::{compile_text, parse};

fn errors(text: &str) -> Vec<Diagnostic> {
    let diagnostics = compile_text(text, &shop()).expect_err(text);
    diagnostics
        .into_iter()
        .filter(Diagnostic::is_error)
        .collect()
}

fn codes(text: &str) -> Vec<Code> {
    errors(text).iter().map(|d| d.code).collect()
}

#[test]
fn what_is_printed_parses_to_the_same_tree() {
    for_all("print and parse", 2000, &policies(Kind::Any), |body| {
        let tree = document(body);
        let text = tree.to_string();
        let (read, diagnostics) = parse(&text);
        if let Some(error) = diagnostics.iter().find(|d| d.is_error()) {
            return Err(format!("{text}\n{}", error.render(&text)));
        }
        let read = strip_places(read);
        match read == tree {
            true => Ok(()),
            false => Err(format!("{text}\nis read as\n{read}")),
        }
    });
}

#[test]
fn every_mistake_is_reported_not_just_the_first() {
    let text = "network shop { subnet 10.20.0.0/15 }\n\
                set web = { wbe1, 10.0.0.300 }\n\
                policy main =\n\
                \x20 if src in wbe then forward\n\
                \x20 else if tcp dst port 70000 then forwrd\n\
                \x20 else if established then vlanId := 3 else drop \"x";
    let errors = errors(text);
    let found: Vec<(u32, u32, Code)> = errors.iter().map(|d| (d.line, d.column, d.code)).collect();
    assert_eq!(
        found,
        vec![
            (1, 9, Code::NetworkDiffers),
            (1, 23, Code::NetworkDiffers),
            (2, 13, Code::UnknownName),
            (2, 19, Code::MalformedValue),
            (4, 13, Code::UnknownName),
            (5, 24, Code::ValueOutOfRange),
            (5, 35, Code::UnknownName),
            (6, 28, Code::NotWritable),
            (6, 50, Code::UnterminatedText),
        ],
        "{}",
        render_all(&errors, text)
    );
    let hints: Vec<&str> = errors.iter().filter_map(|d| d.hint.as_deref()).collect();
    assert!(hints.contains(&"did you mean `forward`?"), "{hints:?}");
    assert!(hints.contains(&"did you mean `web`?"), "{hints:?}");
}

#[test]
fn what_is_not_there_yet_is_refused_by_name() {
    for word in ["port := pipe(\"x\")"] {
        let text = format!("policy main = if tcp then ({word}; forward) else drop");
        let errors = errors(&text);
        let verb = word.split(['(', ' ']).next().unwrap();
        let first = &errors[0];
        assert_eq!(errors.len(), 1, "{}", render_all(&errors, &text));
        if word.starts_with("port") {
            continue;
        }
        assert_eq!(first.code, Code::NotSupported, "{word}");
        assert!(first.hint.is_some(), "{word}");
        let named = first.message.contains(&format!("`{verb}"));
        assert!(named, "{word}: {}", first.message);
    }
    assert_eq!(
        codes("import \"x\"\npolicy main = drop"),
        vec![Code::NotSupported]
    );
    assert_eq!(
        codes("policy main = forward to db1"),
        vec![Code::NotTransparent]
    );
    assert_eq!(
        codes(
            "network shop { subnet 10.20.0.0/16, fd00:20::/64; public 1.2.3.4 -> web1 }\npolicy p = drop"
        ),
        vec![Code::NotSupported]
    );
}

#[test]
fn each_mistake_has_its_code() {
    for (text, code) in [
        ("policy p = if tcp then forward", Code::MissingElse),
        ("policy p = (if tcp then forward)", Code::MissingElse),
        ("policy p = if forward then drop else id", Code::WrongKind),
        ("policy p = src in 80", Code::WrongKind),
        ("policy p = tcpDstPort = 10.0.0.1", Code::WrongKind),
        ("policy p = ip4Src = fd00::1", Code::WrongKind),
        ("policy p = dst := web1", Code::WrongKind),
        ("policy p = dscp := { 1, 2 }", Code::WrongKind),
        ("policy p = dscp := 64", Code::ValueOutOfRange),
        ("policy p = dst port 9-8", Code::ValueOutOfRange),
        ("policy p = port = 4294967295", Code::ValueOutOfRange),
        ("policy p = x", Code::UnknownName),
        ("let x = y let y = tcp policy p = x", Code::UnknownName),
        ("let x = x policy p = drop", Code::UnknownName),
        ("set a = { a } policy p = drop", Code::UnknownName),
        (
            "set a = { web1 } set a = { db1 } policy p = drop",
            Code::DuplicateName,
        ),
        (
            "set a = { web1 } let a = tcp policy p = drop",
            Code::DuplicateName,
        ),
        ("let f(a, a) = a policy p = drop", Code::DuplicateName),
        ("let f(a) = a policy p = f(tcp, udp)", Code::WrongArguments),
        ("let f(a) = a policy p = f", Code::WrongArguments),
        ("let f = tcp policy p = f(tcp)", Code::WrongArguments),
        ("set src = { web1 } policy p = drop", Code::ReservedWord),
        ("network lab policy p = drop", Code::UnknownNetwork),
        (
            "network shop { subnet 10.20.0.0/16 } policy p = drop",
            Code::NetworkDiffers,
        ),
        ("set a = { web1 }", Code::NoPolicy),
        ("", Code::NoPolicy),
        ("policy p = drop policy p = drop", Code::DuplicateName),
        ("policy p = tcp udp", Code::UnexpectedToken),
        ("policy p = drop;", Code::UnexpectedToken),
        ("policy p = src < web1", Code::UnexpectedToken),
        ("policy p = foo = 3", Code::UnknownName),
        ("policy p = (* drop", Code::UnterminatedComment),
        ("policy p = ethTyp := 0x800", Code::NotWritable),
        ("policy p = node := 1", Code::NotWritable),
        ("policy p = port := 77", Code::UnknownName),
        ("policy p = limit 0/s; forward", Code::ValueOutOfRange),
        ("policy p = limit 9999 gbit; forward", Code::ValueOutOfRange),
        (
            "policy p = limit 99999999999999999999 gbit; forward",
            Code::MalformedValue,
        ),
        ("policy p = limit 1/s per dscp; forward", Code::NotSupported),
        (
            "policy p = (limit 1/s; forward) + (limit 2/s; forward)",
            Code::NotSupported,
        ),
        (
            "policy p = if token = 1 then forward else drop",
            Code::NotSupported,
        ),
        ("policy p = forward + mirror to nowhere", Code::UnknownName),
        (
            "policy p = count a; count b; count c; count d; count e; forward",
            Code::TooManyCounts,
        ),
        (
            "policy p = (dscp:=1 + dscp:=2 + dscp:=3); (tcpDstPort:=1 + tcpDstPort:=2)",
            Code::TooManyCopies,
        ),
    ] {
        assert!(
            codes(text).contains(&code),
            "{text}\n{}",
            render_all(&errors(text), text)
        );
    }
}

#[test]
fn an_assignment_that_the_kernel_cannot_do_is_fine_where_it_never_happens() {
    assert!(compile_text("policy p = (ethTyp := 0x800; drop) + forward", &shop()).is_ok());
}

#[test]
fn an_arm_that_escapes_a_filter_is_warned_about() {
    let warned = |text: &str| {
        let compiled = compile_text(text, &shop()).unwrap();
        compiled.warnings.iter().map(|d| d.code).collect::<Vec<_>>()
    };
    assert_eq!(
        warned("filter tcp; dscp := 1 + forward"),
        vec![Code::EscapesFilter]
    );
    assert_eq!(warned("filter tcp; (dscp := 1 + forward)"), vec![]);
    assert_eq!(
        warned("filter tcp; dscp := 1 + filter udp; forward"),
        vec![]
    );
    assert_eq!(warned("forward; port = web1"), vec![Code::PortAfterForward]);
    assert_eq!(
        warned("ip4Src = 10.20.0.1/16; forward"),
        vec![Code::HostBits]
    );
}

#[test]
fn a_test_of_the_ethertype_survives_into_the_tables() {
    use sunwire_dataplane_common::flow_key::Field;
    let tables = compile_text(
        "filter ethTyp = 0x800 and ip4Src = 10.20.0.1; forward",
        &shop(),
    )
    .unwrap()
    .tables;
    assert!(
        tables
            .nodes
            .values()
            .any(|node| node.field == Field::EtherType)
    );
}

#[test]
fn random_bytes_and_random_tokens_never_panic() {
    let bytes = prop::collection::vec(any::<u8>(), 0..200);
    for_all("random bytes", 2000, &bytes, |bytes| {
        let text = String::from_utf8_lossy(&bytes);
        let _ = compile_text(&text, &shop()).map_err(|d| render_all(&d, &text));
        Ok(())
    });
    let words = [
        "network",
        "set",
        "let",
        "policy",
        "main",
        "=",
        "in",
        "{",
        "}",
        "(",
        ")",
        ",",
        ";",
        "+",
        "*",
        "if",
        "then",
        "else",
        "while",
        "do",
        "not",
        "and",
        "or",
        "filter",
        "forward",
        "drop",
        "id",
        "src",
        "dst",
        "port",
        "tcp",
        "http",
        "internet",
        "web1",
        "shop",
        "80",
        "1-2",
        "10.20.0.1",
        "10.20.0.0/16",
        "::",
        "00:11:22:33:44:55",
        "\"x\"",
        "labels",
        ":=",
        "!=",
        "x",
        "x",
        "count",
        "test",
        "1",
        "@",
        "=>",
        "\"",
        "subnet",
        "dscp",
        "-",
        "/",
        "assert",
        "|",
        "port := web1",
    ];
    let soup = prop::collection::vec(select(words.to_vec()), 0..60);
    for_all("random tokens", 4000, &soup, |words| {
        let text = words.join(" ");
        if let Err(diagnostics) = compile_text(&text, &shop()) {
            let _ = render_all(&diagnostics, &text);
            if !diagnostics.iter().any(Diagnostic::is_error) {
                return Err(format!("refused without an error: {text}"));
            }
        }
        Ok(())
    });
}

#[test]
fn deep_nesting_is_refused_and_long_chains_are_not() {
    for open in [
        "(",
        "not ",
        "if tcp then ",
        "while tcp do ",
        "let x = ",
        "x(",
        "filter (",
        "src in {",
        "(*",
    ] {
        let text = format!("policy main = {}", open.repeat(100_000));
        assert!(!errors(&text).is_empty(), "{open}");
    }
    let brackets = |depth: usize| {
        format!(
            "policy main = {}forward{}",
            "(".repeat(depth),
            ")".repeat(depth)
        )
    };
    assert!(compile_text(&brackets(200), &shop()).is_ok());
    assert_eq!(codes(&brackets(300)), vec![Code::NestedTooDeeply]);

    let mut chain = String::from("policy main =\n");
    for port in 1..=3000 {
        chain += &format!("if tcp dst port {port} then drop \"low\" else\n");
    }
    assert!(compile_text(&(chain + "forward"), &shop()).is_ok());
    let sums = vec!["dscp := 1"; 20_000].join(" + ");
    assert!(compile_text(&format!("policy main = ({sums}); forward"), &shop()).is_ok());
}

#[test]
fn definitions_that_explode_are_refused() {
    let mut doubling = String::from("let x0 = (dscp := 1 + id)\n");
    for level in 1..60 {
        doubling += &format!("let x{level} = x{}; x{}\n", level - 1, level - 1);
    }
    assert_eq!(
        codes(&(doubling + "policy main = x59")),
        vec![Code::ExpandsTooFar]
    );

    let mut calls = String::from("let f0(a) = a\n");
    for level in 1..60 {
        calls += &format!(
            "let f{level}(a) = f{}(a) and f{}(a)\n",
            level - 1,
            level - 1
        );
    }
    assert_eq!(
        codes(&(calls + "policy main = f59(tcp)")),
        vec![Code::ExpandsTooFar]
    );

    let mut chain = String::from("let x0 = tcp\n");
    for level in 1..5000 {
        chain += &format!("let x{level} = not x{}\n", level - 1);
    }
    assert_eq!(
        codes(&(chain + "policy main = x4999")),
        vec![Code::ExpandsTooFar]
    );
}

#[test]
fn a_policy_with_too_many_copies_to_compile_is_given_up_on() {
    let arms: Vec<String> = (1..60)
        .flat_map(|n| {
            [
                format!("dscp := {n}"),
                format!("tcpDstPort := {n}"),
                format!("tcpSrcPort := {n}"),
            ]
        })
        .collect();
    let policy = policy(&format!("({})*", arms.join(" + ")));
    let options = Options {
        max_steps: 1 << 18,
        ..Options::default()
    };
    assert!(compile(&policy, &options).is_err());
}

#[test]
fn a_text_beyond_the_size_limit_is_refused() {
    let text = " ".repeat(sunwire_policy::parser::MAX_SOURCE_BYTES + 1);
    assert!(codes(&text).contains(&Code::SourceTooLarge));
}
