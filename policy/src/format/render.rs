//! Steps of a layout to lines, in one pass.
//!
//! A group stands on one line when everything up to the next place to break behind it fits.

use super::layout::{Finished, NO_ROW, Row, Step};
use super::trivia::Lexed;
use super::{STEP, WIDTH};

/// Lines, with the places that may be aligned.
pub(super) struct Rendered {
    pub(super) text: String,
    /// Length of each line in characters, without the comment at its end.
    pub(super) lengths: Vec<u32>,
    /// Places of alignment in order.
    pub(super) anchors: Vec<Anchor>,
    /// Comments at the ends of lines in order: their line, and the byte before which they are set
    /// off.
    pub(super) trailing: Vec<(u32, usize)>,
}

/// A place of alignment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Anchor {
    pub(super) row: Row,
    pub(super) line: u32,
    /// Characters before it on its line; none when it was moved to a line of its own.
    pub(super) column: Option<u32>,
    /// The byte before which it may be widened.
    pub(super) at: usize,
}

struct Renderer {
    out: Rendered,
    column: usize,
    indent: i32,
    /// A line has begun and nothing stands on it yet, not even the blanks before `column`.
    fresh: bool,
}

/// Renders a layout.
pub(super) fn render(layout: &Finished, lexed: &Lexed<'_>) -> Rendered {
    let steps = &layout.steps;
    let widths = Widths::new(steps, lexed);
    let mut broken = layout.broken.clone();
    let mut open: Vec<bool> = vec![true];
    let closing = closings(steps, broken.len());
    let mut renderer = Renderer {
        out: Rendered {
            text: String::new(),
            lengths: Vec::new(),
            anchors: Vec::new(),
            trailing: Vec::new(),
        },
        column: 0,
        indent: 0,
        fresh: true,
    };
    for (at, step) in steps.iter().enumerate() {
        let breaks = *open.last().unwrap_or(&true);
        match *step {
            Step::Token(token) => renderer.write(lexed.written(token as usize)),
            Step::Comment(comment) => renderer.write(lexed.comment(comment as usize).text),
            Step::Trailing(comment) => renderer.trailing(lexed.comment(comment as usize).text),
            Step::Space => renderer.space(),
            Step::Anchor(row) => renderer.anchor(layout.rows[row as usize], true),
            Step::Line { blank, .. } if breaks => renderer.newline(blank),
            Step::Line { space, .. } if space => renderer.space(),
            Step::Line { .. } => {}
            Step::LineIf { group, row } => {
                let moved = broken[group as usize];
                if let Some(row) = layout.rows.get(row as usize).filter(|_| row != NO_ROW) {
                    renderer.anchor(*row, !moved);
                } else if !moved {
                    renderer.space();
                }
                if moved {
                    renderer.newline(false);
                }
            }
            Step::Fill(end) => {
                let width = widths.until[end as usize] - widths.until[at];
                match breaks && renderer.column + width as usize > WIDTH {
                    true => renderer.newline(false),
                    false => renderer.space(),
                }
            }
            Step::Hard { blank } => renderer.newline(blank),
            Step::Indent(by) => renderer.indent += by,
            Step::Open(group) => {
                let group = group as usize;
                let close = closing[group] as usize;
                let width = widths.next_break[close] - widths.until[at];
                broken[group] |= renderer.column + width as usize > WIDTH;
                // A group within one that stands on one line does as well.
                broken[group] &= breaks || layout.broken[group];
                open.push(broken[group]);
            }
            Step::Close => {
                open.pop();
            }
        }
    }
    renderer.finish()
}

/// For each group, the step that ends it.
fn closings(steps: &[Step], groups: usize) -> Vec<u32> {
    let mut closing = vec![0; groups];
    let mut open = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        match step {
            Step::Open(group) => open.push(*group as usize),
            Step::Close => {
                if let Some(group) = open.pop() {
                    closing[group] = at as u32;
                }
            }
            _ => {}
        }
    }
    closing
}

/// Lengths of what the steps write when no line breaks.
struct Widths {
    /// Of the steps before each.
    until: Vec<u32>,
    /// Of the steps before the next place to break, from each on.
    next_break: Vec<u32>,
}

impl Widths {
    fn new(steps: &[Step], lexed: &Lexed<'_>) -> Self {
        let mut until = Vec::with_capacity(steps.len() + 1);
        let mut sum = 0u32;
        for step in steps {
            until.push(sum);
            sum = sum.saturating_add(width(step, lexed));
        }
        until.push(sum);
        let mut next_break = vec![sum; steps.len() + 1];
        for (at, step) in steps.iter().enumerate().rev() {
            let breaks = matches!(step, Step::Line { .. } | Step::Hard { .. } | Step::Fill(_));
            next_break[at] = if breaks {
                until[at]
            } else {
                next_break[at + 1]
            };
        }
        Widths { until, next_break }
    }
}

fn width(step: &Step, lexed: &Lexed<'_>) -> u32 {
    let characters = |text: &str| text.lines().next().unwrap_or("").chars().count() as u32;
    match step {
        Step::Token(token) => characters(lexed.written(*token as usize)),
        Step::Comment(comment) => characters(lexed.comment(*comment as usize).text),
        Step::Space | Step::Anchor(_) | Step::LineIf { .. } | Step::Fill(_) => 1,
        Step::Line { space, .. } => u32::from(*space),
        Step::Trailing(_) | Step::Hard { .. } | Step::Indent(_) => 0,
        Step::Open(_) | Step::Close => 0,
    }
}

impl Renderer {
    fn write(&mut self, text: &str) {
        if self.fresh {
            self.out.text.extend(std::iter::repeat_n(' ', self.column));
            self.fresh = false;
        }
        for (at, line) in text.split('\n').enumerate() {
            if at > 0 {
                self.end_line();
            }
            self.out.text.push_str(line);
            self.column += line.chars().count();
        }
    }

    fn space(&mut self) {
        if !self.fresh {
            self.out.text.push(' ');
            self.column += 1;
        }
    }

    /// A comment at the end of a line, which does not count for its length.
    fn trailing(&mut self, text: &str) {
        let column = self.column;
        self.out.text.push_str("  ");
        let line = self.out.lengths.len() as u32;
        self.out.trailing.push((line, self.out.text.len()));
        self.out.text.push_str(text);
        self.column = column;
    }

    fn anchor(&mut self, row: Row, here: bool) {
        let column = self.column as u32;
        if here {
            self.space();
        }
        self.out.anchors.push(Anchor {
            row,
            line: self.out.lengths.len() as u32,
            column: here.then_some(column),
            at: self.out.text.len(),
        });
    }

    fn newline(&mut self, blank: bool) {
        if self.out.text.is_empty() {
            return;
        }
        self.end_line();
        if blank {
            self.end_line();
        }
        self.column = self.indent.max(0) as usize * STEP;
        self.fresh = true;
    }

    fn end_line(&mut self) {
        self.out.text.push('\n');
        self.out.lengths.push(self.column as u32);
        self.column = 0;
    }

    fn finish(mut self) -> Rendered {
        // The last step may have begun a line already.
        if self.fresh {
            while self.out.text.ends_with("\n\n") {
                self.out.text.pop();
                self.out.lengths.pop();
            }
        } else {
            self.end_line();
        }
        self.out
    }
}
