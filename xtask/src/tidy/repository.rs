//! What must be there beside the code: a changelog that is kept, documents whose links lead
//! somewhere, a lock file that names released packages only and is up to date.

use std::fs;
use std::path::Path;

use super::Finding;
use crate::process;

/// Checks the files that stand in the root.
pub(super) fn check(root: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    for path in ["README.md", "LICENSE-MIT", "LICENSE-APACHE"] {
        if !root.join(path).is_file() {
            findings.push(Finding::new(path, 0, "is missing"));
        }
    }
    match fs::read_to_string(root.join("CHANGELOG.md")) {
        Ok(text) => findings.extend(changelog(&text)),
        Err(_) => findings.push(Finding::new("CHANGELOG.md", 0, "is missing")),
    }
    match fs::read_to_string(root.join("Cargo.lock")) {
        Ok(text) => findings.extend(lock_file(&text)),
        Err(_) => findings.push(Finding::new("Cargo.lock", 0, "is missing")),
    }
    let mut metadata = process::cargo();
    metadata
        .args(["metadata", "--locked", "--format-version", "1"])
        .current_dir(root);
    if !process::succeeds(&mut metadata) {
        findings.push(Finding::new(
            "Cargo.lock",
            0,
            "does not fit the manifests: run `cargo metadata` and commit it",
        ));
    }
    findings
}

/// Checks the links of a document at `path`: those to files of this repository lead to one.
pub(super) fn check_links(root: &Path, path: &str, text: &str) -> Vec<Finding> {
    let Some(document) = path.strip_suffix(".md") else {
        return Vec::new();
    };
    let folder = Path::new(document).parent().unwrap_or(Path::new(""));
    links(text)
        .into_iter()
        .filter(|(_, target)| !root.join(folder).join(target).exists())
        .map(|(line, target)| {
            Finding::new(path, line, format!("the link to {target} leads nowhere"))
        })
        .collect()
}

fn changelog(text: &str) -> Option<Finding> {
    let unreleased = text.lines().any(|line| line.starts_with("## [Unreleased]"));
    (!unreleased).then(|| {
        Finding::new(
            "CHANGELOG.md",
            0,
            "has no section `## [Unreleased]` for what is new",
        )
    })
}

fn lock_file(text: &str) -> Vec<Finding> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| line.starts_with("source = \"git+"))
        .map(|(index, _)| {
            Finding::new(
                "Cargo.lock",
                index + 1,
                "a package from a git repository: use a released one",
            )
        })
        .collect()
}

/// The targets of links to files, `[text](target)`, with their lines; without fragments.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut links = Vec::new();
    let mut in_code = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for (at, _) in line.match_indices("](") {
            let rest = &line[at + 2..];
            let target = rest.split([')', ' ', '#']).next().unwrap_or_default();
            let elsewhere = target.contains("://") || target.starts_with("mailto:");
            if !target.is_empty() && !elsewhere {
                links.push((index + 1, target));
            }
        }
    }
    links
}

#[cfg(test)]
mod tests {
    use super::{changelog, check_links, links, lock_file};
    use crate::workspace;

    #[test]
    fn links_to_files_are_found_and_others_are_not() {
        let text = "[a](docs/a.md#part) and [b](https://example.org/x)\n[c](#here)\n```\n[d](e)\n```\n![f](g.png \"h\")\n";
        assert_eq!(links(text), [(1, "docs/a.md"), (6, "g.png")]);
    }

    #[test]
    fn a_link_that_leads_nowhere_is_located() {
        let root = workspace::root();
        let text = "\n[x](src/main.rs) [y](src/none.rs)\n";
        let found = check_links(&root, "xtask/README.md", text);
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].to_string(),
            "xtask/README.md:2: the link to src/none.rs leads nowhere"
        );
        assert_eq!(check_links(&root, "xtask/notes.txt", text), []);
    }

    #[test]
    fn a_changelog_without_room_for_what_is_new_is_found() {
        assert_eq!(changelog("# Changelog\n\n## [Unreleased]\n"), None);
        assert!(changelog("# Changelog\n\n## [0.1.0]\n").is_some());
    }

    #[test]
    fn a_package_from_git_is_located() {
        let text = "[[package]]\nname = \"a\"\nsource = \"git+ssh://example.org/a\"\n";
        assert_eq!(lock_file(text)[0].line, 3);
        assert_eq!(lock_file("source = \"registry+x\"\n"), []);
    }
}
