//! Connections with names, for people and programs.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use sunwire_dataplane_common::{
    expiry::FlowRecord,
    flow::{Phase, seen},
    headers::Family,
};

use super::{Connections, exchange, exchange::ExchangeError};
use crate::telemetry::names::Names;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConnectionPhase {
    /// Packets went one way only.
    OneWay,
    /// Both ways.
    Established,
    /// One side has ended it.
    Closing,
    /// It is over.
    Closed,
}

impl ConnectionPhase {
    /// The name used in JSON and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ConnectionPhase::OneWay => "one-way",
            ConnectionPhase::Established => "established",
            ConnectionPhase::Closing => "closing",
            ConnectionPhase::Closed => "closed",
        }
    }
}

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ConnectionEnd {
    /// Name of the endpoint, where one has the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The address.
    pub address: IpAddr,
    /// The port, or the identifier of an ICMP echo.
    pub port: u16,
}

/// A connection of an endpoint on this node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ListedConnection {
    /// Name of the network, or its VNI where it has none any more.
    pub network: String,
    /// IP protocol.
    pub protocol: u8,
    /// The endpoint on this node.
    pub local: ConnectionEnd,
    /// The other side.
    pub remote: ConnectionEnd,
    /// How far it has come.
    pub phase: ConnectionPhase,
    /// For how long nothing was heard of it, ms.
    pub silent_ms: u64,
    /// Whether the endpoint has sent something.
    pub sent: bool,
    /// Whether something was delivered to it.
    pub received: bool,
    /// Label of the verdict on what the endpoint sends, where one is remembered that holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The other side as the endpoint knows it, when the policy has translated it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub translated: Option<ConnectionEnd>,
}

impl Connections {
    /// The connections of an endpoint on this node, or of all, sorted.
    ///
    /// # Errors
    /// When there is no such endpoint, or the kernel does not tell.
    pub fn list(&self, endpoint: Option<&str>) -> Result<Vec<ListedConnection>, ExchangeError> {
        let number = match endpoint {
            Some(endpoint) => self.place(endpoint)?.number,
            None => 0,
        };
        let now = self.tables.now()?;
        let records = self.tables.select(number)?;
        let names = self.names();
        let generation = self.generation();
        let hertz = self.tables.hertz();
        let mut listed: Vec<ListedConnection> = records
            .iter()
            .filter_map(|record| {
                let connection = exchange::connection(record, now, hertz)?;
                Some(list_one(record, &connection, &names, generation))
            })
            .collect();
        listed.sort();
        Ok(listed)
    }
}

fn list_one(
    record: &FlowRecord,
    connection: &super::parcel::Connection,
    names: &Names,
    generation: u32,
) -> ListedConnection {
    let vni = record.key.network_protocol >> 8;
    let family = match record.family {
        4 => Family::V4,
        _ => Family::V6,
    };
    let entry = &record.entry;
    let ends = &connection.ends;
    let remote = |address, port, kernel| ConnectionEnd {
        endpoint: names.owner(vni, family, kernel),
        address,
        port,
    };
    ListedConnection {
        network: names.network(vni).unwrap_or_else(|| vni.to_string()),
        protocol: ends.protocol,
        local: ConnectionEnd {
            endpoint: names.endpoint(entry.local),
            address: ends.local,
            port: ends.local_port,
        },
        remote: remote(ends.remote, ends.remote_port, record.key.remote),
        phase: match entry.phase() {
            Phase::OneWay => ConnectionPhase::OneWay,
            Phase::Established => ConnectionPhase::Established,
            Phase::Closing => ConnectionPhase::Closing,
            Phase::Closed => ConnectionPhase::Closed,
        },
        silent_ms: connection.silent_ms,
        sent: entry.sent & seen::PACKET != 0,
        received: entry.received & seen::PACKET != 0,
        label: (entry.generation != 0 && entry.generation == generation)
            .then(|| names.label(entry.label))
            .flatten(),
        translated: connection
            .translated
            .map(|(address, port)| remote(address, port, entry.original())),
    }
}
