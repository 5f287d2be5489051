//! Syntax tree to text: the inverse of the parser.
//!
//! What is printed parses to the same tree, places aside. Brackets stand where the tree needs them
//! and nowhere else.

use std::fmt::{self, Display, Formatter, Write};

use crate::ast::{
    Argument, Assertion, AssertionKind, Document, Expected, Expr, ExprKind, ItemKind, Let,
    Operator, Rate, Test, TestCase, Value, ValueKind, Verb,
};
use crate::field::Subject;

/// How tightly an expression binds, loosest first; the levels of the parser's grammar.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Policy,
    Sequence,
    Unary,
    Or,
    And,
    Not,
    Atom,
}

impl Display for Document {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for item in &self.items {
            match &item.kind {
                ItemKind::Network {
                    name,
                    subnets,
                    peers,
                    public,
                } => {
                    write!(f, "network {}", name.text)?;
                    if subnets.is_some() || !peers.is_empty() {
                        let subnets = subnets.as_deref().unwrap_or_default();
                        f.write_str(" { ")?;
                        if !subnets.is_empty() {
                            f.write_str("subnet ")?;
                            list(f, subnets)?;
                        }
                        for (at, peer) in peers.iter().enumerate() {
                            f.write_str(match at {
                                0 if subnets.is_empty() => "peer ",
                                0 => "; peer ",
                                _ => ", ",
                            })?;
                            f.write_str(&peer.text)?;
                        }
                        for (at, public) in public.iter().enumerate() {
                            if at > 0 || !subnets.is_empty() || !peers.is_empty() {
                                f.write_str("; ")?;
                            }
                            write!(f, "public {} -> {}", public.address, public.endpoint)?;
                        }
                        f.write_str(" }")?;
                    }
                }
                ItemKind::Assert(assertion) => write!(f, "assert {assertion}")?,
                ItemKind::Test(test) => write!(f, "{test}")?,
                ItemKind::Import { path } => write!(f, "import \"{path}\"")?,
                ItemKind::Set { name, value } => write!(f, "set {} = {value}", name.text)?,
                ItemKind::Let(definition) => write!(f, "{definition}")?,
                ItemKind::Policy { name, body } => write!(f, "policy {} =\n    {body}", name.text)?,
            }
            f.write_char('\n')?;
        }
        Ok(())
    }
}

impl Display for Let {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "let {}", self.name.text)?;
        if !self.params.is_empty() {
            let params: Vec<&str> = self.params.iter().map(|p| p.text.as_str()).collect();
            write!(f, "({})", params.join(", "))?;
        }
        write!(f, " = {}", self.value)
    }
}

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        print(f, self, Level::Policy)
    }
}

fn level(kind: &ExprKind) -> Level {
    match kind {
        ExprKind::Verb(verb) if !verb_is_closed(verb) => Level::Not,
        // The body of a `let` goes on as far as it can.
        ExprKind::Union(_) | ExprKind::LetIn { .. } => Level::Policy,
        ExprKind::Sequence(_) => Level::Sequence,
        ExprKind::Conditional { .. } | ExprKind::While { .. } | ExprKind::Filter(_) => Level::Unary,
        ExprKind::Or(_) => Level::Or,
        ExprKind::And(_) => Level::And,
        ExprKind::Not(_) | ExprKind::Star(_) => Level::Not,
        _ => Level::Atom,
    }
}

/// Prints an expression where one that binds at least as tightly as `least` may stand.
fn print(f: &mut Formatter<'_>, expr: &Expr, least: Level) -> fmt::Result {
    if level(&expr.kind) < least {
        f.write_char('(')?;
        kind(f, &expr.kind)?;
        return f.write_char(')');
    }
    kind(f, &expr.kind)
}

fn joined(f: &mut Formatter<'_>, parts: &[Expr], between: &str, least: Level) -> fmt::Result {
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            f.write_str(between)?;
        }
        print(f, part, least)?;
    }
    Ok(())
}

fn kind(f: &mut Formatter<'_>, kind: &ExprKind) -> fmt::Result {
    match kind {
        ExprKind::True => f.write_str("true"),
        ExprKind::False => f.write_str("false"),
        ExprKind::Id => f.write_str("id"),
        ExprKind::Drop(label) => labelled(f, "drop", label.as_deref()),
        ExprKind::Forward(label) => labelled(f, "forward", label.as_deref()),
        ExprKind::Filter(inner) => {
            f.write_str("filter ")?;
            // Inside `filter` a star belongs to the whole.
            let star = matches!(inner.kind, ExprKind::Star(_));
            print(f, inner, if star { Level::Atom } else { Level::Or })
        }
        ExprKind::Test {
            subject,
            operator,
            value,
        } => {
            let operator = match operator {
                Operator::Equal => "=",
                Operator::NotEqual => "!=",
                Operator::In => "in",
            };
            write!(f, "{} {operator} {value}", subject.name())
        }
        ExprKind::Word(word) => f.write_str(word.name()),
        ExprKind::Assign { subject, value } => write!(f, "{} := {value}", subject.name()),
        ExprKind::Use { name, arguments } => {
            f.write_str(&name.text)?;
            if !arguments.is_empty() {
                f.write_char('(')?;
                for (at, argument) in arguments.iter().enumerate() {
                    if at > 0 {
                        f.write_str(", ")?;
                    }
                    match argument {
                        Argument::Value(value) => write!(f, "{value}")?,
                        Argument::Expr(expr) => write!(f, "{expr}")?,
                    }
                }
                f.write_char(')')?;
            }
            Ok(())
        }
        ExprKind::Not(inner) => {
            f.write_str("not ")?;
            print(f, inner, Level::Not)
        }
        ExprKind::Star(inner) => {
            // `filter p *` is the star of the filter.
            let filter = matches!(inner.kind, ExprKind::Filter(_));
            print(f, inner, if filter { Level::Unary } else { Level::Atom })?;
            f.write_str("*")
        }
        ExprKind::And(parts) => joined(f, parts, " and ", Level::Not),
        ExprKind::Or(parts) => joined(f, parts, " or ", Level::And),
        ExprKind::Union(parts) => joined(f, parts, " + ", Level::Sequence),
        ExprKind::Sequence(parts) => joined(f, parts, "; ", Level::Unary),
        ExprKind::Conditional { arms, otherwise } => {
            for (condition, body) in arms {
                f.write_str("if ")?;
                print(f, condition, Level::Or)?;
                f.write_str(" then ")?;
                print(f, body, Level::Policy)?;
                f.write_str(" else ")?;
            }
            // A conditional here would be read as one more arm.
            let arm = matches!(otherwise.kind, ExprKind::Conditional { .. });
            print(f, otherwise, if arm { Level::Atom } else { Level::Unary })
        }
        ExprKind::While { condition, body } => {
            f.write_str("while ")?;
            print(f, condition, Level::Or)?;
            f.write_str(" do ")?;
            print(f, body, Level::Unary)
        }
        ExprKind::LetIn { definition, body } => write!(f, "{definition} in {body}"),
        ExprKind::Verb(verb) => write!(f, "{verb}"),
        ExprKind::Dup => f.write_str("dup"),
        ExprKind::Link { from, to } => {
            write!(f, "{}@{} => {}@{}", from.0, from.1, to.0, to.1)
        }
        ExprKind::Established(None) => f.write_str("established"),
        ExprKind::Established(Some(inner)) => write!(f, "established({inner})"),
        ExprKind::Error => f.write_str("<error>"),
    }
}

/// Whether nothing that follows a verb could be taken for its operand.
fn verb_is_closed(verb: &Verb) -> bool {
    !matches!(verb, Verb::Limit { .. })
}

impl Display for Verb {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Verb::ForwardTo(target, label) => {
                labelled(f, &format!("forward to {target}"), label.as_deref())
            }
            Verb::Flood => f.write_str("flood"),
            Verb::Multicast(group) => write!(f, "multicast {group}"),
            Verb::Balance { targets, by } => {
                f.write_str("balance(")?;
                for (at, (target, weight)) in targets.iter().enumerate() {
                    if at > 0 {
                        f.write_str(", ")?;
                    }
                    write!(f, "{target}")?;
                    if let Some(weight) = weight {
                        write!(f, " weight {weight}")?;
                    }
                }
                if !by.is_empty() {
                    write!(f, " by {}", subjects(by))?;
                }
                f.write_char(')')
            }
            Verb::Snat(address) => write!(f, "snat {address}"),
            Verb::Dnat(address, None) => write!(f, "dnat {address}"),
            Verb::Dnat(address, Some(port)) => write!(f, "dnat {address} port {port}"),
            Verb::Count(name) => write!(f, "count {}", name.text),
            Verb::Limit { rate, per } => {
                match rate {
                    Rate::Packets(packets) => write!(f, "limit {packets} pps")?,
                    Rate::Bits(bits) => write!(f, "limit {bits} bit")?,
                }
                match per.as_slice() {
                    [] => Ok(()),
                    _ => write!(f, " per {}", subjects(per)),
                }
            }
            Verb::Mirror(target) => write!(f, "mirror to {target}"),
            Verb::Log(label) => labelled(f, "log", label.as_deref()),
        }
    }
}

fn subjects(subjects: &[Subject]) -> String {
    let names: Vec<&str> = subjects.iter().map(|s| s.name()).collect();
    names.join(", ")
}

impl Display for Assertion {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let condition = match &self.condition {
            Some(condition) => format!(" where {}", AtLeast(condition, Level::Or)),
            None => String::new(),
        };
        match &self.kind {
            AssertionKind::Reach(from, to) => write!(f, "reach({from}, {to}{condition})"),
            AssertionKind::Isolated { left, right, both } => {
                let both = if *both { " both" } else { "" };
                write!(f, "isolated{both}({left}, {right}{condition})")
            }
            AssertionKind::Waypoint { from, to, via } => {
                write!(f, "waypoint({from}, {to}, via {via}{condition})")
            }
            AssertionKind::LoopFree | AssertionKind::NoBlackHole => {
                f.write_str(match self.kind {
                    AssertionKind::LoopFree => "loop-free",
                    _ => "no-black-hole",
                })?;
                match condition.is_empty() {
                    true => Ok(()),
                    false => write!(f, "({})", condition.trim_start()),
                }
            }
            AssertionKind::Equal(left, right) => {
                let (left, right) = (
                    AtLeast(left, Level::Sequence),
                    AtLeast(right, Level::Sequence),
                );
                write!(f, "{left} == {right}{condition}")
            }
            AssertionKind::Contained(left, right) => {
                let (left, right) = (
                    AtLeast(left, Level::Sequence),
                    AtLeast(right, Level::Sequence),
                );
                write!(f, "{left} <= {right}{condition}")
            }
        }
    }
}

/// An expression in brackets unless it binds tightly enough.
struct AtLeast<'a>(&'a Expr, Level);

impl Display for AtLeast<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        print(f, self.0, self.1)
    }
}

impl Display for Test {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "test \"{}\" {{", self.name)?;
        for case in &self.cases {
            writeln!(f, "    {case}")?;
        }
        f.write_char('}')
    }
}

impl Display for TestCase {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "from {} to {}", self.from, self.to)?;
        if let Some(protocol) = self.protocol {
            write!(f, " {}", protocol.name())?;
        }
        if let Some(port) = &self.port {
            write!(f, " {port}")?;
        }
        for (at, (subject, value)) in self.fields.iter().enumerate() {
            let between = if at == 0 { " with" } else { "," };
            write!(f, "{between} {} = {value}", subject.name())?;
        }
        f.write_str(" : ")?;
        match &self.expected {
            Expected::Drop(label) => labelled(f, "drop", label.as_deref()),
            Expected::Forward(None, label) => labelled(f, "forward", label.as_deref()),
            Expected::Forward(Some(to), label) => {
                labelled(f, &format!("forward to {to}"), label.as_deref())
            }
        }
    }
}

fn labelled(f: &mut Formatter<'_>, verb: &str, label: Option<&str>) -> fmt::Result {
    match label {
        Some(label) => write!(f, "{verb} \"{label}\""),
        None => f.write_str(verb),
    }
}

fn list(f: &mut Formatter<'_>, values: &[Value]) -> fmt::Result {
    for (at, value) in values.iter().enumerate() {
        if at > 0 {
            f.write_str(", ")?;
        }
        write!(f, "{value}")?;
    }
    Ok(())
}

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ValueKind::Number(number) => write!(f, "{number}"),
            ValueKind::Range(first, last) => write!(f, "{first}-{last}"),
            ValueKind::Mac(mac) => {
                let bytes: Vec<String> = mac.to_be_bytes()[2..]
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect();
                f.write_str(&bytes.join(":"))
            }
            ValueKind::Address(address) => write!(f, "{address}"),
            ValueKind::Prefix(address, length) => write!(f, "{address}/{length}"),
            ValueKind::AddressRange(first, last) => write!(f, "{first}-{last}"),
            ValueKind::Name(name) => f.write_str(name),
            ValueKind::Text(text) => write!(f, "\"{text}\""),
            ValueKind::Labels(labels) => {
                f.write_str("labels(")?;
                for (at, (key, value)) in labels.iter().enumerate() {
                    if at > 0 {
                        f.write_str(", ")?;
                    }
                    write!(f, "\"{}\" = \"{value}\"", key.text)?;
                }
                f.write_char(')')
            }
            ValueKind::Set(values) => {
                f.write_str("{ ")?;
                list(f, values)?;
                f.write_str(" }")
            }
            ValueKind::Error => f.write_str("<error>"),
        }
    }
}
