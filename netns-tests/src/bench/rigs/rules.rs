//! The 100 rules that Sunwire and the peer with nftables enforce alike.
//!
//! Ten tiers of workloads; the benchmark's client is the first and its server the second. Every
//! tier may reach every other on one port of its own, which makes 90 rules, and the client may reach the
//! server on five ports by TCP and UDP. Whatever answers an admitted connection is admitted, so is
//! ICMP, and nothing else.

use std::fmt;
use std::net::Ipv4Addr;

use super::{CLIENT, SERVER};

/// Number of tiers.
const TIERS: u8 = 10;
/// Ports of the server that the client may reach.
const SERVICES: [u16; 5] = [80, 443, 53, 123, 8080];

/// Addresses of a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tier(pub(super) u8);

impl Tier {
    /// All of them.
    pub(super) fn all() -> impl Iterator<Item = Tier> {
        (0..TIERS).map(Tier)
    }

    /// The tier's addresses, as a prefix.
    pub(super) fn prefix(self) -> String {
        match self.0 {
            0 => format!("{CLIENT}/32"),
            1 => format!("{SERVER}/32"),
            number => format!("{}/24", Ipv4Addr::new(10, 20, number, 0)),
        }
    }
}

/// TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Protocol {
    Tcp,
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

/// Who may open connections to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Rule {
    pub(super) from: Tier,
    pub(super) to: Tier,
    pub(super) protocol: Protocol,
    pub(super) port: u16,
}

/// All rules; those of the benchmark's traffic are the last.
pub(super) fn rules() -> Vec<Rule> {
    let pairs = Tier::all().flat_map(|from| Tier::all().map(move |to| (from, to)));
    let between = pairs.filter(|(from, to)| from != to).map(|(from, to)| {
        let number = u16::from(from.0) * u16::from(TIERS) + u16::from(to.0);
        Rule {
            from,
            to,
            protocol: [Protocol::Tcp, Protocol::Udp][usize::from(number % 2)],
            port: 1_000 + 7 * number,
        }
    });
    let protocols = [Protocol::Tcp, Protocol::Udp].into_iter();
    let services = protocols.flat_map(|protocol| {
        SERVICES.map(|port| Rule {
            from: Tier(0),
            to: Tier(1),
            protocol,
            port,
        })
    });
    between.chain(services).collect()
}

/// Any number of rules: the last of [`rules`], which are those of the benchmark's traffic, and more
/// between the other tiers.
pub(super) fn some_rules(count: usize) -> Vec<Rule> {
    let mut rules = rules();
    if count <= rules.len() {
        return rules.split_off(rules.len() - count);
    }
    let others = u16::from(TIERS) - 2;
    let more = (0..(count - rules.len()) as u32).map(|number| {
        let tier = |number: u32| Tier(2 + (number % u32::from(others)) as u8);
        Rule {
            from: tier(number),
            to: tier(number / u32::from(others)),
            protocol: Protocol::Tcp,
            port: 10_000 + (number / u32::from(others).pow(2)) as u16,
        }
    });
    more.chain(rules).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn there_are_100_rules_and_no_two_are_equal() {
        let rules = rules();
        assert_eq!(rules.len(), 100);
        assert_eq!(rules.iter().collect::<HashSet<_>>().len(), 100);
    }

    #[test]
    fn fewer_and_more_rules_admit_the_benchmarks_traffic_and_are_all_different() {
        for count in [10, 99, 100, 101, 10_000] {
            let rules = some_rules(count);
            assert_eq!(rules.len(), count);
            assert_eq!(rules.iter().collect::<HashSet<_>>().len(), count);
            let of_traffic = |rule: &Rule| (rule.to, rule.port) == (Tier(1), 80);
            assert!(rules.iter().any(of_traffic), "{count}");
        }
    }
}
