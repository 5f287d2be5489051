//! Expressions: from the text straight to nodes of the program.
//!
//! Chains of `∪` and `⋅` are gathered and made one node at once, so they neither nest nor cost more
//! than their length. Only parentheses nest.

use crate::diagnostic::{Code, Span};
use crate::verify::program::{NodeId, Value};

use super::Definition;
use super::lexer::{Sign, Token};
use super::quantifier::{exists, forall};
use super::reader::{Outcome, Reader};

impl Reader<'_, '_, '_, '_> {
    /// The text as one expression; `None` after a mistake.
    pub(super) fn only_expression(&mut self) -> Option<NodeId> {
        let node = self.expression().ok()?;
        if self.peek() != Token::End {
            self.expected("an operator or the end of the text");
        }
        (!self.failed()).then_some(node)
    }

    pub(super) fn expression(&mut self) -> Outcome<NodeId> {
        let Token::Word(word) = self.peek() else {
            return self.union();
        };
        match word {
            "forward" | "backward" => self.collapsed(word),
            "exists" | "forall" | "rangesum" => self.quantified(word),
            _ => self.union(),
        }
    }

    /// `forward e`, `backward e`: the packets at one end of a program's histories.
    fn collapsed(&mut self, word: &str) -> Outcome<NodeId> {
        let start = self.span();
        self.advance();
        if self.world.idle == 0 {
            self.report(
                Code::ForeignConstruct,
                start,
                format!("`{word}` makes a set of packets, which no program expresses"),
                Some("compare the programs themselves, or leave the check out"),
            );
        }
        self.union()
    }

    /// `exists @f e`, `forall @f e`, `rangesum @f a..b`.
    fn quantified(&mut self, word: &str) -> Outcome<NodeId> {
        let start = self.span();
        self.advance();
        let Token::Field(name) = self.peek() else {
            return Err(self.expected("a field"));
        };
        let span = self.span();
        let field = self.world.field(name);
        let field = self.made(span, field)?;
        self.advance();
        if word == "rangesum" {
            let first = self.number("the first value")?;
            self.expect(Sign::To, "`..`")?;
            let last = self.number("the last value")?;
            let range = (Value::integer(first), Value::integer(last));
            let made = self.world.builder.test(field, [range]);
            return self.made(start, made);
        }
        let of = self.span();
        let node = self.union()?;
        let of = self.since(of);
        self.predicate(node, of, word)?;
        let builder = &mut self.world.builder;
        let made = match word {
            "exists" => exists(builder, field, node),
            _ => forall(builder, field, node),
        };
        let span = self.since(start);
        self.made(span, made)
    }

    fn union(&mut self) -> Outcome<NodeId> {
        let start = self.span();
        let base = self.world.operands.len();
        let gathered = self.gather(Sign::Union, Self::sequence);
        let made = gathered.map(|()| {
            let world = &mut *self.world;
            world.builder.union(&world.operands[base..])
        });
        self.world.operands.truncate(base);
        let span = self.since(start);
        self.made(span, made?)
    }

    fn sequence(&mut self) -> Outcome<NodeId> {
        let start = self.span();
        let base = self.world.operands.len();
        let gathered = self.gather(Sign::Sequence, Self::combined);
        let made = gathered.map(|()| {
            let world = &mut *self.world;
            world.builder.sequence(&world.operands[base..])
        });
        self.world.operands.truncate(base);
        let span = self.since(start);
        self.made(span, made?)
    }

    /// Puts operands between `sign`s on the stack of operands.
    fn gather(
        &mut self,
        sign: Sign,
        operand: impl Fn(&mut Self) -> Outcome<NodeId>,
    ) -> Outcome<()> {
        loop {
            let node = operand(self)?;
            self.world.operands.push(node);
            if !self.eat(sign) {
                return Ok(());
            }
        }
    }

    fn combined(&mut self) -> Outcome<NodeId> {
        let start = self.span();
        let mut node = self.postfix()?;
        loop {
            let Token::Sign(sign) = self.peek() else {
                return Ok(node);
            };
            if !matches!(
                sign,
                Sign::Intersection | Sign::Difference | Sign::SymmetricDifference
            ) {
                return Ok(node);
            }
            self.advance();
            let right = self.postfix()?;
            let builder = &mut self.world.builder;
            let made = match sign {
                Sign::Intersection => builder.intersection(node, right),
                Sign::Difference => builder.difference(node, right),
                _ => builder.symmetric_difference(node, right),
            };
            let span = self.since(start);
            node = self.made(span, made)?;
        }
    }

    fn postfix(&mut self) -> Outcome<NodeId> {
        let start = self.span();
        let mut negations = 0usize;
        while self.eat(Sign::Not) {
            negations += 1;
        }
        let atom = self.span();
        let mut node = self.atom()?;
        if negations > 0 {
            let span = self.since(atom);
            self.predicate(node, span, "¬")?;
        }
        if !negations.is_multiple_of(2) {
            let made = self.world.builder.not(node);
            node = self.made(start, made)?;
        }
        loop {
            match self.peek() {
                Token::Sign(Sign::Star) => {
                    let made = self.world.builder.star(node);
                    let span = self.since(start);
                    node = self.made(span, made)?;
                }
                Token::Sign(Sign::Question) => {}
                _ => return Ok(node),
            }
            self.advance();
        }
    }

    fn atom(&mut self) -> Outcome<NodeId> {
        let span = self.span();
        let node = match self.peek() {
            Token::Field(name) => return self.on_field(name),
            Token::Word(name) => {
                self.advance();
                return self.named(name, span);
            }
            Token::Sign(Sign::Open) => {
                self.advance();
                let node = self.nested(Self::expression)?;
                self.expect(Sign::Close, "an operator or `)`")?;
                return Ok(node);
            }
            Token::Sign(Sign::Drop) => self.world.builder.drop(),
            Token::Sign(Sign::Id) => self.world.builder.id(),
            Token::Sign(Sign::Dup) => self.world.builder.dup(),
            _ => return Err(self.expected("a test, an assignment, a name, `δ`, `ε`, `∅` or `(`")),
        };
        self.advance();
        Ok(node)
    }

    /// `@f=v`, `@f≠v`, `@f←v`.
    fn on_field(&mut self, name: &str) -> Outcome<NodeId> {
        let span = self.span();
        self.advance();
        let field = self.world.field(name);
        let field = self.made(span, field)?;
        let sign = self.peek();
        if !matches!(
            sign,
            Token::Sign(Sign::Equal | Sign::NotEqual | Sign::Assign)
        ) {
            return Err(self.expected("`=`, `≠` or `←`"));
        }
        self.advance();
        let value = self.value()?;
        if sign == Token::Sign(Sign::Assign) {
            let made = self.world.builder.assign(field, Value::integer(value));
            return self.made(span, made);
        }
        let made = self
            .world
            .test(field, value, sign == Token::Sign(Sign::Equal));
        self.made(span, made)
    }

    /// A number, or the name of one.
    fn value(&mut self) -> Outcome<i64> {
        let Token::Word(name) = self.peek() else {
            return self.number("a number or the name of one");
        };
        let span = self.span();
        self.advance();
        match self.definition(name, span) {
            Some(Definition::Number(number)) => Ok(number),
            Some(Definition::Program(_)) => Err(self.report(
                Code::ForeignKind,
                span,
                format!("`{name}` is a program, and a value is needed"),
                None,
            )),
            // Reported; what follows can be read all the same.
            None => Ok(0),
        }
    }

    pub(super) fn number(&mut self, what: &str) -> Outcome<i64> {
        let Token::Number(number) = self.peek() else {
            return Err(self.expected(what));
        };
        self.advance();
        Ok(number)
    }

    /// A program by its name.
    fn named(&mut self, name: &str, span: Span) -> Outcome<NodeId> {
        match self.definition(name, span) {
            Some(Definition::Program(node)) => Ok(node),
            Some(Definition::Number(_)) => Err(self.report(
                Code::ForeignKind,
                span,
                format!("`{name}` is a number, and a program is needed"),
                Some("a number is the value of a test or an assignment, as in `@sw=N1`"),
            )),
            None => Ok(self.world.builder.drop()),
        }
    }

    /// Refuses what is no predicate as the operand of `word`.
    fn predicate(&mut self, node: NodeId, span: Span, word: &str) -> Outcome<()> {
        if self.world.builder.is_predicate(node) {
            return Ok(());
        }
        Err(self.report(
            Code::ForeignKind,
            span,
            format!("`{word}` needs a predicate, and this is none"),
            None,
        ))
    }
}
