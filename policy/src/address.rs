//! Addresses of packets, prefixes, and sets of addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The source or destination address of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Address {
    /// The packet is no IP packet.
    #[default]
    None,
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address.
    V6(Ipv6Addr),
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Address::V4(v4),
            IpAddr::V6(v6) => Address::V6(v6),
        }
    }
}

impl Address {
    /// What `ip4Src` and `ip4Dst` read: 0.0.0.0 when the address is none of IPv4.
    #[must_use]
    pub const fn v4(self) -> Ipv4Addr {
        match self {
            Address::V4(v4) => v4,
            _ => Ipv4Addr::UNSPECIFIED,
        }
    }

    /// What `ip6Src` and `ip6Dst` read: `::` when the address is none of IPv6.
    #[must_use]
    pub const fn v6(self) -> Ipv6Addr {
        match self {
            Address::V6(v6) => v6,
            _ => Ipv6Addr::UNSPECIFIED,
        }
    }
}

/// An address family, so that both are handled by the same code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    /// Length of an address in bits.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }

    /// The address with this number.
    #[must_use]
    pub const fn address(self, number: u128) -> IpAddr {
        match self {
            Family::V4 => IpAddr::V4(Ipv4Addr::from_bits(number as u32)),
            Family::V6 => IpAddr::V6(Ipv6Addr::from_bits(number)),
        }
    }
}

/// Family and number of an address.
#[must_use]
pub fn number(address: IpAddr) -> (Family, u128) {
    match address {
        IpAddr::V4(v4) => (Family::V4, u128::from(v4.to_bits())),
        IpAddr::V6(v6) => (Family::V6, v6.to_bits()),
    }
}

/// A MAC address as a number of 48 bits.
#[must_use]
pub fn mac_number(mac: [u8; 6]) -> u64 {
    mac.iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// A prefix: the addresses that share their first `length` bits with `first`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// Family.
    pub family: Family,
    /// First address; the bits behind the length are zero.
    pub first: u128,
    /// Length in bits.
    pub length: u8,
}

impl Prefix {
    /// The prefix of this length that holds the address; the length is cut to the family's bits.
    #[must_use]
    pub fn new(address: IpAddr, length: u8) -> Self {
        let (family, number) = number(address);
        let length = length.min(family.bits());
        Prefix {
            family,
            first: number & !host_mask(family, length),
            length,
        }
    }

    /// All addresses of a family.
    #[must_use]
    pub const fn all(family: Family) -> Self {
        Prefix {
            family,
            first: 0,
            length: 0,
        }
    }

    /// Last address.
    #[must_use]
    pub const fn last(&self) -> u128 {
        self.first | host_mask(self.family, self.length)
    }

    /// Whether an address of this prefix's family is in it.
    #[must_use]
    pub const fn contains(&self, number: u128) -> bool {
        number & !host_mask(self.family, self.length) == self.first
    }

    /// The fewest prefixes that cover `first` to `last`, both included.
    #[must_use]
    pub fn cover(family: Family, first: u128, last: u128) -> Vec<Prefix> {
        let mut out = Vec::new();
        let mut at = first;
        while at <= last {
            let mut length = family.bits();
            // Grow while the prefix still starts here and ends in time.
            while length > 0 {
                let mask = host_mask(family, length - 1);
                if at & mask != 0 || at | mask > last {
                    break;
                }
                length -= 1;
            }
            let prefix = Prefix {
                family,
                first: at,
                length,
            };
            out.push(prefix);
            match prefix.last().checked_add(1) {
                Some(next) => at = next,
                None => break,
            }
        }
        out
    }
}

/// The bits of an address behind a prefix of this length.
const fn host_mask(family: Family, length: u8) -> u128 {
    let bits = family.bits() - length;
    if bits == 0 {
        0
    } else {
        u128::MAX >> (128 - bits as u32)
    }
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.family.address(self.first), self.length)
    }
}

/// How the prefixes of a set follow from the endpoints of its network.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Selection {
    /// The prefixes that are there whatever labels endpoints have, in order.
    pub fixed: Vec<Prefix>,
    /// The addresses of endpoints that have all labels of one of these lists, by key and value.
    pub labels: Vec<Box<[(String, String)]>>,
    /// Only addresses of this family; `None` for both.
    pub family: Option<Family>,
}

/// A set of addresses, to which also "no address" may belong.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct AddressSet {
    /// What the set is called, by name where it has one and by content where it has none: two
    /// sets of one compilation are the same when their identities are equal.
    pub identity: String,
    /// Prefixes of both families, in order, each once; they may overlap.
    pub prefixes: Vec<Prefix>,
    /// The set is what the prefixes leave out, in both families.
    pub complement: bool,
    /// Whether a packet without addresses is in the set.
    pub none: bool,
    /// Where the prefixes come from when they depend on labels of endpoints.
    pub selection: Option<Box<Selection>>,
}

impl AddressSet {
    /// Whether an address is in the set.
    #[must_use]
    pub fn contains(&self, address: Address) -> bool {
        let (family, number) = match address {
            Address::None => return self.none,
            Address::V4(v4) => number(IpAddr::V4(v4)),
            Address::V6(v6) => number(IpAddr::V6(v6)),
        };
        let covered = self
            .prefixes
            .iter()
            .any(|p| p.family == family && p.contains(number));
        covered != self.complement
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_covered_exactly() {
        for (first, last) in [
            (0, 255),
            (1, 254),
            (5, 5),
            (0, u128::from(u32::MAX)),
            (7, 8),
        ] {
            let cover = Prefix::cover(Family::V4, first, last);
            assert_eq!(cover.first().unwrap().first, first);
            assert_eq!(cover.last().unwrap().last(), last);
            for pair in cover.windows(2) {
                assert_eq!(pair[0].last() + 1, pair[1].first);
            }
        }
        assert_eq!(
            Prefix::cover(Family::V6, 0, u128::MAX),
            vec![Prefix::all(Family::V6)]
        );
        assert_eq!(Prefix::cover(Family::V4, 1, 254).len(), 14);
    }

    #[test]
    fn a_prefix_forgets_the_bits_behind_its_length() {
        let prefix = Prefix::new("10.20.30.40".parse().unwrap(), 16);
        assert_eq!(prefix.to_string(), "10.20.0.0/16");
        assert!(prefix.contains(number("10.20.255.255".parse().unwrap()).1));
        assert!(!prefix.contains(number("10.21.0.0".parse().unwrap()).1));
    }
}
