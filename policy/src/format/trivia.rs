//! Tokens with what stands between them: every byte of a text is a token, a comment or blank.

use crate::diagnostic::{Sink, Span};
use crate::token::{Token, tokens};

/// A comment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Comment<'a> {
    /// From `--` or `(*`, without blanks at the end.
    pub(super) text: &'a str,
    /// Line breaks between it and what stands before it; at the start of the text at least one.
    pub(super) breaks: u32,
}

impl Comment<'_> {
    /// Whether it runs to the end of its line, so that nothing can follow there.
    pub(super) fn is_line(&self) -> bool {
        self.text.starts_with("--")
    }
}

/// What stands before a token.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    /// Its first comment; the last is the one before the next token's first.
    comments: u32,
    /// Line breaks between the last comment, or the token before, and this token.
    breaks: u32,
    /// Whether there is a line break anywhere but within a comment.
    broken: bool,
    /// Whether more than one space stands directly before the token, on its line.
    padded: bool,
}

/// A text as tokens and comments.
pub(super) struct Lexed<'a> {
    text: &'a str,
    /// Ends with [`Token::End`].
    tokens: Vec<(Token<'a>, Span)>,
    before: Vec<Before>,
    comments: Vec<Comment<'a>>,
    /// For a bracket or brace that opens, the token that closes it; for others the token itself.
    closing: Vec<u32>,
}

impl<'a> Lexed<'a> {
    /// Splits a text; what cannot be read is the parser's to report.
    pub(super) fn new(text: &'a str) -> Self {
        let tokens = tokens(text, &mut Sink::new("".into()));
        let mut before = Vec::with_capacity(tokens.len());
        let mut comments = Vec::new();
        let mut at = 0;
        for (_, span) in &tokens {
            let blank = text.get(at..span.start as usize).unwrap_or("");
            let tail = &blank[blank.trim_end().len()..];
            let first = comments.len();
            let breaks = split(blank, at == 0, &mut comments);
            before.push(Before {
                comments: first as u32,
                breaks,
                broken: breaks > 0 || comments[first..].iter().any(|c: &Comment<'_>| c.breaks > 0),
                padded: !tail.contains('\n') && tail.chars().nth(1).is_some(),
            });
            at = span.end as usize;
        }
        let closing = closing(&tokens);
        Lexed {
            text,
            tokens,
            before,
            comments,
            closing,
        }
    }

    /// Number of tokens, the end not counted.
    pub(super) fn len(&self) -> usize {
        self.tokens.len() - 1
    }

    /// A token; behind the last one, the end.
    pub(super) fn token(&self, at: usize) -> Token<'a> {
        self.tokens[at.min(self.len())].0
    }

    /// Where a token stands; behind the last one, where the text ends.
    pub(super) fn span(&self, at: usize) -> Span {
        self.tokens[at.min(self.len())].1
    }

    /// A token as written.
    pub(super) fn written(&self, at: usize) -> &'a str {
        let span = self.span(at);
        self.text
            .get(span.start as usize..span.end as usize)
            .unwrap_or("")
    }

    /// A comment.
    pub(super) fn comment(&self, at: usize) -> Comment<'a> {
        self.comments[at]
    }

    /// The comments before a token.
    pub(super) fn comments_before(&self, at: usize) -> std::ops::Range<usize> {
        let end = self.before.get(at + 1).map(|next| next.comments as usize);
        self.before[at].comments as usize..end.unwrap_or(self.comments.len())
    }

    /// Line breaks directly before a token.
    pub(super) fn breaks_before(&self, at: usize) -> u32 {
        self.before[at].breaks
    }

    /// Whether a line ends anywhere between a token and the one before.
    pub(super) fn broken_before(&self, at: usize) -> bool {
        self.before[at.min(self.len())].broken
    }

    /// Whether a token is set off by more than one space, for alignment.
    pub(super) fn padded_before(&self, at: usize) -> bool {
        self.before[at.min(self.len())].padded
    }

    /// The token that closes this one's bracket or brace.
    pub(super) fn closing(&self, at: usize) -> usize {
        self.closing[at] as usize
    }

    /// Whether both hold the same tokens and comments in the same order.
    pub(super) fn same_content(&self, other: &Lexed<'_>) -> bool {
        let same_comments = |at: usize| {
            let (ours, theirs) = (self.comments_before(at), other.comments_before(at));
            ours.len() == theirs.len()
                && ours
                    .zip(theirs)
                    .all(|(a, b)| self.comments[a].text == other.comments[b].text)
        };
        self.len() == other.len()
            && (0..self.len()).all(|at| self.written(at) == other.written(at))
            && (0..=self.len()).all(same_comments)
    }
}

/// Splits what stands between two tokens into comments; returns the line breaks behind the last.
fn split<'a>(blank: &'a str, start: bool, comments: &mut Vec<Comment<'a>>) -> u32 {
    let mut rest = blank;
    let mut breaks = u32::from(start);
    loop {
        let trimmed = rest.trim_start();
        let skipped = &rest[..rest.len() - trimmed.len()];
        breaks += skipped.bytes().filter(|byte| *byte == b'\n').count() as u32;
        if trimmed.is_empty() {
            return breaks;
        }
        let length = if trimmed.starts_with("--") {
            trimmed.find('\n').unwrap_or(trimmed.len())
        } else {
            block_length(trimmed)
        };
        comments.push(Comment {
            text: trimmed[..length].trim_end(),
            breaks,
        });
        breaks = 0;
        rest = &trimmed[length..];
    }
}

/// Length of the comment, with those within it, that a text begins with.
fn block_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut depth = 0usize;
    let mut at = 0;
    while at < bytes.len() {
        match bytes.get(at..at + 2) {
            Some(b"(*") => {
                depth += 1;
                at += 2;
            }
            Some(b"*)") => {
                depth = depth.saturating_sub(1);
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    bytes.len()
}

/// For each token that opens a bracket or brace, which token closes it.
fn closing(tokens: &[(Token<'_>, Span)]) -> Vec<u32> {
    let mut closing: Vec<u32> = (0..tokens.len() as u32).collect();
    let mut open: Vec<(usize, &str)> = Vec::new();
    for (at, (token, _)) in tokens.iter().enumerate() {
        match token {
            Token::Sign("(") => open.push((at, ")")),
            Token::Sign("{") => open.push((at, "}")),
            Token::Sign(sign @ (")" | "}")) => {
                if let Some((opened, expected)) = open.pop()
                    && expected == *sign
                {
                    closing[opened] = at as u32;
                }
            }
            _ => {}
        }
    }
    closing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_comments_and_blanks_are_the_whole_text() {
        let text = "-- head\n\nset a = (* x (* y *) *) { web1, -- one\n web2 } (* end *)";
        let lexed = Lexed::new(text);
        let comments: Vec<(&str, u32)> = lexed
            .comments
            .iter()
            .map(|comment| (comment.text, comment.breaks))
            .collect();
        assert_eq!(
            comments,
            vec![
                ("-- head", 1),
                ("(* x (* y *) *)", 0),
                ("-- one", 0),
                ("(* end *)", 0)
            ]
        );
        let mut whole: Vec<&str> = (0..lexed.len()).map(|at| lexed.written(at)).collect();
        whole.extend(comments.iter().map(|(text, _)| *text));
        let count = |text: &str| text.chars().filter(|c| !c.is_whitespace()).count();
        assert_eq!(
            whole.iter().map(|part| count(part)).sum::<usize>(),
            count(text)
        );
        assert_eq!(lexed.closing(3), 7);
    }
}
