//! DHCPv4 (RFC 2131, options of RFC 2132): an endpoint is told the address it has.
//!
//! ```text
//! discover -> offer           request -> ack, or nak for any other address
//! inform   -> ack, no lease   decline, release -> nothing: there is nothing to take back
//! ```
//!
//! The server is the gateway, the same on every node, and it remembers nothing. Leases are long:
//! an address is the endpoint's until the controller says otherwise, and a workload must not lose
//! its network because an agent was away.

use std::net::{Ipv4Addr, SocketAddr};

use dhcproto::{
    Decodable as _, Decoder, Encodable as _,
    v4::{DhcpOption, HType, Message, MessageType, Opcode, OptionCode},
};
use sunwire_dataplane_common::punt::{DHCP4_CLIENT_PORT, DHCP4_SERVER_PORT};

use super::{
    dhcp_options,
    directory::{Asker, Subnet},
    frame::{self, BROADCAST},
    handler::{Answer, Handler, Malformed, Node},
    ring::Punt,
};

/// Lease in seconds: a day.
const LEASE_S: u32 = 86_400;
/// Clients renew after half of it and ask anybody after seven eighths (RFC 2131, 4.4.5).
const RENEWAL_S: u32 = LEASE_S / 2;
const REBINDING_S: u32 = LEASE_S / 8 * 7;
/// Bytes of a message that every client takes and old ones expect (RFC 951, 3).
const MESSAGE_BYTES_MIN: usize = 300;
/// Bytes of an Ethernet address, the only ones there are here.
const HLEN: u8 = 6;
/// What stands between the fixed part and the options (RFC 2131, 3).
const MAGIC: [u8; 4] = [99, 130, 83, 99];
const MAGIC_AT: usize = 236;

/// Answers DHCPv4 clients.
#[derive(Debug)]
pub(crate) struct Dhcp4;

impl Handler for Dhcp4 {
    fn asked(&mut self, punt: &Punt<'_>, node: &mut Node<'_>) -> Result<(), Malformed> {
        let datagram = frame::datagram(punt.frame)?;
        let Some(asker) = node.directory.asker(punt) else {
            return Ok(());
        };
        let frame = answer(&asker, datagram.payload)?;
        node.answers
            .extend(frame.map(|frame| Answer::to(&asker, frame)));
        Ok(())
    }
}

/// What a client is to be told.
enum Reply {
    /// An offer or acknowledgement, with the address and for how long.
    Lease(MessageType),
    /// An acknowledgement of everything but the address.
    Inform,
    /// Not this address.
    Refuse,
}

/// The frame that answers a message of `asker`; `None` when it is not to be answered.
pub(crate) fn answer(asker: &Asker<'_>, message: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
    let (Some(subnet), Some(own)) = (asker.network.v4, asker.member.ipv4) else {
        return Ok(None);
    };
    if message.get(MAGIC_AT..MAGIC_AT + MAGIC.len()) != Some(&MAGIC[..]) {
        return Err(Malformed("no DHCP options"));
    }
    let known = dhcp_options::known4(message)?;
    let asked = Message::decode(&mut Decoder::new(&known)).map_err(|_| Malformed("options"))?;
    if asked.opcode() != Opcode::BootRequest || asked.htype() != HType::Eth || asked.hlen() != HLEN
    {
        return Err(Malformed("no request from an Ethernet device"));
    }
    if asked.chaddr() != asker.member.mac {
        return Err(Malformed("another client's hardware address"));
    }
    if asked.giaddr() != Ipv4Addr::UNSPECIFIED {
        return Err(Malformed("a relay agent"));
    }
    let kind = asked
        .opts()
        .msg_type()
        .ok_or(Malformed("no message type"))?;
    let reply = decide(asker, &asked, kind, subnet.gateway, own)?;
    Ok(reply.map(|reply| write(asker, &asked, &reply, subnet, own)))
}

fn decide(
    asker: &Asker<'_>,
    asked: &Message,
    kind: MessageType,
    gateway: Ipv4Addr,
    own: Ipv4Addr,
) -> Result<Option<Reply>, Malformed> {
    let reply = match kind {
        MessageType::Discover => Reply::Lease(MessageType::Offer),
        MessageType::Inform => Reply::Inform,
        MessageType::Request => {
            if let Some(DhcpOption::ServerIdentifier(server)) =
                asked.opts().get(OptionCode::ServerIdentifier)
                && *server != gateway
            {
                // It chose another server's offer; there is none, but this is not the place to say.
                return Ok(None);
            }
            let requested = match asked.opts().get(OptionCode::RequestedIpAddress) {
                Some(DhcpOption::RequestedIpAddress(address)) => *address,
                // Renewing or rebinding.
                _ => asked.ciaddr(),
            };
            match requested {
                Ipv4Addr::UNSPECIFIED => return Err(Malformed("a request for no address")),
                requested if requested == own => Reply::Lease(MessageType::Ack),
                _ => Reply::Refuse,
            }
        }
        MessageType::Decline => {
            let name = &asker.member.name;
            tracing::warn!(endpoint = %name, address = %own, "a workload says that its address is taken");
            return Ok(None);
        }
        MessageType::Release => return Ok(None),
        _ => return Err(Malformed("no message of a client")),
    };
    Ok(Some(reply))
}

fn write(
    asker: &Asker<'_>,
    asked: &Message,
    reply: &Reply,
    subnet: Subnet<Ipv4Addr>,
    own: Ipv4Addr,
) -> Vec<u8> {
    let gateway = subnet.gateway;
    let mut message = Message::default();
    message
        .set_opcode(Opcode::BootReply)
        .set_xid(asked.xid())
        .set_flags(asked.flags())
        .set_chaddr(&asker.member.mac);
    let options = message.opts_mut();
    options.insert(DhcpOption::ServerIdentifier(gateway));
    if let Some(id) = asked.opts().get(OptionCode::ClientIdentifier) {
        // RFC 6842, 3.
        options.insert(id.clone());
    }
    match reply {
        Reply::Refuse => {
            options.insert(DhcpOption::MessageType(MessageType::Nak));
            let text = format!("the address of this device is {own}");
            options.insert(DhcpOption::Message(text));
        }
        Reply::Inform => {
            options.insert(DhcpOption::MessageType(MessageType::Ack));
            configuration(asker, subnet, options);
            message.set_ciaddr(asked.ciaddr());
        }
        Reply::Lease(kind) => {
            options.insert(DhcpOption::MessageType(*kind));
            options.insert(DhcpOption::AddressLeaseTime(LEASE_S));
            options.insert(DhcpOption::Renewal(RENEWAL_S));
            options.insert(DhcpOption::Rebinding(REBINDING_S));
            configuration(asker, subnet, options);
            message.set_yiaddr(own);
            if *kind == MessageType::Ack {
                message.set_ciaddr(asked.ciaddr());
            }
        }
    }
    let mut bytes = message.to_vec().expect("these options can be written");
    if bytes.len() < MESSAGE_BYTES_MIN {
        bytes.resize(MESSAGE_BYTES_MIN, 0);
    }
    let (mac, address) = destination(asker, asked, reply, own);
    let src = SocketAddr::from((gateway, DHCP4_SERVER_PORT));
    let dst = SocketAddr::from((address, DHCP4_CLIENT_PORT));
    frame::udp(asker, mac, src, dst, &bytes)
}

/// Everything of a network but the address.
fn configuration(
    asker: &Asker<'_>,
    subnet: Subnet<Ipv4Addr>,
    options: &mut dhcproto::v4::DhcpOptions,
) {
    let Subnet { gateway, prefix } = subnet;
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
    options.insert(DhcpOption::SubnetMask(mask.into()));
    options.insert(DhcpOption::BroadcastAddr(
        (u32::from(gateway) | !mask).into(),
    ));
    options.insert(DhcpOption::Router(vec![gateway]));
    options.insert(DhcpOption::DomainNameServer(vec![gateway]));
    options.insert(DhcpOption::DomainName(asker.network.domain()));
    options.insert(DhcpOption::InterfaceMtu(asker.network.mtu));
}

/// Where an answer goes (RFC 2131, 4.1): to the client's address when it has one, to everybody when
/// it asks for that or is refused, else to the address that it is about to have.
fn destination(
    asker: &Asker<'_>,
    asked: &Message,
    reply: &Reply,
    own: Ipv4Addr,
) -> ([u8; 6], Ipv4Addr) {
    let everybody = (BROADCAST, Ipv4Addr::BROADCAST);
    match reply {
        Reply::Refuse => everybody,
        _ if asked.ciaddr() != Ipv4Addr::UNSPECIFIED => (asker.member.mac, asked.ciaddr()),
        _ if asked.flags().broadcast() => everybody,
        _ => (asker.member.mac, own),
    }
}
