//! One veth pair between the workloads.

use anyhow::Result;

use super::{CLIENT, CLIENT_MAC, Carrier, Rig, SERVER, SERVER_MAC, WORKLOAD};
use crate::bench::case::Case;
use crate::bench::namespace::Namespace;
use crate::bench::system::System;
use crate::bench::veth::{self, End};

pub(super) fn build(case: Case) -> Result<Rig> {
    let (client, server) = (Namespace::new()?, Namespace::new()?);
    let near = End {
        namespace: &client,
        name: WORKLOAD,
        mac: CLIENT_MAC,
        address: Some(CLIENT),
    };
    let far = End {
        namespace: &server,
        name: WORKLOAD,
        mac: SERVER_MAC,
        address: Some(SERVER),
    };
    veth::connect_wire(&near, &far, case.inner_mtu(), case)?;
    Ok(Rig {
        system: System::Veth,
        case,
        wire: (client.clone(), WORKLOAD),
        client,
        server,
        carrier: Carrier::Nothing,
        _nodes: Vec::new(),
    })
}
