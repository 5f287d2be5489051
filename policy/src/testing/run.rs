//! Runs properties: how many cases, from which seed.

use std::fmt::Debug;
use std::hash::{BuildHasher, Hasher};

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

/// Checks a property on random values and panics with the smallest counterexample found.
///
/// The number of cases is `default_cases`, or `SUNWIRE_CASES` when that is set. The seed is random,
/// or `SUNWIRE_SEED`; it is printed, so that a failure can be repeated.
///
/// # Panics
/// When the property does not hold.
pub fn for_all<S: Strategy>(
    name: &str,
    default_cases: u32,
    values: &S,
    property: impl Fn(S::Value) -> Result<(), String>,
) where
    S::Value: Debug,
{
    let number = |variable: &str| {
        std::env::var(variable)
            .ok()
            .and_then(|text| text.parse().ok())
    };
    let cases = number("SUNWIRE_CASES").map_or(default_cases, |cases: u64| cases as u32);
    let seed: u64 = number("SUNWIRE_SEED").unwrap_or_else(|| {
        // The standard library seeds its hash tables at random, which needs no clock.
        std::hash::RandomState::new().build_hasher().finish()
    });
    eprintln!("{name}: SUNWIRE_SEED={seed} SUNWIRE_CASES={cases}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 4096,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let outcome = runner.run(values, |value| property(value).map_err(TestCaseError::fail));
    if let Err(error) = outcome {
        panic!(
            "{name} does not hold (SUNWIRE_SEED={seed} SUNWIRE_CASES={cases} repeats it): {error}"
        );
    }
}
