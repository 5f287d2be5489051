//! Statements: definitions, checks, loops, imports, and those that only print.

use std::sync::Arc;

use crate::diagnostic::{Code, Diagnostic, Span};
use crate::import::limits::{MAX_CHECKS, MAX_IMPORT_DEPTH, MAX_IMPORTS, MAX_ROUNDS};
use crate::token::shorten;

use super::lexer::{Sign, Token};
use super::path::joined;
use super::reader::{Outcome, Reader};
use super::{Check, Definition};

/// Longest text of a check that is kept, in bytes.
const CHECK_TEXT_BYTES: usize = 200;

impl Reader<'_, '_, '_, '_> {
    /// Whether the text begins with a statement, rather than being an expression alone.
    pub(super) fn begins_statement(&mut self) -> bool {
        let Token::Word(word) = self.peek() else {
            return false;
        };
        if matches!(word, "check" | "import" | "for" | "print" | "graphviz") {
            return true;
        }
        let place = self.place();
        self.advance();
        let defines = self.peek() == Token::Sign(Sign::Equal);
        self.go_to(place);
        defines
    }

    /// The whole text; mistakes are reported, each statement's first.
    pub(super) fn statements(&mut self) {
        loop {
            match self.peek() {
                Token::End => return,
                Token::Boundary => self.advance(),
                _ => {
                    let base = self.world.operands.len();
                    if self.statement().is_err() {
                        self.world.operands.truncate(base);
                        self.recover();
                    }
                }
            }
        }
    }

    fn statement(&mut self) -> Outcome<()> {
        let start = self.span();
        let Token::Word(word) = self.peek() else {
            return Err(self.expected("a statement: `check`, `import`, `for` or `NAME =`"));
        };
        self.advance();
        // Words of the language may also be defined as names.
        if self.eat(Sign::Equal) {
            return self.define(word);
        }
        match word {
            "check" => self.check(start),
            "import" => self.import(start),
            "for" => self.nested(Self::repeat),
            "print" => self.idly(Self::definition_value).map(|_| ()),
            "forward" | "backward" => self.idly(Self::expression).map(|_| ()),
            "graphviz" => {
                if !matches!(self.peek(), Token::Text(_)) {
                    return Err(self.expected("the path of a file in quotes"));
                }
                self.advance();
                self.idly(Self::expression).map(|_| ())
            }
            _ => Err(self.expected(&format!("`=` after `{}`", shorten(word)))),
        }
    }

    /// Reads what has no effect.
    fn idly<T>(&mut self, inner: impl FnOnce(&mut Self) -> Outcome<T>) -> Outcome<T> {
        self.world.idle += 1;
        let result = inner(self);
        self.world.idle -= 1;
        result
    }

    /// `NAME = …`, after the sign.
    fn define(&mut self, name: &str) -> Outcome<()> {
        let errors = self.error_count();
        let value = self.definition_value();
        if self.world.idle > 0 {
            return value.map(|_| ());
        }
        match value {
            Ok(value) if self.error_count() == errors => {
                self.world.broken.remove(name);
                self.world.definitions.insert(name.to_owned(), value);
                Ok(())
            }
            other => {
                self.world.definitions.remove(name);
                self.world.broken.insert(name.to_owned());
                other.map(|_| ())
            }
        }
    }

    /// An expression, a number, or the name of either alone.
    fn definition_value(&mut self) -> Outcome<Definition> {
        let first = self.peek();
        if let Token::Number(number) = first {
            self.advance();
            return Ok(Definition::Number(number));
        }
        if let Token::Word(name) = first
            && let Some(Definition::Number(number)) = self.world.definitions.get(name)
        {
            let number = *number;
            self.advance();
            return Ok(Definition::Number(number));
        }
        self.expression().map(Definition::Program)
    }

    /// `check e ≡ e`, `check e ≢ e`, after the word.
    fn check(&mut self, start: Span) -> Outcome<()> {
        let left = self.expression()?;
        let equal = match self.peek() {
            Token::Sign(Sign::Equivalent) => true,
            Token::Sign(Sign::Different) => false,
            _ => return Err(self.expected("an operator, `≡` or `≢`")),
        };
        self.advance();
        let right = self.expression()?;
        let span = self.since(start);
        if self.world.idle > 0 {
            return Ok(());
        }
        if self.world.checks.len() >= MAX_CHECKS {
            let message = format!("there are more than {MAX_CHECKS} checks");
            return Err(self.excess(span, message));
        }
        let mut text = &self.source[span.start as usize..span.end as usize];
        let mut end = text.len().min(CHECK_TEXT_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let dots = if end < text.len() { "…" } else { "" };
        text = &text[..end];
        let check = Check {
            left,
            right,
            equal,
            file: self.file.as_deref().map(str::to_owned),
            span,
            line: self.line(start.start),
            text: format!("{text}{dots}"),
            loops: self.world.loops.clone(),
        };
        self.world.checks.push(check);
        Ok(())
    }

    /// `for i ∈ a..b do statement`, after the word. The last value remains defined, as in KATch.
    fn repeat(&mut self) -> Outcome<()> {
        let start = self.span();
        let Token::Word(name) = self.peek() else {
            return Err(self.expected("the name of a variable"));
        };
        self.advance();
        if !(self.eat(Sign::In) || self.eat(Sign::Equal) || self.eat_word("in")) {
            return Err(self.expected("`∈`, `in` or `=`"));
        }
        let first = self.number("the first value")?;
        self.expect(Sign::To, "`..`")?;
        let last = self.number("the last value")?;
        if !self.eat_word("do") {
            return Err(self.expected("`do`"));
        }
        if first > last || self.world.idle > 0 {
            // The body is still read for its mistakes.
            return self.idly(Self::statement);
        }
        let body = self.place();
        self.world.loops.push((name.to_owned(), first));
        let mut outcome = Ok(());
        for value in first..=last {
            self.world.rounds += 1;
            if self.world.rounds > MAX_ROUNDS {
                let message = format!("loops run more than {MAX_ROUNDS} rounds in all");
                let span = self.since(start);
                outcome = Err(self.excess(span, message));
                break;
            }
            if value > first {
                self.go_to(body);
            }
            let number = Definition::Number(value);
            self.world.definitions.insert(name.to_owned(), number);
            if let Some(variable) = self.world.loops.last_mut() {
                variable.1 = value;
            }
            let errors = self.error_count();
            outcome = self.statement();
            // The next round would only repeat a mistake.
            if outcome.is_err() || self.error_count() > errors {
                break;
            }
        }
        self.world.loops.pop();
        outcome
    }

    /// `import "path"`, after the word.
    fn import(&mut self, start: Span) -> Outcome<()> {
        let Token::Text(path) = self.peek() else {
            return Err(self.expected("the path of a file in quotes"));
        };
        self.advance();
        let span = self.since(start);
        if self.world.idle > 0 {
            return Ok(());
        }
        let path: Arc<str> = joined(self.file.as_deref(), path).into();
        if self.world.open.contains(&path) {
            let chain: Vec<&str> = self.world.open.iter().map(|file| &**file).collect();
            let message = format!("`{path}` imports itself: {} → {path}", chain.join(" → "));
            return Err(self.report(Code::ImportCycle, span, message, None));
        }
        self.world.imports += 1;
        let excess = if self.world.imports > MAX_IMPORTS {
            Some(format!("more than {MAX_IMPORTS} files are imported"))
        } else if self.world.open.len() >= MAX_IMPORT_DEPTH {
            Some(format!("imports nest more than {MAX_IMPORT_DEPTH} deep"))
        } else {
            None
        };
        if let Some(message) = excess {
            return Err(self.excess(span, message));
        }
        let text = match self.world.texts.get(&path) {
            Some(known) => known.clone(),
            None => match (self.world.loader)(&path) {
                Ok(text) => {
                    let text: Arc<str> = text.into();
                    self.world.texts.insert(path.clone(), text.clone());
                    text
                }
                Err(why) => {
                    let message = format!("`{path}` cannot be read: {why}");
                    return Err(self.report(Code::ImportNotFound, span, message, None));
                }
            },
        };
        self.world.open.push(path.clone());
        let mut reader = Reader::new(self.world, &text, Some(path.clone()), true);
        reader.statements();
        let diagnostics = reader.finish();
        self.world.open.pop();
        for diagnostic in diagnostics {
            self.pass_on(&path, span, diagnostic);
        }
        Ok(())
    }

    /// Reports a mistake of an imported file where the file is imported.
    fn pass_on(&mut self, path: &str, span: Span, diagnostic: Diagnostic) {
        let Diagnostic {
            code,
            message,
            line,
            column,
            hint,
            ..
        } = diagnostic;
        let message = format!("{path}:{line}:{column}: {message}");
        self.report(code, span, message, hint.as_deref());
    }
}
