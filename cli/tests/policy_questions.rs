//! Questions about policies and programs, asked as a person or a script asks them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use common::{command, sunwire};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

const SHOP: &str = r#"network shop { subnet 10.20.0.0/16 }
set web = { web1, web2 }
let pg = tcp and dst port 5432
policy main =
    if src in web and dst = db1 and pg then forward "web to db"
    else drop "default deny"
assert reach(web, db1 where pg)
assert isolated(web1, web2)
test "web may not ssh to db" { from web1 to db1 tcp 22 : drop "default deny" }
test "web may reach db" { from web to db1 tcp 5432 : forward to db1 }
"#;

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Files(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }
}

/// The vendored programs with known answers.
fn netkat(name: &str) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../policy/tests/data/netkat");
    root.join(name).to_str().unwrap().to_owned()
}

#[test]
fn every_assertion_has_a_line_and_one_that_fails_has_its_packet_and_way() {
    let files = Files::new();
    let shop = files.file("shop.nk", SHOP);
    let ran = sunwire(&["policy", "verify", &shop]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert!(ran.out.contains(&format!("ok   {shop}:7  assert reach(")));
    assert_eq!(ran.out.lines().count(), 2, "{ran:#?}");

    let wrong = SHOP.replace("isolated(web1, web2)", "isolated(web1, db1)");
    let wrong = files.file("wrong.nk", &wrong);
    let ran = sunwire(&["policy", "verify", &wrong]);
    assert_eq!(ran.code, 1, "{ran:#?}");
    assert!(ran.out.contains(&format!("FAIL {wrong}:8")), "{ran:#?}");
    assert!(ran.out.contains(":5432"), "{ran:#?}");
    assert!(ran.out.contains("forwards it to db1"), "{ran:#?}");
    let answers = sunwire(&["policy", "verify", &wrong, "-o", "json"]).json();
    assert_eq!(answers[0]["verdict"], "holds");
    assert_eq!(
        (&answers[1]["verdict"], &answers[1]["line"]),
        (&json!("fails"), &json!(8))
    );
    assert_eq!(answers[1]["decisions"][0]["label"], "web to db");

    let ran = sunwire(&["policy", "check", &wrong]);
    assert_eq!(ran.code, 1, "{ran:#?}");
    assert!(ran.err.contains("does not hold: tcp"), "{ran:#?}");
}

#[test]
fn tests_are_listed_counted_and_filtered() {
    let files = Files::new();
    let shop = files.file("shop.nk", SHOP);
    let ran = sunwire(&["policy", "test", &shop]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert!(ran.out.contains("test web may reach db ... ok (2 packets)"));
    assert!(ran.out.contains("2 passed; 0 failed"), "{ran:#?}");

    let wrong = files.file("wrong.nk", &SHOP.replace("tcp 5432 :", "tcp 5433 :"));
    let ran = sunwire(&["policy", "test", &wrong]);
    assert_eq!(ran.code, 1, "{ran:#?}");
    assert!(ran.out.contains("test web may reach db ... FAILED"));
    assert!(ran.out.contains("this statement decided"), "{ran:#?}");
    let ran = sunwire(&["policy", "test", &wrong, "--filter", "ssh"]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert!(ran.out.contains("1 filtered out"), "{ran:#?}");
    let all = sunwire(&["policy", "test", &wrong, "-o", "json"]).json();
    assert_eq!(
        (&all[0]["passed"], &all[1]["passed"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(all[1]["failures"][0]["line"], 10);
}

#[test]
fn equivalence_is_answered_by_the_exit_code_in_all_three_syntaxes() {
    let e = |syntax: &str, left: &str, right: &str| {
        sunwire(&["policy", "equiv", "-e", "--syntax", syntax, left, right])
    };
    for (syntax, left, right, code) in [
        ("nk", "tcp; port := 1", "port := 1; tcp", 0),
        ("nk", "drop \"one\"", "drop \"two\"", 0),
        ("nk", "tcp; port := 1", "udp; port := 1", 1),
        ("nk", "tcp; port := ", "udp; port := 1", 2),
        ("kat", "filter port=1; port:=2", "port=1; port:=2", 0),
        ("kat", "port:=1; dup", "port:=1", 1),
        ("kat", "port:=1;", "port:=1", 2),
        ("nkpl", "(@a←0)⋆", "ε∪@a←0", 0),
        ("nkpl", "(@a←0)⋆", "ε∪@a←1", 1),
        ("nkpl", "(@a←0", "ε∪@a←1", 2),
    ] {
        let ran = e(syntax, left, right);
        assert_eq!(ran.code, code, "{syntax}: {left} and {right}: {ran:#?}");
    }
    let ran = e("nkpl", "(@a←0)⋆", "ε∪@a←1");
    assert!(ran.out.contains("in   a=1") && ran.out.contains("out  a=0"));
    let different = sunwire(&[
        "policy",
        "equiv",
        "-e",
        "-o",
        "json",
        "tcp; port := 1",
        "udp; port := 1",
    ]);
    let answer = different.json();
    assert_eq!(
        (&answer["equivalent"], &answer["carried"]),
        (&json!(false), &json!(true))
    );
    assert_ne!(answer["left"]["copies"], answer["right"]["copies"]);
}

#[test]
fn files_of_two_syntaxes_are_not_compared() {
    let files = Files::new();
    let (a, b) = (files.file("a.nk", "drop"), files.file("b.kat", "drop"));
    assert_eq!(sunwire(&["policy", "equiv", &a, &b]).code, 3);
    let c = files.file("c.txt", "drop");
    let ran = sunwire(&["policy", "equiv", &c, &c]);
    assert!(ran.code == 3 && ran.err.contains("--syntax"), "{ran:#?}");
    let ran = sunwire(&["policy", "equiv", &a, &b, "--syntax", "kat"]);
    assert_eq!(ran.code, 0, "{ran:#?}");
}

#[test]
fn policies_of_two_networks_are_not_compared() {
    let files = Files::new();
    let shop = files.file("shop.nk", SHOP);
    let other = files.file("other.nk", &SHOP.replace("network shop", "network lab"));
    for question in ["equiv", "plan"] {
        let ran = sunwire(&["policy", question, &shop, &other]);
        assert_eq!(ran.code, 3, "{ran:#?}");
        assert!(ran.err.contains("network shop"), "{ran:#?}");
    }
}

#[test]
fn a_table_of_questions_is_answered_as_stated_and_a_false_statement_is_found() {
    let table = netkat("equivalence.tsv");
    let ran = sunwire(&["policy", "equiv", "--batch", &table]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert!(ran.out.contains("1000 answers as stated"), "{ran:#?}");

    let text = std::fs::read_to_string(&table).unwrap();
    let wrong = text.replacen("\tdiffer\t", "\tequiv\t", 1);
    let files = Files::new();
    let wrong = files.file("wrong.tsv", &wrong);
    let ran = sunwire(&["policy", "equiv", "--batch", &wrong]);
    assert_eq!(ran.code, 1, "{ran:#?}");
    assert_eq!(ran.out.matches("was stated").count(), 2, "{ran:#?}");
    let broken = files.file("broken.tsv", "a\tequiv\tonly\n");
    let ran = sunwire(&["policy", "equiv", "--batch", &broken]);
    assert!(
        ran.code == 2 && ran.err.contains("broken.tsv:1"),
        "{ran:#?}"
    );
}

#[test]
fn checks_of_katch_are_answered_and_one_that_is_turned_round_shows_the_way() {
    let reachability = netkat("checks/Airtel_reachability.nkpl");
    let ran = sunwire(&["policy", "verify", &reachability, "--stats"]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert!(ran.out.contains("s of processor time"), "{ran:#?}");

    let text = std::fs::read_to_string(&reachability).unwrap();
    let networks = format!("\"{}", netkat("networks"));
    let text = text.replace("≢", "≡").replace("\"../networks", &networks);
    let files = Files::new();
    let turned = files.file("turned.nkpl", &text);
    let ran = sunwire(&["policy", "verify", &turned]);
    assert_eq!(ran.code, 1, "{ran:#?}");
    assert!(ran.out.contains("FAIL") && ran.out.contains("dup  "));
    let answers = sunwire(&["policy", "verify", &turned, "-o", "json"]).json();
    assert!(!answers[0]["way"]["hops"].as_array().unwrap().is_empty());
}

#[test]
fn one_program_in_three_syntaxes_makes_the_same_packets() {
    let files = Files::new();
    let packet = r#"{"switch":1,"ethTyp":"0x800","ip4Dst":"10.0.0.1","tcpDstPort":"0x50"}"#;
    let text = "filter switch=1 and ip4Dst=10.0.0.1; port := 9 + filter tcpDstPort=81; port := 2";
    let eval = |name: &str, text: &str, packet: &str| {
        let file = files.file(name, text);
        let ran = sunwire(&["policy", "eval", &file, "--packet", packet]);
        assert_eq!(ran.code, 0, "{ran:#?}");
        ran.json()
    };
    let expected = json!([
        {"switch": 1, "port": 9, "ethTyp": 0x800, "ip4Dst": "10.0.0.1", "tcpDstPort": 80}
    ]);
    assert_eq!(eval("a.kat", text, packet), expected);
    // The policy language calls a switch a node.
    let nk = eval("a.nk", text, packet)
        .to_string()
        .replace("node", "switch");
    assert_eq!(serde_json::from_str::<Value>(&nk).unwrap(), expected);
    let nkpl = "main = @switch=1⋅@port←9 ∪ @d=81⋅@port←2";
    let out = eval("a.nkpl", nkpl, r#"{"switch":1,"d":-80}"#);
    assert_eq!(out, json!([{"switch": 1, "port": 9, "d": -80}]));

    let file = files.file("b.kat", "filter port=1");
    let ran = sunwire(&["policy", "eval", &file, "--packet", "{}"]);
    assert_eq!((ran.code, ran.json()), (1, json!([])), "{ran:#?}");
    let ran = sunwire(&["policy", "eval", &file, "--packet", r#"{"prot":1}"#]);
    assert_eq!(ran.code, 3, "{ran:#?}");
}

#[test]
fn findings_in_an_imported_file_name_that_file() {
    let files = Files::new();
    let main = files.file(
        "main.nk",
        "import \"sets/web.nk\"\npolicy main = if src in web then forward else drop\n",
    );
    files.file("sets/web.nk", "-- who serves\nset web = { web1 }\n");
    let ran = sunwire(&["policy", "check", &main]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    let broken = files.file("sets/web.nk", "-- who serves\nset web = { web1 web2 }\n");
    let ran = sunwire(&["policy", "check", &main, "-o", "json"]);
    assert_eq!(ran.code, 1, "{ran:#?}");
    let finding = &ran.json()[0]["diagnostics"][0];
    assert_eq!(
        (&finding["file"], &finding["severity"]),
        (&json!(broken), &json!("error"))
    );
    assert!(finding["line"].as_u64() >= Some(2), "{finding}");
    std::fs::remove_file(&broken).unwrap();
    let ran = sunwire(&["policy", "check", &main]);
    assert!(ran.code == 1 && ran.err.contains("main.nk:1:1"), "{ran:#?}");
    let ran = sunwire(&["policy", "verify", &main]);
    assert!(ran.code == 2 && ran.err.contains("main.nk:1:1"), "{ran:#?}");
}

#[test]
fn an_explanation_names_the_statement_and_the_conditions_before_it() {
    let files = Files::new();
    let shop = files.file("shop.nk", SHOP);
    let packet = r#"{"ethTyp":"0x800","ipProto":6,"endpoint":"web1","dstPort":22}"#;
    let ran = sunwire(&["policy", "explain", &shop, "--packet", packet]);
    assert_eq!(ran.code, 1, "{ran:#?}");
    assert!(ran.out.contains("shop.nk:6:10"), "{ran:#?}");
    assert!(ran.out.contains("as not   src in web"), "{ran:#?}");
    let answer = sunwire(&["policy", "explain", &shop, "--packet", packet, "-o", "json"]).json();
    let decision = &answer["decisions"][0];
    assert_eq!(decision["statement"]["line"], 6);
    assert_eq!(decision["conditions"][0]["holds"], false);
}

#[test]
fn a_plan_of_two_files_says_what_changes_and_which_claim_breaks() {
    let files = Files::new();
    let old = files.file("old.nk", SHOP);
    let same = files.file(
        "same.nk",
        &SHOP.replace("src in web and dst = db1", "dst = db1 and src in web"),
    );
    let ran = sunwire(&["policy", "plan", &old, &same]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert!(ran.out.contains("No packet is treated differently"));
    let new = files.file(
        "new.nk",
        &SHOP.replace("else drop", "else if ssh then forward else drop"),
    );
    let ran = sunwire(&["policy", "plan", &old, &new]);
    assert_eq!(ran.code, 1, "{ran:#?}");
    assert!(ran.out.contains("+ tcp") && ran.out.contains("can now reach"));
    assert!(ran.out.contains("! it would be refused"), "{ran:#?}");
    let plan = sunwire(&["policy", "plan", &old, &new, "-o", "json"]).json();
    assert_eq!(plan["changes"][0]["kind"], "allowed");
    assert!(!plan["violations"].as_array().unwrap().is_empty());
}

#[test]
fn a_difference_of_texts_says_whether_the_meaning_differs() {
    let files = Files::new();
    let old = files.file("old.nk", SHOP);
    let spaced = files.file("spaced.nk", &SHOP.replace(" and ", "  and  "));
    let ran = sunwire(&["policy", "diff", &old, &spaced]);
    assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{ran:#?}");
    let renamed = files.file("renamed.nk", &SHOP.replace("pg", "postgres"));
    let ran = sunwire(&["policy", "diff", &old, &renamed]);
    assert_eq!(ran.code, 1, "{ran:#?}");
    assert!(ran.out.contains("\n-let pg") && ran.err.contains("make the same"));
    let new = files.file("new.nk", &SHOP.replace("5432", "5433"));
    let answer = sunwire(&["policy", "diff", &old, &new, "-o", "json"]);
    assert_eq!(answer.json()["equivalent"], false);
}

#[test]
fn sizes_of_a_compilation_are_told() {
    let files = Files::new();
    let shop = files.file("shop.nk", SHOP);
    let stats = sunwire(&["policy", "compile", &shop, "--stats", "-o", "json"]).json();
    assert_eq!(stats["field_order"][0], "dst");
    for size in [
        "fdd_nodes",
        "address_classes",
        "table_nodes",
        "table_depth",
        "leaves",
    ] {
        assert!(stats[size].as_u64() >= Some(1), "{size}: {stats}");
    }
}

#[test]
fn what_is_no_policy_is_refused_by_name_and_never_counts_as_no() {
    let files = Files::new();
    let good = files.file("good.nk", SHOP);
    let garbage = files.path("garbage.nk");
    std::fs::write(&garbage, [0xff; 64]).unwrap();
    let directory = files.path("folder.nk");
    std::fs::create_dir(&directory).unwrap();
    let bad = [
        garbage,
        directory,
        files.path("absent.nk"),
        files.file("empty.nk", ""),
    ];
    for file in &bad {
        let f = file.as_str();
        for arguments in [
            &["test", f][..],
            &["verify", f],
            &["equiv", &good, f],
            &["eval", f, "--packet", "{}"],
            &["explain", f, "--packet", "{}"],
            &["compile", f],
            &["plan", &good, f],
        ] {
            let ran = sunwire(&[&["policy"], arguments].concat());
            assert_eq!(ran.code, 2, "{arguments:?}: {ran:#?}");
            assert!(ran.err.contains(f), "{arguments:?}: {ran:#?}");
        }
    }
}

#[test]
fn an_interrupt_ends_a_long_proof_without_an_answer() {
    // A binary counter: to be full, it has to be counted up, step by step.
    let bits = 40;
    let steps: Vec<String> = (0..bits)
        .map(|bit| {
            let carry: String = (0..bit)
                .map(|low| format!("⋅@b{low}=1⋅@b{low}←0"))
                .collect();
            format!("(@b{bit}=0⋅@b{bit}←1{carry})")
        })
        .collect();
    let all = |value: u8| {
        let tests: Vec<String> = (0..bits).map(|bit| format!("@b{bit}={value}")).collect();
        tests.join("⋅")
    };
    let text = format!(
        "check @a=0 ≢ ∅\ncheck {}⋅(({})⋅δ)⋆⋅{} ≢ ∅\n",
        all(0),
        steps.join("∪"),
        all(1)
    );
    let files = Files::new();
    let counter = files.file("counter.nkpl", &text);
    let mut child = command()
        .args(["policy", "verify", &counter])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    assert!(line.starts_with("ok "), "{line}");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let mut err = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut err)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(2), "{err}");
    assert!(err.contains("interrupted"), "{err}");
}

#[test]
fn the_help_of_every_question_has_an_example() {
    for question in [
        "check", "test", "verify", "equiv", "eval", "explain", "compile", "plan", "diff",
    ] {
        let ran = sunwire(&["policy", question, "--help"]);
        let example = format!("sunwire policy {question} ");
        assert!(ran.code == 0 && ran.out.contains(&example), "{ran:#?}");
    }
}
