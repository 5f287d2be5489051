//! Feeds `sunwire_policy::testing::targets::katch`, by `cargo xtask fuzz nkpl`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sunwire_policy::testing::targets::katch(input));
