//! `count`, `log`, `limit` and `mirror` do what the evaluator says, for the first packet of a flow and
//! for later ones.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod fixture;
mod verbs;
