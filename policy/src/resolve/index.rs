//! The endpoints of an environment by name, by label and by address.
//!
//! Names of endpoints are looked up here and nowhere else, for two reasons: a policy of a thousand
//! rules over ten thousand endpoints would otherwise search them for every name, and what was
//! looked up tells which change of an endpoint can change the resolved policy ([`Dependencies`]).

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use crate::environment::{Endpoint, Environment};

/// Labels that an endpoint has to have, all of them, sorted.
pub(crate) type Labels = Box<[(String, String)]>;

/// Positions of endpoints in an environment.
#[derive(Clone, Debug, Default)]
pub(crate) struct EnvironmentIndex {
    names: HashMap<String, usize>,
    /// By key, then by value.
    labels: HashMap<String, HashMap<String, BTreeSet<usize>>>,
    addresses: HashMap<IpAddr, BTreeSet<usize>>,
}

impl EnvironmentIndex {
    /// The index of all endpoints.
    pub(crate) fn new(environment: &Environment) -> Self {
        let mut index = EnvironmentIndex::default();
        for (position, endpoint) in environment.endpoints.iter().enumerate() {
            index.insert(position, endpoint);
        }
        index
    }

    /// Notes an endpoint at its position. Of several with one name, the first is found.
    pub(crate) fn insert(&mut self, position: usize, endpoint: &Endpoint) {
        let first = self.names.entry(endpoint.name.clone()).or_insert(position);
        *first = position.min(*first);
        for (key, value) in &endpoint.labels {
            // Most labels are known: no string is made to look one up.
            if !self.labels.contains_key(key) {
                self.labels.insert(key.clone(), HashMap::new());
            }
            if let Some(values) = self.labels.get_mut(key) {
                if !values.contains_key(value) {
                    values.insert(value.clone(), BTreeSet::new());
                }
                if let Some(positions) = values.get_mut(value) {
                    positions.insert(position);
                }
            }
        }
        for address in &endpoint.addresses {
            self.addresses.entry(*address).or_default().insert(position);
        }
    }

    /// Forgets an endpoint at its position.
    pub(crate) fn remove(&mut self, position: usize, endpoint: &Endpoint) {
        if self.names.get(&endpoint.name) == Some(&position) {
            self.names.remove(&endpoint.name);
        }
        for (key, value) in &endpoint.labels {
            let Some(values) = self.labels.get_mut(key) else {
                continue;
            };
            if let Some(positions) = values.get_mut(value) {
                positions.remove(&position);
                if positions.is_empty() {
                    values.remove(value);
                }
            }
            if values.is_empty() {
                self.labels.remove(key);
            }
        }
        for address in &endpoint.addresses {
            if let Some(positions) = self.addresses.get_mut(address) {
                positions.remove(&position);
                if positions.is_empty() {
                    self.addresses.remove(address);
                }
            }
        }
    }

    /// The endpoint with this name.
    pub(crate) fn named(&self, name: &str) -> Option<usize> {
        self.names.get(name).copied()
    }

    /// The endpoints with this address, in any network.
    pub(crate) fn with_address(&self, address: IpAddr) -> impl Iterator<Item = usize> {
        self.addresses.get(&address).into_iter().flatten().copied()
    }

    /// The endpoints of `network` that have all these labels.
    pub(crate) fn labelled<'e>(
        &self,
        environment: &'e Environment,
        network: &str,
        labels: &[(String, String)],
    ) -> Vec<&'e Endpoint> {
        let fits = |endpoint: &&Endpoint| is_selected(endpoint, network, labels);
        let lists = labels
            .iter()
            .map(|(key, value)| self.labels.get(key).and_then(|values| values.get(value)));
        // Absent before short: an empty list has no endpoint at all.
        match lists.min_by_key(|list| list.map_or(0, BTreeSet::len)) {
            None => environment.endpoints.iter().filter(fits).collect(),
            Some(None) => Vec::new(),
            Some(Some(positions)) => positions
                .iter()
                .filter_map(|position| environment.endpoints.get(*position))
                .filter(fits)
                .collect(),
        }
    }
}

/// Whether an endpoint is in the network and has all these labels.
pub(crate) fn is_selected(endpoint: &Endpoint, network: &str, labels: &[(String, String)]) -> bool {
    let has = |(key, value): &(String, String)| endpoint.labels.get(key) == Some(value);
    endpoint.network == network && labels.iter().all(has)
}

/// What a resolved policy took from the endpoints, except for the members of address sets, which
/// the sets remember themselves ([`crate::address::Selection`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dependencies {
    /// Endpoints asked for by name, whether or not they exist.
    pub(crate) names: HashSet<String>,
    /// Labels by which numbers or MAC addresses of endpoints were selected.
    pub(crate) labels: HashSet<Labels>,
}

impl Dependencies {
    /// Whether the policy may resolve to something else when an endpoint of its network becomes
    /// another, comes or goes.
    pub(crate) fn concern(
        &self,
        network: &str,
        before: Option<&Endpoint>,
        after: Option<&Endpoint>,
    ) -> bool {
        let mut changed = before.into_iter().chain(after);
        changed.any(|endpoint| {
            self.names.contains(&endpoint.name)
                || self
                    .labels
                    .iter()
                    .any(|labels| is_selected(endpoint, network, labels))
        })
    }
}

/// The index in use while one document is resolved, noting what is asked.
pub(crate) struct Lookup<'d> {
    environment: &'d Environment,
    index: &'d EnvironmentIndex,
    noted: RefCell<Dependencies>,
}

impl<'d> Lookup<'d> {
    /// Nothing asked yet.
    pub(crate) fn new(environment: &'d Environment, index: &'d EnvironmentIndex) -> Self {
        Lookup {
            environment,
            index,
            noted: RefCell::default(),
        }
    }

    /// The index itself: what is asked of it is not noted.
    pub(crate) const fn index(&self) -> &'d EnvironmentIndex {
        self.index
    }

    /// The endpoint with this name, in whatever network.
    pub(crate) fn named(&self, name: &str) -> Option<&'d Endpoint> {
        let mut noted = self.noted.borrow_mut();
        if !noted.names.contains(name) {
            noted.names.insert(name.to_owned());
        }
        let position = self.index.named(name)?;
        self.environment.endpoints.get(position)
    }

    /// The endpoints with these labels, for more than their addresses.
    pub(crate) fn labelled(&self, network: &str, labels: Labels) -> Vec<&'d Endpoint> {
        let found = self.index.labelled(self.environment, network, &labels);
        self.noted.borrow_mut().labels.insert(labels);
        found
    }

    /// The endpoints with these labels, of which only the addresses matter, to a set that
    /// remembers the labels itself.
    pub(crate) fn labelled_addresses(
        &self,
        network: &str,
        labels: &[(String, String)],
    ) -> Vec<&'d Endpoint> {
        self.index.labelled(self.environment, network, labels)
    }

    /// What was asked.
    pub(crate) fn into_dependencies(self) -> Dependencies {
        self.noted.into_inner()
    }
}
