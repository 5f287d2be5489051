//! Imported programs with known answers: 500 equivalence questions in two syntaxes, and the checks
//! of eight published networks. See `data/netkat/README.md`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::{Path, PathBuf};

use sunwire_policy::diagnostic::render_all;
use sunwire_policy::import::nkpl::{Imported, no_imports};
use sunwire_policy::import::{kat, nkpl};
use sunwire_policy::verify::decide::equivalent;
use sunwire_policy::verify::options::Options;
use sunwire_policy::verify::program::{Domain, Node, NodeId, Program};

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/netkat")
}

/// A question of the table.
struct Question {
    id: String,
    equal: bool,
    nkpl: [String; 2],
    kat: [String; 2],
}

fn questions() -> Vec<Question> {
    let text = fs::read_to_string(data().join("equivalence.tsv")).unwrap();
    let rows = text.lines().filter(|line| !line.starts_with('#'));
    rows.map(|row| {
        let columns: Vec<&str> = row.split('\t').collect();
        let [id, verdict, sides @ ..] = &columns[..] else {
            panic!("a row has an id and a verdict")
        };
        let side = |index: usize| sides[index].to_owned();
        Question {
            id: (*id).to_owned(),
            equal: match *verdict {
                "equiv" => true,
                "differ" => false,
                other => panic!("verdict {other}"),
            },
            nkpl: [side(0), side(1)],
            kat: [side(2), side(3)],
        }
    })
    .collect()
}

fn nkpl_sides(question: &Question) -> (Program, [NodeId; 2]) {
    let mut program = Program::new();
    let sides = [0, 1].map(|side| {
        let text = &question.nkpl[side];
        nkpl::parse_into(&mut program, text, &mut no_imports)
            .unwrap_or_else(|told| panic!("{}: {}", question.id, render_all(&told, text)))
    });
    (program, sides)
}

fn kat_sides(question: &Question) -> (Program, [NodeId; 2]) {
    let mut program = Program::new();
    let sides = [0, 1].map(|side| {
        let text = &question.kat[side];
        kat::parse_into(&mut program, text)
            .unwrap_or_else(|told| panic!("{}: {}", question.id, render_all(&told, text)))
    });
    let sides = kat::close(&mut program, sides);
    (program, sides)
}

#[test]
fn five_hundred_questions_in_katchs_syntax_are_answered_as_stated() {
    answers(nkpl_sides);
}

#[test]
fn five_hundred_questions_in_frenetics_syntax_are_answered_as_stated() {
    answers(kat_sides);
}

fn answers(read: fn(&Question) -> (Program, [NodeId; 2])) {
    let questions = questions();
    assert_eq!(questions.len(), 500);
    for question in &questions {
        let (program, [left, right]) = read(question);
        let answer = equivalent(&program, left, right, &Options::default()).unwrap();
        assert_eq!(
            answer.holds(),
            question.equal,
            "{}: {answer:?}",
            question.id
        );
    }
}

#[test]
fn both_syntaxes_of_a_question_are_the_same_program() {
    for question in &questions() {
        let (left, right) = (nkpl_sides(question), kat_sides(question));
        for side in [0, 1] {
            assert_eq!(
                shown(&left.0, left.1[side]),
                shown(&right.0, right.1[side]),
                "{}",
                question.id
            );
        }
    }
}

/// A program as text in which both naming schemes of the table are one.
fn shown(program: &Program, node: NodeId) -> String {
    let name = |field: sunwire_policy::verify::program::FieldId| {
        let field = &program.fields()[usize::from(field.0)];
        let name = match field.name.as_str() {
            "ethSrc" => "a",
            "ethDst" => "b",
            "tcpSrcPort" => "c",
            other => other,
        };
        (name.to_owned(), field.domain)
    };
    let number = |domain: Domain, value| domain.show(value);
    let all = |nodes: &[NodeId]| {
        let nodes: Vec<String> = nodes.iter().map(|node| shown(program, *node)).collect();
        nodes.join(" ")
    };
    match program.node(node) {
        Node::Drop => "drop".to_owned(),
        Node::Id => "id".to_owned(),
        Node::Dup => "dup".to_owned(),
        Node::Test(field, set) => {
            let (name, domain) = name(*field);
            let [(first, last)] = program.set(*set) else {
                panic!("one value")
            };
            assert_eq!(first, last);
            format!("{name}={}", number(domain, *first))
        }
        Node::Assign(field, value) => {
            let (name, domain) = name(*field);
            format!("{name}:={}", number(domain, *value))
        }
        Node::Not(inner) => format!("(not {})", shown(program, *inner)),
        Node::Star(inner) => format!("(star {})", shown(program, *inner)),
        Node::Sequence(parts) => format!("(sequence {})", all(parts)),
        // Arms stand in the order in which they were made.
        Node::Union(arms) => {
            let mut arms: Vec<String> = arms.iter().map(|arm| shown(program, *arm)).collect();
            arms.sort();
            format!("(union {})", arms.join(" "))
        }
        other => panic!("the table has no {other:?}"),
    }
}

/// A file of the networks, with the files it imports.
fn read(path: &Path) -> Imported {
    let text = fs::read_to_string(path).unwrap();
    let folder = path.parent().unwrap();
    let mut loader =
        |import: &str| fs::read_to_string(folder.join(import)).map_err(|error| error.to_string());
    nkpl::parse(&text, &mut loader)
        .unwrap_or_else(|told| panic!("{}: {}", path.display(), render_all(&told, &text)))
}

fn files(folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(data().join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

#[test]
fn every_check_of_the_networks_holds() {
    let mut checks = 0;
    for path in files("checks") {
        let imported = read(&path);
        for check in &imported.checks {
            let answer = equivalent(
                &imported.program,
                check.left,
                check.right,
                &Options::default(),
            )
            .unwrap();
            assert_eq!(
                answer.holds(),
                check.equal,
                "{}: {}",
                path.display(),
                check.text
            );
            checks += 1;
        }
    }
    assert_eq!(checks, 24);
}

#[test]
fn a_check_that_is_turned_round_fails_with_a_way_through_the_network() {
    let imported = read(&data().join("checks/Airtel_reachability.nkpl"));
    let check = &imported.checks[0];
    let answer = equivalent(
        &imported.program,
        check.left,
        check.right,
        &Options::default(),
    )
    .unwrap();
    let way = answer.counterexample().expect("N0 is reached from N15");
    assert!(way.to_string().contains("sw=15"), "{way}");
}

#[test]
fn every_network_is_read_alone() {
    for path in files("networks/topologyzoo") {
        if path.to_string_lossy().ends_with("_topo.nkpl") {
            assert!(read(&path).definitions.contains_key("top"));
        }
    }
}
