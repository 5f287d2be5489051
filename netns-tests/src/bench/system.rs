//! Who is measured.

/// A way to connect two workloads on two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// One veth pair between the workloads: what the kernel's own stack costs, the upper bound.
    Veth,
    /// The nodes route between the workloads, without a tunnel.
    Routing,
    /// On each node a bridge and a VXLAN device with one fixed remote.
    KernelVxlan,
    /// The same, and nftables with connection tracking and the rules of Sunwire's policy.
    KernelVxlanNft,
    /// On each node Open vSwitch's kernel datapath with a VXLAN port and one flow for each kind of packet.
    Ovs,
    /// On each node Sunwire's programs, with a policy and counters.
    Sunwire,
}

impl System {
    /// All systems, in the order they alternate.
    ///
    /// A peer that does not run on every kernel is one more of them, whose rig says what is missing.
    pub const ALL: [System; 6] = [
        System::Veth,
        System::Routing,
        System::KernelVxlan,
        System::KernelVxlanNft,
        System::Ovs,
        System::Sunwire,
    ];

    /// The name in results.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            System::Veth => "veth",
            System::Routing => "routing",
            System::KernelVxlan => "kernel-vxlan",
            System::KernelVxlanNft => "kernel-vxlan-nft",
            System::Ovs => "ovs",
            System::Sunwire => "sunwire",
        }
    }
}
