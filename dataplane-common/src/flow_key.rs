//! A packet as flow tables see it: one `u32` per field.
//!
//! Addresses stand in it only as classes: the atoms of all address tests in force. Everything else
//! is the field's value, zero where the packet has no such field.

use crate::headers::Headers;

/// A field that a node of the flow tables can test; the value is its slot in the [`FlowKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Field {
    /// Class of the source address.
    SourceClass = 0,
    /// Class of the destination address.
    DestinationClass = 1,
    /// Number of the endpoint where the packet entered.
    Endpoint = 2,
    /// Number of the node where the packet entered.
    Node = 3,
    /// EtherType, 16 bits.
    EtherType = 4,
    /// IP protocol, 8 bits.
    Protocol = 5,
    /// Differentiated services code point, 6 bits.
    Dscp = 6,
    /// Source port, 16 bits.
    SourcePort = 7,
    /// Destination port, 16 bits.
    DestinationPort = 8,
    /// ICMP or ICMPv6 type, 8 bits.
    IcmpType = 9,
    /// ICMP or ICMPv6 code, 8 bits.
    IcmpCode = 10,
    /// First 2 bytes of the source MAC address.
    EthSrcHigh = 11,
    /// Last 4 bytes of the source MAC address.
    EthSrcLow = 12,
    /// First 2 bytes of the destination MAC address.
    EthDstHigh = 13,
    /// Last 4 bytes of the destination MAC address.
    EthDstLow = 14,
}

impl Field {
    /// Every field, in slot order.
    pub const ALL: [Field; 15] = [
        Field::SourceClass,
        Field::DestinationClass,
        Field::Endpoint,
        Field::Node,
        Field::EtherType,
        Field::Protocol,
        Field::Dscp,
        Field::SourcePort,
        Field::DestinationPort,
        Field::IcmpType,
        Field::IcmpCode,
        Field::EthSrcHigh,
        Field::EthSrcLow,
        Field::EthDstHigh,
        Field::EthDstLow,
    ];

    /// The field in a slot, or `None` when there is none.
    #[must_use]
    pub const fn from_slot(slot: u8) -> Option<Field> {
        if (slot as usize) < Self::ALL.len() {
            Some(Self::ALL[slot as usize])
        } else {
            None
        }
    }

    /// Whether values of this field are address classes.
    #[must_use]
    pub const fn is_class(self) -> bool {
        matches!(self, Field::SourceClass | Field::DestinationClass)
    }
}

/// Slots of a [`FlowKey`]: a power of two, so that an index can be masked for the verifier.
pub const FLOW_KEY_SLOTS: usize = 16;

/// What the flow tables test of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct FlowKey {
    /// Values by [`Field`] slot.
    pub slots: [u32; FLOW_KEY_SLOTS],
}

/// What the flow key holds beside the packet's own headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Context {
    /// Class of the source address.
    pub source_class: u32,
    /// Class of the destination address.
    pub destination_class: u32,
    /// Number of the endpoint where the packet entered.
    pub endpoint: u32,
    /// Number of the node where the packet entered.
    pub node: u32,
}

impl FlowKey {
    /// The key of a packet.
    #[inline(always)]
    #[must_use]
    pub fn new(headers: &Headers, context: Context) -> Self {
        let mut slots = [0u32; FLOW_KEY_SLOTS];
        slots[Field::SourceClass as usize] = context.source_class;
        slots[Field::DestinationClass as usize] = context.destination_class;
        slots[Field::Endpoint as usize] = context.endpoint;
        slots[Field::Node as usize] = context.node;
        slots[Field::EtherType as usize] = headers.ether_type as u32;
        slots[Field::Protocol as usize] = headers.protocol as u32;
        slots[Field::Dscp as usize] = headers.dscp as u32;
        slots[Field::SourcePort as usize] = headers.src_port as u32;
        slots[Field::DestinationPort as usize] = headers.dst_port as u32;
        slots[Field::IcmpType as usize] = headers.icmp_type as u32;
        slots[Field::IcmpCode as usize] = headers.icmp_code as u32;
        let (high, low) = headers.eth_src.split();
        slots[Field::EthSrcHigh as usize] = high;
        slots[Field::EthSrcLow as usize] = low;
        let (high, low) = headers.eth_dst.split();
        slots[Field::EthDstHigh as usize] = high;
        slots[Field::EthDstLow as usize] = low;
        FlowKey { slots }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_dense_and_fit_the_key() {
        for (slot, field) in Field::ALL.iter().enumerate() {
            assert_eq!(*field as usize, slot);
            assert_eq!(Field::from_slot(slot as u8), Some(*field));
            assert!(slot < FLOW_KEY_SLOTS);
        }
        assert_eq!(Field::from_slot(Field::ALL.len() as u8), None);
    }
}
