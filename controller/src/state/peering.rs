//! Which networks packets are routed between.

use std::collections::BTreeSet;

use sunwire_api::{Name, ProblemCode};

use super::State;
use super::policies::Change;
use crate::effects::Effects;
use crate::examine::Examiner;
use crate::refusal::Refusal;

impl State {
    /// Has packets routed between two networks from here on, as far as both their policies let them.
    pub(super) fn peer_networks(
        &mut self,
        name: &Name,
        peer: &Name,
        force: bool,
        examiner: &mut Examiner<'_>,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        self.check_peer(name, peer)?;
        let (one, other) = (self.network(name)?, &self.networks[peer]);
        if one.encryption != other.encryption {
            return Err(invalid(format!(
                "`encryption` of network {name} is {}, and of network {peer} {}: give both the same",
                one.encryption, other.encryption
            )));
        }
        self.check_apart(name, peer)?;
        self.set_peering(name, peer, true, force, examiner, effects)
    }

    /// Ends what [`Self::peer_networks`] began.
    pub(super) fn unpeer_networks(
        &mut self,
        name: &Name,
        peer: &Name,
        force: bool,
        examiner: &mut Examiner<'_>,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        self.check_peer(name, peer)?;
        if !self.network(name)?.peers.contains(peer) {
            return Err(Refusal::new(
                ProblemCode::NotPeered,
                format!("networks {name} and {peer} are not peered"),
            ));
        }
        self.set_peering(name, peer, false, force, examiner, effects)
    }

    fn check_peer(&self, name: &Name, peer: &Name) -> Result<(), Refusal> {
        self.network(name)?;
        if name == peer {
            return Err(invalid(format!(
                "network {name} is no peer of its own: name another network"
            )));
        }
        if !self.networks.contains_key(peer) {
            return Err(Refusal::new(
                ProblemCode::UnknownNetwork,
                format!("there is no network {peer}: name one that GET /v1/networks lists"),
            ));
        }
        Ok(())
    }

    /// Refuses networks of which an address could mean two things to a third one, or to each other.
    fn check_apart(&self, name: &Name, peer: &Name) -> Result<(), Refusal> {
        let around = |center: &Name| {
            let peers = &self.networks[center].peers;
            let all = peers.iter().chain([center]);
            all.filter(|one| *one != name && *one != peer || *one == center)
                .cloned()
                .collect::<BTreeSet<Name>>()
        };
        // Each network must tell all its peers, and itself, apart.
        for (known, new) in [(around(name), peer), (around(peer), name)] {
            for one in &known {
                if let Some((left, right)) = self.overlap(one, new) {
                    return Err(Refusal::new(
                        ProblemCode::SubnetOverlap,
                        format!(
                            "subnet {left} of network {one} and subnet {right} of network {new} \
                             overlap, and packets could not be routed by address: networks that are \
                             peered, and all peers of one network, need subnets that are apart"
                        ),
                    ));
                }
            }
        }
        Ok(())
    }

    fn overlap(&self, one: &Name, other: &Name) -> Option<(sunwire_api::Cidr, sunwire_api::Cidr)> {
        let (left, right) = (&self.networks[one].subnets, &self.networks[other].subnets);
        let mut pairs = left.iter().flat_map(|a| right.iter().map(move |b| (a, b)));
        let found = pairs.find(|(a, b)| a.overlaps(b));
        found.map(|(a, b)| (*a, *b))
    }

    fn set_peering(
        &mut self,
        name: &Name,
        peer: &Name,
        peered: bool,
        force: bool,
        examiner: &mut Examiner<'_>,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let change = Change::Peering(name, peer, peered);
        let policies = self.reexamined(change, force, examiner)?;

        for (one, other) in [(name, peer), (peer, name)] {
            let record = self.networks.get_mut(one);
            let record = record.expect("the caller has looked both networks up");
            match peered {
                true => record.peers.insert(other.clone()),
                false => record.peers.remove(other),
            };
            record.revision = effects.revision;
            effects.networks.insert(one.clone());
        }
        self.settle(policies, effects);
        Ok(())
    }

    /// Networks, and those that are so many peerings away.
    pub(super) fn around(&self, networks: BTreeSet<Name>, hops: usize) -> BTreeSet<Name> {
        let mut all = networks;
        for _ in 0..hops {
            let records = all.iter().filter_map(|name| self.networks.get(name));
            let peers: Vec<Name> = records
                .flat_map(|record| record.peers.iter().cloned())
                .collect();
            all.extend(peers);
        }
        all
    }
}

fn invalid(detail: String) -> Refusal {
    Refusal::new(ProblemCode::PeeringInvalid, detail)
}
