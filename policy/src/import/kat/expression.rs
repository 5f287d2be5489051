//! Policies and predicates: from the text straight to nodes of the program.
//!
//! Both share one grammar, in which predicates bind tighter. Chains of `+`, `;`, `or`, `and` and
//! `else if` are gathered and made one node at once, so they neither nest nor cost more than their
//! length.

use crate::diagnostic::{Code, Span};
use crate::import::builder::{Builder, Excess};
use crate::verify::program::{NodeId, Value};

use super::field;
use super::lexer::Token;
use super::reader::{Outcome, Reader};

/// How operands become one node.
type Join<'p> = fn(&mut Builder<'p>, &[NodeId]) -> Result<NodeId, Excess>;

impl<'p> Reader<'p, '_> {
    pub(super) fn policy(&mut self) -> Outcome<NodeId> {
        self.chain("+", Self::sequence, Builder::union, false)
    }

    fn sequence(&mut self) -> Outcome<NodeId> {
        self.chain(";", Self::unary, Builder::sequence, false)
    }

    fn or(&mut self) -> Outcome<NodeId> {
        self.chain("or", Self::and, Builder::union, true)
    }

    fn and(&mut self) -> Outcome<NodeId> {
        self.chain("and", Self::not, Builder::sequence, true)
    }

    /// Operands with `sign` between, as one node.
    fn chain(
        &mut self,
        sign: &'static str,
        operand: fn(&mut Self) -> Outcome<NodeId>,
        join: Join<'p>,
        predicates: bool,
    ) -> Outcome<NodeId> {
        let start = self.span();
        let first = operand(self)?;
        if self.peek() != Token::Sign(sign) {
            return Ok(first);
        }
        if predicates {
            self.predicate(first, start, sign);
        }
        let base = self.operands.len();
        self.operands.push(first);
        while self.eat(sign) {
            let from = self.span();
            let next = operand(self)?;
            if predicates {
                self.predicate(next, from, sign);
            }
            self.operands.push(next);
        }
        let made = join(&mut self.builder, &self.operands[base..]);
        self.operands.truncate(base);
        let span = self.since(start);
        self.made(span, made)
    }

    /// What binds tighter than `;`. A star inside belongs to the innermost operand.
    fn unary(&mut self) -> Outcome<NodeId> {
        let start = self.span();
        let word = match self.peek() {
            Token::Word(word) => word,
            Token::Number(_) => return self.link(),
            _ => "",
        };
        let node = match word {
            "if" => return self.nested(Self::conditional),
            "while" => return self.nested(Self::repetition),
            "let" | "var" => return self.nested(Self::binding),
            "filter" => {
                self.advance();
                let from = self.span();
                let node = self.or()?;
                self.predicate(node, from, "filter");
                node
            }
            _ => self.or()?,
        };
        let mut node = node;
        while self.eat("*") {
            let made = self.builder.star(node);
            let span = self.since(start);
            node = self.made(span, made)?;
        }
        Ok(node)
    }

    /// `if a then p else if b then q else r`, as one node.
    fn conditional(&mut self) -> Outcome<NodeId> {
        let start = self.span();
        let mut arms = Vec::new();
        while self.eat_word("if") {
            let test = self.condition("if")?;
            self.expect_word("then")?;
            let then = self.policy()?;
            if !self.eat_word("else") {
                return Err(self.expected("an operator or `else`"));
            }
            arms.push((test, then));
        }
        let otherwise = self.unary()?;
        let made = self.builder.conditional(&arms, otherwise);
        let span = self.since(start);
        self.made(span, made)
    }

    /// `while a do p`: `(a; p)*; not a`.
    fn repetition(&mut self) -> Outcome<NodeId> {
        let start = self.span();
        self.advance();
        let test = self.condition("while")?;
        self.expect_word("do")?;
        let body = self.unary()?;
        let made = self.builder.sequence(&[test, body]).and_then(|round| {
            let rounds = self.builder.star(round)?;
            let end = self.builder.not(test)?;
            self.builder.sequence(&[rounds, end])
        });
        let span = self.since(start);
        self.made(span, made)
    }

    /// The predicate after `word`.
    fn condition(&mut self, word: &str) -> Outcome<NodeId> {
        let start = self.span();
        let test = self.or()?;
        self.predicate(test, start, word);
        Ok(test)
    }

    /// `SWITCH@PORT => SWITCH@PORT`.
    fn link(&mut self) -> Outcome<NodeId> {
        let start = self.span();
        let from = self.place()?;
        let names = if self.eat("=>") {
            ["switch", "port"]
        } else if self.eat("=>>") {
            ["vswitch", "vport"]
        } else {
            return Err(self.expected("`=>` or `=>>`"));
        };
        let to = self.place()?;
        let span = self.since(start);
        let mut tests = Vec::with_capacity(2);
        let mut assignments = Vec::with_capacity(2);
        for (index, name) in names.into_iter().enumerate() {
            let field = field::named(name).expect("these fields exist");
            let id = self.field(field, span)?;
            let from = self.in_range(from[index].0, field, from[index].1);
            let to = self.in_range(to[index].0, field, to[index].1);
            let test = self.builder.test(id, [(from, from)]);
            tests.push(self.made(span, test)?);
            let assignment = self.builder.assign(id, to);
            assignments.push(self.made(span, assignment)?);
        }
        let dup = self.builder.dup();
        let parts = [tests[0], tests[1], dup, assignments[0], assignments[1], dup];
        let made = self.builder.sequence(&parts);
        self.made(span, made)
    }

    /// `SWITCH@PORT`, each with where it stands.
    fn place(&mut self) -> Outcome<[(u64, Span); 2]> {
        let switch = self.number("a switch")?;
        if !self.eat("@") {
            return Err(self.expected("`@` and a port"));
        }
        let port = self.number("a port")?;
        Ok([switch, port])
    }

    fn number(&mut self, what: &str) -> Outcome<(u64, Span)> {
        let Token::Number(number) = self.peek() else {
            return Err(self.expected(what));
        };
        let span = self.span();
        self.advance();
        Ok((number, span))
    }

    fn not(&mut self) -> Outcome<NodeId> {
        let start = self.span();
        let mut negations = 0usize;
        while self.eat("not") {
            negations += 1;
        }
        let from = self.span();
        let node = self.atom()?;
        let negated = negations > 0 && self.predicate(node, from, "not");
        if !negated || negations.is_multiple_of(2) {
            return Ok(node);
        }
        let made = self.builder.not(node);
        self.made(start, made)
    }

    fn atom(&mut self) -> Outcome<NodeId> {
        let word = match self.peek() {
            Token::Word(word) => word,
            Token::Meta(name) => return self.on_meta(name),
            Token::Sign("(") => return Ok(self.parenthesised()),
            _ => return Err(self.expected("a policy or a predicate")),
        };
        let node = match word {
            "drop" | "false" => self.builder.drop(),
            "id" | "true" | "skip" => self.builder.id(),
            "dup" => self.builder.dup(),
            _ => return self.on_field(word),
        };
        self.advance();
        Ok(node)
    }

    /// A policy in parentheses. After a mistake inside, reading goes on behind them.
    fn parenthesised(&mut self) -> NodeId {
        self.advance();
        let base = self.operands.len();
        let inner = self.nested(Self::policy);
        if let Ok(node) = inner
            && self.eat(")")
        {
            return node;
        }
        if inner.is_ok() {
            self.expected("an operator or a closing parenthesis");
        }
        self.operands.truncate(base);
        self.skip_parenthesis();
        self.builder.drop()
    }

    /// Whether a node is a predicate, reported when it is not: the operand of `word`.
    fn predicate(&mut self, node: NodeId, start: Span, word: &str) -> bool {
        if self.builder.is_predicate(node) {
            return true;
        }
        let span = self.since(start);
        self.report(
            Code::ForeignKind,
            span,
            format!("`{word}` needs a predicate, and this is a policy"),
            Some("`;` joins a predicate and a policy; parentheses part what binds too far"),
        );
        false
    }

    /// A value that was read, when the field can hold it; else its greatest one.
    pub(super) fn in_range(&mut self, number: u64, field: field::Field, span: Span) -> Value {
        if number > field.max {
            let message = format!(
                "`{}` holds numbers up to {}, not {number}",
                field.name, field.max
            );
            self.report(Code::ForeignValue, span, message, None);
        }
        Value::number(number.min(field.max))
    }
}
