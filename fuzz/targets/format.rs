//! Feeds `sunwire_policy::testing::targets::formatted`, by `cargo xtask fuzz format`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sunwire_policy::testing::targets::formatted(input));
