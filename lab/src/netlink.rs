//! Devices, addresses and routes of one namespace by rtnetlink, blocking.
//!
//! Open and use a [`Netlink`] inside [`Namespace::run`](crate::Namespace::run):
//! its socket belongs to the namespace of the thread that opens it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use futures_util::TryStreamExt;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use tokio::runtime::{Builder, Runtime};

use crate::error::{Doing, LabError};
use crate::mac::Mac;
use crate::netns::Namespace;

/// What the kernel says of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Name within its namespace.
    pub name: String,
    /// Index within its namespace; another one after a move.
    pub ifindex: u32,
    /// Hardware address.
    pub mac: Mac,
    /// Administratively up.
    pub up: bool,
    /// Up with a carrier, and the kernel has come to act on it: packets leave.
    pub running: bool,
    /// MTU, bytes.
    pub mtu: u32,
}

impl Device {
    /// Looks a device up; `None` when the namespace has none of that name.
    ///
    /// # Errors
    /// The namespace could not be entered or the kernel asked.
    pub fn find(namespace: &Namespace, name: &str) -> Result<Option<Self>, LabError> {
        namespace.enter_and(|| Netlink::open()?.find(name))
    }
}

/// A route socket in the namespace of the thread that opened it.
pub(crate) struct Netlink {
    runtime: Runtime,
    handle: Handle,
}

impl Netlink {
    pub(crate) fn open() -> Result<Self, LabError> {
        let open = || "open a netlink socket".to_owned();
        let runtime = Builder::new_current_thread()
            .enable_io()
            .build()
            .doing(open)?;
        let guard = runtime.enter();
        let (connection, handle, _) = rtnetlink::new_connection().doing(open)?;
        drop(guard);
        runtime.spawn(connection);
        Ok(Self { runtime, handle })
    }

    fn wait<T>(
        &self,
        action: impl FnOnce() -> String,
        request: impl Future<Output = Result<T, rtnetlink::Error>>,
    ) -> Result<T, LabError> {
        self.runtime
            .block_on(request)
            .map_err(|source| LabError::Netlink {
                action: action(),
                source,
            })
    }

    pub(crate) fn add_veth(&self, name: &str, peer: &str) -> Result<(), LabError> {
        let message = LinkVeth::new(name, peer).build();
        self.wait(
            || format!("create the veth pair {name}, {peer}"),
            self.handle.link().add(message).execute(),
        )
    }

    fn change(
        &self,
        name: &str,
        what: &str,
        edit: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec>,
    ) -> Result<(), LabError> {
        // By index: a name in the message would be taken for a new name.
        let link = LinkMessageBuilder::<LinkUnspec>::new().index(self.index(name)?);
        let message = edit(link).build();
        self.wait(
            || format!("{what} {name}"),
            self.handle.link().set(message).execute(),
        )
    }

    pub(crate) fn set_up(&self, name: &str) -> Result<(), LabError> {
        self.change(name, "set up", LinkMessageBuilder::up)
    }

    pub(crate) fn set_mac_and_mtu(&self, name: &str, mac: Mac, mtu: u32) -> Result<(), LabError> {
        self.change(name, "set hardware address and MTU of", |link| {
            link.address(mac.0.to_vec()).mtu(mtu)
        })
    }

    pub(crate) fn move_to(&self, name: &str, namespace: &Namespace) -> Result<(), LabError> {
        let fd = namespace.file().as_raw_fd();
        self.change(name, "move to another namespace", |link| {
            link.setns_by_fd(fd)
        })
    }

    pub(crate) fn index(&self, name: &str) -> Result<u32, LabError> {
        nix::net::if_::if_nametoindex(name).doing(|| format!("find device {name}"))
    }

    pub(crate) fn add_address(
        &self,
        name: &str,
        address: IpAddr,
        prefix_length: u8,
    ) -> Result<(), LabError> {
        let index = self.index(name)?;
        let request = self.handle.address().add(index, address, prefix_length);
        self.wait(
            || format!("give {name} the address {address}/{prefix_length}"),
            request.execute(),
        )
    }

    pub(crate) fn add_default_route(&self, name: &str, gateway: IpAddr) -> Result<(), LabError> {
        let index = self.index(name)?;
        let message = match gateway {
            IpAddr::V4(gateway) => RouteMessageBuilder::<Ipv4Addr>::new()
                .gateway(gateway)
                .output_interface(index)
                .build(),
            IpAddr::V6(gateway) => RouteMessageBuilder::<Ipv6Addr>::new()
                .gateway(gateway)
                .output_interface(index)
                .build(),
        };
        self.wait(
            || format!("route by {gateway} on {name}"),
            self.handle.route().add(message).execute(),
        )
    }

    pub(crate) fn find(&self, name: &str) -> Result<Option<Device>, LabError> {
        let request = self.handle.link().get().match_name(name.to_owned());
        let found = self.runtime.block_on(request.execute().try_next());
        match found {
            Ok(message) => Ok(message.map(|message| device(name, &message))),
            Err(rtnetlink::Error::NetlinkError(error))
                if error.code.is_some_and(|code| code.get() == -libc::ENODEV) =>
            {
                Ok(None)
            }
            Err(source) => Err(LabError::Netlink {
                action: format!("look up {name}"),
                source,
            }),
        }
    }
}

fn device(name: &str, message: &LinkMessage) -> Device {
    let (mut mac, mut mtu) = (Mac([0; 6]), 0);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Address(bytes) => {
                if let Ok(bytes) = bytes.as_slice().try_into() {
                    mac = Mac(bytes);
                }
            }
            LinkAttribute::Mtu(value) => mtu = *value,
            _ => {}
        }
    }
    Device {
        name: name.to_owned(),
        ifindex: message.header.index,
        mac,
        up: message.header.flags.contains(LinkFlags::Up),
        running: message.header.flags.contains(LinkFlags::Running),
        mtu,
    }
}
