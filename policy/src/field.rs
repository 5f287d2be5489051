//! The fields of a packet that a policy can test and assign: names, widths and the order of tests.

use std::net::IpAddr;

pub use sunwire_dataplane_common::flow_key::bucket;

/// A field of a packet.
///
/// The source and the destination address are one field each, whose value is an IPv4 address, an
/// IPv6 address or nothing; `ip4Src` and `ip6Src` are two views of [`Field::Source`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// Source address.
    Source,
    /// Destination address.
    Destination,
    /// The endpoint where the packet is: where it entered, until it is assigned.
    Port,
    /// The node where the packet entered.
    Node,
    /// EtherType.
    EtherType,
    /// IP protocol.
    Protocol,
    /// Differentiated services code point.
    Dscp,
    /// Source port of TCP or UDP.
    SourcePort,
    /// Destination port of TCP or UDP.
    DestinationPort,
    /// Type of ICMP or ICMPv6.
    IcmpType,
    /// Code of ICMP or ICMPv6.
    IcmpCode,
    /// Source MAC address.
    EthSource,
    /// Destination MAC address.
    EthDestination,
    /// VLAN identifier; zero in every packet that reaches a policy.
    VlanId,
    /// VLAN priority; zero in every packet that reaches a policy.
    VlanPriority,
    /// State of the connection that the packet belongs to, of [`Connection`]. Read only: it is set
    /// before the policy.
    Connection,
    /// What `balance` goes by: a hash of what it tells clients apart by, or the back end that the
    /// connection has. See [`bucket`]. Read only.
    Bucket,
    /// 1 when the rate of `limit` admits the packet. Read only.
    Token,
    /// 1 once `dnat`, `snat` or `balance` has rewritten the packet. Read only.
    Translated,
}

/// Number of fields.
pub const FIELDS: usize = 19;

/// A value of [`Field::Connection`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Connection {
    /// The packet may begin a connection, or belongs to none.
    New = 0,
    /// It belongs to a connection that was admitted.
    Established = 1,
    /// It speaks of a connection that was admitted, such as an ICMP error.
    Related = 2,
}

impl Connection {
    /// Every state, with its name in policies.
    pub const ALL: [(&'static str, Connection); 3] = [
        ("new", Connection::New),
        ("established", Connection::Established),
        ("related", Connection::Related),
    ];

    /// The state with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Connection> {
        Self::ALL.iter().find(|(n, _)| *n == name).map(|(_, c)| *c)
    }
}

impl Field {
    /// Every field.
    pub const ALL: [Field; FIELDS] = [
        Field::Source,
        Field::Destination,
        Field::Port,
        Field::Node,
        Field::EtherType,
        Field::Protocol,
        Field::Dscp,
        Field::SourcePort,
        Field::DestinationPort,
        Field::IcmpType,
        Field::IcmpCode,
        Field::EthSource,
        Field::EthDestination,
        Field::VlanId,
        Field::VlanPriority,
        Field::Connection,
        Field::Bucket,
        Field::Token,
        Field::Translated,
    ];

    /// The name by which the printer and messages call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Field::Source => "src",
            Field::Destination => "dst",
            Field::Port => "port",
            Field::Node => "node",
            Field::EtherType => "ethTyp",
            Field::Protocol => "ipProto",
            Field::Dscp => "dscp",
            Field::SourcePort => "tcpSrcPort",
            Field::DestinationPort => "tcpDstPort",
            Field::IcmpType => "icmpType",
            Field::IcmpCode => "icmpCode",
            Field::EthSource => "ethSrc",
            Field::EthDestination => "ethDst",
            Field::VlanId => "vlanId",
            Field::VlanPriority => "vlanPcp",
            Field::Connection => "conn",
            Field::Bucket => "bucket",
            Field::Token => "token",
            Field::Translated => "translated",
        }
    }

    /// Whether the field is no header of the packet but set before the policy or by its verbs, and
    /// read only.
    #[must_use]
    pub const fn is_virtual(self) -> bool {
        matches!(
            self,
            Field::Connection | Field::Bucket | Field::Token | Field::Translated
        )
    }

    /// Width in bits of a numeric field; zero for the two addresses.
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self {
            Field::Source | Field::Destination => 0,
            Field::Port | Field::Node => 32,
            Field::EtherType | Field::SourcePort | Field::DestinationPort => 16,
            Field::Protocol | Field::IcmpType | Field::IcmpCode => 8,
            Field::Dscp => 6,
            Field::EthSource | Field::EthDestination => 48,
            Field::VlanId => 12,
            Field::VlanPriority => 3,
            Field::Connection => 2,
            Field::Bucket => 24,
            Field::Token | Field::Translated => 1,
        }
    }

    /// Greatest value that a policy can write for a numeric field.
    #[must_use]
    pub const fn max(self) -> u64 {
        match self {
            // The greatest 32-bit value stands for "owner of the destination".
            Field::Port => OWNER - 1,
            Field::Connection => Connection::Related as u64,
            _ => (1 << self.bits()) - 1,
        }
    }
}

/// The value of [`Field::Port`] after `forward`: it equals no number of an endpoint.
pub const OWNER: u64 = u32::MAX as u64;

/// What a test or an assignment names: a field, or one family's view of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// The field itself.
    Field(Field),
    /// `ip4Src`, `ip4Dst`: the IPv4 address, or 0.0.0.0 when there is none.
    Ip4(Field),
    /// `ip6Src`, `ip6Dst`: the IPv6 address, or `::` when there is none.
    Ip6(Field),
}

/// Every spelling of a subject that is one word; the first of each is what the printer writes.
const NAMES: [(&str, Subject); 35] = [
    ("node", Subject::Field(Field::Node)),
    ("switch", Subject::Field(Field::Node)),
    ("sw", Subject::Field(Field::Node)),
    ("port", Subject::Field(Field::Port)),
    ("endpoint", Subject::Field(Field::Port)),
    ("pt", Subject::Field(Field::Port)),
    ("ethSrc", Subject::Field(Field::EthSource)),
    ("ethDst", Subject::Field(Field::EthDestination)),
    ("ethTyp", Subject::Field(Field::EtherType)),
    ("ethType", Subject::Field(Field::EtherType)),
    ("vlanId", Subject::Field(Field::VlanId)),
    ("vlan", Subject::Field(Field::VlanId)),
    ("vlanPcp", Subject::Field(Field::VlanPriority)),
    ("ipProto", Subject::Field(Field::Protocol)),
    ("proto", Subject::Field(Field::Protocol)),
    ("protocol", Subject::Field(Field::Protocol)),
    ("src", Subject::Field(Field::Source)),
    ("dst", Subject::Field(Field::Destination)),
    ("ip4Src", Subject::Ip4(Field::Source)),
    ("ip4Dst", Subject::Ip4(Field::Destination)),
    ("ip6Src", Subject::Ip6(Field::Source)),
    ("ip6Dst", Subject::Ip6(Field::Destination)),
    ("tcpSrcPort", Subject::Field(Field::SourcePort)),
    ("srcPort", Subject::Field(Field::SourcePort)),
    ("udpSrcPort", Subject::Field(Field::SourcePort)),
    ("tcpDstPort", Subject::Field(Field::DestinationPort)),
    ("dstPort", Subject::Field(Field::DestinationPort)),
    ("udpDstPort", Subject::Field(Field::DestinationPort)),
    ("icmpType", Subject::Field(Field::IcmpType)),
    ("icmpCode", Subject::Field(Field::IcmpCode)),
    ("dscp", Subject::Field(Field::Dscp)),
    ("conn", Subject::Field(Field::Connection)),
    ("bucket", Subject::Field(Field::Bucket)),
    ("token", Subject::Field(Field::Token)),
    ("translated", Subject::Field(Field::Translated)),
];

impl Subject {
    /// The subject with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Subject> {
        NAMES.iter().find(|(n, _)| *n == name).map(|(_, s)| *s)
    }

    /// The name that the printer writes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Subject::Field(field) => field.name(),
            Subject::Ip4(Field::Source) => "ip4Src",
            Subject::Ip4(_) => "ip4Dst",
            Subject::Ip6(Field::Source) => "ip6Src",
            Subject::Ip6(_) => "ip6Dst",
        }
    }

    /// The field behind it.
    #[must_use]
    pub const fn field(self) -> Field {
        match self {
            Subject::Field(field) | Subject::Ip4(field) | Subject::Ip6(field) => field,
        }
    }

    /// Whether an address of this family can be written for it.
    #[must_use]
    pub const fn admits(self, address: IpAddr) -> bool {
        match self {
            Subject::Field(Field::Source | Field::Destination) => true,
            Subject::Field(_) => false,
            Subject::Ip4(_) => address.is_ipv4(),
            Subject::Ip6(_) => address.is_ipv6(),
        }
    }
}

/// Every spelling of a subject.
pub fn subject_names<'a>() -> impl Iterator<Item = &'a str> {
    NAMES.iter().map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_found_by_the_name_that_is_printed() {
        for field in Field::ALL {
            assert_eq!(Subject::named(field.name()), Some(Subject::Field(field)));
        }
        for (name, subject) in NAMES {
            assert_eq!(Subject::named(subject.name()), Some(subject), "{name}");
        }
    }
}
