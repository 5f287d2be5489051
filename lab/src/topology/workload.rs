//! What a workload is: a namespace with one interface, on a node.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::problem::{Problem, check_name};
use crate::mac::{Mac, fnv1a};

/// MTU of a workload's interface when none is given: what fits into a tunnel
/// over any public cloud.
pub const WORKLOAD_MTU_DEFAULT: u32 = 1300;

/// An address with its prefix length, written `10.20.0.10/24` or `fd00::10/64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InterfaceAddress {
    /// The address.
    pub ip: IpAddr,
    /// Length of the network's prefix, bits.
    pub prefix_length: u8,
}

/// Text that is no interface address.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("`{0}` is no address with prefix length like 10.20.0.10/24 or fd00::10/64")]
pub struct AddressError(String);

impl FromStr for InterfaceAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let error = || AddressError(text.to_owned());
        let (ip, length) = text.split_once('/').ok_or_else(error)?;
        let ip: IpAddr = ip.parse().map_err(|_| error())?;
        let prefix_length: u8 = length.parse().map_err(|_| error())?;
        let limit = if ip.is_ipv4() { 32 } else { 128 };
        let unusable = ip.is_unspecified() || ip.is_multicast() || ip.is_loopback();
        if prefix_length > limit || length.starts_with('+') || unusable {
            return Err(error());
        }
        Ok(Self { ip, prefix_length })
    }
}

impl fmt::Display for InterfaceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix_length)
    }
}

impl TryFrom<String> for InterfaceAddress {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<InterfaceAddress> for String {
    fn from(address: InterfaceAddress) -> Self {
        address.to_string()
    }
}

/// A workload to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadSpec {
    /// Name, unique among nodes and workloads.
    pub name: String,
    /// Node whose namespace gets the host-side device.
    pub node: String,
    /// Virtual network it belongs to; the lab only hands it on.
    pub network: String,
    /// Addresses of `eth0`.
    pub addresses: Vec<InterfaceAddress>,
    /// Default routes, at most one per family.
    pub gateways: Vec<IpAddr>,
    /// Hardware address of `eth0`; derived from the name when absent.
    pub mac: Option<Mac>,
    /// MTU of `eth0` and of the host-side device, bytes.
    pub mtu: u32,
    /// Labels of its endpoint; the lab only hands them on.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

impl WorkloadSpec {
    /// A workload without addresses on `node`, in `network`.
    #[must_use]
    pub fn new(name: &str, node: &str, network: &str) -> Self {
        Self {
            name: name.to_owned(),
            node: node.to_owned(),
            network: network.to_owned(),
            addresses: Vec::new(),
            gateways: Vec::new(),
            mac: None,
            mtu: WORKLOAD_MTU_DEFAULT,
            labels: BTreeMap::new(),
        }
    }

    /// Adds an address, like `10.20.0.10/24`.
    ///
    /// # Errors
    /// The text is no address with a prefix length.
    pub fn address(mut self, address: &str) -> Result<Self, AddressError> {
        self.addresses.push(address.parse()?);
        Ok(self)
    }

    /// Adds a default route.
    #[must_use]
    pub fn gateway(mut self, gateway: IpAddr) -> Self {
        self.gateways.push(gateway);
        self
    }

    /// Fixes the hardware address.
    #[must_use]
    pub fn mac(mut self, mac: Mac) -> Self {
        self.mac = Some(mac);
        self
    }

    /// Fixes the MTU, bytes.
    #[must_use]
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = mtu;
        self
    }

    /// Adds a label, or changes one.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// The hardware address that `eth0` gets.
    #[must_use]
    pub fn effective_mac(&self) -> Mac {
        self.mac.unwrap_or_else(|| Mac::from_name(&self.name))
    }

    /// Name of the host-side device: `sw-NAME`, or with a hash in place of the
    /// end when that exceeds the kernel's 15 characters.
    #[must_use]
    pub fn host_device(&self) -> String {
        if self.name.len() <= 12 {
            return format!("sw-{}", self.name);
        }
        let hash = fnv1a(self.name.as_bytes()) & 0xff_ffff;
        format!("sw-{}-{hash:06x}", &self.name[..5])
    }

    /// Checks everything that does not depend on the rest of the topology.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        check_name(&self.name)?;
        let has_ipv6 = self.addresses.iter().any(|address| address.ip.is_ipv6());
        let least = if has_ipv6 { 1280 } else { 576 };
        if !(least..=65_535).contains(&self.mtu) {
            return Err(Problem::Mtu(self.mtu));
        }
        for (index, gateway) in self.gateways.iter().enumerate() {
            let same_family = |ip: &IpAddr| ip.is_ipv4() == gateway.is_ipv4();
            if !self
                .addresses
                .iter()
                .any(|address| same_family(&address.ip))
                || self.gateways[..index].iter().any(same_family)
            {
                return Err(Problem::Gateway(*gateway));
            }
        }
        Ok(())
    }
}
