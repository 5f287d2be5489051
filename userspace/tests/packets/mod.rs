//! The packet tests as data: what a packet is, where it comes in, and what must become of it.

pub(crate) mod actions;
pub(crate) mod endpoint;
pub(crate) mod neighbour;
pub(crate) mod service;
pub(crate) mod underlay;
pub(crate) mod world;

use sunwire_dataplane_common::{drop_reason::DropReason, punt::Kind};

use crate::fixture::test_run::Metadata;

/// One packet and what must become of it.
pub(crate) struct Case {
    /// The property.
    pub(crate) name: &'static str,
    /// The node's device that it comes in by.
    pub(crate) device: &'static str,
    /// The frame.
    pub(crate) frame: Vec<u8>,
    /// What it comes with beside its bytes; only a test run can say so.
    pub(crate) metadata: Option<Metadata>,
    /// What must become of it.
    pub(crate) expect: Expect,
    /// The label that counts it, of the network that the device is in.
    pub(crate) label: Option<(u32, &'static str)>,
}

/// What must become of a packet.
pub(crate) enum Expect {
    /// It is dropped and counted.
    Drop(DropReason),
    /// It ends here and is no loss.
    Consumed,
    /// It is handed to the agent.
    Asks(Kind),
    /// The kernel goes on with it.
    Pass,
    /// These frames come out of these devices. A test run shows the first one itself and the
    /// others on their devices.
    Out(Vec<(&'static str, Vec<u8>)>),
    /// Some copies come out and others are dropped.
    OutAndDrop(Vec<(&'static str, Vec<u8>)>, DropReason),
}

impl Case {
    /// A packet that comes in by `device` and must be dropped.
    pub(crate) fn drops(
        name: &'static str,
        device: &'static str,
        frame: Vec<u8>,
        reason: DropReason,
    ) -> Self {
        Case::new(name, device, frame, Expect::Drop(reason))
    }

    /// A packet that must come out as these frames.
    pub(crate) fn comes_out(
        name: &'static str,
        device: &'static str,
        frame: Vec<u8>,
        out: Vec<(&'static str, Vec<u8>)>,
    ) -> Self {
        Case::new(name, device, frame, Expect::Out(out))
    }

    /// A packet that must be handed to the agent.
    pub(crate) fn asks(
        name: &'static str,
        device: &'static str,
        frame: Vec<u8>,
        kind: Kind,
    ) -> Self {
        Case::new(name, device, frame, Expect::Asks(kind))
    }

    pub(crate) fn new(
        name: &'static str,
        device: &'static str,
        frame: Vec<u8>,
        expect: Expect,
    ) -> Self {
        Case {
            name,
            device,
            frame,
            metadata: None,
            expect,
            label: None,
        }
    }

    /// The label of network `shop` that must count it.
    pub(crate) fn counted(mut self, label: &'static str) -> Self {
        self.label = Some((world::SHOP, label));
        self
    }

    /// The label that must count it.
    pub(crate) fn counted_in(mut self, vni: u32, label: &'static str) -> Self {
        self.label = Some((vni, label));
        self
    }

    /// What only a test run can give it.
    pub(crate) fn with(mut self, metadata: Metadata) -> Self {
        self.metadata = Some(metadata);
        self
    }
}

/// Every case.
pub(crate) fn all() -> Vec<Case> {
    let tables = [
        endpoint::cases(),
        neighbour::cases(),
        service::cases(),
        actions::cases(),
        underlay::cases(),
    ];
    tables.into_iter().flatten().collect()
}
