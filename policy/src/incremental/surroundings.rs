//! The environment of a session, and how its changes reach the sets of a policy.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::address::{Prefix, number};
use crate::environment::{Endpoint, Environment};
use crate::fdd::hash::FastMap;
use crate::field::OWNER;
use crate::resolve::index::{Dependencies, EnvironmentIndex, Labels, is_selected};
use crate::term::{Resolved, Term};

/// A change of one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointChange {
    /// The endpoint with this name is now this one, new or not.
    Set(Endpoint),
    /// There is no endpoint with this name any more.
    Remove(String),
}

/// An endpoint before and after a change.
pub(super) struct Changed {
    pub(super) before: Option<Endpoint>,
    pub(super) after: Option<Endpoint>,
}

/// The environment, indexed.
pub(super) struct Surroundings {
    pub(super) environment: Environment,
    pub(super) index: EnvironmentIndex,
}

impl Surroundings {
    pub(super) fn new(environment: Environment) -> Self {
        Surroundings {
            index: EnvironmentIndex::new(&environment),
            environment,
        }
    }

    /// Applies a change; `None` when it changes nothing.
    pub(super) fn apply(&mut self, change: &EndpointChange) -> Option<Changed> {
        let name = match change {
            EndpointChange::Set(endpoint) => &endpoint.name,
            EndpointChange::Remove(name) => name,
        };
        let position = self.index.named(name);
        let endpoints = &mut self.environment.endpoints;
        match (position, change) {
            (Some(at), EndpointChange::Set(endpoint)) => {
                if endpoints[at] == *endpoint {
                    return None;
                }
                let before = std::mem::replace(&mut endpoints[at], endpoint.clone());
                self.index.remove(at, &before);
                self.index.insert(at, endpoint);
                Some(Changed {
                    before: Some(before),
                    after: Some(endpoint.clone()),
                })
            }
            (None, EndpointChange::Set(endpoint)) => {
                self.index.insert(endpoints.len(), endpoint);
                endpoints.push(endpoint.clone());
                Some(Changed {
                    before: None,
                    after: Some(endpoint.clone()),
                })
            }
            (Some(at), EndpointChange::Remove(_)) => {
                let last = endpoints.len() - 1;
                let before = endpoints.swap_remove(at);
                self.index.remove(at, &before);
                if at < last {
                    // The last endpoint stands in its place now.
                    self.index.remove(last, &endpoints[at]);
                    self.index.insert(at, &endpoints[at]);
                }
                Some(Changed {
                    before: Some(before),
                    after: None,
                })
            }
            (None, EndpointChange::Remove(_)) => None,
        }
    }

    /// The changes that make this environment's endpoints those of another.
    pub(super) fn difference(&self, other: &Environment) -> Vec<EndpointChange> {
        let mut changes = Vec::new();
        let names: HashSet<&str> = other.endpoints.iter().map(|e| e.name.as_str()).collect();
        for endpoint in &self.environment.endpoints {
            if !names.contains(endpoint.name.as_str()) {
                changes.push(EndpointChange::Remove(endpoint.name.clone()));
            }
        }
        for endpoint in &other.endpoints {
            let known = self.index.named(&endpoint.name);
            let same = known.is_some_and(|at| self.environment.endpoints[at] == *endpoint);
            if !same {
                changes.push(EndpointChange::Set(endpoint.clone()));
            }
        }
        changes
    }

    /// Which sets a changed endpoint joins or leaves, and by which prefix.
    pub(super) fn memberships(
        &self,
        policy: &Resolved,
        changed: &Changed,
    ) -> Vec<(usize, Prefix, bool)> {
        let mut addresses: Vec<IpAddr> = [&changed.before, &changed.after]
            .into_iter()
            .flatten()
            .flat_map(|endpoint| endpoint.addresses.iter().copied())
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        let network = policy.network.name.as_str();
        let mut out = Vec::new();
        // Lists of labels are the same in many sets.
        let mut selected: FastMap<(&Labels, IpAddr), bool> = FastMap::default();
        for (at, set) in policy.sets.iter().enumerate() {
            let Some(selection) = &set.selection else {
                continue;
            };
            for address in &addresses {
                let (family, _) = number(*address);
                if selection.family.is_some_and(|only| only != family) {
                    continue;
                }
                let prefix = Prefix::new(*address, family.bits());
                let is_in = selection.fixed.binary_search(&prefix).is_ok()
                    || selection.labels.iter().any(|labels| {
                        *selected.entry((labels, *address)).or_insert_with(|| {
                            self.index.with_address(*address).any(|position| {
                                let endpoint = &self.environment.endpoints[position];
                                is_selected(endpoint, network, labels)
                            })
                        })
                    });
                if set.prefixes.binary_search(&prefix).is_ok() != is_in {
                    out.push((at, prefix, is_in));
                }
            }
        }
        out
    }
}

/// Whether the resolved policy follows a change of an endpoint by the members of its sets alone.
///
/// Whatever else a policy takes from endpoints is not followed step by step: it is resolved anew.
pub(super) fn follows_by_sets(
    policy: &Resolved,
    dependencies: &Dependencies,
    changed: &Changed,
) -> bool {
    let Changed { before, after } = changed;
    if dependencies.concern(&policy.network.name, before.as_ref(), after.as_ref()) {
        return false;
    }
    // Claims and tests speak of the endpoints themselves, and what reverses a policy has looked into
    // its sets.
    let plain = policy.assertions.is_empty()
        && policy.peers.is_empty()
        && policy.tests.is_empty()
        && policy.reverse.is_none()
        && policy.needs.is_empty();
    // What a view of one family reads where there is no address of it.
    let reads_as_none = [before, after]
        .into_iter()
        .flatten()
        .any(|endpoint| endpoint.addresses.iter().any(|a| a.is_unspecified()));
    let number =
        |endpoint: &Option<Endpoint>| endpoint.as_ref().map(|e| (e.number, e.network.clone()));
    let same_number = number(before) == number(after);
    // A policy may send to every endpoint there is, without naming any.
    let sends_to_endpoints = policy.endpoints.is_empty()
        || policy
            .terms
            .iter()
            .any(|term| matches!(term, Term::SetPort(port, _) if *port != OWNER));
    plain && !reads_as_none && (same_number || !sends_to_endpoints)
}
