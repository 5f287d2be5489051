//! Proving: questions about programs answered for all packets at once.
//!
//! - [`program`]: NetKAT programs over named fields, with `dup`, the common input of the verifier.
//!   Policies of this language and imported ones are both turned into it.

pub mod program;
