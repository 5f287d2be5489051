//! The language's own words, and what they mean, for hover and completion.

use sunwire_policy::field::{Field, Subject};

/// What kind of word it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Begins a definition, or belongs to a construct.
    Keyword,
    /// What a policy does.
    Verb,
    /// What a predicate tests.
    Predicate,
    /// An assertion.
    Claim,
}

/// A word of the language.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// How it is written.
    pub(super) form: &'static str,
    /// What it means.
    pub(super) meaning: &'static str,
}

macro_rules! words {
    ($($kind:ident $name:literal $form:literal $meaning:literal;)*) => {
        /// Every word but the names of fields.
        pub(super) const WORDS: &[Word] = &[$(Word {
            name: $name,
            kind: Kind::$kind,
            form: $form,
            meaning: $meaning,
        }),*];
    };
}

words! {
    Keyword "network" "network NAME { subnet P, P; public A -> X }" "The network that the policy is for.";
    Keyword "subnet" "subnet 10.20.0.0/16" "A subnet of the network; it is checked against the network as it is.";
    Keyword "public" "public 203.0.113.10 -> web1" "A public address, and the endpoint that it leads to.";
    Keyword "set" "set NAME = { … }" "A set of endpoints, addresses, prefixes and other sets, or of numbers.";
    Keyword "labels" "labels(tier = \"db\", env = \"prod\")" "The endpoints that have all these labels.";
    Keyword "let" "let NAME(a, b) = …" "A name for a predicate or a policy, with parameters if need be; `let x = p in q` holds within q.";
    Keyword "policy" "policy NAME = …" "A policy. `main` is the one in force; without it, all of them together.";
    Keyword "import" "import \"common.nk\"" "The definitions of another file, in place of this line.";
    Keyword "assert" "assert reach(a, b)" "What must hold of the policy: it is proved before the policy is put in force.";
    Keyword "test" "test \"name\" { from a to b tcp 22 : drop }" "Packets, and what must become of them.";
    Keyword "if" "if a then p else q" "`p` where `a` holds, else `q`. `else` is required.";
    Keyword "then" "if a then p else q" "`p` where `a` holds, else `q`.";
    Keyword "else" "if a then p else q" "`p` where `a` holds, else `q`.";
    Keyword "while" "while a do p" "`p` as long as `a` holds.";
    Keyword "do" "while a do p" "`p` as long as `a` holds.";
    Keyword "in" "FIELD in { a, b-c }" "Whether the field is among the values; after `let`, where the definition holds.";
    Keyword "where" "assert reach(a, b where tcp)" "Only packets for which the predicate holds are meant.";
    Keyword "via" "assert waypoint(a, b, via c)" "What the packets must have passed.";
    Keyword "both" "assert isolated both(a, b)" "Replies count as well.";
    Keyword "from" "from a to b tcp 22 : drop" "Who sends the packet of a test.";
    Keyword "to" "forward to X" "To whom.";
    Keyword "with" "from a to b with dscp = 10 : forward" "Further fields of the packet of a test.";
    Keyword "by" "balance(a, b by ip4Src)" "The fields that tell clients apart.";
    Keyword "weight" "balance(a weight 2, b)" "How large a share the back end gets; 1 when absent.";
    Keyword "per" "limit 100/s per ip4Src" "The fields that tell apart what is limited.";
    Predicate "true" "true" "Holds for every packet.";
    Predicate "false" "false" "Holds for no packet.";
    Predicate "not" "not p" "Holds where `p` does not. Also written `!`; binds tightest.";
    Predicate "and" "p and q" "Holds where both do. Also written `&&`; binds tighter than `or`.";
    Predicate "or" "p or q" "Holds where either does. Also written `||`.";
    Predicate "established" "established, established(p)" "The packet belongs to a connection that the whole policy, or `p`, admits as new.";
    Predicate "tcp" "tcp, tcp dst port 80" "IP protocol 6, and the port.";
    Predicate "udp" "udp, udp dst port 53" "IP protocol 17, and the port.";
    Predicate "icmp" "icmp" "ICMP or ICMPv6.";
    Predicate "icmp4" "icmp4" "ICMP, for IPv4 alone.";
    Predicate "icmp6" "icmp6" "ICMPv6 alone.";
    Predicate "ipv4" "ipv4" "The EtherType is 0x0800.";
    Predicate "ipv6" "ipv6" "The EtherType is 0x86dd.";
    Predicate "arp" "arp" "The EtherType is 0x0806.";
    Predicate "http" "http" "To TCP port 80.";
    Predicate "https" "https" "To TCP port 443.";
    Predicate "ssh" "ssh" "To TCP port 22.";
    Predicate "dns" "dns" "To TCP or UDP port 53.";
    Predicate "internet" "internet, dst in internet" "The source, or the destination, is outside all subnets of the network.";
    Verb "filter" "filter p" "The packet if `p` holds, else nothing.";
    Verb "drop" "drop \"label\"" "Nothing comes out. The label names the decision in metrics, flows and traces.";
    Verb "forward" "forward \"label\", forward to X" "To the owner of the destination address as it is here, rewrites before it included; or through the endpoint X, which must be transparent.";
    Verb "id" "id" "The packet as it is.";
    Verb "skip" "skip" "The packet as it is; the same as `id`.";
    Verb "dup" "dup" "Records the packet for proofs, and changes nothing.";
    Verb "flood" "flood" "A copy to every other endpoint of the network.";
    Verb "multicast" "multicast G" "A copy to every member of the set.";
    Verb "balance" "balance(a weight 2, b by ip4Src)" "To one of the back ends, the same for the same client.";
    Verb "snat" "snat A" "The source address becomes `A`; replies are turned back.";
    Verb "dnat" "dnat A port N" "The destination becomes `A`; replies are turned back.";
    Verb "count" "count NAME" "Counts the packet under this name.";
    Verb "limit" "limit 100/s per ip4Src" "Lets through so many packets or bits in a second.";
    Verb "mirror" "mirror to X" "A copy to the endpoint `X` as well.";
    Verb "log" "log \"label\"" "Records the packet as a flow event.";
    Verb "pipe" "pipe(\"name\")" "Frenetic's way to a controller that sees packets; this one does not.";
    Claim "reach" "assert reach(a, b where p)" "Every packet that `a` sends to `b` arrives.";
    Claim "isolated" "assert isolated(a, b)" "Neither can begin a connection to the other; with `both`, nor answer.";
    Claim "waypoint" "assert waypoint(a, b, via c)" "Whatever comes from `a` to `b` has passed `c`.";
    Claim "loop-free" "assert loop-free" "No packet is sent around for ever.";
    Claim "no-black-hole" "assert no-black-hole" "Whatever is sent on arrives somewhere.";
}

/// The word with this spelling.
pub(super) fn word(name: &str) -> Option<&'static Word> {
    WORDS.iter().find(|word| word.name == name)
}

/// What a field is: its width and values.
pub(super) fn field(subject: Subject) -> String {
    let field = subject.field();
    let meaning = match field {
        Field::Source | Field::Destination => match subject {
            Subject::Field(Field::Source) => "The source address, of either family.",
            Subject::Field(_) => "The destination address, of either family.",
            Subject::Ip4(Field::Source) => "The IPv4 source address; 0.0.0.0 when there is none.",
            Subject::Ip4(_) => "The IPv4 destination address; 0.0.0.0 when there is none.",
            Subject::Ip6(Field::Source) => "The IPv6 source address; `::` when there is none.",
            Subject::Ip6(_) => "The IPv6 destination address; `::` when there is none.",
        },
        Field::Port => "The endpoint where the packet is; assigning it sends the packet there.",
        Field::Node => "The node where the packet entered.",
        Field::EtherType => "The EtherType.",
        Field::Protocol => "The IP protocol.",
        Field::Dscp => "The differentiated services code point.",
        Field::SourcePort => "The source port of TCP or UDP.",
        Field::DestinationPort => "The destination port of TCP or UDP.",
        Field::IcmpType => "The type of ICMP or ICMPv6.",
        Field::IcmpCode => "The code of ICMP or ICMPv6.",
        Field::EthSource => "The source MAC address.",
        Field::EthDestination => "The destination MAC address.",
        Field::VlanId => "The VLAN; tagged frames do not reach a policy.",
        Field::VlanPriority => "The VLAN priority; tagged frames do not reach a policy.",
        Field::Connection => {
            "The state of the packet's connection: `new`, `established` or `related`."
        }
        Field::Bucket => {
            "The hash by which `balance` tells clients apart, or the back end of a connection."
        }
        Field::Token => "1 when the rate of `limit` admits the packet.",
        Field::Translated => "1 once `dnat`, `snat` or `balance` has rewritten the packet.",
    };
    let width = match (field.bits(), subject) {
        (0, Subject::Ip4(_)) => "32 bits".to_owned(),
        (0, Subject::Ip6(_)) => "128 bits".to_owned(),
        (0, _) => "an address".to_owned(),
        (bits, _) => format!("{bits} bits, 0 to {}", field.max()),
    };
    let set_before = match field.is_virtual() {
        true => "; no header, read only",
        false => "",
    };
    format!("{meaning}\n\nWidth: {width}{set_before}.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use sunwire_policy::field::subject_names;
    use sunwire_policy::parser::RESERVED;

    #[test]
    fn every_word_of_the_language_has_a_meaning() {
        let known = sunwire_policy::ast::Word::ALL.iter().map(|(name, _)| *name);
        for name in RESERVED.into_iter().chain(known) {
            assert!(word(name).is_some(), "{name}");
        }
        for name in subject_names() {
            let subject = Subject::named(name).unwrap();
            assert!(field(subject).contains("Width: "), "{name}");
        }
    }

    /// The patterns of a TextMate grammar.
    fn patterns(grammar: &serde_json::Value, out: &mut Vec<String>) {
        match grammar {
            serde_json::Value::Object(entries) => {
                for (key, value) in entries {
                    match value.as_str().filter(|_| key == "match") {
                        Some(pattern) => out.push(pattern.to_owned()),
                        None => patterns(value, out),
                    }
                }
            }
            serde_json::Value::Array(entries) => entries.iter().for_each(|e| patterns(e, out)),
            _ => {}
        }
    }

    #[test]
    fn every_word_of_the_language_is_coloured_by_editors() {
        let grammar = include_str!("../../../../editors/sunwire.tmLanguage.json");
        let grammar = serde_json::from_str(grammar).unwrap();
        let mut found = Vec::new();
        patterns(&grammar, &mut found);
        let is_word = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
        let coloured: Vec<&str> = found
            .iter()
            .flat_map(|p| p.split(|c| !is_word(c)))
            .collect();
        for name in WORDS.iter().map(|word| word.name).chain(subject_names()) {
            assert!(coloured.contains(&name), "{name}");
        }
        for name in RESERVED {
            assert!(coloured.contains(&name), "{name}");
        }
    }

    #[test]
    fn what_editors_read_beside_the_grammar_is_json() {
        for text in [
            include_str!("../../../../editors/vscode/package.json"),
            include_str!("../../../../editors/vscode/language-configuration.json"),
        ] {
            let _: serde_json::Value = serde_json::from_str(text).unwrap();
        }
    }

    #[test]
    fn words_are_there_once() {
        let mut names: Vec<&str> = WORDS.iter().map(|word| word.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), WORDS.len());
    }
}
