//! How packets leave the cloud at this node: the ports that they get, which the node's own sockets must
//! not, and whom the kernel is asked for routes by.

use std::{fmt, fs, io, path::Path, str::FromStr};

use crate::dataplane::{WayOut, chain};

/// Ports that packets get when they leave the cloud, the first and the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboundPorts {
    first: u16,
    last: u16,
}

impl Default for OutboundPorts {
    /// Those above the ones that Linux gives to sockets by default (32768 to 60999).
    fn default() -> Self {
        OutboundPorts {
            first: 61_001,
            last: 65_000,
        }
    }
}

/// The ports cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PortsError {
    /// They are no range.
    #[error("`{0}` is no range of ports: write the first and the last one, like 61001-65000")]
    Syntax(String),
    /// Sockets of the node may get them, too.
    #[error(
        "the ports {ports} under which packets leave the cloud are among those that the kernel gives to \
         the node's own sockets ({first}-{last}): choose others with --outbound-ports, or have the \
         kernel leave them out: sysctl net.ipv4.ip_local_reserved_ports={ports}"
    )]
    Used {
        /// The range.
        ports: OutboundPorts,
        /// First port that sockets get.
        first: u16,
        /// Last one.
        last: u16,
    },
    /// The kernel does not say which ports sockets get.
    #[error("cannot read which ports the kernel gives to sockets")]
    Unknown(#[source] io::Error),
}

impl FromStr for OutboundPorts {
    type Err = PortsError;

    fn from_str(text: &str) -> Result<Self, PortsError> {
        let range = text.split_once('-').and_then(|(first, last)| {
            let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            Some(OutboundPorts { first, last })
        });
        range
            .filter(|ports| ports.first >= 1024 && ports.first <= ports.last)
            .ok_or_else(|| PortsError::Syntax(text.to_owned()))
    }
}

impl fmt::Display for OutboundPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// Where the kernel says which ports it gives to sockets.
const LOCAL_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// And which of those it leaves out.
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

impl OutboundPorts {
    /// The ports, unless the kernel gives some of them to sockets of the node.
    ///
    /// # Errors
    /// When it does, or does not say.
    fn unless_used(self) -> Result<Self, PortsError> {
        let read = |path| fs::read_to_string(Path::new(path)).map_err(PortsError::Unknown);
        self.unless_in(&read(LOCAL_RANGE)?, &read(RESERVED)?)
    }

    fn unless_in(self, range: &str, reserved: &str) -> Result<Self, PortsError> {
        let mut ends = range.split_whitespace().map_while(|end| end.parse().ok());
        let (Some(first), Some(last)) = (ends.next(), ends.next()) else {
            let error = io::Error::new(io::ErrorKind::InvalidData, range.to_owned());
            return Err(PortsError::Unknown(error));
        };
        let reserved: Vec<(u16, u16)> = reserved
            .split([',', '\n'])
            .filter_map(|part| {
                let (low, high) = part.split_once('-').unwrap_or((part, part));
                Some((low.trim().parse().ok()?, high.trim().parse().ok()?))
            })
            .collect();
        let is_used = |port: u16| {
            let is_reserved = reserved
                .iter()
                .any(|(low, high)| (*low..=*high).contains(&port));
            (first..=last).contains(&port) && !is_reserved
        };
        match (self.first..=self.last).any(is_used) {
            true => Err(PortsError::Used {
                ports: self,
                first,
                last,
            }),
            false => Ok(self),
        }
    }
}

/// The ports that packets get: those that were chosen, or the usual ones. `None` when packets must not
/// leave here, which is told.
///
/// # Errors
/// When sockets of the node may get those that were chosen, too.
pub(super) fn ports(chosen: Option<OutboundPorts>) -> Result<Option<OutboundPorts>, PortsError> {
    if let Some(chosen) = chosen {
        return chosen.unless_used().map(Some);
    }
    match OutboundPorts::default().unless_used() {
        Ok(ports) => Ok(Some(ports)),
        Err(error) => {
            tracing::warn!(error = %chain(&error), "no packets leave the cloud at this node");
            Ok(None)
        }
    }
}

/// The way out by the underlay device. `asks_by` is a device of ours that stays down, by which the kernel
/// is asked for routes: it answers only for devices that it forwards from, and nothing ever comes in
/// there.
pub(super) fn way(underlay: u32, asks_by: Option<(&str, u32)>, ports: OutboundPorts) -> WayOut {
    let asks = |family: &str| {
        let (name, ifindex) = asks_by?;
        let path = format!("/proc/sys/net/{family}/conf/{name}/forwarding");
        match fs::write(path, "1") {
            Ok(()) => Some(ifindex),
            // A kernel that has no IPv6 has no routes over it, either.
            Err(error) if family == "ipv6" && error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(
                    %error,
                    "packets of {family} that have no route out of the cloud are not counted"
                );
                None
            }
        }
    };
    WayOut {
        ifindex: underlay,
        asks_by: asks("ipv4"),
        asks_by_v6: asks("ipv6"),
        first_port: ports.first,
        // All 64512 at most, which 16 bits hold.
        ports: ports.last - ports.first + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(text: &str) -> OutboundPorts {
        text.parse().unwrap()
    }

    #[test]
    fn ports_are_read_as_they_are_written_and_nothing_else_is() {
        assert_eq!(ports("61001-65000"), OutboundPorts::default());
        assert_eq!(ports("2000-2000").to_string(), "2000-2000");
        for wrong in ["", "61001", "61001-61000", "80-90", "1-70000", "a-b"] {
            assert!(wrong.parse::<OutboundPorts>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn ports_that_sockets_may_get_are_refused_unless_the_kernel_leaves_them_out() {
        let usual = "32768\t60999\n";
        assert!(ports("61001-65000").unless_in(usual, "\n").is_ok());
        assert!(ports("60999-65000").unless_in(usual, "\n").is_err());
        assert!(ports("40000-40003").unless_in(usual, "").is_err());
        assert!(
            ports("40000-40003")
                .unless_in(usual, "22,40000-40003\n")
                .is_ok()
        );
        assert!(
            ports("40000-40003")
                .unless_in(usual, "40000,40001,40002\n")
                .is_err()
        );
        assert!(ports("61001-65000").unless_in("1024 65535", "").is_err());
        assert!(ports("61001-65000").unless_in("", "").is_err());
    }
}
