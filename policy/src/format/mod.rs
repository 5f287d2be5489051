//! The formatter: the same policy, laid out evenly.
//!
//! ```text
//! text --trivia--> tokens and comments --items, expression--> layout --render--> text --align--> text
//! ```
//!
//! Only white space changes: the tokens and the comments of the result are those of the text, in
//! their order, so its meaning is too. What the layout depends on survives it, so formatting twice
//! gives what formatting once gives:
//!
//! - Lines are at most [`WIDTH`] characters long where there is a place to break them.
//! - A chain of `else if` has one arm on each line. A single `if … else`, a list in braces, and
//!   operands of `+`, `;` and `or` stay on several lines when their author began a new line at the
//!   first place where the layout would.
//! - Of blank lines between definitions, cases and arms one is kept.
//! - `then`, `=` and `:` of neighbouring lines are aligned when their author aligned any of them;
//!   comments at the ends of neighbouring lines always are.
//!
//! Time and memory grow linearly with the text, and the stack with its nesting, which the parser
//! limits.

mod align;
mod expression;
mod item;
mod layout;
mod render;
mod trivia;
mod value;

use crate::diagnostic::Diagnostic;
use crate::parser::parse;
use layout::Layout;
use trivia::Lexed;

/// Greatest length of a line in characters, where it can be broken.
pub const WIDTH: usize = 100;
/// Characters of one step of indentation.
const STEP: usize = 4;

/// The text laid out evenly.
///
/// # Errors
///
/// A text that does not parse is refused with everything that was found in it, warnings included.
pub fn format(text: &str) -> Result<String, Vec<Diagnostic>> {
    let (document, diagnostics) = parse(text);
    if diagnostics.iter().any(Diagnostic::is_error) {
        return Err(diagnostics);
    }
    let lexed = Lexed::new(text);
    let mut layout = Layout::new(&lexed);
    layout.document(&document.items);
    let formatted = align::align(render::render(&layout.finish(), &lexed));
    // A policy decides about packets: should the layout ever lose a token, the author's stays.
    let same = Lexed::new(&formatted).same_content(&lexed);
    debug_assert!(same, "formatting changed {text:?} to {formatted:?}");
    Ok(if same { formatted } else { text.to_owned() })
}
