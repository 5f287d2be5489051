//! One text being read: its tokens, its diagnostics, and what the whole import shares.

use std::sync::Arc;

use crate::diagnostic::{Code, Diagnostic, Lines, Sink, Span};
use crate::import::builder::Excess;
use crate::import::limits::{MAX_NESTING, MAX_READ_BYTES, MAX_SOURCE_BYTES};
use crate::nearest::nearest;
use crate::token::shorten;

use super::Definition;
use super::lexer::{Lexer, Place, Sign, Token};
use super::world::World;

/// A mistake that was reported; the statement is given up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failed;

/// What reading a part of a statement gives.
pub(super) type Outcome<T> = Result<T, Failed>;

pub(super) struct Reader<'r, 'w, 'l, 'a> {
    pub(super) world: &'r mut World<'w, 'l>,
    pub(super) source: &'a str,
    /// The path of the file; `None` for the first text.
    pub(super) file: Option<Arc<str>>,
    lexer: Lexer<'a>,
    token: Token<'a>,
    span: Span,
    /// End of the token before, and where the lexer stood before the token.
    end: u32,
    before: Place,
    depth: usize,
    sink: Sink,
    /// Made when the first line is asked for.
    lines: Option<Lines>,
}

impl<'r, 'w, 'l, 'a> Reader<'r, 'w, 'l, 'a> {
    pub(super) fn new(
        world: &'r mut World<'w, 'l>,
        source: &'a str,
        file: Option<Arc<str>>,
        statements: bool,
    ) -> Self {
        let too_large = source.len() > MAX_SOURCE_BYTES;
        let source = if too_large { "" } else { source };
        let lexer = Lexer::new(source, statements);
        let mut reader = Reader {
            world,
            source,
            file,
            before: lexer.place(),
            lexer,
            token: Token::End,
            span: Span::default(),
            end: 0,
            depth: 0,
            sink: Sink::new(source.into()),
            lines: None,
        };
        if too_large {
            reader.sink.report(
                Code::ForeignTooLarge,
                Span::default(),
                format!("the text is larger than {} MiB", MAX_SOURCE_BYTES >> 20),
            );
        }
        reader.advance();
        reader
    }

    pub(super) fn failed(&self) -> bool {
        self.sink.has_errors()
    }

    pub(super) fn error_count(&self) -> usize {
        self.sink.error_count()
    }

    pub(super) fn finish(self) -> Vec<Diagnostic> {
        self.sink.finish()
    }

    pub(super) fn peek(&self) -> Token<'a> {
        self.token
    }

    pub(super) fn span(&self) -> Span {
        self.span
    }

    /// From the start of a token to the end of the last one read.
    pub(super) fn since(&self, start: Span) -> Span {
        Span::new(start.start, self.end.max(start.end))
    }

    pub(super) fn advance(&mut self) {
        self.end = self.span.end;
        if self.world.read > MAX_READ_BYTES && !self.world.ended {
            let message = format!(
                "loops and imports make more than {} MiB of text",
                MAX_READ_BYTES >> 20
            );
            self.excess(self.span, message);
        }
        if self.world.ended {
            self.token = Token::End;
            return;
        }
        self.before = self.lexer.place();
        (self.token, self.span) = self.lexer.next(&mut self.sink);
        // At least one, so that no loop is free.
        self.world.read += (self.span.end - self.span.start).max(1) as usize;
    }

    /// Reports that a limit is reached, and ends the text.
    pub(super) fn excess(&mut self, span: Span, message: String) -> Failed {
        if !self.world.ended {
            self.sink.report(Code::ForeignTooLarge, span, message);
        }
        self.world.ended = true;
        self.token = Token::End;
        Failed
    }

    /// Where the current token begins, for [`Reader::go_to`].
    pub(super) fn place(&self) -> Place {
        self.before
    }

    /// Reads again from `place`.
    pub(super) fn go_to(&mut self, place: Place) {
        self.lexer.go_to(place);
        self.advance();
    }

    pub(super) fn eat(&mut self, sign: Sign) -> bool {
        let eaten = self.token == Token::Sign(sign);
        if eaten {
            self.advance();
        }
        eaten
    }

    pub(super) fn eat_word(&mut self, word: &str) -> bool {
        let eaten = self.token == Token::Word(word);
        if eaten {
            self.advance();
        }
        eaten
    }

    pub(super) fn expect(&mut self, sign: Sign, what: &str) -> Outcome<()> {
        if self.eat(sign) {
            return Ok(());
        }
        Err(self.expected(what))
    }

    /// Goes to the next statement.
    pub(super) fn recover(&mut self) {
        while !matches!(self.token, Token::Boundary | Token::End) {
            self.advance();
        }
    }

    /// Reports a mistake.
    pub(super) fn report(
        &mut self,
        code: Code,
        span: Span,
        message: impl Into<String>,
        hint: Option<&str>,
    ) -> Failed {
        let report = self.sink.report(code, span, message);
        if let Some(hint) = hint {
            report.hint(hint);
        }
        Failed
    }

    /// Reports that something else was expected here.
    pub(super) fn expected(&mut self, what: &str) -> Failed {
        let found = match self.token {
            // Reported where it was read.
            Token::Error => return Failed,
            Token::Boundary => "the next statement".to_owned(),
            Token::End if self.world.ended => return Failed,
            Token::End => "the end of the text".to_owned(),
            Token::Word(_) | Token::Field(_) | Token::Number(_) | Token::Sign(_) => {
                let text = &self.source[self.span.start as usize..self.span.end as usize];
                format!("`{}`", shorten(text))
            }
            Token::Text(_) => "a quoted text".to_owned(),
        };
        let hint = (self.token == Token::Boundary)
            .then_some("a line that continues a statement is indented");
        let span = self.span;
        self.report(
            Code::ForeignToken,
            span,
            format!("expected {what}, found {found}"),
            hint,
        )
    }

    /// What a node's making gives, its excess reported.
    pub(super) fn made<T>(&mut self, span: Span, made: Result<T, Excess>) -> Outcome<T> {
        made.map_err(|excess| match excess {
            Excess::Domain => self.report(Code::ForeignKind, span, excess.message(), None),
            _ => self.excess(span, excess.message()),
        })
    }

    /// What a name stands for; `None` when it is unknown, which is then reported.
    pub(super) fn definition(&mut self, name: &str, span: Span) -> Option<Definition> {
        if let Some(known) = self.world.definitions.get(name) {
            return Some(*known);
        }
        if self.world.idle == 0 && !self.world.broken.contains(name) {
            let names = self.world.definitions.keys();
            let hint = nearest(name, names.map(String::as_str))
                .map(|near| format!("did you mean `{near}`?"));
            self.report(
                Code::ForeignName,
                span,
                format!("nothing named `{}` is defined before", shorten(name)),
                hint.as_deref(),
            );
            // Once is enough.
            self.world.broken.insert(name.to_owned());
        }
        None
    }

    /// The line of a byte, from 1.
    pub(super) fn line(&mut self, offset: u32) -> u32 {
        let source = self.source;
        let lines = self.lines.get_or_insert_with(|| Lines::new(source));
        lines.line(offset) as u32
    }

    /// Runs `inner` one level deeper.
    pub(super) fn nested<T>(&mut self, inner: impl FnOnce(&mut Self) -> Outcome<T>) -> Outcome<T> {
        if self.depth >= MAX_NESTING {
            let span = self.span;
            return Err(self.report(
                Code::ForeignNesting,
                span,
                format!("the text nests more than {MAX_NESTING} deep"),
                None,
            ));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }
}
