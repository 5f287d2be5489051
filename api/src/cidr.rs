//! Subnets.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

/// A subnet: its first address and the length of its prefix. Bits after the prefix are zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

/// A text that is no [`Cidr`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// Not of the form ADDRESS/LENGTH.
    #[error("{0:?} is no subnet: write its first address and prefix length, like 10.20.0.0/16")]
    Malformed(String),
    /// Bits are set after the prefix.
    #[error("{0} is no subnet, since bits are set after its prefix: write {1}")]
    HostBits(String, Cidr),
}

impl Cidr {
    /// The subnet that holds `address`, or `None` when `prefix` is longer than the address.
    #[must_use]
    pub fn containing(address: IpAddr, prefix: u8) -> Option<Cidr> {
        let width = width_bits(address);
        if prefix > width {
            return None;
        }
        let kept = bits(address) & !low_mask(width - prefix);
        Some(Cidr {
            address: address_of(kept, address),
            prefix,
        })
    }

    /// The first address.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// Length of the prefix, in bits.
    #[must_use]
    pub const fn prefix(&self) -> u8 {
        self.prefix
    }

    /// The last address: the broadcast address of an IPv4 subnet.
    #[must_use]
    pub fn last(&self) -> IpAddr {
        let host_bits = width_bits(self.address) - self.prefix;
        address_of(bits(self.address) | low_mask(host_bits), self.address)
    }

    /// The address `offset` after the first, or `None` when it is outside.
    #[must_use]
    pub fn nth(&self, offset: u128) -> Option<IpAddr> {
        let host_bits = width_bits(self.address) - self.prefix;
        (offset <= low_mask(host_bits))
            .then(|| address_of(bits(self.address) | offset, self.address))
    }

    /// Whether `address` is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        Cidr::containing(address, self.prefix).is_some_and(|cidr| cidr == *self)
    }

    /// Whether the two have an address in common.
    #[must_use]
    pub fn overlaps(&self, other: &Cidr) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }

    /// Whether `address` is of the same family.
    #[must_use]
    pub fn same_family(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4()
    }
}

impl PartialSchema for Cidr {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(
                "A subnet: its first address and the length of its prefix.",
            ))
            .examples(["10.20.0.0/16"])
            .into()
    }
}

impl ToSchema for Cidr {}

fn width_bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The address with these bits, of the family of `like`.
fn address_of(bits: u128, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::from_bits(
            u32::try_from(bits).expect("IPv4 addresses are masked to 32 bits"),
        )),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::from_bits(bits)),
    }
}

/// The lowest `count` bits set.
fn low_mask(count: u8) -> u128 {
    match count {
        0 => 0,
        count => u128::MAX >> (128 - u32::from(count)),
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let malformed = || CidrError::Malformed(text.chars().take(80).collect());
        let (address, prefix) = text.split_once('/').ok_or_else(malformed)?;
        let address: IpAddr = address.parse().map_err(|_| malformed())?;
        if prefix.is_empty() || !prefix.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(malformed());
        }
        let prefix: u8 = prefix.parse().map_err(|_| malformed())?;
        let cidr = Cidr::containing(address, prefix).ok_or_else(malformed)?;
        if cidr.address == address {
            Ok(cidr)
        } else {
            Err(CidrError::HostBits(text.to_owned(), cidr))
        }
    }
}

impl TryFrom<String> for Cidr {
    type Error = CidrError;

    fn try_from(text: String) -> Result<Self, CidrError> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> String {
        cidr.to_string()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn bits_after_the_prefix_are_refused_with_the_subnet_that_was_meant() {
        let error = "10.20.1.0/16".parse::<Cidr>().unwrap_err();
        assert_eq!(
            error,
            CidrError::HostBits("10.20.1.0/16".into(), cidr("10.20.0.0/16"))
        );
        for bad in [
            "",
            "10.0.0.0",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/+8",
            "x/8",
        ] {
            assert!(
                matches!(bad.parse::<Cidr>(), Err(CidrError::Malformed(_))),
                "{bad}"
            );
        }
    }

    #[test]
    fn overlap_is_symmetric_and_stays_within_a_family() {
        let wide = cidr("10.0.0.0/8");
        let narrow = cidr("10.20.0.0/16");
        assert!(wide.overlaps(&narrow) && narrow.overlaps(&wide));
        assert!(!narrow.overlaps(&cidr("10.21.0.0/16")));
        assert!(!cidr("0.0.0.0/0").overlaps(&cidr("::/0")));
        assert!(cidr("::/0").overlaps(&cidr("fd00::/8")));
    }

    #[test]
    fn addresses_are_counted_from_the_first_to_the_last() {
        let net = cidr("10.20.0.0/30");
        assert_eq!(net.nth(1), Some("10.20.0.1".parse().unwrap()));
        assert_eq!(net.nth(4), None);
        assert_eq!(net.last(), "10.20.0.3".parse::<IpAddr>().unwrap());
        assert_eq!(
            cidr("fd00::/64").last(),
            "fd00::ffff:ffff:ffff:ffff".parse::<IpAddr>().unwrap()
        );
        assert_eq!(cidr("::/0").nth(u128::MAX).map(|a| a.is_ipv6()), Some(true));
    }
}
