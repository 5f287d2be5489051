//! What an accepted proposal changed: enough to tell agents, without comparing states.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sunwire_api::{Name, Vni};
use sunwire_policy::tables::FlowTables;

use crate::command::Outcome;

/// What an accepted proposal changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Revision that it made, or that its first acceptance made when it is a repetition.
    pub revision: u64,
    /// It was accepted before under its idempotency key: nothing changed now.
    pub repeated: bool,
    /// The resource did not exist before.
    pub created: bool,
    /// Nodes that are new or different.
    pub nodes: BTreeSet<Name>,
    /// Networks that are new or different.
    pub networks: BTreeSet<Name>,
    /// Endpoints that are new or different in what agents see of them.
    pub endpoints: BTreeSet<Name>,
    /// Wires that are new.
    pub wires: BTreeSet<Name>,
    /// Networks whose program is new, different or gone.
    pub programs: BTreeMap<Name, ProgramBefore>,
    /// Networks whose staged candidate has tables that are new, different or gone.
    pub staged: BTreeMap<Name, ProgramBefore>,
    /// What was made of policies, for the log.
    pub outcome: Outcome,
    /// Numbers of nodes that are gone.
    pub removed_nodes: Vec<u32>,
    /// Numbers of wires that are gone.
    pub removed_wires: Vec<u32>,
    /// Numbers of endpoints that are gone.
    pub removed_endpoints: Vec<u32>,
    /// Which tunnels are encrypted is another question now.
    pub encryption: bool,
    /// Networks that are gone.
    pub removed_networks: Vec<Vni>,
}

/// What a network had before its program, or its staged candidate, changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProgramBefore {
    /// The tables, if there were any.
    pub tables: Option<Arc<FlowTables>>,
}

impl Effects {
    /// Whether any agent needs to hear of it.
    #[must_use]
    pub fn concern_agents(&self) -> bool {
        !(self.nodes.is_empty()
            && self.networks.is_empty()
            && self.endpoints.is_empty()
            && self.programs.is_empty()
            && self.staged.is_empty()
            && self.wires.is_empty()
            && self.removed_wires.is_empty()
            && self.removed_nodes.is_empty()
            && self.removed_endpoints.is_empty()
            && !self.encryption
            && self.removed_networks.is_empty())
    }
}
