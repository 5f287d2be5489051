//! How large an imported program may be.
//!
//! Each limit is far above what people and generators write and far below what would exhaust a
//! machine: the worst input is refused within seconds and a gigabyte.

/// Greatest length of one text in bytes.
pub const MAX_SOURCE_BYTES: usize = 32 << 20;
/// Greatest nesting of parentheses, conditionals and loops in one text.
pub const MAX_NESTING: usize = 256;
/// Greatest nesting of the program that definitions build on each other.
pub const MAX_DEPTH: u16 = 1024;
/// Most operands of all unions and sequences of one program together, as they are flattened.
pub const MAX_OPERANDS: usize = 8 << 20;
/// Most nodes of one program.
pub const MAX_NODES: usize = 2 << 20;
/// Most fields of one program.
pub const MAX_FIELDS: usize = 1024;
/// Most bytes of text read: loops read their bodies, and imports their files, once each time.
pub const MAX_READ_BYTES: usize = 64 << 20;
/// Most rounds of all loops together.
pub const MAX_ROUNDS: usize = 100_000;
/// Most files that one program imports.
pub const MAX_IMPORTS: usize = 1000;
/// Greatest nesting of imports.
pub const MAX_IMPORT_DEPTH: usize = 32;
/// Most checks of one program.
pub const MAX_CHECKS: usize = 100_000;
