//! Values of the address fields: addresses, prefixes, endpoints, sets, labels.
//!
//! A set keeps the name it has, so that a change of what is in it changes the classes of addresses
//! and no flow table; see [`crate::atoms`].

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::index::Labels;
use super::{Local, MAX_DEPTH, Resolver, Scope};
use crate::address::{Address, AddressSet, Family, Prefix, Selection};
use crate::ast::{Name, Value, ValueKind};
use crate::diagnostic::{Code, Span};
use crate::environment::{Endpoint, Network};
use crate::field::{Field, Subject};
use crate::nearest::nearest;
use crate::term::{Pred, PredId};

/// Which addresses a test sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// The address of either family.
    Both,
    /// The IPv4 address, or 0.0.0.0.
    V4,
    /// The IPv6 address, or `::`.
    V6,
}

/// One part of a value.
enum Part<'a> {
    /// Prefixes, with what they are called.
    Listed(String, &'a [Prefix]),
    /// The addresses of endpoints with these labels.
    Labelled(String, Labels, &'a [Prefix]),
    /// A set that was defined before.
    Set(&'a AddressSet),
    /// All outside of the network.
    Internet,
}

/// Addresses as written: those listed, and perhaps all outside the network.
#[derive(Clone, Debug, Default)]
pub(super) struct Addresses {
    pub(super) listed: AddressSet,
    pub(super) internet: bool,
}

impl<'d> Resolver<'d> {
    /// The test whether an address field is among the addresses that a value means.
    pub(super) fn address_test(
        &mut self,
        field: Field,
        view: View,
        value: &Value,
        scope: &Scope<'d>,
    ) -> Option<PredId> {
        let before = self.sink.error_count();
        let addresses = self.addresses(value, scope, view);
        if self.sink.error_count() != before || self.exhausted {
            return None;
        }
        let internet = match addresses.internet {
            true => Some(self.internet_test(field, view, value.span)?),
            false => None,
        };
        if addresses.listed.prefixes.is_empty() && internet.is_some() {
            return internet;
        }
        if addresses.listed.prefixes.is_empty() && self.has_no_subnet() {
            self.sink
                .report(
                    Code::WrongKind,
                    value.span,
                    "the network has no subnet, and its endpoints have no addresses",
                )
                .hint("write `ethSrc` or `ethDst`, which take endpoints and labels too");
            return None;
        }
        let listed = self.set_test(field, view, addresses.listed);
        Some(match internet {
            Some(internet) => self.arena.predicate(Pred::Or(Box::new([listed, internet]))),
            None => listed,
        })
    }

    /// Whether the network carries frames alone, and knows its endpoints by their MAC addresses.
    pub(super) fn has_no_subnet(&self) -> bool {
        self.network
            .is_some_and(|network| network.subnets.is_empty())
    }

    /// The test whether an address is outside all subnets of the network and of its peers.
    pub(super) fn internet_test(
        &mut self,
        field: Field,
        view: View,
        _span: Span,
    ) -> Option<PredId> {
        let network = self.network?;
        let set = AddressSet {
            identity: format!("internet of {:?}", network.name),
            prefixes: self.inside(network),
            complement: true,
            none: false,
            selection: None,
        };
        Some(self.set_test(field, view, set))
    }

    /// What is not outside: the subnets of the network and of its peers.
    pub(super) fn inside(&self, network: &Network) -> Vec<Prefix> {
        let peers = self.peers().into_iter().flat_map(Network::prefixes);
        let mut inside: Vec<Prefix> = network.prefixes().chain(peers).collect();
        sort(&mut inside);
        inside
    }

    fn set_test(&mut self, field: Field, view: View, set: AddressSet) -> PredId {
        let set = match view {
            View::Both => set,
            View::V4 => seen_as(set, Family::V4, Address::V4(Ipv4Addr::UNSPECIFIED)),
            View::V6 => seen_as(set, Family::V6, Address::V6(Ipv6Addr::UNSPECIFIED)),
        };
        let id = match self.address_sets.get(&set.identity) {
            Some(id) => *id,
            None => {
                let identity = set.identity.clone();
                let id = self.arena.set(set);
                self.address_sets.insert(identity, id);
                id
            }
        };
        self.arena.predicate(Pred::Address(field, id))
    }

    /// The addresses that a value means; what is wrong is reported and left out.
    pub(super) fn addresses(&mut self, value: &Value, scope: &Scope<'d>, view: View) -> Addresses {
        let mut parts = BTreeSet::new();
        let mut prefixes: Vec<Prefix> = Vec::new();
        let mut fixed: Vec<Prefix> = Vec::new();
        let mut labels: BTreeSet<Labels> = BTreeSet::new();
        let mut internet = false;
        self.collect_addresses(value, scope, view, &mut |part| match part {
            Part::Listed(identity, listed) => {
                parts.insert(identity);
                prefixes.extend(listed);
                fixed.extend(listed);
            }
            Part::Labelled(identity, selected, listed) => {
                parts.insert(identity);
                prefixes.extend(listed);
                labels.insert(selected);
            }
            Part::Set(set) => {
                parts.insert(set.identity.clone());
                prefixes.extend(&set.prefixes);
                match &set.selection {
                    Some(selection) => {
                        fixed.extend(&selection.fixed);
                        labels.extend(selection.labels.iter().cloned());
                    }
                    None => fixed.extend(&set.prefixes),
                }
            }
            Part::Internet => internet = true,
        });
        sort(&mut prefixes);
        sort(&mut fixed);
        let selection = (!labels.is_empty()).then(|| {
            Box::new(Selection {
                fixed,
                labels: labels.into_iter().collect(),
                family: None,
            })
        });
        let identity = if parts.len() == 1 {
            parts.pop_first().unwrap_or_default()
        } else {
            let parts: Vec<String> = parts.into_iter().collect();
            format!("{{{}}}", parts.join(","))
        };
        Addresses {
            listed: AddressSet {
                identity,
                prefixes,
                complement: false,
                none: false,
                selection,
            },
            internet,
        }
    }

    /// Hands every part of a value to `add`.
    fn collect_addresses(
        &mut self,
        value: &Value,
        scope: &Scope<'d>,
        view: View,
        add: &mut dyn FnMut(Part<'_>),
    ) {
        if self.exhausted || !self.spend(1, value.span) {
            return;
        }
        if self.depth >= MAX_DEPTH {
            self.too_deep(value.span);
            return;
        }
        self.depth += 1;
        match &value.kind {
            ValueKind::Address(address) => {
                self.check_family(view, *address, value.span);
                let (family, _) = crate::address::number(*address);
                let prefix = Prefix::new(*address, family.bits());
                add(Part::Listed(prefix.to_string(), &[prefix]));
            }
            ValueKind::Prefix(address, length) => {
                self.check_family(view, *address, value.span);
                let prefix = self.prefix(*address, *length, value.span);
                add(Part::Listed(prefix.to_string(), &[prefix]));
            }
            ValueKind::AddressRange(first, last) => {
                self.check_family(view, *first, value.span);
                let ((family, low), (other, high)) = (
                    crate::address::number(*first),
                    crate::address::number(*last),
                );
                if family == other && low <= high {
                    add(Part::Listed(
                        format!("{first}-{last}"),
                        &Prefix::cover(family, low, high),
                    ));
                } else {
                    self.sink.report(
                        Code::ValueOutOfRange,
                        value.span,
                        format!("the range {first}-{last} is empty"),
                    );
                }
            }
            ValueKind::Set(elements) => {
                for element in elements {
                    self.collect_addresses(element, scope, view, add);
                }
            }
            ValueKind::Labels(labels) => {
                let labels = sorted_labels(labels);
                let keys: Vec<String> =
                    labels.iter().map(|(k, v)| format!("{k:?}={v:?}")).collect();
                let identity = format!("labels({})", keys.join(","));
                // Without a network there is no set: that is already reported.
                let endpoints = self
                    .network
                    .map(|network| self.lookup.labelled_addresses(&network.name, &labels));
                let endpoints = endpoints.iter().flatten();
                let prefixes: Vec<Prefix> = endpoints.flat_map(|e| host_prefixes(e)).collect();
                add(Part::Labelled(identity, labels, &prefixes));
            }
            ValueKind::Name(name) => self.named_addresses(name, value.span, scope, view, add),
            ValueKind::Text(name) => {
                if let Some(endpoint) = self.endpoint_or_peers(name, value.span) {
                    add(Part::Listed(
                        format!("endpoint {:?}", endpoint.name),
                        &host_prefixes(endpoint),
                    ));
                }
            }
            ValueKind::Error => self.sink.count_error(),
            ValueKind::Number(_) | ValueKind::Range(..) | ValueKind::Mac(_) => {
                self.sink
                    .report(
                        Code::WrongKind,
                        value.span,
                        "an address, a prefix, an endpoint or a set is needed here",
                    )
                    .hint("for ports write `src port 80` or `dst port 80`");
            }
        }
        self.depth -= 1;
    }

    fn named_addresses(
        &mut self,
        name: &str,
        span: Span,
        scope: &Scope<'d>,
        view: View,
        add: &mut dyn FnMut(Part<'_>),
    ) {
        match self.local(scope, name) {
            Some(Local::Argument(argument, outer)) => {
                match argument.as_value() {
                    Some(bound) => self.collect_addresses(&bound, &outer, view, add),
                    None => {
                        self.sink.report(
                            Code::WrongKind,
                            span,
                            format!(
                                "`{name}` is used as a set of addresses, and its argument is none"
                            ),
                        );
                    }
                }
                return;
            }
            Some(_) => {
                self.sink.report(
                    Code::WrongKind,
                    span,
                    format!("`{name}` is a policy or predicate, and a set of addresses is needed"),
                );
                return;
            }
            None => {}
        }
        if name == "internet" {
            add(Part::Internet);
            return;
        }
        if let Some(set) = self.sets.get(name) {
            let (value, Some(addresses)) = (set.value, &set.addresses) else {
                self.sink.report(
                    Code::WrongKind,
                    span,
                    format!("`{name}` is a set of numbers, and addresses are needed"),
                );
                return;
            };
            let listed = addresses.listed.clone();
            let internet = addresses.internet;
            if self.spend(listed.prefixes.len(), value.span) {
                add(Part::Set(&listed));
            }
            if internet {
                add(Part::Internet);
            }
            return;
        }
        let own = self.network.filter(|n| n.name == name);
        if let Some(network) = own.or_else(|| self.peer(name)) {
            let subnets: Vec<Prefix> = network.prefixes().collect();
            add(Part::Listed(format!("network {name:?}"), &subnets));
            return;
        }
        if let Some(endpoint) = self.endpoint_or_peers(name, span) {
            add(Part::Listed(
                format!("endpoint {:?}", endpoint.name),
                &host_prefixes(endpoint),
            ));
        }
    }

    /// The one address that an assignment needs.
    pub(super) fn one_address(
        &mut self,
        subject: Subject,
        value: &Value,
        scope: &Scope<'d>,
    ) -> Option<IpAddr> {
        let before = self.sink.error_count();
        let view = match subject {
            Subject::Ip4(_) => View::V4,
            Subject::Ip6(_) => View::V6,
            Subject::Field(_) => View::Both,
        };
        let addresses = self.addresses(value, scope, view);
        if self.sink.error_count() != before {
            return None;
        }
        let hosts: Vec<&Prefix> = addresses
            .listed
            .prefixes
            .iter()
            .filter(|p| subject.admits(p.family.address(p.first)))
            .collect();
        match hosts.as_slice() {
            [host] if host.length == host.family.bits() && !addresses.internet => {
                Some(host.family.address(host.first))
            }
            _ => {
                let hint = match subject {
                    Subject::Field(field) => {
                        let (v4, v6) = (Subject::Ip4(field).name(), Subject::Ip6(field).name());
                        format!("write an address, or say which family with `{v4} :=` or `{v6} :=`")
                    }
                    _ => "write an address of this family, or an endpoint that has one".to_owned(),
                };
                self.sink
                    .report(
                        Code::WrongKind,
                        value.span,
                        format!("`{}` can be assigned one address", subject.name()),
                    )
                    .hint(hint);
                None
            }
        }
    }

    /// A prefix as written, with a warning when it has bits behind its length.
    pub(super) fn prefix(&mut self, address: IpAddr, length: u8, span: Span) -> Prefix {
        let prefix = Prefix::new(address, length);
        if prefix.family.address(prefix.first) != address {
            self.sink
                .report(
                    Code::HostBits,
                    span,
                    format!("{address}/{length} has bits set behind its length"),
                )
                .hint(format!("it means {prefix}"));
        }
        prefix
    }

    fn check_family(&mut self, view: View, address: IpAddr, span: Span) {
        let wrong = match view {
            View::Both => false,
            View::V4 => address.is_ipv6(),
            View::V6 => address.is_ipv4(),
        };
        if wrong {
            self.sink
                .report(Code::WrongKind, span, "this address is of the other family")
                .hint("`src` and `dst` take addresses of both families");
        }
    }

    /// The endpoints of the network that have all these labels.
    pub(super) fn labelled(&self, labels: &[(Name, String)]) -> Vec<&'d Endpoint> {
        self.network.map_or_else(Vec::new, |network| {
            self.lookup.labelled(&network.name, sorted_labels(labels))
        })
    }

    /// The endpoint with this name, of the network or of one of its peers; `NETWORK.ENDPOINT` says of
    /// which.
    pub(super) fn endpoint_or_peers(&mut self, name: &str, span: Span) -> Option<&'d Endpoint> {
        let Some(own) = self.network else {
            return self.endpoint(name, span);
        };
        let (network, bare) = match name.split_once('.') {
            Some((network, bare)) => (Some(network), bare),
            None => (None, name),
        };
        if let Some(named) = network
            && named != own.name
            && self.peer(named).is_none()
        {
            let is_there = self.environment.network(named).is_some();
            let report = self.sink.report(
                Code::UnknownNetwork,
                span,
                match is_there {
                    true => format!("network `{}` has no peer `{named}`", own.name),
                    false => format!("there is no network `{named}`"),
                },
            );
            if is_there {
                report.hint(format!(
                    "peer them first: `sunwire network peer {} {named}`",
                    own.name
                ));
            }
            return None;
        }
        let found = self.lookup.named(bare);
        let fits = |endpoint: &&Endpoint| match network {
            Some(named) => endpoint.network == named,
            None => endpoint.network == own.name || own.peers.contains(&endpoint.network),
        };
        match found.filter(fits) {
            Some(endpoint) => Some(endpoint),
            None if network.is_some_and(|named| named != own.name) => {
                self.sink.report(
                    Code::UnknownName,
                    span,
                    format!(
                        "there is no endpoint `{}` in network `{}`",
                        crate::token::shorten(bare),
                        network.unwrap_or_default()
                    ),
                );
                None
            }
            None => self.endpoint(bare, span),
        }
    }

    /// The endpoint of the network with this name.
    pub(super) fn endpoint(&mut self, name: &str, span: Span) -> Option<&'d Endpoint> {
        // Without a network every name would be unknown, and that is already reported.
        let Some(network) = self.network else {
            self.sink.count_error();
            return None;
        };
        let found = self.lookup.named(name);
        if let Some(endpoint) = found.filter(|e| e.network == network.name) {
            return Some(endpoint);
        }
        let mut hint = None;
        if let Some(elsewhere) = found {
            hint = Some(format!(
                "endpoint `{name}` is in network `{}`, and this policy is for `{}`; packets go there \
                 by address, once both are peered",
                elsewhere.network, network.name
            ));
        } else if self.is_defined_later(name) {
            hint = Some("it is defined further down: move the definition up".to_owned());
        } else if self.sink.keeps_more() {
            // Only for a message: nothing that resolves depends on these endpoints.
            let known = self
                .environment
                .endpoints
                .iter()
                .filter(|e| e.network == network.name)
                .map(|e| e.name.as_str())
                .chain(self.sets.keys().copied())
                .chain([network.name.as_str()]);
            if let Some(near) = nearest(name, known) {
                hint = Some(format!("did you mean `{near}`?"));
            }
        }
        let report = self.sink.report(
            Code::UnknownName,
            span,
            format!(
                "there is no set or endpoint `{}` in network `{}`",
                crate::token::shorten(name),
                network.name
            ),
        );
        if let Some(hint) = hint {
            report.hint(hint);
        }
        None
    }
}

/// Labels as a set remembers them.
fn sorted_labels(labels: &[(Name, String)]) -> Labels {
    let mut sorted: Vec<(String, String)> = labels
        .iter()
        .map(|(key, value)| (key.text.clone(), value.clone()))
        .collect();
    sorted.sort_unstable();
    sorted.into()
}

fn sort(prefixes: &mut Vec<Prefix>) {
    prefixes.sort_unstable();
    prefixes.dedup();
}

fn host_prefixes(endpoint: &Endpoint) -> Vec<Prefix> {
    endpoint
        .addresses
        .iter()
        .map(|address| Prefix::new(*address, 128))
        .collect()
}

/// What one family's view of an address sees of a set: where there is no address of the family, the
/// view reads zero.
fn seen_as(mut set: AddressSet, family: Family, zero: Address) -> AddressSet {
    let zero_is_in = set.contains(zero);
    set.prefixes.retain(|prefix| prefix.family == family);
    if let Some(selection) = &mut set.selection {
        selection.fixed.retain(|prefix| prefix.family == family);
        selection.family = Some(family);
    }
    let other = match family {
        Family::V4 => Family::V6,
        Family::V6 => Family::V4,
    };
    if zero_is_in != set.complement {
        set.prefixes.push(Prefix::all(other));
        sort(&mut set.prefixes);
        if let Some(selection) = &mut set.selection {
            selection.fixed.push(Prefix::all(other));
            sort(&mut selection.fixed);
        }
    }
    set.none = zero_is_in;
    set.identity = format!("{family:?} of {}", set.identity);
    set
}
