//! The sunwire command.
fn main() {}
