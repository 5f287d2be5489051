//! Formatting: the same meaning and the same comments, laid out the same way every time.

use proptest::prelude::*;
use proptest::sample::select;
use sunwire_policy::ast::{Document, Item};
use sunwire_policy::diagnostic::{Code, Diagnostic, Span, render_all};
use sunwire_policy::format::{WIDTH, format};
use sunwire_policy::parse;
use sunwire_policy::testing::{
    Kind, claims, document, for_all, policies, predicates, strip_places,
};

fn formatted(text: &str) -> String {
    format(text).unwrap_or_else(|d| panic!("{}", render_all(&d, text)))
}

/// Formatting `text` gives `expected`, and so does formatting that.
fn check(text: &str, expected: &str) {
    let once = formatted(text);
    assert_eq!(once, expected, "from\n{text}");
    assert_eq!(formatted(&once), expected, "a second time");
}

/// What is already as it should be.
fn check_kept(text: &str) {
    check(text, text);
}

fn tree(text: &str) -> Result<Document, String> {
    let (document, diagnostics) = parse(text);
    match diagnostics.iter().any(Diagnostic::is_error) {
        true => Err(render_all(&diagnostics, text)),
        false => Ok(strip_places(document)),
    }
}

/// The comments of a text in order, without blanks at the end; found without the lexer.
fn comments(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let length = if let Some(quoted) = rest.strip_prefix('"') {
            quoted.find('"').map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("--") {
            let length = rest.find('\n').unwrap_or(rest.len());
            out.push(rest[..length].trim_end().to_owned());
            length
        } else if rest.starts_with("(*") {
            let mut depth = 0;
            let mut at = 0;
            loop {
                if rest[at..].starts_with("(*") {
                    depth += 1;
                    at += 2;
                } else if rest[at..].starts_with("*)") {
                    depth -= 1;
                    at += 2;
                } else {
                    at += rest[at..]
                        .chars()
                        .next()
                        .expect("a closed comment")
                        .len_utf8();
                }
                if depth == 0 {
                    break;
                }
            }
            out.push(rest[..at].to_owned());
            at
        } else {
            rest.chars().next().expect("not empty").len_utf8()
        };
        rest = &rest[length..];
    }
    out
}

/// What holds of every text that parses.
fn laws(text: &str) -> Result<(), String> {
    let before = tree(text)?;
    let once = format(text).map_err(|d| render_all(&d, text))?;
    let after = tree(&once).map_err(|e| format!("{text}\nbecomes\n{once}\n{e}"))?;
    if after != before {
        return Err(format!("{text}\nmeans something else as\n{once}"));
    }
    if comments(text) != comments(&once) {
        return Err(format!("{text}\nloses comments in\n{once}"));
    }
    let twice = format(&once).map_err(|d| render_all(&d, &once))?;
    if twice != once {
        let differ = |(a, b): &(&str, &str)| a != b;
        let first = once.lines().zip(twice.lines()).find(differ);
        return Err(format!("{text}\nbecomes\n{once}\nand then {first:?}"));
    }
    let blank_ends = once
        .lines()
        .any(|line| line.ends_with(' ') && !line.contains("(*"));
    if blank_ends || once.contains("\n\n\n") || !once.is_empty() && !once.ends_with('\n') {
        return Err(format!("{text}\nhas blanks left over in\n{once:?}"));
    }
    Ok(())
}

/// Random documents with everything in the language.
fn documents() -> impl Strategy<Value = Document> {
    let condition = predicates();
    (policies(Kind::Any), policies(Kind::Any), condition).prop_map(|(left, right, condition)| {
        let mut whole = document(left.clone());
        whole.items.extend(
            claims(&left, &right, &condition)
                .into_iter()
                .map(|kind| Item {
                    kind,
                    span: Span::default(),
                }),
        );
        whole
    })
}

/// What may stand between two tokens where a blank does.
const BLANKS: [&str; 16] = [
    " ",
    "   ",
    "\t",
    "\n",
    "\r\n",
    "\n\n\n",
    "\n  ",
    " -- a comment\n",
    " --a comment  \r\n",
    "\n-- of its own\n",
    "\n\n    -- set off\n\n\n",
    " (* inside *) ",
    "\n(* of its own *)\n\n",
    "\n (* at the start *) ",
    " (* over (* nested *)\n   lines *) ",
    " -- one\n -- two\n (* three *) (* four *)\n",
];

/// The text with other blanks and with comments between its tokens, as `choices` say.
fn shaken(text: &str, choices: &[usize]) -> String {
    let mut out = String::new();
    let mut choices = choices.iter().cycle();
    let mut blank = |out: &mut String, needed: bool| {
        let choice = *choices.next().expect("endless");
        match choice.checked_sub(BLANKS.len()) {
            None => out.push_str(BLANKS[choice]),
            Some(_) if needed => out.push(' '),
            Some(_) => {}
        }
    };
    let mut quoted = false;
    for character in text.chars() {
        match character {
            '"' => {
                quoted = !quoted;
                out.push('"');
            }
            _ if quoted => out.push(character),
            ' ' | '\n' => blank(&mut out, true),
            '(' | ')' | ',' | ';' | '*' | '{' | '}' | '@' => {
                blank(&mut out, false);
                out.push(character);
                blank(&mut out, false);
            }
            _ => out.push(character),
        }
    }
    out
}

#[test]
fn random_policies_keep_meaning_and_comments_and_are_formatted_once_for_all() {
    for_all("format what is printed", 1000, &documents(), |document| {
        laws(&document.to_string())
    });
    // Most places stay as they are, so that what stands between comments is seen too.
    let choices = prop::collection::vec(
        prop_oneof![6 => Just(BLANKS.len()), 1 => 0..BLANKS.len()],
        1..400,
    );
    for_all(
        "format what is shaken",
        1500,
        &(documents(), choices)
            .prop_map(|(document, choices)| shaken(&document.to_string(), &choices)),
        |text| laws(&text),
    );
}

#[test]
fn random_tokens_are_refused_or_keep_their_meaning() {
    let words = [
        "network lab",
        "set a =",
        "let f(x, y) =",
        "policy main =",
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
        "!",
        "and",
        "&&",
        "or",
        "filter",
        "forward",
        "drop \"x\"",
        "id",
        "src",
        "dst port",
        "tcp",
        "= 80",
        "in { 1, 2-3 }",
        ":= 10.0.0.1",
        "web1",
        "\"x\"",
        "dup",
        "assert",
        "test \"t\" {",
        "from a to b : drop",
        "== q",
        "<= q",
        "where",
        "established",
        "in",
        "1@2 => 3@4",
        "limit 10/s",
        "limit 10 mbit/s per src, dst",
        "snat(10.0.0.1)",
        "-- c\n",
        "(* c *)",
    ];
    let soup = prop::collection::vec(select(words.to_vec()), 0..14);
    for_all("format random tokens", 20_000, &soup, |words| {
        let text = words.join(" ");
        match tree(&text) {
            Ok(_) => laws(&text),
            Err(_) if format(&text).is_err() => Ok(()),
            Err(_) => Err(format!("formatted though it does not parse: {text}")),
        }
    });
}

#[test]
fn the_examples_and_the_guide_are_formatted() {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
    let mut folders = vec![std::path::PathBuf::from(examples)];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("the examples") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "nk") {
                let text = std::fs::read_to_string(&path).expect("text");
                assert_eq!(formatted(&text), text, "{}", path.display());
                seen += 1;
            }
        }
    }
    assert!(seen >= 10, "{seen}");
    let guide = include_str!("../../docs/user-guide/policy.md");
    let block = guide.split("```").nth(1).expect("an example").trim_start();
    assert_eq!(formatted(block), block);
}

#[test]
fn a_text_that_does_not_parse_is_refused_with_its_mistakes() {
    let diagnostics = format("policy main = if tcp then forward").expect_err("no else");
    assert_eq!(diagnostics[0].code, Code::MissingElse);
    assert!(format("policy main = (* forward").is_err());
}

#[test]
fn nothing_becomes_nothing_and_comments_alone_stay() {
    check("", "");
    check(" \n\t\n", "");
    check(
        "\n\n  -- alone\n\n\n (* and another *)  ",
        "-- alone\n\n(* and another *)\n",
    );
}

#[test]
fn chains_have_an_arm_on_each_line_and_keep_their_alignment() {
    check(
        "policy main = if src in web and dst in db then forward else if established then forward \
         else drop \"default deny\"",
        "policy main =\n    if src in web and dst in db then forward\n    else if established then forward\n    \
         else drop \"default deny\"\n",
    );
    check(
        "policy main =\n  if src in web and dst in db  then forward -- to the database\n  \
         else if established then forward -- replies\n  else drop",
        "policy main =\n    if src in web and dst in db then forward  -- to the database\n    \
         else if established         then forward  -- replies\n    else drop\n",
    );
    check(
        "policy p = if tcp then\nforward else drop",
        "policy p = if tcp then forward else drop\n",
    );
    check_kept("policy p =\n    if tcp then forward\n    else drop\n");
}

#[test]
fn what_does_not_fit_is_broken_where_it_reads_best() {
    check(
        "policy main = if src in web and dst in db and tcp dst port 5432 and not src in { 10.0.0.1, 10.0.0.2 } \
         and dscp = 10 then dscp := 10; dst port := 7001; forward \"revision A\" else drop",
        "policy main =\n    if src in web\n        and dst in db\n        and tcp dst port 5432\n        \
         and not src in { 10.0.0.1, 10.0.0.2 }\n        and dscp = 10\n    then dscp := 10; dst port := 7001; \
         forward \"revision A\"\n    else drop\n",
    );
    check(
        "policy main = if (src in web and dst in db and tcp dst port 5432 or src in caches and dst in \
         db and tcp dst port 6379) then forward else drop",
        "policy main =\n    if (\n        src in web and dst in db and tcp dst port 5432\n        or src in \
         caches and dst in db and tcp dst port 6379\n    ) then forward\n    else drop\n",
    );
    let many: Vec<String> = (1..=60).map(|n| format!("web-{n}")).collect();
    let text = formatted(&format!("set web = {{{}}}", many.join(",")));
    assert!(
        text.lines().all(|line| line.chars().count() <= WIDTH),
        "{text}"
    );
    assert!(text.lines().count() < 8, "{text}");
    check_kept(&text);
}

#[test]
fn brackets_stay_as_written_and_signs_too() {
    check(
        "policy p=(((tcp)))&&!(udp)||not   (src==web1);(forward|drop)* ;x( a,80 - 90 )",
        "policy p = (((tcp))) && !(udp) || not (src == web1); (forward | drop)*; x(a, 80-90)\n",
    );
    check(
        "policy p = filter tcp; (if udp then forward else if tcp then drop else id); forward",
        "policy p =\n    filter tcp;\n    (\n        if udp then forward\n        else if tcp then drop\n        \
         else id\n    );\n    forward\n",
    );
}

#[test]
fn every_kind_of_definition_is_laid_out() {
    check(
        "import   \"common.nk\" network shop{subnet 10.20.0.0/16,fd00:20::/64;public 203.0.113.10->web1}\n\n\n\
         set  web={web1,web2} set db = labels( tier=\"db\" , env = \"prod\")\n\
         let allow(who,ports)=dst in who and dst port in ports\n\
         policy vip=dst=vip1;balance(web1 weight 2,web2 by ip4Src,tcpSrcPort)\n\
         policy limits = limit 100 / s per ip4Src; limit 10 mbit / s; snat ( 203.0.113.10 ); dnat 10.0.0.1 port 80;\
         count  hits;mirror to db1;log \"seen\";forward to fw1 \"x\";sw1@1=>sw2@2\n\
         assert reach( web,db where pg )assert isolated both(shop,lab)assert waypoint(internet,db,via fw1)\n\
         assert loop-free assert no-black-hole(where tcp)assert main<=allowed where tcp\n\
         test \"web may not ssh\"{from web1 to db1 tcp 22:drop \"default deny\"}\n\
         test \"two\"{from web1 to db1 tcp 22 with dscp=10,conn=new:drop from web1 to db1 icmp  : forward to db1;}",
        "import \"common.nk\"\nnetwork shop { subnet 10.20.0.0/16, fd00:20::/64; public 203.0.113.10 -> web1 }\n\n\
         set web = { web1, web2 }\nset db = labels(tier = \"db\", env = \"prod\")\n\
         let allow(who, ports) = dst in who and dst port in ports\n\
         policy vip = dst = vip1; balance(web1 weight 2, web2 by ip4Src, tcpSrcPort)\n\
         policy limits =\n    limit 100/s per ip4Src;\n    limit 10 mbit/s;\n    snat(203.0.113.10);\n    \
         dnat 10.0.0.1 port 80;\n    count hits;\n    mirror to db1;\n    log \"seen\";\n    forward to fw1 \"x\";\n    \
         sw1@1 => sw2@2\n\
         assert reach(web, db where pg)\nassert isolated both(shop, lab)\nassert waypoint(internet, db, via fw1)\n\
         assert loop-free\nassert no-black-hole(where tcp)\nassert main <= allowed where tcp\n\
         test \"web may not ssh\" { from web1 to db1 tcp 22 : drop \"default deny\" }\n\
         test \"two\" {\n    from web1 to db1 tcp 22 with dscp = 10, conn = new : drop\n    \
         from web1 to db1 icmp  : forward to db1;\n}\n"
            .replace("icmp  :", "icmp                              :")
            .as_str(),
    );
}

#[test]
fn comments_stay_with_what_they_speak_of() {
    check_kept(
        "-- Head.\n\n-- The web servers.\nset web = {\n    web1,  -- the first\n    web2   -- the second\n    \
         -- more to come\n}\n\npolicy main =\n    -- Inside.\n    if src in web  -- from a web server\n        \
         and tcp\n    then forward\n    -- Everything else.\n    else drop (* for now *)\n\n-- End.\n",
    );
}

#[test]
fn neighbouring_definitions_stay_aligned_when_one_is_added() {
    check(
        "set web = { web1 }\nset db  = { db1 }\nset caches = { c1 }\n\nset a = { a }\nset bcd = { b }\n",
        "set web    = { web1 }\nset db     = { db1 }\nset caches = { c1 }\n\nset a = { a }\nset bcd = { b }\n",
    );
}

#[test]
fn nesting_up_to_the_parsers_limit_is_formatted() {
    for (open, inner, close) in [
        ("(", "forward", ")"),
        ("not (tcp or udp and ", "tcp", ")"),
        ("(filter tcp; drop + ", "forward", ")*"),
        ("if tcp then ", "drop", " else id"),
        (
            "if tcp then (drop + id; if udp then id else if tcp then drop else ",
            "drop",
            ") else id",
        ),
        ("let x = ", "tcp", " in x"),
        ("while tcp do ", "drop", ""),
        ("f(", "tcp", ")"),
        ("established(", "tcp", ")"),
    ] {
        let mut deepest = None;
        for depth in (10..=256).rev() {
            let text = format!(
                "policy main = {}{inner}{}",
                open.repeat(depth),
                close.repeat(depth)
            );
            if tree(&text).is_ok() {
                laws(&text).unwrap();
                deepest = Some(depth);
                break;
            }
        }
        assert!(
            deepest.is_some_and(|depth| depth > 50),
            "{open} {deepest:?}"
        );
    }
}

#[test]
fn large_texts_are_formatted() {
    // Large enough that anything but linear time would never end.
    let size = 1 << 18;
    for (head, piece, tail) in [
        ("set a = { b", ", b", "}"),
        ("set a = { b", ",\n-- c\nb", "}"),
        ("policy p = id", ";id", ""),
        ("policy p = id", "+ -- c\nid", ""),
        ("policy p = id", " *", ""),
        ("policy p = tcp", " and (tcp)", ""),
        ("policy p = tcp", " or not tcp dst port 80", ""),
        ("policy p =", "if tcp  then id else ", "drop"),
        ("", "set a = { b }\n", ""),
        ("", "(* c *) ", ""),
        ("-- ", "(*", ""),
    ] {
        let pieces = (size - head.len() - tail.len()) / piece.len();
        let text = format!("{head}{}{tail}", piece.repeat(pieces));
        let once = formatted(&text);
        assert!(formatted(&once) == once, "{head}{piece}");
    }
}
