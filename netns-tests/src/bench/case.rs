//! Under what conditions the systems are compared.

/// A kind of underlay. Every system has the same inner MTU in a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// The underlay passes packets of up to 64 KiB with their checksums left to the receiver, as
    /// veth does between namespaces and between virtual machines of one host.
    SuperPacket,
    /// Frames cross as on a network card without offloads, MTU 1500: segmented and with full
    /// checksums by software, merged again on receipt (GRO).
    WireLike1500,
    /// The same with MTU 9000.
    WireLike9000,
}

/// What VXLAN over IPv4 adds to a packet, bytes: outer IP, UDP and VXLAN headers and the inner
/// Ethernet header.
const VXLAN_OVERHEAD: u32 = 20 + 8 + 8 + 14;

impl Case {
    /// All cases, in the order they are measured.
    pub const ALL: [Case; 3] = [Case::SuperPacket, Case::WireLike1500, Case::WireLike9000];

    /// The name in results.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Case::SuperPacket => "super-packet",
            Case::WireLike1500 => "wire-like-1500",
            Case::WireLike9000 => "wire-like-9000",
        }
    }

    /// MTU of the underlay, bytes.
    #[must_use]
    pub const fn underlay_mtu(self) -> u32 {
        match self {
            Case::SuperPacket | Case::WireLike1500 => 1500,
            Case::WireLike9000 => 9000,
        }
    }

    /// MTU of the workloads' devices, bytes: what a tunnel leaves of the underlay's.
    #[must_use]
    pub const fn inner_mtu(self) -> u32 {
        self.underlay_mtu() - VXLAN_OVERHEAD
    }

    /// Whether the underlay carries only frames that a network card could.
    #[must_use]
    pub const fn is_wire_like(self) -> bool {
        !matches!(self, Case::SuperPacket)
    }
}
