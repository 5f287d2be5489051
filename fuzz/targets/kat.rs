//! Feeds `sunwire_policy::testing::targets::frenetic`, by `cargo xtask fuzz kat`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sunwire_policy::testing::targets::frenetic(input));
