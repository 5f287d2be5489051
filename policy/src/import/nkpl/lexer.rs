//! Tokens of KATch's language, read one at a time from the bytes of the text.
//!
//! A statement begins with a word in the first column; lines that go on are indented. The lexer
//! marks these beginnings by [`Token::Boundary`], so a mistake in one statement never swallows the
//! next. Every sign has its Unicode and, where KATch has one, its ASCII spelling.

use crate::diagnostic::{Code, Sink, Span};

/// A token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A name or a keyword.
    Word(&'a str),
    /// `@name`, without the `@`.
    Field(&'a str),
    Number(i64),
    /// The characters between the quotes.
    Text(&'a str),
    Sign(Sign),
    /// The next token begins a statement.
    Boundary,
    /// What could not be read; already reported.
    Error,
    End,
}

/// Punctuation, operators and constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    Open,
    Close,
    /// `∪ ∨ + |`
    Union,
    /// `⋅ ∧ ;`
    Sequence,
    /// `⋆ *`
    Star,
    /// `?`
    Question,
    /// `¬ !`
    Not,
    /// `∩ intersect`
    Intersection,
    /// `∖ -`
    Difference,
    /// `⊕ ^ xor`
    SymmetricDifference,
    /// `← :=`
    Assign,
    /// `=`
    Equal,
    /// `≠ !=`
    NotEqual,
    /// `≡ ==`
    Equivalent,
    /// `≢ !==`
    Different,
    /// `∈`
    In,
    /// `..`
    To,
    /// `∅ ⊥ drop`
    Drop,
    /// `ε ⊤ skip`
    Id,
    /// `δ dup`
    Dup,
}

/// Where a lexer stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place(usize);

pub(super) struct Lexer<'a> {
    source: &'a str,
    at: usize,
    /// Whether words in the first column begin statements.
    statements: bool,
    /// Where the last boundary was given.
    boundary: usize,
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

impl<'a> Lexer<'a> {
    pub(super) fn new(source: &'a str, statements: bool) -> Self {
        Lexer {
            source,
            at: 0,
            statements,
            boundary: usize::MAX,
        }
    }

    pub(super) fn place(&self) -> Place {
        Place(self.at)
    }

    /// Goes back to where the lexer stood.
    pub(super) fn go_to(&mut self, place: Place) {
        self.at = place.0;
        self.boundary = place.0;
    }

    fn byte(&self, ahead: usize) -> u8 {
        *self.source.as_bytes().get(self.at + ahead).unwrap_or(&0)
    }

    fn skip_blank(&mut self) {
        let bytes = self.source.as_bytes();
        loop {
            match self.byte(0) {
                b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                b'-' if self.byte(1) == b'-' => {
                    let rest = &bytes[self.at..];
                    let line = rest.iter().position(|byte| *byte == b'\n');
                    self.at += line.unwrap_or(rest.len());
                }
                _ => return,
            }
        }
    }

    /// The next token and where it stands.
    pub(super) fn next(&mut self, sink: &mut Sink) -> (Token<'a>, Span) {
        self.skip_blank();
        let start = self.at;
        let token = self.token(sink);
        (token, Span::new(start as u32, self.at as u32))
    }

    fn token(&mut self, sink: &mut Sink) -> Token<'a> {
        let byte = self.byte(0);
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => self.word(),
            b'@' => self.field(sink),
            b'0'..=b'9' => self.number(sink),
            // A number can never follow a difference, so this minus is its sign.
            b'-' if self.byte(1).is_ascii_digit() => self.number(sink),
            b'"' => self.text(sink),
            b'(' => self.sign(1, Sign::Open),
            b')' => self.sign(1, Sign::Close),
            b'+' | b'|' => self.sign(1, Sign::Union),
            b';' => self.sign(1, Sign::Sequence),
            b'*' => self.sign(1, Sign::Star),
            b'?' => self.sign(1, Sign::Question),
            b'-' => self.sign(1, Sign::Difference),
            b'^' => self.sign(1, Sign::SymmetricDifference),
            b'=' if self.byte(1) == b'=' => self.sign(2, Sign::Equivalent),
            b'=' => self.sign(1, Sign::Equal),
            b'!' if self.byte(1) == b'=' && self.byte(2) == b'=' => self.sign(3, Sign::Different),
            b'!' if self.byte(1) == b'=' => self.sign(2, Sign::NotEqual),
            b'!' => self.sign(1, Sign::Not),
            b':' if self.byte(1) == b'=' => self.sign(2, Sign::Assign),
            b'.' if self.byte(1) == b'.' => self.sign(2, Sign::To),
            _ => self.character(sink),
        }
    }

    fn sign(&mut self, bytes: usize, sign: Sign) -> Token<'a> {
        self.at += bytes;
        Token::Sign(sign)
    }

    fn name(&mut self) -> &'a str {
        let start = self.at;
        while is_name(self.byte(0)) {
            self.at += 1;
        }
        &self.source[start..self.at]
    }

    fn word(&mut self) -> Token<'a> {
        let first_column = self.at > 0 && self.source.as_bytes()[self.at - 1] == b'\n';
        if self.statements && first_column && self.boundary != self.at {
            self.boundary = self.at;
            return Token::Boundary;
        }
        match self.name() {
            "drop" => Token::Sign(Sign::Drop),
            "skip" => Token::Sign(Sign::Id),
            "dup" => Token::Sign(Sign::Dup),
            "intersect" => Token::Sign(Sign::Intersection),
            "xor" => Token::Sign(Sign::SymmetricDifference),
            word => Token::Word(word),
        }
    }

    fn field(&mut self, sink: &mut Sink) -> Token<'a> {
        let start = self.at;
        self.at += 1;
        let name = self.name();
        if name.starts_with(|first: char| first.is_ascii_alphabetic()) {
            return Token::Field(name);
        }
        self.fail(
            sink,
            start,
            Code::ForeignToken,
            "`@` is followed by the name of a field, which begins with a letter",
        )
    }

    fn number(&mut self, sink: &mut Sink) -> Token<'a> {
        let start = self.at;
        self.at += 1;
        while self.byte(0).is_ascii_digit() {
            self.at += 1;
        }
        match self.source[start..self.at].parse() {
            Ok(number) => Token::Number(number),
            Err(_) => self.fail(
                sink,
                start,
                Code::ForeignValue,
                "this number does not fit into 64 bits",
            ),
        }
    }

    fn text(&mut self, sink: &mut Sink) -> Token<'a> {
        let start = self.at;
        let rest = &self.source[start + 1..];
        match rest.find(['"', '\n']) {
            Some(length) if rest.as_bytes()[length] == b'"' => {
                self.at += length + 2;
                Token::Text(&rest[..length])
            }
            end => {
                self.at += 1 + end.unwrap_or(rest.len());
                self.fail(
                    sink,
                    start,
                    Code::UnterminatedText,
                    "this text is not closed",
                )
            }
        }
    }

    /// The signs beyond ASCII, and what begins no token.
    fn character(&mut self, sink: &mut Sink) -> Token<'a> {
        let start = self.at;
        let Some(character) = self.source[start..].chars().next() else {
            return Token::End;
        };
        let sign = match character {
            '∪' | '∨' => Sign::Union,
            '⋅' | '∧' => Sign::Sequence,
            '⋆' => Sign::Star,
            '←' => Sign::Assign,
            '∅' | '⊥' => Sign::Drop,
            // KATch's `⊤` lets every packet through as it is; it is no relation of all packets.
            'ε' | '⊤' => Sign::Id,
            'δ' => Sign::Dup,
            '≠' => Sign::NotEqual,
            '¬' => Sign::Not,
            '∩' => Sign::Intersection,
            '∖' => Sign::Difference,
            '⊕' => Sign::SymmetricDifference,
            '≡' => Sign::Equivalent,
            '≢' => Sign::Different,
            '∈' => Sign::In,
            _ => {
                self.at += character.len_utf8();
                return self.fail(
                    sink,
                    start,
                    Code::UnexpectedCharacter,
                    &format!("unexpected character {character:?}"),
                );
            }
        };
        self.sign(character.len_utf8(), sign)
    }

    fn fail(&self, sink: &mut Sink, start: usize, code: Code, message: &str) -> Token<'a> {
        let span = Span::new(start as u32, self.at as u32);
        let report = sink.report(code, span, message);
        if code == Code::UnexpectedCharacter {
            report.hint("signs are `⋅ ∪ ⋆ δ ε ∅ ← = ≠ ¬ ∩ ∖ ⊕ ≡ ≢`, or `; + * dup skip drop := = != ! intersect - xor == !==`");
        }
        Token::Error
    }
}
