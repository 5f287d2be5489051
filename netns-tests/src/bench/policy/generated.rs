//! Questions about a network of 80,000 nodes, which no file holds.
//!
//! The nodes stand in a line. That is the hardest shape for a search by steps, for which one packet
//! takes 80,000 of them. Programs live in memory that has a name in `/proc` only, so nothing has to
//! be cleaned up.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::peers;
use super::programs::{Programs, cpu, in_turns, peak};
use super::report::Section;

const NODES: u32 = 80_000;

/// Measures both questions.
///
/// # Errors
/// When an answer is not as stated.
pub(super) fn run(programs: &Programs, rounds: usize) -> Result<Section> {
    let texts = [reach(NODES), slice(NODES)];
    let files = texts.map(|text| in_memory(&text));
    let files = files.into_iter().collect::<Result<Vec<_>>>()?;
    let invocations = files.iter().map(|file| {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let arguments = ["policy", "verify", "--syntax", "nkpl", &path];
        programs.sunwire(arguments.map(OsString::from))
    });
    let invocations: Vec<_> = invocations.collect();
    let runs = in_turns(&invocations, rounds)?;
    let mut figures = Vec::new();
    let cases = [
        ("line-80000-reach", peers::MEMORY_REACH),
        ("line-80000-slice", peers::MEMORY_SLICE),
    ];
    for ((case, memory), runs) in cases.into_iter().zip(&runs) {
        figures.extend([cpu(case, runs), peak(case, runs).beside(vec![memory])]);
    }
    Ok(Section {
        title: "a network of 80,000 nodes",
        figures,
        notes: vec![
            "the network of the other engine has as many nodes, and another shape".to_owned(),
        ],
    })
}

/// A file without a name, which programs that are started inherit.
fn in_memory(text: &str) -> Result<File> {
    let file = memfd_create("questions", MFdFlags::empty()).context("cannot make a file")?;
    let mut file = File::from(file);
    file.write_all(text.as_bytes())
        .context("cannot write a file")?;
    Ok(file)
}

/// That a packet comes from one end to the other.
fn reach(nodes: u32) -> String {
    let mut text = String::new();
    program(&mut text, "main", "", nodes);
    links(&mut text, nodes);
    let last = nodes - 1;
    let _ = writeln!(text, "check @sw=0⋅((main⋅(top⋅δ))⋆⋅@sw={last}) ≢ ∅");
    text
}

/// That two slices of the line together are as each apart.
fn slice(nodes: u32) -> String {
    let mut text = String::new();
    program(&mut text, "main1", "@slice=1⋅", nodes);
    program(&mut text, "main2", "@slice=2⋅", nodes);
    links(&mut text, nodes);
    text += "check ((main1∪main2)⋅(top⋅δ))⋆ ≡ (main1⋅(top⋅δ))⋆∪(main2⋅(top⋅δ))⋆\n";
    text
}

/// Every node sends on.
fn program(text: &mut String, name: &str, guard: &str, nodes: u32) {
    let _ = write!(text, "{name} = ");
    for node in 0..nodes {
        let union = if node == 0 { "" } else { "∪" };
        let _ = write!(text, "{union}{guard}@sw={node}⋅@pt←1");
    }
    text.push('\n');
}

/// Every node but the last is linked to the next.
fn links(text: &mut String, nodes: u32) {
    text.push_str("top = ");
    for node in 0..nodes - 1 {
        let union = if node == 0 { "" } else { "∪" };
        let next = node + 1;
        let _ = write!(text, "{union}@sw={node}⋅@pt=1⋅@sw←{next}⋅@pt←0");
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use sunwire_policy::import::nkpl;
    use sunwire_policy::verify::decide::equivalent;
    use sunwire_policy::verify::options::Options;

    use super::*;

    #[test]
    fn what_the_questions_state_is_so() {
        for text in [reach(40), slice(40)] {
            let imported = nkpl::parse(&text, &mut nkpl::no_imports).unwrap();
            assert_eq!(imported.checks.len(), 1);
            for check in &imported.checks {
                let options = Options::default();
                let answer = equivalent(&imported.program, check.left, check.right, &options);
                assert_eq!(answer.unwrap().holds(), check.equal);
            }
        }
    }
}
