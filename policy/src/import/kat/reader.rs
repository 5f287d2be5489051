//! One text being read: its tokens, its diagnostics, its program.

use std::collections::HashMap;

use crate::diagnostic::{Code, Diagnostic, Sink, Span};
use crate::import::builder::{Builder, Excess};
use crate::import::limits::{MAX_NESTING, MAX_SOURCE_BYTES};
use crate::token::shorten;
use crate::verify::program::{FieldId, NodeId, Program};

use super::field::Field;
use super::lexer::{Lexer, Token};
use super::meta::Meta;
use super::numbers;

/// A mistake that was reported, where nothing can be made of what follows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failed;

/// What reading a part gives.
pub(super) type Outcome<T> = Result<T, Failed>;

pub(super) struct Reader<'p, 'a> {
    pub(super) builder: Builder<'p>,
    pub(super) source: &'a str,
    /// The meta-fields in scope, the innermost last.
    pub(super) metas: Vec<Meta<'a>>,
    /// Operands of the expressions around the one that is being read.
    pub(super) operands: Vec<NodeId>,
    fields: HashMap<&'static str, FieldId>,
    lexer: Lexer<'a>,
    token: Token<'a>,
    span: Span,
    /// End of the token before.
    end: u32,
    depth: usize,
    /// Start of the token that was reported last.
    reported: Option<u32>,
    sink: Sink,
}

impl<'p, 'a> Reader<'p, 'a> {
    pub(super) fn new(program: &'p mut Program, source: &'a str) -> Self {
        let too_large = source.len() > MAX_SOURCE_BYTES;
        let source = if too_large { "" } else { source };
        let mut sink = Sink::new(source.into());
        if too_large {
            sink.report(
                Code::ForeignTooLarge,
                Span::default(),
                format!("the text is larger than {} MiB", MAX_SOURCE_BYTES >> 20),
            );
        }
        let mut reader = Reader {
            builder: Builder::new(program),
            source,
            metas: Vec::new(),
            operands: Vec::new(),
            fields: HashMap::new(),
            lexer: Lexer::new(source),
            token: Token::End,
            span: Span::default(),
            end: 0,
            depth: 0,
            reported: too_large.then_some(0),
            sink,
        };
        reader.advance();
        reader
    }

    /// The whole text; `None` after a mistake.
    pub(super) fn whole(&mut self) -> Option<NodeId> {
        let mut node = self.policy();
        // What stands behind a complete program is read for its mistakes.
        while self.token != Token::End {
            if node.is_ok() {
                self.expected("an operator or the end of the text");
            }
            self.operands.clear();
            while !matches!(self.token, Token::End | Token::Sign(";" | "+")) {
                self.advance();
            }
            self.advance();
            if self.token != Token::End {
                node = self.policy();
            }
        }
        node.ok().filter(|_| !self.sink.has_errors())
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
        (self.token, self.span) = self.lexer.next(&mut self.sink);
    }

    pub(super) fn eat(&mut self, sign: &'static str) -> bool {
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

    /// Goes behind the parenthesis that closes the innermost open one.
    pub(super) fn skip_parenthesis(&mut self) {
        let mut open = 1usize;
        while open > 0 && self.token != Token::End {
            match self.token {
                Token::Sign("(") => open += 1,
                Token::Sign(")") => open -= 1,
                _ => {}
            }
            self.advance();
        }
    }

    pub(super) fn expect(&mut self, sign: &'static str) -> Outcome<()> {
        if self.eat(sign) {
            return Ok(());
        }
        Err(self.expected(&format!("`{sign}`")))
    }

    pub(super) fn expect_word(&mut self, word: &str) -> Outcome<()> {
        if self.eat_word(word) {
            return Ok(());
        }
        Err(self.expected(&format!("`{word}`")))
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

    /// Reports that something else was expected here, once for each token.
    pub(super) fn expected(&mut self, what: &str) -> Failed {
        let found = match self.token {
            Token::Error => return Failed,
            _ if self.reported == Some(self.span.start) => return Failed,
            Token::End => "the end of the text".to_owned(),
            _ => {
                let text = &self.source[self.span.start as usize..self.span.end as usize];
                format!("`{}`", shorten(text))
            }
        };
        self.reported = Some(self.span.start);
        let span = self.span;
        self.report(
            Code::ForeignToken,
            span,
            format!("expected {what}, found {found}"),
            None,
        )
    }

    /// What a node's making gives, its excess reported.
    pub(super) fn made<T>(&mut self, span: Span, made: Result<T, Excess>) -> Outcome<T> {
        made.map_err(|excess| {
            let code = match excess {
                Excess::Domain => Code::ForeignKind,
                _ => Code::ForeignTooLarge,
            };
            let failed = self.report(code, span, excess.message(), None);
            if code == Code::ForeignTooLarge {
                self.end();
            }
            failed
        })
    }

    /// Ends the text: the rest would only repeat the last mistake.
    fn end(&mut self) {
        while self.token != Token::End {
            self.advance();
        }
        self.reported = Some(self.span.start);
    }

    /// The field of the program for a field of Frenetic.
    pub(super) fn field(&mut self, field: Field, span: Span) -> Outcome<FieldId> {
        if let Some(known) = self.fields.get(field.name) {
            return Ok(*known);
        }
        let id = self.builder.field(field.name, numbers(field.max));
        let id = self.made(span, id)?;
        self.fields.insert(field.name, id);
        Ok(id)
    }

    /// Runs `inner` one level deeper.
    pub(super) fn nested<T>(&mut self, inner: impl FnOnce(&mut Self) -> Outcome<T>) -> Outcome<T> {
        if self.depth >= MAX_NESTING {
            let span = self.span;
            let message = format!("the text nests more than {MAX_NESTING} deep");
            let failed = self.report(Code::ForeignNesting, span, message, None);
            self.end();
            return Err(failed);
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }
}
