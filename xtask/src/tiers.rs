//! The tiers of tests, read from `xtask/tiers.json`: what belongs to each, and how many tests of it
//! must run at least.
//!
//! Every integration test of the workspace belongs to exactly one tier: the first one whose
//! `test_prefix` begins the test's name, else the one that lists its package, else the one that
//! takes `other_tests`. Unit tests of libraries and programs, and documentation examples, belong
//! to the tier with `units`.

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// One tier of tests.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tier {
    pub(crate) name: String,
    /// For people, what it tests.
    pub(crate) about: String,
    /// Whether `--quick` runs it.
    pub(crate) quick: bool,
    /// Tests that must run, passed or failed; skipped ones do not count.
    pub(crate) minimum: u64,
    /// Tests at a time, where the default (one per processor) would disturb them.
    pub(crate) threads: Option<u64>,
    /// Whether the unit tests and documentation examples of all packages are in it.
    pub(crate) units: bool,
    /// The names of the integration tests in it, sorted.
    pub(crate) tests: Vec<String>,
}

/// Reads the table and assigns `tests`, pairs of package and name, to the tiers.
///
/// # Errors
/// When the table is malformed or a test would be in several tiers or in none.
pub(crate) fn assign(table: &str, tests: &[(String, String)]) -> Result<Vec<Tier>> {
    let table: Value = serde_json::from_str(table).context("tiers.json is not JSON")?;
    let rows = table["tiers"]
        .as_array()
        .context("tiers.json: `tiers` is not a list")?;
    let mut tiers = rows.iter().map(tier).collect::<Result<Vec<_>>>()?;
    for (package, test) in tests {
        let by_prefix = |row: &Value| {
            row["test_prefix"]
                .as_str()
                .is_some_and(|prefix| test.starts_with(prefix))
        };
        let by_package = |row: &Value| {
            row["test_packages"]
                .as_array()
                .is_some_and(|packages| packages.iter().any(|name| name == package))
        };
        let index = rows
            .iter()
            .position(by_prefix)
            .or_else(|| rows.iter().position(by_package))
            .or_else(|| rows.iter().position(|row| row["other_tests"] == true))
            .with_context(|| format!("tiers.json: no tier takes the test {test} of {package}"))?;
        // Cargo selects tests by name alone, so a name must mean one tier.
        if let Some(other) = tiers
            .iter()
            .enumerate()
            .find(|(other, tier)| *other != index && tier.tests.contains(test))
        {
            bail!(
                "the test name {test} of {package} is used in tiers {} and {}: rename one",
                other.1.name,
                tiers[index].name
            );
        }
        tiers[index].tests.push(test.clone());
    }
    for tier in &mut tiers {
        tier.tests.sort();
        tier.tests.dedup();
    }
    Ok(tiers)
}

fn tier(row: &Value) -> Result<Tier> {
    let name = row["name"]
        .as_str()
        .context("tiers.json: a tier has no name")?;
    Ok(Tier {
        name: name.to_owned(),
        about: row["about"].as_str().unwrap_or_default().to_owned(),
        quick: row["quick"] == true,
        minimum: row["minimum"]
            .as_u64()
            .with_context(|| format!("tiers.json: tier {name} has no minimum"))?,
        threads: row["threads"].as_u64(),
        units: row["units"] == true,
        tests: Vec::new(),
    })
}

/// The integration tests in the output of `cargo metadata --no-deps`, as pairs of package and name.
pub(crate) fn integration_tests(metadata: &Value) -> Vec<(String, String)> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut tests = Vec::new();
    for package in list(&metadata["packages"]) {
        for target in list(&package["targets"]) {
            if list(&target["kind"]).iter().any(|kind| kind == "test")
                && let (Some(package), Some(test)) =
                    (package["name"].as_str(), target["name"].as_str())
            {
                tests.push((package.to_owned(), test.to_owned()));
            }
        }
    }
    tests
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{assign, integration_tests};

    const TABLE: &str = include_str!("../tiers.json");

    fn owned(tests: &[(&str, &str)]) -> Vec<(String, String)> {
        tests
            .iter()
            .map(|(package, test)| ((*package).to_owned(), (*test).to_owned()))
            .collect()
    }

    #[test]
    fn prefix_precedes_package_precedes_the_rest() {
        let tests = owned(&[
            ("sunwire-userspace", "kernel_decap"),
            ("sunwire-netns-tests", "kernel_limits"),
            ("sunwire-netns-tests", "move_endpoint"),
            ("sunwire-policy", "laws"),
        ]);
        let tiers = assign(TABLE, &tests).unwrap();
        let tests_of = |name: &str| &tiers.iter().find(|tier| tier.name == name).unwrap().tests;
        assert_eq!(tests_of("kernel"), &["kernel_decap", "kernel_limits"]);
        assert_eq!(tests_of("lab"), &["move_endpoint"]);
        assert_eq!(tests_of("unit"), &["laws"]);
    }

    #[test]
    fn a_name_in_two_tiers_is_refused() {
        let tests = owned(&[("sunwire-policy", "links"), ("sunwire-lab", "links")]);
        let error = assign(TABLE, &tests).unwrap_err().to_string();
        assert!(error.contains("tiers unit and lab: rename one"), "{error}");
    }

    #[test]
    fn a_tier_without_minimum_is_refused() {
        let error = assign(r#"{"tiers":[{"name":"unit"}]}"#, &[]).unwrap_err();
        assert_eq!(error.to_string(), "tiers.json: tier unit has no minimum");
    }

    #[test]
    fn only_integration_tests_are_taken_from_metadata() {
        let metadata = json!({"packages": [{"name": "a", "targets": [
            {"kind": ["lib"], "name": "a"},
            {"kind": ["test"], "name": "t"},
            {"kind": ["custom-build"], "name": "build-script-build"},
        ]}]});
        assert_eq!(integration_tests(&metadata), owned(&[("a", "t")]));
    }
}
