//! Who is measured.

/// A way to connect two workloads on two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// One veth pair between the workloads: what the kernel's own stack costs.
    Veth,
    /// On each node a bridge and a VXLAN device with one fixed remote.
    KernelVxlan,
    /// On each node Sunwire's programs, with a policy and counters.
    Sunwire,
}

impl System {
    /// All systems, in the order they alternate.
    pub const ALL: [System; 3] = [System::Veth, System::KernelVxlan, System::Sunwire];

    /// The name in results.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            System::Veth => "veth",
            System::KernelVxlan => "kernel-vxlan",
            System::Sunwire => "sunwire",
        }
    }
}
