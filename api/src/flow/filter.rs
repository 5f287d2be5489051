//! A small language of filters on flows: `from web1 and port 443 and not drop`.
//!
//! ```text
//! filter  = all { "or" all }
//! all     = one { ["and"] one }
//! one     = "not" one | "(" filter ")" | test
//! test    = ("from" | "to" | "with") (ENDPOINT | ADDRESS | CIDR)
//!         | ("port" | "source-port" | "destination-port") NUMBER ["-" NUMBER]
//!         | "network" NAME | "wire" NAME | "node" NAME | "next" NAME | "label" TEXT | "log" TEXT | "reason" NAME
//!         | "protocol" NUMBER | "tcp" | "udp" | "icmp" | "icmpv6" | "ipv4" | "ipv6"
//!         | "drop" | "dropped" | "forwarded" | "answered" | "new" | "sample" | "logged" | "established"
//! ```
//! A name may have `*` in it. Text with blanks stands between quotes.

use std::fmt;
use std::net::IpAddr;
use std::ops::Range;
use std::str::FromStr;

use crate::Cidr;
use sunwire_dataplane_common::drop_reason::DropReason;

use super::{Flow, FlowCause, FlowConnection, FlowEnd, FlowVerdict};

/// Longest filter, in bytes.
const BYTES_MAX: usize = 4096;
/// Deepest nesting: parsing and matching recurse.
const DEPTH_MAX: usize = 64;

/// A filter on flows; the empty one lets all through.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct FlowFilter {
    text: String,
    root: Option<Node>,
}

/// A text that is no filter: what is wrong and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} at character {} of the filter\n  {text}\n  {}{}", self.column + 1, " ".repeat(self.column), "^".repeat(self.width))]
pub struct FlowFilterError {
    message: String,
    text: String,
    /// Characters before the place.
    column: usize,
    /// Characters of the place, at least one.
    width: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Any(Vec<Node>),
    All(Vec<Node>),
    Not(Box<Node>),
    Test(Test),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    End(Side, Who),
    Port(Side, u16, u16),
    Network(Pattern),
    Wire(Pattern),
    Node(Pattern),
    Next(Pattern),
    Label(Pattern),
    Log(Pattern),
    Reason(Pattern),
    Protocol(u8),
    Ipv6(bool),
    Verdict(FlowVerdict),
    Cause(FlowCause),
    Established,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    From,
    To,
    Either,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Who {
    Named(Pattern),
    Within(Cidr),
    Is(IpAddr),
}

/// A text in which each `*` stands for any characters.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern(String);

impl FlowFilter {
    /// Whether a flow passes.
    #[must_use]
    pub fn matches(&self, flow: &Flow) -> bool {
        self.root.as_ref().is_none_or(|root| root.matches(flow))
    }

    /// The text that it was read from.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for FlowFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for FlowFilter {
    type Err = FlowFilterError;

    fn from_str(text: &str) -> Result<Self, FlowFilterError> {
        let parser = Parser::new(text)?;
        Ok(FlowFilter {
            text: text.to_owned(),
            root: parser.whole()?,
        })
    }
}

impl Node {
    fn matches(&self, flow: &Flow) -> bool {
        match self {
            Node::Any(nodes) => nodes.iter().any(|node| node.matches(flow)),
            Node::All(nodes) => nodes.iter().all(|node| node.matches(flow)),
            Node::Not(node) => !node.matches(flow),
            Node::Test(test) => test.matches(flow),
        }
    }
}

impl Test {
    fn matches(&self, flow: &Flow) -> bool {
        let is = |pattern: &Pattern, name: &Option<String>| {
            name.as_ref().is_some_and(|name| pattern.matches(name))
        };
        match self {
            Test::End(side, who) => side.of(flow, |end| who.matches(end)),
            Test::Port(side, first, last) => side.of(flow, |end| {
                end.port
                    .is_some_and(|port| (*first..=*last).contains(&port))
            }),
            Test::Network(pattern) => [&flow.network, &flow.from.network, &flow.to.network]
                .into_iter()
                .any(|network| is(pattern, network)),
            Test::Wire(pattern) => is(pattern, &flow.wire),
            Test::Node(pattern) => pattern.matches(&flow.node),
            Test::Next(pattern) => is(pattern, &flow.next_node),
            Test::Label(pattern) => is(pattern, &flow.label),
            Test::Log(pattern) => is(pattern, &flow.log),
            Test::Reason(pattern) => is(pattern, &flow.reason),
            Test::Protocol(protocol) => flow.protocol == Some(*protocol),
            Test::Ipv6(v6) => flow
                .from
                .address
                .is_some_and(|address| address.is_ipv6() == *v6),
            Test::Verdict(verdict) => flow.verdict == *verdict,
            Test::Cause(cause) => flow.causes.contains(cause),
            Test::Established => flow.connection == Some(FlowConnection::Established),
        }
    }
}

impl Side {
    fn of(self, flow: &Flow, test: impl Fn(&FlowEnd) -> bool) -> bool {
        match self {
            Side::From => test(&flow.from),
            Side::To => test(&flow.to),
            Side::Either => test(&flow.from) || test(&flow.to),
        }
    }
}

impl Who {
    fn matches(&self, end: &FlowEnd) -> bool {
        match self {
            Who::Named(pattern) => end
                .endpoint
                .as_ref()
                .is_some_and(|name| pattern.matches(name)),
            Who::Within(cidr) => end.address.is_some_and(|address| cidr.contains(address)),
            Who::Is(address) => end.address == Some(*address),
        }
    }
}

impl Pattern {
    fn matches(&self, text: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = text.strip_prefix(first) else {
            return false;
        };
        let mut parts: Vec<&str> = parts.collect();
        let Some(last) = parts.pop() else {
            return rest.is_empty();
        };
        // Each part at its first place: the least is taken from what follows.
        for part in parts {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Open,
    Close,
    Word(String),
    /// It stood between quotes, so it is no word of the language.
    Quoted(String),
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<(Token, Range<usize>)>,
    next: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Result<Self, FlowFilterError> {
        let mut parser = Parser {
            text,
            tokens: Vec::new(),
            next: 0,
            depth: 0,
        };
        if text.len() > BYTES_MAX {
            let message = format!("a filter has at most {BYTES_MAX} bytes");
            return Err(FlowFilterError {
                message,
                text: text.chars().take(60).collect(),
                column: 0,
                width: 1,
            });
        }
        let mut at = 0;
        while let Some(first) = text[at..].chars().next() {
            let end = match first {
                '(' | ')' => at + 1,
                '"' => match text[at + 1..].find('"') {
                    Some(length) => at + 1 + length + 1,
                    None => return Err(parser.error("this quote is not closed", at..at + 1)),
                },
                _ if first.is_whitespace() => {
                    at += first.len_utf8();
                    continue;
                }
                _ => {
                    let stops = |c: char| c.is_whitespace() || matches!(c, '(' | ')' | '"');
                    text[at..]
                        .find(stops)
                        .map_or(text.len(), |length| at + length)
                }
            };
            let token = match first {
                '(' => Token::Open,
                ')' => Token::Close,
                '"' => Token::Quoted(text[at + 1..end - 1].to_owned()),
                _ => Token::Word(text[at..end].to_owned()),
            };
            parser.tokens.push((token, at..end));
            at = end;
        }
        Ok(parser)
    }

    fn error(&self, message: impl Into<String>, range: Range<usize>) -> FlowFilterError {
        FlowFilterError {
            message: message.into(),
            text: self.text.replace(['\n', '\t', '\r'], " "),
            column: self.text[..range.start].chars().count(),
            width: self.text[range].chars().count().max(1),
        }
    }

    /// Where the next token is, or the end.
    fn here(&self) -> Range<usize> {
        let end = self.text.len();
        self.tokens
            .get(self.next)
            .map_or(end..end, |(_, range)| range.clone())
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(token, _)| token)
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Some(Token::Word(found)) if found == word)
    }

    fn whole(mut self) -> Result<Option<Node>, FlowFilterError> {
        if self.tokens.is_empty() {
            return Ok(None);
        }
        let root = self.any()?;
        match self.peek() {
            None => Ok(Some(root)),
            Some(_) => Err(self.error("nothing is open that this would close", self.here())),
        }
    }

    fn any(&mut self) -> Result<Node, FlowFilterError> {
        let mut nodes = vec![self.all()?];
        while self.is_word("or") {
            self.next += 1;
            nodes.push(self.all()?);
        }
        Ok(if nodes.len() == 1 {
            nodes.remove(0)
        } else {
            Node::Any(nodes)
        })
    }

    fn all(&mut self) -> Result<Node, FlowFilterError> {
        let mut nodes = vec![self.one()?];
        loop {
            if self.is_word("and") {
                self.next += 1;
            } else if self.is_word("or") || matches!(self.peek(), None | Some(Token::Close)) {
                break;
            }
            nodes.push(self.one()?);
        }
        Ok(if nodes.len() == 1 {
            nodes.remove(0)
        } else {
            Node::All(nodes)
        })
    }

    fn one(&mut self) -> Result<Node, FlowFilterError> {
        let here = self.here();
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error(format!("a filter nests at most {DEPTH_MAX} deep"), here));
        }
        let node = match self.peek().cloned() {
            None => return Err(self.error("a test is missing", here)),
            Some(Token::Close) => return Err(self.error("a test is missing before this", here)),
            Some(Token::Quoted(_)) => {
                return Err(self.error("a test begins with a word: write label before this", here));
            }
            Some(Token::Open) => {
                self.next += 1;
                let node = self.any()?;
                if self.peek() != Some(&Token::Close) {
                    return Err(self.error("this parenthesis is not closed", here));
                }
                self.next += 1;
                node
            }
            Some(Token::Word(word)) => {
                self.next += 1;
                if word == "not" {
                    Node::Not(Box::new(self.one()?))
                } else {
                    Node::Test(self.test(&word, here)?)
                }
            }
        };
        self.depth -= 1;
        Ok(node)
    }

    fn test(&mut self, word: &str, here: Range<usize>) -> Result<Test, FlowFilterError> {
        Ok(match word {
            "from" => Test::End(Side::From, self.who(word)?),
            "to" => Test::End(Side::To, self.who(word)?),
            "with" => Test::End(Side::Either, self.who(word)?),
            "port" => self.ports(Side::Either)?,
            "source-port" => self.ports(Side::From)?,
            "destination-port" => self.ports(Side::To)?,
            "network" => Test::Network(self.name(word)?.0),
            "wire" => Test::Wire(self.name(word)?.0),
            "node" => Test::Node(self.name(word)?.0),
            "next" => Test::Next(self.name(word)?.0),
            "label" => Test::Label(self.name(word)?.0),
            "log" => Test::Log(self.name(word)?.0),
            "reason" => Test::Reason(self.reason(word)?),
            "protocol" => {
                let (Pattern(text), range) = self.name(word)?;
                match text.as_str() {
                    "tcp" => Test::Protocol(6),
                    "udp" => Test::Protocol(17),
                    "icmp" => Test::Protocol(1),
                    "icmpv6" => Test::Protocol(58),
                    number => Test::Protocol(number.parse().map_err(|_| {
                        self.error("a protocol is tcp, udp, icmp, icmpv6 or 0 to 255", range)
                    })?),
                }
            }
            "tcp" => Test::Protocol(6),
            "udp" => Test::Protocol(17),
            "icmp" => Test::Protocol(1),
            "icmpv6" => Test::Protocol(58),
            "ipv4" => Test::Ipv6(false),
            "ipv6" => Test::Ipv6(true),
            "drop" | "dropped" => Test::Verdict(FlowVerdict::Dropped),
            "forwarded" => Test::Verdict(FlowVerdict::Forwarded),
            "answered" => Test::Verdict(FlowVerdict::Answered),
            "new" => Test::Cause(FlowCause::New),
            "sample" => Test::Cause(FlowCause::Sample),
            "logged" => Test::Cause(FlowCause::Log),
            "established" => Test::Established,
            "and" | "or" => return Err(self.error("a test is missing before this", here)),
            _ => {
                return Err(self.error(
                    "there is no such test (from, to, with, port, source-port, destination-port, \
                     network, wire, node, next, label, log, reason, protocol, tcp, udp, icmp, icmpv6, \
                     ipv4, ipv6, drop, forwarded, answered, new, sample, logged, established)",
                    here,
                ));
            }
        })
    }

    /// The word or quoted text after `word`.
    fn name(&mut self, word: &str) -> Result<(Pattern, Range<usize>), FlowFilterError> {
        let here = self.here();
        match self.peek().cloned() {
            Some(Token::Word(text) | Token::Quoted(text)) => {
                self.next += 1;
                Ok((Pattern(text), here))
            }
            _ => Err(self.error(format!("what {word} is compared with is missing"), here)),
        }
    }

    /// A reason that some packet can have: which there are is known, unlike names of others. A
    /// number is a reason that a newer node tells.
    fn reason(&mut self, word: &str) -> Result<Pattern, FlowFilterError> {
        let (pattern, range) = self.name(word)?;
        let names = || DropReason::ALL.iter().map(|reason| reason.name());
        if pattern.0.parse::<u32>().is_ok() || names().any(|name| pattern.matches(name)) {
            return Ok(pattern);
        }
        let close = names()
            // Longer words are no typing mistakes.
            .filter(|_| pattern.0.chars().count() <= 64)
            .map(|name| (strsim::levenshtein(name, &pattern.0), name))
            .min()
            .filter(|(distance, _)| *distance <= 3)
            .map(|(_, name)| format!(", did you mean {name}?"));
        let close =
            close.unwrap_or_else(|| ": `sunwire counters` lists those that occur".to_owned());
        Err(self.error(
            format!("no packet is dropped for this reason{close}"),
            range,
        ))
    }

    fn who(&mut self, word: &str) -> Result<Who, FlowFilterError> {
        let (pattern, range) = self.name(word)?;
        if let Ok(address) = pattern.0.parse::<IpAddr>() {
            return Ok(Who::Is(address));
        }
        if !pattern.0.contains('/') {
            return Ok(Who::Named(pattern));
        }
        match pattern.0.parse::<Cidr>() {
            Ok(cidr) => Ok(Who::Within(cidr)),
            Err(error) => Err(self.error(error.to_string(), range)),
        }
    }

    fn ports(&mut self, side: Side) -> Result<Test, FlowFilterError> {
        let (Pattern(text), range) = self.name("port")?;
        let (first, last) = text.split_once('-').unwrap_or((&text, &text));
        match (first.parse::<u16>(), last.parse::<u16>()) {
            (Ok(first), Ok(last)) if first <= last => Ok(Test::Port(side, first, last)),
            _ => Err(self.error("a port is 0 to 65535, or two of them like 80-90", range)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::FlowEntry;

    fn flow() -> Flow {
        let end = |endpoint: &str, address: &str, port| FlowEnd {
            endpoint: Some(endpoint.to_owned()),
            network: (endpoint == "db1").then(|| "vault".to_owned()),
            address: Some(address.parse().unwrap()),
            port: Some(port),
            mac: None,
        };
        Flow {
            time_unix_ns: 0,
            node: "aws1".to_owned(),
            causes: vec![FlowCause::Drop],
            verdict: FlowVerdict::Dropped,
            reason: Some("policy".to_owned()),
            label: Some("web to db".to_owned()),
            log: Some("watched".to_owned()),
            network: Some("shop".to_owned()),
            wire: Some("patch1".to_owned()),
            entry: FlowEntry::Endpoint,
            from: end("web1", "10.20.0.10", 40_000),
            to: end("db1", "10.20.0.20", 443),
            ether_type: None,
            protocol: Some(6),
            tcp_flags: Some(2),
            icmp: None,
            connection: None,
            destination: None,
            egress: None,
            next_node: Some("gcp1".to_owned()),
            previous_node: None,
            tunnel_rtt_s: None,
            bytes: 74,
            packets: 1,
        }
    }

    #[track_caller]
    fn check(text: &str, expected: bool) {
        let filter: FlowFilter = text.parse().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(filter.matches(&flow()), expected, "{text}");
    }

    #[test]
    fn every_test_tells_a_flow_that_has_it_from_one_that_has_not() {
        for text in [
            "from web1",
            "to db1",
            "with db1",
            "with web1",
            "from 10.20.0.10",
            "from 10.20.0.0/16",
            "port 443",
            "port 400-500",
            "source-port 40000",
            "destination-port 443",
            "network shop",
            "network vault",
            "wire patch*",
            "node aws1",
            "next gcp1",
            "label \"web to db\"",
            "label web*",
            "label *to*",
            "log watched",
            "reason policy",
            "protocol 6",
            "tcp",
            "ipv4",
            "drop",
            "dropped",
            "",
        ] {
            check(text, true);
            if !text.is_empty() {
                check(&format!("not {text}"), false);
            }
        }
        for text in [
            "from db1",
            "to web1",
            "with web",
            "from 10.20.0.1",
            "to 10.21.0.0/16",
            "from fd00::/8",
            "port 80",
            "source-port 443",
            "destination-port 40000",
            "network sho",
            "wire patch",
            "label \"web to\"",
            "udp",
            "icmp",
            "icmpv6",
            "ipv6",
            "forwarded",
            "answered",
            "new",
            "sample",
            "logged",
            "log unwatched",
            "established",
        ] {
            check(text, false);
        }
    }

    #[test]
    fn and_binds_before_or_and_may_be_left_out() {
        check("udp or tcp and port 443", true);
        check("tcp or udp and port 80", true);
        check("(tcp or udp) and port 80", false);
        check("tcp port 443 drop", true);
        check("from web1 and port 443 and not drop", false);
        check("not (udp or icmp)", true);
        check("not not tcp", true);
    }

    #[test]
    fn stars_stand_for_any_characters() {
        for (pattern, text, expected) in [
            ("web*", "web", true),
            ("*1", "web11", true),
            ("w*b*1", "web1", true),
            ("w*b*1", "web", false),
            ("*", "", true),
            ("a*a", "a", false),
            ("**", "x", true),
            ("web", "web1", false),
        ] {
            assert_eq!(
                Pattern(pattern.to_owned()).matches(text),
                expected,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn a_mistake_is_shown_where_it_is() {
        let error = "from web1 and prot 80".parse::<FlowFilter>().unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("there is no such test"), "{text}");
        assert!(
            text.ends_with("\n  from web1 and prot 80\n                ^^^^"),
            "{text}"
        );
        for (text, message) in [
            ("(tcp", "not closed"),
            ("tcp)", "nothing is open"),
            ("port", "is missing"),
            ("port 99999", "0 to 65535"),
            ("port 90-80", "0 to 65535"),
            ("from 10.0.0.0/99", "10.0.0.0/99"),
            ("reason polcy", "did you mean policy?"),
            ("reason nothing*", "no packet is dropped for this reason"),
            ("label \"x", "quote"),
            ("tcp or", "a test is missing"),
            ("or tcp", "a test is missing"),
            ("protocol x", "0 to 255"),
            ("\"x\"", "label"),
            ("()", "a test is missing"),
        ] {
            let error = text.parse::<FlowFilter>().unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    #[test]
    fn a_reason_is_one_that_there_is_or_a_number() {
        for reason in DropReason::ALL {
            assert!(
                format!("reason {}", reason.name())
                    .parse::<FlowFilter>()
                    .is_ok()
            );
        }
        for text in ["reason outbound_*", "reason 4000"] {
            check(text, false);
        }
    }

    #[test]
    fn depth_and_length_are_bounded() {
        let nested = |depth: usize| format!("{}tcp{}", "(".repeat(depth), ")".repeat(depth));
        check(&nested(DEPTH_MAX - 1), true);
        assert!(nested(DEPTH_MAX).parse::<FlowFilter>().is_err());
        let nots = "not ".repeat(DEPTH_MAX) + "tcp";
        assert!(nots.parse::<FlowFilter>().is_err());
        assert!("tcp ".repeat(BYTES_MAX).parse::<FlowFilter>().is_err());
        // Side by side is not deep.
        check(&"tcp ".repeat(1000), true);
    }
}
