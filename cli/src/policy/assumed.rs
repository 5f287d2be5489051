//! What the names in texts must mean for the texts to be whole, when nothing else says it.
//!
//! A text says which network it is for. Names that nothing defines are taken to be endpoints or
//! nodes, as long as that makes the texts whole, and are listed. So are endpoints that a text names
//! by number; one endpoint for each `labels(…)`; the label `transparent` where packets are sent
//! through an endpoint; and another network where a text says that its own is isolated from it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use sunwire_api::Cidr;
use sunwire_policy::ast::{AssertionKind, Document, ItemKind, Value, ValueKind, Word};
use sunwire_policy::diagnostic::{Code, Diagnostic};
use sunwire_policy::environment::{Endpoint, Environment, Network, Node};
use sunwire_policy::field::{Field, Subject};
use sunwire_policy::{parse, resolve};

use crate::output;

/// The network of a text that names none.
const UNNAMED: &str = "default";
/// Subnets of a network whose text does not say any: those for documentation (RFC 5737, RFC 3849).
const SUBNETS: [&str; 2] = ["192.0.2.0/24", "2001:db8::/64"];
/// The subnet of a network of which no more than the name is known (RFC 5737).
const OTHER_SUBNET: &str = "198.51.100.0/24";
/// The label of endpoints that pass on what is sent to them on its way elsewhere.
const TRANSPARENT: &str = "transparent";

/// What the names in the texts mean, the same in all of them, and what was assumed for that: names,
/// with the addresses that they were given.
pub(super) fn by(texts: &[&str]) -> (Environment, Vec<String>) {
    let documents: Vec<Document> = texts.iter().map(|text| parse(text).0).collect();
    let mut assumed = Assumed::new(&documents);
    // A text that names no network is for the only one there is.
    let all_name_theirs = documents.iter().all(names_network);
    for (text, document) in texts.iter().zip(&documents) {
        for number in numbers_in(text) {
            assumed.add_endpoint(&format!("endpoint-{number}"), number, BTreeMap::new());
        }
        for labels in labels_in(text) {
            let values: Vec<&str> = labels.values().map(String::as_str).collect();
            let name = format!("labelled-{}", values.join("-"));
            let number = assumed.next_number();
            assumed.add_endpoint(&name, number, labels);
        }
        if all_name_theirs {
            assumed.other_networks(document);
        }
    }
    assumed.elements_of_sets(&documents);
    for (text, document) in texts.iter().zip(&documents) {
        assumed.complete(text, document);
    }
    let listed = assumed.listed();
    (assumed.environment, listed)
}

/// The network that a text names, if it does.
pub(super) fn network_named_by(text: &str) -> Option<String> {
    let network = network_of(&parse(text).0, 1)?;
    Some(network.name)
}

struct Assumed {
    network: String,
    subnets: Vec<(IpAddr, u8)>,
    environment: Environment,
}

impl Assumed {
    fn new(documents: &[Document]) -> Self {
        let mut networks: Vec<Network> = Vec::new();
        for document in documents {
            let vni = networks.len() as u32 + 1;
            if let Some(network) = network_of(document, vni)
                && networks.iter().all(|known| known.name != network.name)
            {
                networks.push(network);
            }
        }
        if networks.is_empty() {
            networks.push(Network {
                name: UNNAMED.to_owned(),
                vni: 1,
                subnets: documentation(),
                ..Network::default()
            });
        }
        Assumed {
            network: networks[0].name.clone(),
            subnets: networks[0].subnets.clone(),
            environment: Environment {
                networks,
                ..Environment::default()
            },
        }
    }

    /// Assumes what the text needs, until it is whole or nothing helps.
    fn complete(&mut self, text: &str, document: &Document) {
        let defined: BTreeSet<&str> = document.items.iter().filter_map(name_of).collect();
        let before: BTreeSet<String> = self.names().map(str::to_owned).collect();
        let findings = loop {
            let Err(findings) = resolve(document, &self.environment) else {
                return;
            };
            let mut progress = false;
            let mut seen = BTreeSet::new();
            for finding in &findings {
                let Some(name) = named_at(text, finding) else {
                    continue;
                };
                if defined.contains(name) || !seen.insert((finding.code, name)) {
                    continue;
                }
                progress |= match finding.code {
                    Code::UnknownName => self.add(name),
                    Code::NotTransparent => self.make_transparent(name),
                    _ => false,
                };
            }
            if !progress {
                break findings;
            }
        };
        // What did not help is taken back, so that the compiler says what is really wrong.
        let wrong: BTreeSet<&str> = findings
            .iter()
            .filter(|finding| finding.code == Code::UnknownName)
            .filter_map(|finding| named_at(text, finding))
            .collect();
        self.forget(&wrong, &before);
    }

    /// Makes the name an endpoint's, or when it is that already, a node's. Whether it did either.
    fn add(&mut self, name: &str) -> bool {
        if self.environment.endpoints.iter().all(|e| e.name != name) {
            let number = self.next_number();
            self.add_endpoint(name, number, BTreeMap::new());
            return true;
        }
        let nodes = &mut self.environment.nodes;
        if nodes.iter().all(|n| n.name != name) {
            let number = nodes.len() as u32 + 1;
            nodes.push(Node {
                name: name.to_owned(),
                number,
            });
            return true;
        }
        false
    }

    fn make_transparent(&mut self, name: &str) -> bool {
        let number = name.parse().ok();
        let mut endpoints = self.environment.endpoints.iter_mut();
        let found = endpoints.find(|e| e.name == name || Some(e.number) == number);
        found.is_some_and(|endpoint| {
            let labels = &mut endpoint.labels;
            let before = labels.insert(TRANSPARENT.to_owned(), "true".to_owned());
            before.is_none()
        })
    }

    fn next_number(&self) -> u32 {
        let taken = self.environment.endpoints.iter().map(|e| e.number).max();
        taken.unwrap_or(0).saturating_add(1)
    }

    /// Names in sets that nothing defines, all at once: of those there may be thousands, and
    /// completing a text finds them in small numbers.
    fn elements_of_sets(&mut self, documents: &[Document]) {
        let known: BTreeSet<String> = self.names().map(str::to_owned).collect();
        let networks = self.environment.networks.iter();
        let networks: BTreeSet<String> = networks.map(|network| network.name.clone()).collect();
        let mut found = BTreeSet::new();
        for document in documents {
            let defined: BTreeSet<&str> = document.items.iter().filter_map(name_of).collect();
            for item in &document.items {
                if let ItemKind::Set { value, .. } = &item.kind {
                    names_in(value, &mut |name| {
                        if !defined.contains(name) && Word::named(name).is_none() {
                            found.insert(name.to_owned());
                        }
                    });
                }
            }
        }
        found.retain(|name| !known.contains(name) && !networks.contains(name));
        let mut number = self.next_number();
        for name in &found {
            self.push_endpoint(name, number, BTreeMap::new());
            number = number.saturating_add(1);
        }
    }

    fn add_endpoint(&mut self, name: &str, number: u32, labels: BTreeMap<String, String>) {
        let mut endpoints = self.environment.endpoints.iter();
        if !endpoints.any(|e| e.name == name || e.number == number) {
            self.push_endpoint(name, number, labels);
        }
    }

    fn push_endpoint(&mut self, name: &str, number: u32, labels: BTreeMap<String, String>) {
        let endpoints = &mut self.environment.endpoints;
        // The first host address is the gateway's.
        let nth = endpoints.len() as u32 + 2;
        let addresses = self.subnets.iter().map(|(first, _)| offset(*first, nth));
        endpoints.push(Endpoint {
            name: name.to_owned(),
            number,
            network: self.network.clone(),
            addresses: addresses.collect(),
            mac: mac(number),
            labels,
        });
    }

    /// The networks that the text's own is said to be isolated from, with an endpoint in each.
    fn other_networks(&mut self, document: &Document) {
        let defined: BTreeSet<&str> = document.items.iter().filter_map(name_of).collect();
        for item in &document.items {
            let ItemKind::Assert(assertion) = &item.kind else {
                continue;
            };
            let AssertionKind::Isolated { left, right, .. } = &assertion.kind else {
                continue;
            };
            let (ValueKind::Name(left), ValueKind::Name(right)) = (&left.kind, &right.kind) else {
                continue;
            };
            let other = if *left == self.network {
                right
            } else if *right == self.network {
                left
            } else {
                continue;
            };
            let known = |network: &Network| network.name == *other;
            if defined.contains(other.as_str())
                || other == "internet"
                || self.environment.networks.iter().any(known)
            {
                continue;
            }
            self.add_network(other);
        }
    }

    fn add_network(&mut self, name: &str) {
        let subnet: Cidr = OTHER_SUBNET.parse().expect("the constant is a subnet");
        let number = self.next_number();
        let networks = &mut self.environment.networks;
        networks.push(Network {
            name: name.to_owned(),
            vni: networks.len() as u32 + 1,
            subnets: vec![(subnet.address(), subnet.prefix())],
            ..Network::default()
        });
        self.environment.endpoints.push(Endpoint {
            name: format!("{name}-endpoint"),
            number,
            network: name.to_owned(),
            addresses: vec![offset(subnet.address(), number.wrapping_add(1))],
            mac: mac(number),
            labels: BTreeMap::new(),
        });
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        let endpoints = self.environment.endpoints.iter().map(|e| e.name.as_str());
        endpoints.chain(self.environment.nodes.iter().map(|n| n.name.as_str()))
    }

    /// Takes names back, unless they were there `before`.
    fn forget(&mut self, names: &BTreeSet<&str>, before: &BTreeSet<String>) {
        let kept = |name: &String| !names.contains(name.as_str()) || before.contains(name);
        let environment = &mut self.environment;
        environment.endpoints.retain(|e| kept(&e.name));
        environment.nodes.retain(|n| kept(&n.name));
    }

    /// What was assumed, for people.
    fn listed(&self) -> Vec<String> {
        let endpoints = self.environment.endpoints.iter().map(|endpoint| {
            let addresses = output::list(&endpoint.addresses);
            let labels: Vec<String> = endpoint
                .labels
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            let labels = match labels.is_empty() {
                true => String::new(),
                false => format!(" {}", labels.join(" ")),
            };
            format!("{} ({addresses}){labels}", endpoint.name)
        });
        let nodes = self.environment.nodes.iter().map(|n| n.name.clone());
        endpoints.chain(nodes).collect()
    }
}

/// Numbers that the text assigns to the field `port`. A comment may hold one too many, which does
/// no harm.
fn numbers_in(text: &str) -> BTreeSet<u32> {
    let word = |c: char| c.is_alphanumeric();
    let assigned = |(at, operator): (usize, &str)| {
        let (before, after) = (&text[..at], &text[at + operator.len()..]);
        let name = before.trim_end().rsplit(|c| !word(c)).next()?;
        let value = after.trim_start().split(|c| !word(c)).next()?;
        let is_port = Subject::named(name) == Some(Subject::Field(Field::Port));
        value.parse().ok().filter(|number| is_port && *number > 0)
    };
    text.match_indices(":=").filter_map(assigned).collect()
}

/// What the text selects endpoints by. As with numbers, comments do no harm.
fn labels_in(text: &str) -> BTreeSet<BTreeMap<String, String>> {
    let selected = |(at, word): (usize, &str)| {
        let rest = &text[at + word.len()..];
        let end = at + word.len() + rest.find(')')? + 1;
        let (document, _) = parse(&format!("set x = {}", &text[at..end]));
        let ItemKind::Set { value, .. } = &document.items.first()?.kind else {
            return None;
        };
        let ValueKind::Labels(labels) = &value.kind else {
            return None;
        };
        let pairs = labels.iter();
        Some(pairs.map(|(k, v)| (k.text.clone(), v.clone())).collect())
    };
    text.match_indices("labels").filter_map(selected).collect()
}

/// The names in a value, those in its elements included.
fn names_in<'v>(value: &'v Value, seen: &mut impl FnMut(&'v str)) {
    match &value.kind {
        ValueKind::Name(name) | ValueKind::Text(name) => seen(name),
        ValueKind::Set(values) => values.iter().for_each(|value| names_in(value, seen)),
        _ => {}
    }
}

fn mac(number: u32) -> [u8; 6] {
    let [a, b, c, d] = number.to_be_bytes();
    [2, 0, a, b, c, d]
}

fn offset(address: IpAddr, by: u32) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V4(v4.to_bits().wrapping_add(by).into()),
        IpAddr::V6(v6) => IpAddr::V6(v6.to_bits().wrapping_add(by.into()).into()),
    }
}

fn name_of(item: &sunwire_policy::ast::Item) -> Option<&str> {
    match &item.kind {
        ItemKind::Set { name, .. } | ItemKind::Policy { name, .. } => Some(&name.text),
        ItemKind::Let(definition) => Some(&definition.name.text),
        ItemKind::Network { .. }
        | ItemKind::Assert(_)
        | ItemKind::Test(_)
        | ItemKind::Import { .. } => None,
    }
}

fn names_network(document: &Document) -> bool {
    let mut items = document.items.iter();
    items.any(|item| matches!(item.kind, ItemKind::Network { .. }))
}

/// The network that a text is for, when it says so.
fn network_of(document: &Document, vni: u32) -> Option<Network> {
    document.items.iter().find_map(|item| match &item.kind {
        ItemKind::Network { name, subnets, .. } => Some(Network {
            name: name.text.clone(),
            vni,
            subnets: match subnets {
                Some(subnets) => subnets.iter().filter_map(prefix).collect(),
                None => documentation(),
            },
            ..Network::default()
        }),
        _ => None,
    })
}

fn documentation() -> Vec<(IpAddr, u8)> {
    let cidrs = SUBNETS.iter().map(|text| text.parse::<Cidr>());
    cidrs
        .map(|cidr| cidr.expect("the list holds subnets"))
        .map(|cidr| (cidr.address(), cidr.prefix()))
        .collect()
}

fn prefix(value: &Value) -> Option<(IpAddr, u8)> {
    match value.kind {
        ValueKind::Prefix(address, length) => Some((address, length)),
        _ => None,
    }
}

/// The name that a finding is about.
fn named_at<'t>(text: &'t str, finding: &Diagnostic) -> Option<&'t str> {
    let span = finding.span.start as usize..finding.span.end as usize;
    let name = text.get(span)?.trim_matches('"');
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    (!name.is_empty() && name.chars().all(plain)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Environment {
        let (environment, _) = by(&[text]);
        let (document, _) = parse(text);
        let resolved = resolve(&document, &environment);
        assert!(resolved.is_ok(), "{:#?}", resolved.err());
        environment
    }

    #[test]
    fn groups_of_assertions_and_tests_are_assumed() {
        let environment = whole(
            "network shop { subnet 10.20.0.0/16 }\nset db = labels(tier = \"db\")\n\
             policy main = if src = web1 and dst in db then forward else drop\n\
             assert reach(web1, db)\nassert isolated(shop, lab)\n\
             test \"t\" { from web2 to db tcp 22 : drop }",
        );
        let endpoints = &environment.endpoints;
        let tier = |e: &&Endpoint| e.labels.get("tier").is_some_and(|v| v == "db");
        assert_eq!(endpoints.iter().filter(tier).count(), 1);
        assert!(environment.networks.iter().any(|n| n.name == "lab"));
        assert!(endpoints.iter().any(|e| e.name == "web2"));
    }

    #[test]
    fn endpoints_that_packets_are_sent_through_are_transparent() {
        let environment = whole("policy main = if dst = web1 then forward to fw1 else forward");
        let named = |name: &str| environment.endpoints.iter().find(|e| e.name == name);
        assert!(named("fw1").unwrap().labels.contains_key(TRANSPARENT));
        assert!(named("web1").unwrap().labels.is_empty());
    }

    #[test]
    fn a_text_without_a_network_is_for_that_of_the_other() {
        let left = "network shop policy main = forward assert isolated(shop, lab)";
        let right = "policy main = drop";
        let (environment, _) = by(&[left, right]);
        for text in [left, right] {
            assert!(resolve(&parse(text).0, &environment).is_ok());
        }
    }

    #[test]
    fn thousands_of_names_in_a_set_are_assumed_at_once() {
        let names: Vec<String> = (0..5000).map(|n| format!("host-{n}")).collect();
        let text = format!(
            "set some = {{ \"dns\" }} set all = {{ some, {{ {} }}, internet }}\n\
             policy main = if src in all then forward else drop",
            names.join(", ")
        );
        let environment = whole(&text);
        assert_eq!(environment.endpoints.len(), 5001);
    }

    #[test]
    fn names_mean_the_same_in_all_texts() {
        let left = "policy main = if dst = web1 then forward else drop";
        let right =
            "policy main = if dst = web2 then drop else if dst = web1 then forward else drop";
        let (environment, assumed) = by(&[left, right]);
        assert_eq!(environment.endpoints.len(), 2, "{assumed:?}");
    }
}
