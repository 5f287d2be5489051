//! The packet that a policy decides about, and what the decision is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::address::Address;
use crate::field::{Field, OWNER};

/// Headers of one packet and the place where it is.
///
/// All fields exist in every packet; those that its headers lack read as zero, and a packet that is
/// no IP packet has [`Address::None`] twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Packet {
    /// Source address.
    pub src: Address,
    /// Destination address.
    pub dst: Address,
    /// Number of the endpoint where the packet is; [`OWNER`] once it was forwarded.
    pub port: u32,
    /// Number of the node where the packet entered.
    pub node: u32,
    /// EtherType.
    pub eth_type: u16,
    /// IP protocol.
    pub protocol: u8,
    /// DSCP, 6 bits.
    pub dscp: u8,
    /// Source port of TCP or UDP.
    pub src_port: u16,
    /// Destination port of TCP or UDP.
    pub dst_port: u16,
    /// Type of ICMP or ICMPv6.
    pub icmp_type: u8,
    /// Code of ICMP or ICMPv6.
    pub icmp_code: u8,
    /// Source MAC address, 48 bits.
    pub eth_src: u64,
    /// Destination MAC address, 48 bits.
    pub eth_dst: u64,
    /// VLAN identifier.
    pub vlan_id: u16,
    /// VLAN priority.
    pub vlan_priority: u8,
    /// State of its connection, of [`Connection`](crate::field::Connection).
    pub connection: u8,
    /// What `balance` goes by, 24 bits.
    pub bucket: u32,
    /// 1 when the rate of `limit` admits it.
    pub token: u8,
    /// 1 once `dnat`, `snat` or `balance` has rewritten it.
    pub translated: u8,
}

impl Packet {
    /// The value of a numeric field; zero for the two addresses.
    #[must_use]
    pub fn number(&self, field: Field) -> u64 {
        match field {
            Field::Source | Field::Destination => 0,
            Field::Port => self.port.into(),
            Field::Node => self.node.into(),
            Field::EtherType => self.eth_type.into(),
            Field::Protocol => self.protocol.into(),
            Field::Dscp => self.dscp.into(),
            Field::SourcePort => self.src_port.into(),
            Field::DestinationPort => self.dst_port.into(),
            Field::IcmpType => self.icmp_type.into(),
            Field::IcmpCode => self.icmp_code.into(),
            Field::EthSource => self.eth_src,
            Field::EthDestination => self.eth_dst,
            Field::VlanId => self.vlan_id.into(),
            Field::VlanPriority => self.vlan_priority.into(),
            Field::Connection => self.connection.into(),
            Field::Bucket => self.bucket.into(),
            Field::Token => self.token.into(),
            Field::Translated => self.translated.into(),
        }
    }

    /// Sets a numeric field to the low bits of `value`; does nothing for the two addresses.
    pub fn set_number(&mut self, field: Field, value: u64) {
        match field {
            Field::Source | Field::Destination => {}
            Field::Port => self.port = value as u32,
            Field::Node => self.node = value as u32,
            Field::EtherType => self.eth_type = value as u16,
            Field::Protocol => self.protocol = value as u8,
            Field::Dscp => self.dscp = value as u8,
            Field::SourcePort => self.src_port = value as u16,
            Field::DestinationPort => self.dst_port = value as u16,
            Field::IcmpType => self.icmp_type = value as u8,
            Field::IcmpCode => self.icmp_code = value as u8,
            Field::EthSource => self.eth_src = value,
            Field::EthDestination => self.eth_dst = value,
            Field::VlanId => self.vlan_id = value as u16,
            Field::VlanPriority => self.vlan_priority = value as u8,
            Field::Connection => self.connection = value as u8,
            Field::Bucket => self.bucket = value as u32,
            Field::Token => self.token = value as u8,
            Field::Translated => self.translated = value as u8,
        }
    }

    /// The source or destination address; nothing for the other fields.
    #[must_use]
    pub fn address(&self, field: Field) -> Address {
        match field {
            Field::Source => self.src,
            Field::Destination => self.dst,
            _ => Address::None,
        }
    }

    /// Sets the source or destination address; does nothing for the other fields.
    pub fn set_address(&mut self, field: Field, address: Address) {
        match field {
            Field::Source => self.src = address,
            Field::Destination => self.dst = address,
            _ => {}
        }
    }

    /// Where this packet goes that entered as `entered`.
    #[must_use]
    pub fn place(&self, entered: &Packet) -> Place {
        if u64::from(self.port) == OWNER {
            Place::Owner
        } else if self.port == entered.port {
            Place::Entry
        } else {
            Place::Endpoint(self.port)
        }
    }

    /// Whether this packet can be made of `entered`: fields that the headers of `entered` lack read
    /// as zero and stay so. The data plane drops a copy that would have to carry another value.
    #[must_use]
    pub fn can_be_made_of(&self, entered: &Packet) -> bool {
        let v4 = matches!(entered.src, Address::V4(_));
        let v6 = matches!(entered.src, Address::V6(_));
        let alike = |new: Address, old: Address| {
            std::mem::discriminant(&new) == std::mem::discriminant(&old)
        };
        let addresses = alike(self.src, entered.src) && alike(self.dst, entered.dst);
        let ports = (self.src_port, self.dst_port) == (entered.src_port, entered.dst_port);
        addresses
            && (v4 || v6 || self.dscp == entered.dscp)
            && (matches!(entered.protocol, 6 | 17) || ports)
    }
}

/// Where a copy goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// Where it came in: it is not forwarded.
    Entry,
    /// To the owner of its destination address.
    Owner,
    /// To the endpoint with this number.
    Endpoint(u32),
}

/// A label's place in source order: the byte where its statement starts; [`NO_LABEL`] for none.
pub type LabelId = u32;

/// No statement gave a label; greater than every label.
pub const NO_LABEL: LabelId = u32::MAX;

/// What a policy notes of a packet that comes by a statement; it changes nothing that comes out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Note {
    /// `count`: packets and bytes under this name.
    Count(Arc<str>),
    /// `log`: a flow event for every new flow, which says this.
    Log(Arc<str>),
}

/// What a policy makes of one packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The packets that come out, each with the first label, in source order, on its way.
    pub copies: BTreeMap<Packet, LabelId>,
    /// The first label of a drop that was reached, in source order, or [`NO_LABEL`].
    pub dropped: LabelId,
    /// What is noted of the packet on all its ways, also on those that end in a drop.
    pub notes: BTreeSet<Note>,
}

impl Outcome {
    /// The label of the whole decision: that of a copy when there is one, else that of a drop.
    #[must_use]
    pub fn label(&self) -> LabelId {
        if self.copies.is_empty() {
            return self.dropped;
        }
        self.copies.values().copied().min().unwrap_or(NO_LABEL)
    }
}
