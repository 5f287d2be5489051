//! How a source file reads: its head, its length, what it may not contain, and where `unsafe` is.

use std::path::Path;

use super::Finding;
use super::code::code_only;

/// The longest source file. A file this long holds more than one subject long before.
const LINES_MAX: usize = 700;

/// Crate roots in which the compiler must refuse `unsafe`.
const WITHOUT_UNSAFE: &[&str] = &[
    "api/src/lib.rs",
    "cli/src/lib.rs",
    "cli/src/main.rs",
    "controller/src/lib.rs",
    "policy/src/lib.rs",
    "xtask/src/main.rs",
];

/// The only files that may contain `unsafe`, each with a safe face. In the kernel programs every map
/// look-up and helper call is unsafe by its signature, so their whole folder is here.
const WITH_UNSAFE: &[&str] = &[
    "dataplane-ebpf/src/",
    "lab/src/sys.rs",
    "netns-tests/src/bench/ethtool.rs",
    "userspace/src/crypt/sys.rs",
    "userspace/src/netlink/ethtool.rs",
    "userspace/src/programs/link.rs",
    "userspace/src/pod.rs",
    "userspace/tests/fixture/tap.rs",
];

/// Kinds of text files in which blanks are checked.
const TEXT: &[&str] = &["rs", "toml", "md", "proto", "nk", "sh", "json", "in"];

/// Checks one file at `path`, relative to the root.
pub(super) fn check(path: &str, text: &str) -> Vec<Finding> {
    let extension = Path::new(path).extension().and_then(|e| e.to_str());
    let mut findings = Vec::new();
    if extension.is_some_and(|extension| TEXT.contains(&extension)) {
        findings.extend(blanks(path, text));
    }
    if extension == Some("rs") {
        findings.extend(head(path, text));
        findings.extend(length(path, text));
        findings.extend(words(path, text));
    }
    findings
}

/// Checks that the tables above name files that exist.
pub(super) fn check_tables(root: &Path) -> Vec<Finding> {
    WITH_UNSAFE
        .iter()
        .filter(|path| !root.join(path).exists())
        .map(|path| {
            Finding::new(
                "xtask/src/tidy/sources.rs",
                0,
                format!("WITH_UNSAFE names {path}, which does not exist"),
            )
        })
        .collect()
}

fn blanks(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in text.split('\n').enumerate() {
        if line.ends_with([' ', '\t', '\r']) {
            findings.push(Finding::new(
                path,
                index + 1,
                "blanks at the end of the line",
            ));
        }
        if line.contains('\t') {
            findings.push(Finding::new(path, index + 1, "a tab"));
        }
    }
    if !text.is_empty() && !text.ends_with('\n') {
        let last = text.lines().count();
        findings.push(Finding::new(path, last, "no end of line at the end"));
    }
    findings
}

/// A file opens with `//!`; attributes of the whole file may stand before.
fn head(path: &str, text: &str) -> Option<Finding> {
    let mut in_attribute = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("//!") {
            return None;
        }
        in_attribute |= line.starts_with("#![");
        if !in_attribute && !line.is_empty() {
            break;
        }
        if line.ends_with(']') {
            in_attribute = false;
        }
    }
    Some(Finding::new(
        path,
        1,
        "does not open with `//!`: say what it does, what it guarantees and where it sits",
    ))
}

fn length(path: &str, text: &str) -> Option<Finding> {
    let lines = text.lines().count();
    (lines > LINES_MAX).then(|| {
        Finding::new(
            path,
            0,
            format!("{lines} lines, more than {LINES_MAX}: split it by subject"),
        )
    })
}

/// What may not stand in code.
fn words(path: &str, text: &str) -> Vec<Finding> {
    let code = code_only(text);
    let mut findings = Vec::new();
    if WITHOUT_UNSAFE.contains(&path) && !code.contains("#![forbid(unsafe_code)]") {
        findings.push(Finding::new(path, 1, "lacks `#![forbid(unsafe_code)]`"));
    }
    let may_be_unsafe = WITH_UNSAFE.iter().any(|with| match with.ends_with('/') {
        true => path.starts_with(with),
        false => path == *with,
    });
    let mut with_unsafe = false;
    for (index, line) in code.lines().enumerate() {
        let mut find = |message: &str| findings.push(Finding::new(path, index + 1, message));
        if contains_word(line, "todo!") || contains_word(line, "unimplemented!") {
            find("unfinished code");
        }
        if line.contains("#[ignore") {
            find(
                "an ignored test: let it run, or say `SKIPPED name: what is missing` when it cannot",
            );
        }
        // One finding for the file: it is the file that is not in the table.
        if contains_word(line, "unsafe") && !may_be_unsafe && !with_unsafe {
            with_unsafe = true;
            find("`unsafe` outside of the files named in WITH_UNSAFE in xtask/src/tidy/sources.rs");
        }
    }
    findings
}

/// Whether `word` stands in `line` with no letter, digit or underscore beside it.
fn contains_word(line: &str, word: &str) -> bool {
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(in_word) && !line[at + word.len()..].starts_with(in_word)
    })
}

#[cfg(test)]
mod tests {
    use super::{LINES_MAX, check};

    fn messages(path: &str, text: &str) -> Vec<String> {
        check(path, text).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_good_file_has_no_findings() {
        let text = "//! A subject: `todo!` and unsafe are but words here.\nfn f() {}\n";
        assert!(messages("lab/src/x.rs", text).is_empty());
    }

    #[test]
    fn a_file_without_head_is_found() {
        let found = messages("lab/src/x.rs", "use a::b;\n//! Late.\n");
        assert!(found[0].starts_with("lab/src/x.rs:1: does not open"));
    }

    #[test]
    fn attributes_may_stand_before_the_head() {
        let text = "#![no_std]\n#![cfg_attr(\n    test,\n    no_main\n)]\n\n//! A subject.\n";
        assert!(messages("lab/src/x.rs", text).is_empty());
    }

    #[test]
    fn blanks_and_tabs_are_located() {
        let found = messages("README.md", "a \nb\tc\nd");
        assert_eq!(
            found,
            [
                "README.md:1: blanks at the end of the line",
                "README.md:2: a tab",
                "README.md:3: no end of line at the end"
            ]
        );
        assert!(messages("picture.png", "a \n").is_empty());
    }

    #[test]
    fn a_long_file_is_found() {
        let text = format!("//! A subject.\n{}", "fn f() {}\n".repeat(LINES_MAX));
        assert_eq!(messages("lab/src/x.rs", &text).len(), 1);
    }

    #[test]
    fn unfinished_code_and_ignored_tests_are_located() {
        let text = "//! A subject.\nfn f() { todo!() }\n#[ignore = \"slow\"]\nfn g() {\n    unimplemented!()\n}\n";
        let found = messages("lab/src/x.rs", text);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].starts_with("lab/src/x.rs:2: unfinished"));
        assert!(found[1].starts_with("lab/src/x.rs:3: an ignored test"));
    }

    #[test]
    fn unsafe_outside_of_the_table_is_found() {
        let text = "//! A subject.\n#![forbid(unsafe_code)]\nunsafe fn f() {}\nunsafe fn g() {}\n";
        let found = messages("lab/src/x.rs", text);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("lab/src/x.rs:3: `unsafe`"));
        assert!(messages("lab/src/sys.rs", text).is_empty());
        assert!(messages("dataplane-ebpf/src/maps.rs", text).is_empty());
        assert_eq!(messages("dataplane-ebpf/tests/maps.rs", text).len(), 1);
    }

    #[test]
    fn pure_crates_must_forbid_unsafe() {
        let found = messages("policy/src/lib.rs", "//! A subject.\n");
        assert!(found[0].contains("forbid(unsafe_code)"));
        let commented = "//! A subject.\n// #![forbid(unsafe_code)]\n";
        assert_eq!(messages("policy/src/lib.rs", commented).len(), 1);
    }
}
