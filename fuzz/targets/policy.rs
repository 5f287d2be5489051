//! Feeds `sunwire_policy::testing::targets::policy`, by `cargo xtask fuzz policy`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sunwire_policy::testing::targets::policy(input));
