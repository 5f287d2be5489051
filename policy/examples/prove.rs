//! How long questions take: `cargo run --release -p sunwire-policy --example prove FILE.nkpl…`
//! answers the checks of each file and prints the time to read, to answer, and the diagrams' sizes;
//! `--order f,g,…` tests these fields first; `--tsv FILE` answers a table of equivalence questions;
//! `--rules N` compares a chain of so many rules about addresses and ports with the same as nested
//! conditionals, and with one rule changed.

use std::path::Path;
use std::time::{Duration, Instant};

use sunwire_policy::diagnostic::render_all;
use sunwire_policy::import::nkpl;
use sunwire_policy::verify::decide::Verifier;
use sunwire_policy::verify::options::Options;
use sunwire_policy::verify::program::{Domain, Kind, NodeId, Program, Value};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut order: Vec<String> = Vec::new();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--order" => {
                let names = arguments.next().unwrap_or_default();
                order = names.split(',').map(str::to_owned).collect();
            }
            "--tsv" => table(&arguments.next().unwrap_or_default()),
            "--rules" => rules(
                arguments
                    .next()
                    .and_then(|n| n.parse().ok())
                    .unwrap_or(1000),
            ),
            path => checks(path, &order),
        }
    }
}

fn checks(path: &str, order: &[String]) {
    let start = Instant::now();
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let folder = Path::new(path).parent().unwrap_or(Path::new("."));
    let mut load =
        |name: &str| std::fs::read_to_string(folder.join(name)).map_err(|error| error.to_string());
    let imported = match nkpl::parse(&text, &mut load) {
        Ok(imported) => imported,
        Err(diagnostics) => return eprintln!("{}", render_all(&diagnostics, &text)),
    };
    let read = start.elapsed();
    let mut program = imported.program;
    let order = (order.iter())
        .map(|name| program.field(name, Domain::Integer))
        .collect();
    let options = Options {
        order,
        ..Options::default()
    };
    let roots: Vec<NodeId> = (imported.checks.iter())
        .flat_map(|check| [check.left, check.right])
        .collect();
    let start = Instant::now();
    let mut verifier = Verifier::new(&program, &roots, &options).expect("the limits are wide");
    for check in &imported.checks {
        let answer = verifier
            .equivalent(check.left, check.right)
            .expect("the limits are wide");
        let word = if answer.holds() == check.equal {
            "as stated"
        } else {
            "NOT AS STATED"
        };
        println!("{path}:{}: {word}", check.line);
        if let Some(counterexample) = answer.counterexample() {
            println!("{counterexample}\nonly on the {} side", counterexample.side);
        }
    }
    let symbolic = verifier.symbolic();
    println!(
        "{path}: read in {read:?}, answered in {:?}; {} nodes of programs, {} of sets",
        start.elapsed(),
        symbolic.diagrams.len(),
        symbolic.diagrams.sets.len()
    );
}

/// Columns: name, `equiv` or `differ`, left, right, and more that is not read.
fn table(path: &str) {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let (mut wrong, mut count, mut slowest) = (0, 0, Duration::ZERO);
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let columns: Vec<&str> = line.split('\t').collect();
        let start = Instant::now();
        let mut program = Program::new();
        let mut read = |text| {
            nkpl::parse_into(&mut program, text, &mut nkpl::no_imports)
                .unwrap_or_else(|diagnostics| panic!("{}", render_all(&diagnostics, text)))
        };
        let (left, right) = (read(columns[2]), read(columns[3]));
        let mut verifier = Verifier::new(&program, &[left, right], &Options::default())
            .expect("the limits are wide");
        let answer = verifier
            .equivalent(left, right)
            .expect("the limits are wide");
        count += 1;
        slowest = slowest.max(start.elapsed());
        if answer.holds() != (columns[1] == "equiv") {
            wrong += 1;
            println!("{}: wrong: {answer:?}", columns[0]);
        }
    }
    println!("{path}: {count} questions, {wrong} wrong; the slowest took {slowest:?}");
}

fn rules(count: u64) {
    let mut program = Program::new();
    let [source, destination] = ["src", "dst"].map(|name| program.field(name, Domain::Address));
    let [port, out] =
        ["port", "out"].map(|name| program.field(name, Domain::Number { max: 65535 }));
    let mut state = 1u64;
    let mut random = |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % below
    };
    let mut arms = Vec::new();
    for _ in 0..count {
        let mut prefix = |field| {
            let length = 16 + random(17) as u32;
            let host = (1u64 << (32 - length)) - 1;
            let first = (10 << 24 | random(200) << 16 | random(1 << 16)) & !host;
            let v4 = |number: u64| Value {
                kind: Kind::V4,
                number: number.into(),
            };
            program.test(field, [(v4(first), v4(first | host))])
        };
        let (from, to) = (prefix(source), prefix(destination));
        let service = program.test_value(port, Value::number(1 + random(500)));
        let guard = program.sequence([from, to, service]);
        arms.push((guard, program.assign(out, Value::number(random(100)))));
    }
    let drop = program.drop();
    let nested = (arms.iter().rev()).fold(drop, |otherwise, arm| {
        program.conditional([*arm], otherwise)
    });
    let chain = program.conditional(arms.clone(), drop);
    arms[count as usize / 2].1 = drop;
    let changed = program.conditional(arms, drop);
    let start = Instant::now();
    let mut verifier = Verifier::new(&program, &[chain, nested, changed], &Options::default())
        .expect("the limits are wide");
    println!("{count} rules: values told apart in {:?}", start.elapsed());
    for (what, node) in [("nested", nested), ("chain", chain), ("changed", changed)] {
        let start = Instant::now();
        let symbolic = verifier.symbolic();
        symbolic.spp_of(node).expect("the limits are wide");
        println!(
            "{what} compiled in {:?}; {} nodes of programs, {} of sets",
            start.elapsed(),
            symbolic.diagrams.len(),
            symbolic.diagrams.sets.len()
        );
    }
    let same = verifier
        .equivalent(chain, nested)
        .expect("the limits are wide");
    let other = verifier
        .equivalent(chain, changed)
        .expect("the limits are wide");
    println!("nested is the same: {}", same.holds());
    if let Some(why) = other.counterexample() {
        println!("changed is not:\n{why}");
    }
}
