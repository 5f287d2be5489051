//! The syntax tree: what stands in the text, with the place where it stands.
//!
//! Policies and predicates are one kind of expression here; which of the two a name or a bracket
//! is becomes known when names are resolved.

use std::net::IpAddr;
use std::sync::Arc;

use crate::diagnostic::Span;
use crate::field::Subject;

/// A parsed source text.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The text itself, for locating what later stages find wrong.
    pub source: Arc<str>,
    /// Definitions in source order.
    pub items: Vec<Item>,
}

/// A definition.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// What it defines.
    pub kind: ItemKind,
    /// Where.
    pub span: Span,
}

/// What a definition defines.
#[derive(Clone, Debug, PartialEq)]
pub enum ItemKind {
    /// `network NAME { subnet …; peer …; public … }`; no subnets without a block, or when a block
    /// names peers alone.
    Network {
        /// Its name.
        name: Name,
        /// Its subnets.
        subnets: Option<Vec<Value>>,
        /// Networks that it is peered with.
        peers: Vec<Name>,
        /// Its public addresses.
        public: Vec<Public>,
    },
    /// `set NAME = …`.
    Set {
        /// Its name.
        name: Name,
        /// What is in it.
        value: Value,
    },
    /// `let NAME(params) = …`.
    Let(Let),
    /// `policy NAME = …`; a bare expression is the policy `main`.
    Policy {
        /// Its name.
        name: Name,
        /// What it does.
        body: Expr,
    },
    /// `assert …`.
    Assert(Assertion),
    /// `test "…" { … }`.
    Test(Test),
    /// `import "…"`.
    Import {
        /// Path of the imported text, relative to the importing one.
        path: String,
    },
}

/// `public ADDRESS -> ENDPOINT` in a `network` block.
#[derive(Clone, Debug, PartialEq)]
pub struct Public {
    /// The address.
    pub address: Value,
    /// The endpoint that it leads to.
    pub endpoint: Value,
}

/// A name as written.
#[derive(Clone, Debug, PartialEq)]
pub struct Name {
    /// The name.
    pub text: String,
    /// Where.
    pub span: Span,
}

/// A definition by `let`.
#[derive(Clone, Debug, PartialEq)]
pub struct Let {
    /// What is defined.
    pub name: Name,
    /// Parameters; empty for a plain definition.
    pub params: Vec<Name>,
    /// What it stands for.
    pub value: Expr,
}

/// A policy or a predicate.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    /// What it is.
    pub kind: ExprKind,
    /// Where.
    pub span: Span,
}

impl Expr {
    /// Whether it only lets packets through or not, as far as its form tells.
    pub(crate) const fn is_test(&self) -> bool {
        matches!(
            self.kind,
            ExprKind::Filter(_)
                | ExprKind::Test { .. }
                | ExprKind::Word(_)
                | ExprKind::And(_)
                | ExprKind::Or(_)
                | ExprKind::Not(_)
                | ExprKind::Established(_)
        )
    }
}

/// What an expression is.
#[derive(Clone, Debug, PartialEq)]
pub enum ExprKind {
    /// `true`.
    True,
    /// `false`.
    False,
    /// `id` or `skip`.
    Id,
    /// `drop`, with its label.
    Drop(Option<String>),
    /// `forward`, with its label.
    Forward(Option<String>),
    /// A verb with operands.
    Verb(Box<Verb>),
    /// `dup`.
    Dup,
    /// `NODE@PORT => NODE@PORT`.
    Link {
        /// Node and port where the link begins.
        from: Box<(Value, Value)>,
        /// Node and port where it ends.
        to: Box<(Value, Value)>,
    },
    /// `established`, `established(p)`.
    Established(Option<Box<Expr>>),
    /// `filter p`.
    Filter(Box<Expr>),
    /// `FIELD = v`, `FIELD != v`, `FIELD in …`.
    Test {
        /// What is tested.
        subject: Subject,
        /// How.
        operator: Operator,
        /// Against what.
        value: Value,
    },
    /// A word that stands for a test: `tcp`, `http`, `internet`.
    Word(Word),
    /// `FIELD := v`.
    Assign {
        /// What is assigned.
        subject: Subject,
        /// The new value.
        value: Value,
    },
    /// The use of a definition, with arguments.
    Use {
        /// Its name.
        name: Name,
        /// Arguments; empty for a plain definition.
        arguments: Vec<Argument>,
    },
    /// `not p`.
    Not(Box<Expr>),
    /// `p and q and …`.
    And(Vec<Expr>),
    /// `p or q or …`.
    Or(Vec<Expr>),
    /// `p + q + …`.
    Union(Vec<Expr>),
    /// `p; q; …`.
    Sequence(Vec<Expr>),
    /// `p*`.
    Star(Box<Expr>),
    /// `if … then … else if … then … else …`.
    Conditional {
        /// Conditions with what they lead to, in order.
        arms: Vec<(Expr, Expr)>,
        /// What happens when no condition holds.
        otherwise: Box<Expr>,
    },
    /// `while p do q`.
    While {
        /// The condition.
        condition: Box<Expr>,
        /// What is repeated.
        body: Box<Expr>,
    },
    /// `let x = p in q`.
    LetIn {
        /// The definition.
        definition: Box<Let>,
        /// Where it holds.
        body: Box<Expr>,
    },
    /// What could not be read, or is not supported; already reported.
    Error,
}

/// A verb with operands.
#[derive(Clone, Debug, PartialEq)]
pub enum Verb {
    /// `forward to X`, with its label.
    ForwardTo(Value, Option<String>),
    /// `flood`.
    Flood,
    /// `multicast G`.
    Multicast(Value),
    /// `balance(a weight 2, b by ip4Src, tcpSrcPort)`.
    Balance {
        /// Back ends with their weights.
        targets: Vec<(Value, Option<u64>)>,
        /// Fields that tell clients apart; none for the whole flow.
        by: Vec<Subject>,
    },
    /// `snat A`.
    Snat(Value),
    /// `dnat A`, `dnat A port N`.
    Dnat(Value, Option<Value>),
    /// `count NAME`.
    Count(Name),
    /// `limit 100/s per ip4Src`.
    Limit {
        /// Packets, or bits with a unit.
        rate: Rate,
        /// Fields that tell the limited ones apart; none for all together.
        per: Vec<Subject>,
    },
    /// `mirror to X`.
    Mirror(Value),
    /// `log`, with its label.
    Log(Option<String>),
}

/// How much in a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// Packets.
    Packets(u64),
    /// Bits.
    Bits(u64),
}

/// What shall hold of a policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Assertion {
    /// What shall hold.
    pub kind: AssertionKind,
    /// Only packets for which this holds are meant.
    pub condition: Option<Expr>,
}

/// What shall hold of a policy.
#[derive(Clone, Debug, PartialEq)]
pub enum AssertionKind {
    /// `reach(a, b)`: every packet that a sends to b arrives.
    Reach(Value, Value),
    /// `isolated(a, b)`: neither can begin a connection to the other; `both`: nor answer.
    Isolated {
        /// One side.
        left: Value,
        /// The other.
        right: Value,
        /// Replies count as well.
        both: bool,
    },
    /// `waypoint(a, b, via c)`: whatever comes from a to b has passed c.
    Waypoint {
        /// Where it starts.
        from: Value,
        /// Where it ends.
        to: Value,
        /// What it passes.
        via: Value,
    },
    /// `loop-free`: no packet is sent around for ever.
    LoopFree,
    /// `no-black-hole`: whatever is sent on arrives somewhere.
    NoBlackHole,
    /// `p == q`: the same comes out of both.
    Equal(Expr, Expr),
    /// `p <= q`: whatever comes out of the first also comes out of the second.
    Contained(Expr, Expr),
}

/// `test "…" { … }`.
#[derive(Clone, Debug, PartialEq)]
pub struct Test {
    /// What it shows.
    pub name: String,
    /// Packets with what shall become of them.
    pub cases: Vec<TestCase>,
}

/// `from X to Y tcp 22 with FIELD = v : drop "label"`.
#[derive(Clone, Debug, PartialEq)]
pub struct TestCase {
    /// Who sends it.
    pub from: Value,
    /// To whom.
    pub to: Value,
    /// Its protocol.
    pub protocol: Option<Word>,
    /// Its destination port.
    pub port: Option<Value>,
    /// Further fields.
    pub fields: Vec<(Subject, Value)>,
    /// What shall become of it.
    pub expected: Expected,
    /// Where.
    pub span: Span,
}

/// What shall become of a packet.
#[derive(Clone, Debug, PartialEq)]
pub enum Expected {
    /// `drop`, `drop "label"`.
    Drop(Option<String>),
    /// `forward`, `forward to X`, each with a label.
    Forward(Option<Value>, Option<String>),
}

/// How a test compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `=`, `==`.
    Equal,
    /// `!=`.
    NotEqual,
    /// `in`.
    In,
}

/// Words that stand for a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// IP protocol 6.
    Tcp,
    /// IP protocol 17.
    Udp,
    /// ICMP or ICMPv6.
    Icmp,
    /// ICMP alone.
    Icmp4,
    /// ICMPv6 alone.
    Icmp6,
    /// EtherType of IPv4.
    Ipv4,
    /// EtherType of IPv6.
    Ipv6,
    /// EtherType of ARP.
    Arp,
    /// TCP to port 80.
    Http,
    /// TCP to port 443.
    Https,
    /// TCP to port 22.
    Ssh,
    /// TCP or UDP to port 53.
    Dns,
    /// From outside all subnets of the network.
    Internet,
}

impl Word {
    /// Every word, with its spelling.
    pub const ALL: [(&'static str, Word); 13] = [
        ("tcp", Word::Tcp),
        ("udp", Word::Udp),
        ("icmp", Word::Icmp),
        ("icmp4", Word::Icmp4),
        ("icmp6", Word::Icmp6),
        ("ipv4", Word::Ipv4),
        ("ipv6", Word::Ipv6),
        ("arp", Word::Arp),
        ("http", Word::Http),
        ("https", Word::Https),
        ("ssh", Word::Ssh),
        ("dns", Word::Dns),
        ("internet", Word::Internet),
    ];

    /// The word with this spelling.
    #[must_use]
    pub fn named(name: &str) -> Option<Word> {
        Self::ALL.iter().find(|(n, _)| *n == name).map(|(_, w)| *w)
    }

    /// Its spelling.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, w)| *w == self)
            .map_or("", |(n, _)| n)
    }
}

/// An argument of a definition with parameters.
#[derive(Clone, Debug, PartialEq)]
pub enum Argument {
    /// A value; a bare name is an expression instead, and may mean a value all the same.
    Value(Value),
    /// A policy, a predicate, or a name.
    Expr(Expr),
}

impl Argument {
    /// The value that the argument means where a value is needed, if it can be one.
    #[must_use]
    pub fn as_value(&self) -> Option<Value> {
        let (kind, span) = match self {
            Argument::Value(value) => return Some(value.clone()),
            Argument::Expr(expr) => match &expr.kind {
                ExprKind::Use { name, arguments } if arguments.is_empty() => {
                    (ValueKind::Name(name.text.clone()), expr.span)
                }
                ExprKind::Word(word) => (ValueKind::Name(word.name().to_owned()), expr.span),
                ExprKind::Error => (ValueKind::Error, expr.span),
                _ => return None,
            },
        };
        Some(Value { kind, span })
    }
}

/// A value or a set of values.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// What it is.
    pub kind: ValueKind,
    /// Where.
    pub span: Span,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub enum ValueKind {
    /// A number.
    Number(u64),
    /// `N-M`, both included.
    Range(u64, u64),
    /// A MAC address.
    Mac(u64),
    /// An address.
    Address(IpAddr),
    /// A prefix.
    Prefix(IpAddr, u8),
    /// From one address to another of the same family, both included.
    AddressRange(IpAddr, IpAddr),
    /// A name: of a set, an endpoint, a network, a node, a parameter.
    Name(String),
    /// A quoted name: of an endpoint or a node.
    Text(String),
    /// `labels(k = "v", …)`: the endpoints that have all these labels.
    Labels(Vec<(Name, String)>),
    /// `{ a, b, … }`.
    Set(Vec<Value>),
    /// What could not be read; already reported.
    Error,
}
