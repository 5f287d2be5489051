//! A workload of a running lab: a namespace with `eth0`, whose other end, the
//! host-side device, is on a node and can move to another.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::error::LabError;
use crate::netlink::{Device, Netlink};
use crate::netns::{Namespace, sysctl};
use crate::node::NodeHandle;
use crate::realtime::monotonic_ns;
use crate::topology::WorkloadSpec;

/// Name of the device inside every workload.
pub const WORKLOAD_DEVICE: &str = "eth0";

/// A workload. Clones share it.
#[derive(Clone, Debug)]
pub struct Workload {
    spec: WorkloadSpec,
    namespace: Namespace,
    host_device: String,
    node: Arc<Mutex<NodeHandle>>,
}

/// When a host-side device moved, nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveTimes {
    /// Just before the kernel was asked.
    pub started_ns: u64,
    /// Just after it had answered: the device is in its new namespace, down.
    pub finished_ns: u64,
    /// The device's index in its new namespace.
    pub ifindex: u32,
}

impl Workload {
    /// Makes the devices in `namespace` and on `node`. The host-side device is
    /// left down: the node's agent sets it up when it has attached to it.
    pub(crate) fn create(
        spec: WorkloadSpec,
        namespace: Namespace,
        node: NodeHandle,
    ) -> Result<Self, LabError> {
        let host_device = spec.host_device();
        namespace.enter_and(|| {
            let netlink = Netlink::open()?;
            netlink.add_veth(WORKLOAD_DEVICE, &host_device)?;
            netlink.set_mac_and_mtu(WORKLOAD_DEVICE, spec.effective_mac(), spec.mtu)?;
            let host_mac = crate::Mac::from_name(&format!("host {}", spec.name));
            netlink.set_mac_and_mtu(&host_device, host_mac, spec.mtu)?;
            if !spec.addresses.iter().any(|address| address.ip.is_ipv6()) {
                sysctl("net/ipv6/conf/eth0/disable_ipv6", "1")?;
            }
            // A virtual machine that moves sees its link stay up and forgets no neighbour; a veth's end
            // loses its carrier while the other end is between two nodes.
            for key in [
                "net/ipv4/conf/eth0/arp_evict_nocarrier",
                "net/ipv6/conf/eth0/ndisc_evict_nocarrier",
            ] {
                sysctl(key, "0")?;
            }
            netlink.move_to(&host_device, &node.namespace)?;
            netlink.set_up(WORKLOAD_DEVICE)?;
            for address in &spec.addresses {
                netlink.add_address(WORKLOAD_DEVICE, address.ip, address.prefix_length)?;
            }
            for gateway in &spec.gateways {
                netlink.add_default_route(WORKLOAD_DEVICE, *gateway)?;
            }
            Ok(())
        })?;
        Ok(Self {
            spec,
            namespace,
            host_device,
            node: Arc::new(Mutex::new(node)),
        })
    }

    /// What it was made from; `node` there is where it began.
    #[must_use]
    pub fn spec(&self) -> &WorkloadSpec {
        &self.spec
    }

    /// Name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Its network namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Name of the host-side device, the same on every node.
    #[must_use]
    pub fn host_device_name(&self) -> &str {
        &self.host_device
    }

    /// The node that has the host-side device now.
    #[must_use]
    pub fn node(&self) -> NodeHandle {
        self.locked().clone()
    }

    /// The device inside the workload.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn device(&self) -> Result<Option<Device>, LabError> {
        Device::find(&self.namespace, WORKLOAD_DEVICE)
    }

    /// The host-side device where it is now.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn host_device(&self) -> Result<Option<Device>, LabError> {
        Device::find(&self.node().namespace, &self.host_device)
    }

    /// Moves the host-side device. It arrives down and with a new index;
    /// addresses and connections inside the workload live on.
    pub(crate) fn move_host_side(
        &self,
        from: &NodeHandle,
        to: &NodeHandle,
    ) -> Result<MoveTimes, LabError> {
        let mut node = self.locked();
        if node.name != from.name {
            return Err(LabError::NotThere {
                workload: self.spec.name.clone(),
                claimed: from.name.clone(),
                actual: node.name.clone(),
            });
        }
        let (started_ns, finished_ns) = from.namespace.enter_and(|| {
            let netlink = Netlink::open()?;
            let started = monotonic_ns();
            netlink.move_to(&self.host_device, &to.namespace)?;
            Ok((started, monotonic_ns()))
        })?;
        *node = to.clone();
        let ifindex = to
            .namespace
            .enter_and(|| Netlink::open()?.index(&self.host_device))?;
        Ok(MoveTimes {
            started_ns,
            finished_ns,
            ifindex,
        })
    }

    fn locked(&self) -> MutexGuard<'_, NodeHandle> {
        self.node.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsRef<Namespace> for Workload {
    fn as_ref(&self) -> &Namespace {
        &self.namespace
    }
}
