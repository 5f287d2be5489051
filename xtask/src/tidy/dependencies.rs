//! Which crate of the workspace may know which: dependencies point one way.

use serde_json::Value;

use super::Finding;

/// A crate and what it may depend on, of our own crates.
struct Layer {
    package: &'static str,
    /// For building and running.
    may_know: &'static [&'static str],
    /// Besides those, for its tests.
    tests_may_know: &'static [&'static str],
}

/// From the innermost outwards. `sunwire-policy` is pure and knows the layout of the tables only;
/// nobody knows the controller or the agent but the binary and the end-to-end tests; the lab
/// knows nothing of ours, so that it can be used to test anything. The agent's tests compare the
/// kernel with the policy evaluator.
const LAYERS: &[Layer] = &[
    Layer {
        package: "sunwire-dataplane-common",
        may_know: &[],
        tests_may_know: &[],
    },
    Layer {
        package: "sunwire-dataplane-ebpf",
        may_know: &["sunwire-dataplane-common"],
        tests_may_know: &[],
    },
    Layer {
        package: "sunwire-policy",
        may_know: &["sunwire-dataplane-common"],
        tests_may_know: &[],
    },
    Layer {
        package: "sunwire-api",
        may_know: &["sunwire-dataplane-common"],
        tests_may_know: &[],
    },
    Layer {
        package: "sunwire-controller",
        may_know: &["sunwire-dataplane-common", "sunwire-api", "sunwire-policy"],
        tests_may_know: &[],
    },
    Layer {
        package: "sunwire-userspace",
        may_know: &["sunwire-dataplane-common", "sunwire-api"],
        tests_may_know: &["sunwire-policy"],
    },
    Layer {
        package: "sunwire-lab",
        may_know: &[],
        tests_may_know: &[],
    },
    Layer {
        package: "sunwire-cli",
        may_know: &[
            "sunwire-dataplane-common",
            "sunwire-api",
            "sunwire-policy",
            "sunwire-controller",
            "sunwire-userspace",
            "sunwire-lab",
        ],
        tests_may_know: &[],
    },
    Layer {
        package: "sunwire-netns-tests",
        may_know: &[
            "sunwire-dataplane-common",
            "sunwire-api",
            "sunwire-policy",
            "sunwire-controller",
            "sunwire-userspace",
            "sunwire-lab",
        ],
        tests_may_know: &[],
    },
    Layer {
        package: "xtask",
        may_know: &[],
        tests_may_know: &[],
    },
];

/// Checks the output of `cargo metadata --no-deps`.
pub(super) fn check(metadata: &Value) -> Vec<Finding> {
    let empty = Vec::new();
    let packages = metadata["packages"].as_array().unwrap_or(&empty);
    let ours: Vec<&str> = packages.iter().filter_map(|p| p["name"].as_str()).collect();
    let root = metadata["workspace_root"].as_str().unwrap_or_default();
    let mut findings = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let manifest = package["manifest_path"].as_str().unwrap_or_default();
        let manifest = manifest
            .strip_prefix(root)
            .unwrap_or(manifest)
            .trim_start_matches('/');
        let Some(layer) = LAYERS.iter().find(|layer| layer.package == name) else {
            findings.push(Finding::new(
                manifest,
                0,
                format!(
                    "the package {name} has no place in xtask/src/tidy/dependencies.rs: say there \
                     what it may depend on"
                ),
            ));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap_or(&empty) {
            let known = dependency["name"].as_str().unwrap_or_default();
            let for_tests = dependency["kind"] == "dev";
            // A crate's tests may ask the crate itself for a feature.
            let permitted = !ours.contains(&known)
                || (for_tests && known == name)
                || layer.may_know.contains(&known)
                || (for_tests && layer.tests_may_know.contains(&known));
            if !permitted {
                findings.push(Finding::new(
                    manifest,
                    0,
                    format!("{name} must not depend on {known}: dependencies point one way"),
                ));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::check;

    fn workspace(name: &str, dependency: &str, kind: Value) -> Value {
        let package = |name: &str, dependencies: Value| {
            json!({
                "name": name,
                "manifest_path": format!("/w/{name}/Cargo.toml"),
                "dependencies": dependencies,
            })
        };
        json!({"workspace_root": "/w", "packages": [
            package("sunwire-dataplane-common", json!([])),
            package("sunwire-policy", json!([])),
            package(name, json!([{"name": dependency, "kind": kind}, {"name": "serde"}])),
        ]})
    }

    #[test]
    fn a_dependency_against_the_direction_is_found() {
        let findings = check(&workspace("sunwire-lab", "sunwire-policy", Value::Null));
        assert_eq!(
            findings[0].to_string(),
            "sunwire-lab/Cargo.toml: sunwire-lab must not depend on sunwire-policy: dependencies \
             point one way"
        );
    }

    #[test]
    fn a_dependency_with_the_direction_is_not() {
        let outward = workspace("sunwire-api", "sunwire-dataplane-common", Value::Null);
        assert_eq!(check(&outward), []);
    }

    #[test]
    fn what_only_tests_may_know_is_refused_elsewhere() {
        let name = "sunwire-userspace";
        assert_eq!(check(&workspace(name, "sunwire-policy", json!("dev"))), []);
        assert_eq!(
            check(&workspace(name, "sunwire-policy", Value::Null)).len(),
            1
        );
    }

    #[test]
    fn tests_may_ask_their_own_crate_for_a_feature() {
        let name = "sunwire-lab";
        assert_eq!(check(&workspace(name, name, json!("dev"))), []);
    }

    #[test]
    fn a_package_without_a_place_is_found() {
        let findings = check(&workspace("sunwire-new", "serde", Value::Null));
        assert!(findings[0].message.contains("has no place"));
    }
}
