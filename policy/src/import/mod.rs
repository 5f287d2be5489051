//! Programs of other NetKAT tools, read into a [`Program`](crate::verify::program::Program).
//!
//! - [`nkpl`]: KATch's language (Moeller et al., PLDI 2024): definitions, loops, imports and
//!   checks.
//! - [`kat`]: Frenetic's concrete syntax.
//!
//! No input makes an importer panic or exhaust memory or stack: the text, its nesting, its loops
//! and definitions, and the program that comes of them are limited ([`limits`]), and every refusal
//! is a located diagnostic. Importers read no files themselves; the caller gives them the texts.

mod builder;
pub mod kat;
pub mod limits;
pub mod nkpl;
