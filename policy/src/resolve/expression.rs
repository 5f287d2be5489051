//! Expressions to terms and predicates.

use super::addresses::View;
use super::{GlobalKind, Local, MAX_DEPTH, Meaning, Resolver, Scope};
use crate::ast::{Argument, Expr, ExprKind, Let, Name, Operator, Value, ValueKind, Word};
use crate::diagnostic::{Code, Span};
use crate::feature::Feature;
use crate::field::{Field, OWNER, Subject};
use crate::nearest::nearest;
use crate::term::{AssignedField, Pred, PredId, Term, TermId};

impl<'d> Resolver<'d> {
    pub(super) fn expr(&mut self, expr: &'d Expr, scope: &Scope<'d>) -> Meaning {
        if self.exhausted || !self.spend(1, expr.span) {
            return Meaning::Erroneous;
        }
        if self.depth >= MAX_DEPTH {
            self.too_deep(expr.span);
            return Meaning::Erroneous;
        }
        self.depth += 1;
        let meaning = self.expr_kind(expr, scope);
        self.depth -= 1;
        let height = match meaning {
            Meaning::Pred(p) => self.arena.predicate_facts(p).height,
            Meaning::Term(t) => self.arena.facts(t).height,
            Meaning::Erroneous => 0,
        };
        if height > MAX_DEPTH {
            self.too_deep(expr.span);
            return Meaning::Erroneous;
        }
        meaning
    }

    fn expr_kind(&mut self, expr: &'d Expr, scope: &Scope<'d>) -> Meaning {
        match &expr.kind {
            ExprKind::True => Meaning::Pred(self.arena.predicate(Pred::True)),
            ExprKind::False => Meaning::Pred(self.arena.predicate(Pred::False)),
            ExprKind::Id => {
                let always = self.arena.predicate(Pred::True);
                Meaning::Term(self.arena.term(Term::Filter(always)))
            }
            ExprKind::Drop(label) => {
                let label = self.label(expr.span, label.as_deref(), "drop");
                Meaning::Term(self.arena.term(Term::Drop(label)))
            }
            ExprKind::Forward(label) => {
                let label = self.label(expr.span, label.as_deref(), "forward");
                Meaning::Term(self.arena.term(Term::SetPort(OWNER, label)))
            }
            ExprKind::Filter(inner) => {
                let predicate = self.condition(inner, scope);
                self.term_of(predicate.map(Term::Filter))
            }
            ExprKind::Test {
                subject,
                operator,
                value,
            } => self.test(*subject, *operator, value, scope),
            ExprKind::Word(word) => self.word(*word, expr.span),
            ExprKind::Assign { subject, value } => self.assign(expr.span, *subject, value, scope),
            ExprKind::Use { name, arguments } => self.named(name, arguments, scope),
            ExprKind::Not(inner) => {
                let inner = self.condition(inner, scope);
                self.pred_of(inner.map(Pred::Not))
            }
            ExprKind::And(parts) => {
                let parts = self.conditions(parts, scope);
                self.pred_of(parts.map(Pred::And))
            }
            ExprKind::Or(parts) => {
                let parts = self.conditions(parts, scope);
                self.pred_of(parts.map(Pred::Or))
            }
            ExprKind::Union(arms) => {
                let arms = self.policies(arms, scope);
                self.term_of(arms.map(|arms| Term::Union(arms.into())))
            }
            ExprKind::Sequence(parts) => {
                let terms = self.policies(parts, scope);
                if let Some(terms) = &terms {
                    self.warn_port_after_forward(parts, terms);
                }
                self.term_of(terms.map(|parts| Term::Sequence(parts.into())))
            }
            ExprKind::Star(body) => {
                let term = self.policy(body, scope);
                self.warn_port_in_loop(body.span, term);
                self.term_of(term.map(Term::Star))
            }
            ExprKind::Conditional { arms, otherwise } => self.conditional(arms, otherwise, scope),
            ExprKind::While { condition, body } => {
                let condition = self.condition(condition, scope);
                let term = self.policy(body, scope);
                self.warn_port_in_loop(body.span, term);
                match (condition, term) {
                    (Some(condition), Some(term)) => {
                        Meaning::Term(self.repetition(condition, term))
                    }
                    _ => Meaning::Erroneous,
                }
            }
            ExprKind::LetIn { definition, body } => {
                let scope = self.with_definition(definition, scope);
                self.expr(body, &scope)
            }
            ExprKind::Verb(verb) => self.verb(verb, expr.span, scope),
            ExprKind::Dup => Meaning::Term(self.arena.term(Term::Dup)),
            ExprKind::Link { from, to } => self.link(from, to, scope),
            ExprKind::Established(inner) => self.established(inner.as_deref(), expr.span, scope),
            ExprKind::Error => Meaning::Erroneous,
        }
    }

    pub(super) fn term_of(&mut self, term: Option<Term>) -> Meaning {
        term.map_or(Meaning::Erroneous, |term| {
            Meaning::Term(self.arena.term(term))
        })
    }

    pub(super) fn pred_of(&mut self, predicate: Option<Pred>) -> Meaning {
        predicate.map_or(Meaning::Erroneous, |p| {
            Meaning::Pred(self.arena.predicate(p))
        })
    }

    /// The predicate of an expression that has to be one.
    pub(super) fn condition(&mut self, expr: &'d Expr, scope: &Scope<'d>) -> Option<PredId> {
        match self.expr(expr, scope) {
            Meaning::Pred(predicate) => Some(predicate),
            Meaning::Term(_) => {
                self.sink
                    .report(
                        Code::WrongKind,
                        expr.span,
                        "this is a policy where a predicate is needed",
                    )
                    .hint("conditions are tests joined by `and`, `or` and `not`");
                None
            }
            Meaning::Erroneous => None,
        }
    }

    /// All of several predicates; every one is read, even after a mistake.
    fn conditions(&mut self, parts: &'d [Expr], scope: &Scope<'d>) -> Option<Box<[PredId]>> {
        let read: Vec<_> = parts
            .iter()
            .map(|part| self.condition(part, scope))
            .collect();
        read.into_iter().collect()
    }

    fn policies(&mut self, parts: &'d [Expr], scope: &Scope<'d>) -> Option<Vec<TermId>> {
        let read: Vec<_> = parts.iter().map(|part| self.policy(part, scope)).collect();
        read.into_iter().collect()
    }

    fn conditional(
        &mut self,
        arms: &'d [(Expr, Expr)],
        otherwise: &'d Expr,
        scope: &Scope<'d>,
    ) -> Meaning {
        let mut read = Vec::new();
        for (condition, body) in arms {
            let condition = self.condition(condition, scope);
            let body = self.policy(body, scope);
            read.push(condition.zip(body));
        }
        let otherwise = self.policy(otherwise, scope);
        let read: Option<Box<[_]>> = read.into_iter().collect();
        self.term_of(
            read.zip(otherwise)
                .map(|(arms, last)| Term::Conditional(arms, last)),
        )
    }

    /// `while a do p` is `(filter a; p)*; filter not a`.
    fn repetition(&mut self, condition: PredId, body: TermId) -> TermId {
        let negated = self.arena.predicate(Pred::Not(condition));
        let enter = self.arena.term(Term::Filter(condition));
        let leave = self.arena.term(Term::Filter(negated));
        let once = self.arena.term(Term::Sequence(Box::new([enter, body])));
        let often = self.arena.term(Term::Star(once));
        self.arena.term(Term::Sequence(Box::new([often, leave])))
    }

    fn warn_port_after_forward(&mut self, parts: &[Expr], terms: &[TermId]) {
        let mut forwarded = false;
        for (part, term) in parts.iter().zip(terms) {
            let facts = self.arena.facts(*term);
            if forwarded && facts.tests_port {
                self.sink
                    .report(
                        Code::PortAfterForward,
                        part.span,
                        "`port` is tested after `forward`, when it equals no number",
                    )
                    .hint("test where the packet entered before `forward`");
            }
            forwarded |= facts.forwards;
        }
    }

    fn warn_port_in_loop(&mut self, span: Span, body: Option<TermId>) {
        let facts = body.map(|body| self.arena.facts(body));
        if facts.is_some_and(|f| f.forwards && f.tests_port) {
            self.sink.report(
                Code::PortAfterForward,
                span,
                "this loop tests `port` after `forward`, when it equals no number",
            );
        }
    }

    /// Registers a label and returns its place in source order.
    pub(super) fn label(&mut self, span: Span, label: Option<&str>, verb: &str) -> u32 {
        let text = self.label_text(span, label, verb);
        self.labels.insert(span.start, text);
        self.label_spans.insert(span.start, span);
        span.start
    }

    /// What a statement without a label of its own is called by.
    pub(super) fn label_text(&self, span: Span, label: Option<&str>, verb: &str) -> String {
        match label {
            Some(label) => label.to_owned(),
            None => format!("{}:{} {verb}", self.policy, self.lines.line(span.start)),
        }
    }

    fn test(
        &mut self,
        subject: Subject,
        operator: Operator,
        value: &'d Value,
        scope: &Scope<'d>,
    ) -> Meaning {
        let predicate = match subject {
            Subject::Field(Field::Source | Field::Destination) => {
                self.address_test(subject.field(), View::Both, value, scope)
            }
            Subject::Ip4(field) => self.address_test(field, View::V4, value, scope),
            Subject::Ip6(field) => self.address_test(field, View::V6, value, scope),
            Subject::Field(field) => {
                if field.is_virtual() {
                    self.need(Feature::of_field(field), value.span);
                }
                let ranges = self.ranges(field, value, scope);
                ranges.map(|ranges| self.arena.predicate(Pred::Number(field, ranges)))
            }
        };
        let negated = operator == Operator::NotEqual;
        match predicate {
            Some(predicate) if negated => self.pred_of(Some(Pred::Not(predicate))),
            Some(predicate) => Meaning::Pred(predicate),
            None => Meaning::Erroneous,
        }
    }

    fn word(&mut self, word: Word, span: Span) -> Meaning {
        let tcp = [(6, 6)];
        let predicate = match word {
            Word::Tcp => self.number(Field::Protocol, &tcp),
            Word::Udp => self.number(Field::Protocol, &[(17, 17)]),
            Word::Icmp => self.number(Field::Protocol, &[(1, 1), (58, 58)]),
            Word::Icmp4 => self.number(Field::Protocol, &[(1, 1)]),
            Word::Icmp6 => self.number(Field::Protocol, &[(58, 58)]),
            Word::Ipv4 => self.number(Field::EtherType, &[(0x0800, 0x0800)]),
            Word::Ipv6 => self.number(Field::EtherType, &[(0x86dd, 0x86dd)]),
            Word::Arp => self.number(Field::EtherType, &[(0x0806, 0x0806)]),
            Word::Http => self.service(&tcp, 80),
            Word::Https => self.service(&tcp, 443),
            Word::Ssh => self.service(&tcp, 22),
            Word::Dns => self.service(&[(6, 6), (17, 17)], 53),
            Word::Internet => match self.internet_test(Field::Source, View::Both, span) {
                Some(predicate) => predicate,
                None => return Meaning::Erroneous,
            },
        };
        Meaning::Pred(predicate)
    }

    pub(super) fn number(&mut self, field: Field, ranges: &[(u64, u64)]) -> PredId {
        self.arena.predicate(Pred::Number(field, ranges.into()))
    }

    fn service(&mut self, protocols: &[(u64, u64)], port: u64) -> PredId {
        let protocol = self.number(Field::Protocol, protocols);
        let port = self.number(Field::DestinationPort, &[(port, port)]);
        self.arena.predicate(Pred::And(Box::new([protocol, port])))
    }

    fn assign(
        &mut self,
        span: Span,
        subject: Subject,
        value: &'d Value,
        scope: &Scope<'d>,
    ) -> Meaning {
        let field = subject.field();
        match field {
            Field::VlanId | Field::VlanPriority => {
                self.sink
                    .report(
                        Code::NotWritable,
                        span,
                        format!(
                            "`{}` cannot be assigned: this data plane writes no VLAN tags",
                            field.name()
                        ),
                    )
                    .hint("leave it out: networks are kept apart without tags");
                Meaning::Erroneous
            }
            Field::Connection | Field::Bucket | Field::Token | Field::Translated => {
                self.sink
                    .report(
                        Code::NotWritable,
                        span,
                        format!(
                            "`{}` cannot be assigned: it is known before the policy",
                            field.name()
                        ),
                    )
                    .hint("test it: no header of a packet holds it");
                Meaning::Erroneous
            }
            Field::Source | Field::Destination => {
                let address = self.one_address(subject, value, scope);
                self.note_assigned(subject, address, span);
                self.term_of(address.map(|address| Term::SetAddress(field, address.into())))
            }
            Field::Port => {
                let number = self.one_number(field, value, scope);
                let verb = match (&value.kind, number) {
                    (ValueKind::Name(name) | ValueKind::Text(name), _) => format!("port := {name}"),
                    (_, Some(number)) => format!("port := {number}"),
                    _ => String::new(),
                };
                let label = self.label(span, None, &verb);
                self.assigned
                    .entry(AssignedField::Number(field))
                    .or_insert(span);
                self.term_of(number.map(|number| Term::SetPort(number, label)))
            }
            _ => {
                let number = self.one_number(field, value, scope);
                self.assigned
                    .entry(AssignedField::Number(field))
                    .or_insert(span);
                self.term_of(number.map(|number| Term::SetNumber(field, number)))
            }
        }
    }

    pub(super) fn note_assigned(
        &mut self,
        subject: Subject,
        address: Option<std::net::IpAddr>,
        span: Span,
    ) {
        let field = match address {
            Some(std::net::IpAddr::V6(_)) => AssignedField::V6(subject.field()),
            _ => AssignedField::V4(subject.field()),
        };
        self.assigned.entry(field).or_insert(span);
    }

    /// A scope in which a local definition holds.
    fn with_definition(&mut self, definition: &'d Let, scope: &Scope<'d>) -> Scope<'d> {
        let local = if definition.params.is_empty() {
            Local::Meaning(self.expr(&definition.value, scope))
        } else {
            self.check_params(definition);
            Local::Definition(definition, scope.clone())
        };
        scope.with(&definition.name.text, local)
    }

    fn named(&mut self, name: &'d Name, arguments: &'d [Argument], scope: &Scope<'d>) -> Meaning {
        match self.local(scope, &name.text) {
            Some(Local::Meaning(meaning)) => {
                self.no_arguments(name, arguments);
                meaning
            }
            Some(Local::Argument(argument, outer)) => {
                self.no_arguments(name, arguments);
                self.argument(name, argument, &outer)
            }
            Some(Local::Definition(definition, outer)) => {
                self.apply(definition, name, arguments, scope, &outer)
            }
            None => match self.globals.get(name.text.as_str()).copied() {
                Some(global) => match global.kind {
                    GlobalKind::Meaning(meaning) => {
                        self.no_arguments(name, arguments);
                        meaning
                    }
                    GlobalKind::Parametric(definition) => {
                        self.apply(definition, name, arguments, scope, &Scope::default())
                    }
                },
                None => self.unknown(name),
            },
        }
    }

    fn argument(&mut self, name: &Name, argument: &'d Argument, scope: &Scope<'d>) -> Meaning {
        match argument {
            Argument::Expr(expr) => self.expr(expr, scope),
            Argument::Value(value) => {
                self.sink
                    .report(
                        Code::WrongKind,
                        value.span,
                        format!(
                            "`{}` is used as a policy or predicate, and this is a value",
                            name.text
                        ),
                    )
                    .label(name.span, "used here");
                Meaning::Erroneous
            }
        }
    }

    fn no_arguments(&mut self, name: &Name, arguments: &[Argument]) {
        if !arguments.is_empty() {
            self.sink.report(
                Code::WrongArguments,
                name.span,
                format!("`{}` has no parameters", name.text),
            );
        }
    }

    /// Reads a definition with its parameters bound.
    fn apply(
        &mut self,
        definition: &'d Let,
        name: &Name,
        arguments: &'d [Argument],
        scope: &Scope<'d>,
        outer: &Scope<'d>,
    ) -> Meaning {
        if definition.params.len() != arguments.len() {
            self.sink
                .report(
                    Code::WrongArguments,
                    name.span,
                    format!(
                        "`{}` takes {} arguments, and there are {}",
                        name.text,
                        definition.params.len(),
                        arguments.len()
                    ),
                )
                .label(definition.name.span, "defined here");
            return Meaning::Erroneous;
        }
        let mut inner = outer.clone();
        for (param, argument) in definition.params.iter().zip(arguments) {
            inner = inner.with(&param.text, Local::Argument(argument, scope.clone()));
        }
        self.expr(&definition.value, &inner)
    }

    fn unknown(&mut self, name: &Name) -> Meaning {
        let later = self.is_defined_later(&name.text);
        let is_set = self.sets.contains_key(name.text.as_str());
        let mut known: Vec<&str> = Vec::new();
        if self.sink.keeps_more() {
            known.extend(self.globals.keys());
            known.extend(crate::field::subject_names());
            known.extend(Word::ALL.iter().map(|(word, _)| *word));
            known.extend(["forward", "drop", "filter", "id", "established"]);
            known.sort_unstable();
        }
        let near = nearest(&name.text, known.into_iter()).map(str::to_owned);
        let report = self.sink.report(
            Code::UnknownName,
            name.span,
            format!(
                "there is no policy or predicate `{}`",
                crate::token::shorten(&name.text)
            ),
        );
        if later {
            report.hint("it is defined further down: move the definition up");
        } else if is_set {
            report.hint(format!(
                "`{0}` is a set: write `src in {0}` or `dst in {0}`",
                name.text
            ));
        } else if let Some(near) = near {
            report.hint(format!("did you mean `{near}`?"));
        }
        Meaning::Erroneous
    }
}
