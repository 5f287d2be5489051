//! A packet as flow tables see it: one `u32` per field.
//!
//! Addresses stand in it only as classes: the atoms of all address tests in force. Everything else
//! is the field's value, zero where the packet has no such field.

use crate::headers::Headers;

/// A field that a node of the flow tables can test. See [`Field::place`] for where it is.
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
    /// State of the connection, a [`Connection`], 2 bits.
    Connection = 15,
    /// 1 when the rate of `limit` admits the packet, 1 bit.
    Token = 16,
    /// What `balance` goes by, 24 bits: see [`bucket`].
    Bucket = 17,
}

/// Slot of the fields that are set before the policy and stand in no header: they share it, each at
/// bits of its own.
pub const STATE_SLOT: usize = 15;

/// Bits of the slot [`STATE_SLOT`].
pub mod state {
    /// Shift of the connection's state, a [`Connection`](super::Connection).
    pub const CONNECTION_SHIFT: u8 = 0;
    /// Width of the connection's state.
    pub const CONNECTION_WIDTH: u8 = 2;
    /// Shift of the token: 1 when the rate of `limit` admits the packet.
    pub const TOKEN_SHIFT: u8 = 2;
    /// Width of the token.
    pub const TOKEN_WIDTH: u8 = 1;
    /// Shift of the bucket: what `balance` goes by.
    pub const BUCKET_SHIFT: u8 = 8;
    /// Width of the bucket.
    pub const BUCKET_WIDTH: u8 = 24;
}

/// Values of the bucket, which `balance` goes by.
///
/// A packet that begins a connection has a slot, found from what clients are told apart by; each back
/// end has a share of the slots. A packet of a connection that is up has the number of the back end
/// that the connection has, so that another distribution of the slots does not tear it apart.
pub mod bucket {
    /// Slots that are dealt out to back ends: greater than every bucket that is a slot. Never to be
    /// changed, or connections would begin at other back ends than before.
    pub const SLOTS: u32 = 1 << 10;
    /// Added to the number of the back end that a connection has.
    pub const KEPT: u32 = 1 << 23;

    /// The bucket of connections with this back end, or `None` when its number has no room.
    #[inline(always)]
    #[must_use]
    pub const fn kept(number: u32) -> Option<u32> {
        if number == 0 || number >= KEPT {
            None
        } else {
            Some(KEPT | number)
        }
    }
}

/// State of the connection that a packet belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u32)]
pub enum Connection {
    /// The packet may begin a connection, or belongs to none.
    #[default]
    New = 0,
    /// It belongs to a connection of which a packet of the other side was delivered.
    Established = 1,
    /// It speaks of such a connection, such as an ICMP error.
    Related = 2,
}

impl Field {
    /// Every field, in slot order.
    pub const ALL: [Field; 18] = [
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
        Field::Connection,
        Field::Token,
        Field::Bucket,
    ];

    /// The field with this number, or `None` when there is none.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Field> {
        if (number as usize) < Self::ALL.len() {
            Some(Self::ALL[number as usize])
        } else {
            None
        }
    }

    /// Where the field is in a [`FlowKey`]: its slot in the lower 4 bits, and the bits that it is
    /// shifted left by. The lower 5 bits are different for all fields but the bucket, which a flow
    /// keeps: by them a walk notes what it has looked at.
    #[must_use]
    pub const fn place(self) -> (u8, u8) {
        const SLOT: u8 = STATE_SLOT as u8;
        match self {
            Field::Connection => (SLOT, state::CONNECTION_SHIFT),
            Field::Token => (SLOT | 1 << 4, state::TOKEN_SHIFT),
            Field::Bucket => (SLOT | 2 << 4, state::BUCKET_SHIFT),
            field => (field as u8, 0),
        }
    }

    /// Bits of the field's values.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Field::Connection => state::CONNECTION_WIDTH,
            Field::Token => state::TOKEN_WIDTH,
            Field::Bucket => state::BUCKET_WIDTH,
            _ => 32,
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
    /// Value of the slot [`STATE_SLOT`].
    pub state: u32,
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
        slots[STATE_SLOT] = context.state;
        FlowKey { slots }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_and_places_are_apart() {
        let mut taken = [0u32; FLOW_KEY_SLOTS];
        for (number, field) in Field::ALL.iter().enumerate() {
            assert_eq!(*field as usize, number);
            assert_eq!(Field::from_number(number as u8), Some(*field));
            let (place, shift) = field.place();
            let slot = place & 0xf;
            let width = field.bits();
            let bits = (u64::from(u32::MAX) >> (32 - width) << shift) as u32;
            assert_eq!(taken[usize::from(slot)] & bits, 0, "{field:?}");
            taken[usize::from(slot)] |= bits;
        }
        assert_eq!(Field::from_number(Field::ALL.len() as u8), None);
    }
}
