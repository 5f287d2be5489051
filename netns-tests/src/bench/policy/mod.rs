//! What policies cost where packets meet them.

mod rules;
pub mod walk;
