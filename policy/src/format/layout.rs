//! The layout: tokens and comments with the places between them where lines may break.
//!
//! A group stands on one line when it fits there; otherwise all its own places break, but not those
//! of groups within it. A comment that must end its line breaks every group around it. The layout
//! is one flat list of steps, so no nesting can exhaust the stack of the renderer.

use super::trivia::Lexed;
use crate::token::Token;

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A token.
    Token(u32),
    /// A comment.
    Comment(u32),
    /// A comment that ends the line of the token before; it does not count for the line's length.
    Trailing(u32),
    /// A space.
    Space,
    /// A space, a place of alignment: the row of its table.
    Anchor(u32),
    /// A place to break; otherwise a space, or nothing.
    Line {
        space: bool,
        /// An empty line before the next, when it breaks.
        blank: bool,
    },
    /// Breaks when this group does; otherwise a space, which is the anchor of a row.
    LineIf { group: u32, row: u32 },
    /// Breaks when what follows up to the given step does not fit behind it.
    Fill(u32),
    /// Always breaks.
    Hard { blank: bool },
    /// A step deeper, or back.
    Indent(i32),
    /// A group begins.
    Open(u32),
    /// The last group that began ends.
    Close,
}

/// What stands between two tokens when no comment does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Between {
    Nothing,
    Space,
    /// A space, or a break with the group.
    Line,
    /// Nothing, or a break with the group.
    Soft,
    /// A break with the group, after which a blank line is kept.
    LineKeepingBlank,
    /// A place to fill lines; broken when so asked.
    Fill {
        broken: bool,
    },
    /// A break, after which a blank line is kept.
    Hard,
    /// A space that may be widened, in this row.
    Anchor(u32),
    /// A space that may be widened, or a break with an earlier group.
    LineIf {
        group: u32,
        row: u32,
    },
}

/// No row of a table.
pub(super) const NO_ROW: u32 = u32::MAX;

/// Lines whose anchors are aligned, when any of them was by the author.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// Rows of one table have the same number.
    pub(super) table: u32,
    /// Whether the author set this row's anchor off by more than one space.
    pub(super) padded: bool,
    /// Whether only rows on directly following lines belong together.
    pub(super) adjacent: bool,
}

/// What is handed to the renderer.
pub(super) struct Finished {
    pub(super) steps: Vec<Step>,
    /// For each group, whether it must break.
    pub(super) broken: Vec<bool>,
    pub(super) rows: Vec<Row>,
}

/// Builds a layout, passing over the tokens once.
pub(super) struct Layout<'a> {
    lexed: &'a Lexed<'a>,
    /// The next token.
    at: usize,
    /// The token before which the space is already decided.
    decided: Option<usize>,
    steps: Vec<Step>,
    broken: Vec<bool>,
    open: Vec<u32>,
    rows: Vec<Row>,
    tables: u32,
}

impl<'a> Layout<'a> {
    pub(super) fn new(lexed: &'a Lexed<'a>) -> Self {
        Layout {
            lexed,
            at: 0,
            decided: None,
            steps: Vec::with_capacity(lexed.len() * 2),
            broken: Vec::new(),
            open: Vec::new(),
            rows: Vec::new(),
            tables: 0,
        }
    }

    pub(super) fn finish(self) -> Finished {
        Finished {
            steps: self.steps,
            broken: self.broken,
            rows: self.rows,
        }
    }

    /// The number of the next token.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn lexed(&self) -> &'a Lexed<'a> {
        self.lexed
    }

    pub(super) fn peek(&self) -> Token<'a> {
        self.lexed.token(self.at)
    }

    pub(super) fn is_sign(&self, sign: &str) -> bool {
        matches!(self.peek(), Token::Sign(s) if s == sign)
    }

    pub(super) fn is_word(&self, word: &str) -> bool {
        self.peek() == Token::Ident(word)
    }

    /// Whether the next token begins before this byte.
    pub(super) fn before(&self, end: u32) -> bool {
        self.at < self.lexed.len() && self.lexed.span(self.at).start < end
    }

    /// Whether the author began a new line before the next token, or before one further on.
    pub(super) fn broken_before(&self, ahead: usize) -> bool {
        self.lexed.broken_before(self.at + ahead)
    }

    /// Begins a group.
    pub(super) fn open(&mut self) -> u32 {
        let group = self.broken.len() as u32;
        self.broken.push(false);
        self.open.push(group);
        self.steps.push(Step::Open(group));
        group
    }

    /// Ends the last group that began. What breaks a group breaks those around it.
    pub(super) fn close(&mut self) {
        let group = self.open.pop().expect("every close has its open");
        self.steps.push(Step::Close);
        if self.broken[group as usize] {
            self.break_all();
        }
    }

    /// Breaks a group.
    pub(super) fn break_group(&mut self, group: u32) {
        self.broken[group as usize] = true;
    }

    /// Breaks the innermost group; the others follow when it ends.
    fn break_all(&mut self) {
        if let Some(group) = self.open.last() {
            self.broken[*group as usize] = true;
        }
    }

    pub(super) fn indent(&mut self) {
        self.steps.push(Step::Indent(1));
    }

    pub(super) fn dedent(&mut self) {
        self.steps.push(Step::Indent(-1));
    }

    /// A new table of rows to align.
    pub(super) fn table(&mut self) -> u32 {
        self.tables += 1;
        self.tables
    }

    /// A row of a table, whose anchor is before the next token.
    pub(super) fn row(&mut self, table: u32, adjacent: bool) -> u32 {
        self.rows.push(Row {
            table,
            padded: self.lexed.padded_before(self.at),
            adjacent,
        });
        self.rows.len() as u32 - 1
    }

    /// Writes the next token.
    pub(super) fn token(&mut self) {
        if self.at >= self.lexed.len() {
            return;
        }
        if self.decided != Some(self.at) {
            self.gap(self.usual());
        }
        self.steps.push(Step::Token(self.at as u32));
        self.at += 1;
    }

    /// Writes a token with nothing special around it, up to a byte.
    pub(super) fn tokens(&mut self, end: u32) {
        while self.before(end) {
            self.token();
        }
    }

    /// What usually stands before the next token.
    fn usual(&self) -> Between {
        let Some(last) = self.at.checked_sub(1) else {
            return Between::Hard;
        };
        let before = self.lexed.token(last);
        let tight = matches!(before, Token::Sign("(" | "@" | "-" | "/" | "!"))
            || matches!(
                self.peek(),
                Token::Sign(")" | "," | ";" | "*" | "@" | "-" | "/")
            )
            || matches!((before, self.peek()), (Token::Ident(_), Token::Sign("(")));
        match tight {
            true => Between::Nothing,
            false => Between::Space,
        }
    }

    /// Decides what stands before the next token, with the comments that are there.
    pub(super) fn gap(&mut self, between: Between) {
        if self.decided == Some(self.at) {
            return;
        }
        self.decided = Some(self.at);
        let comments = self.comments(between);
        self.separate(between, comments);
    }

    /// As [`gap`](Self::gap) before a bracket that closes: its comments belong inside.
    pub(super) fn gap_closing(&mut self, between: Between) {
        self.decided = Some(self.at);
        let comments = self.comments(between);
        self.dedent();
        self.separate(between, comments);
    }

    /// Writes the comments before the next token; returns what must follow them, if any did.
    fn comments(&mut self, between: Between) -> Option<After> {
        let keeps = matches!(between, Between::Hard | Between::LineKeepingBlank);
        // In the middle of a line what follows a break is one step deeper.
        let inner = matches!(between, Between::Nothing | Between::Space) && self.at > 0;
        let mut after = None;
        let numbers = self.lexed.comments_before(self.at);
        for number in numbers.clone() {
            let comment = self.lexed.comment(number);
            let breaks_behind = match numbers.contains(&(number + 1)) {
                true => self.lexed.comment(number + 1).breaks,
                false => self.lexed.breaks_before(self.at),
            };
            let first = self.steps.is_empty();
            if comment.breaks > 0 || after == Some(After::Break) {
                if !first {
                    self.hard(keeps && comment.breaks > 1, inner);
                }
                self.steps.push(Step::Comment(number as u32));
            } else if comment.is_line() {
                self.steps.push(Step::Trailing(number as u32));
            } else {
                self.steps.push(Step::Space);
                self.steps.push(Step::Comment(number as u32));
            }
            if comment.text.contains('\n') {
                self.break_all();
            }
            let ends = comment.is_line() || comment.breaks > 0 && breaks_behind > 0;
            after = Some(if ends { After::Break } else { After::Space });
        }
        after
    }

    fn separate(&mut self, between: Between, comments: Option<After>) {
        let breaks = self.lexed.breaks_before(self.at);
        match (comments, between) {
            (Some(After::Break), _) => {
                let keeps = matches!(between, Between::Hard | Between::LineKeepingBlank);
                let inner = matches!(between, Between::Nothing | Between::Space);
                self.hard(keeps && breaks > 1, inner && self.at > 0);
            }
            (Some(After::Space), Between::Nothing) => self.steps.push(Step::Space),
            (Some(After::Space), Between::Soft) => self.steps.push(Step::Line {
                space: true,
                blank: false,
            }),
            (None, Between::Hard) if self.steps.is_empty() => {}
            _ => self.plain(between, breaks > 1),
        }
    }

    fn plain(&mut self, between: Between, blank: bool) {
        let step = match between {
            Between::Nothing => return,
            Between::Space => Step::Space,
            Between::Line | Between::LineKeepingBlank => Step::Line {
                space: true,
                blank: blank && between == Between::LineKeepingBlank,
            },
            Between::Soft => Step::Line {
                space: false,
                blank: false,
            },
            Between::Fill { broken: false } => Step::Fill(0),
            Between::Fill { broken: true } => return self.hard(false, false),
            Between::Hard => return self.hard(blank, false),
            Between::Anchor(row) => Step::Anchor(row),
            Between::LineIf { group, row } => Step::LineIf { group, row },
        };
        self.steps.push(step);
    }

    fn hard(&mut self, blank: bool, inner: bool) {
        if inner {
            self.steps.push(Step::Indent(1));
        }
        self.steps.push(Step::Hard { blank });
        if inner {
            self.steps.push(Step::Indent(-1));
        }
        self.break_all();
    }

    /// Where the next step will stand.
    pub(super) fn next_step(&self) -> usize {
        self.steps.len()
    }

    /// Tells the places to fill in these steps that what they lead to ends here.
    pub(super) fn end_fill(&mut self, from: usize, to: usize) {
        let end = self.steps.len() as u32;
        for step in &mut self.steps[from..to] {
            if let Step::Fill(until) = step {
                *until = end;
            }
        }
    }
}

/// What must follow the comments before a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Break,
    Space,
}
