//! The inputs that fuzzing kept (`fuzz/corpus/TARGET/`) are replayed: whatever once broke a promise,
//! or reached code that nothing else reached, is tried with every build.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::Path;

use sunwire_policy::testing::targets::TARGETS;

#[test]
fn every_kept_input_keeps_the_promises_of_its_target() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for target in TARGETS {
        let mut inputs = 0;
        for entry in fs::read_dir(folder.join(target.name)).unwrap() {
            let path = entry.unwrap().path();
            let input = fs::read(&path).unwrap();
            let outcome = std::panic::catch_unwind(|| (target.run)(&input));
            assert!(
                outcome.is_ok(),
                "{} panics on {}",
                target.name,
                path.display()
            );
            inputs += 1;
        }
        assert!(inputs > 10, "{} has only {inputs} kept inputs", target.name);
    }
}

#[test]
fn every_folder_of_kept_inputs_belongs_to_a_target() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for entry in fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(
            TARGETS.iter().any(|target| name == target.name),
            "{} is no target",
            name.display()
        );
    }
}
