//! DHCPv6 (RFC 8415): an endpoint is told the address it has, statefully.
//!
//! ```text
//! solicit            -> advertise, or reply with rapid commit
//! request, renew     -> reply          confirm -> reply: on this link or not
//! rebind             -> reply          information-request -> reply without an address
//! release, decline   -> reply: there is nothing to take back
//! ```
//!
//! As in [`dhcp4`](super::dhcp4) the server is the gateway, the same on every node, and remembers
//! nothing. Of the identity associations of a message, the one with the lowest identifier gets the
//! address.

use std::net::{Ipv6Addr, SocketAddr};

use dhcproto::{
    Decodable as _, Decoder, Encodable as _, Name,
    v6::{
        DhcpOption, DhcpOptions, IAAddr, IANA, IAPD, IATA, Message, MessageType, OptionCode,
        Status, StatusCode,
    },
};
use sunwire_dataplane_common::punt::{DHCP6_CLIENT_PORT, DHCP6_SERVER_PORT};

use super::{
    dhcp_options,
    directory::Asker,
    frame,
    handler::{Answer, Handler, Malformed, Node},
    ring::Punt,
};

/// Lifetime of an address in seconds, preferred and valid: a day.
const LIFETIME_S: u32 = 86_400;
/// Clients renew and rebind at the usual parts of it (RFC 8415, 21.4).
const RENEWAL_S: u32 = LIFETIME_S / 2;
const REBINDING_S: u32 = LIFETIME_S / 5 * 4;
/// How long what is not an address holds, in seconds.
const REFRESH_S: u32 = 86_400;
/// No other server needs to be waited for (RFC 8415, 18.2.1).
const PREFERENCE: u8 = 255;
/// Most identity associations that are looked at.
const ASSOCIATIONS_MAX: usize = 8;

/// Answers DHCPv6 clients.
#[derive(Debug)]
pub(crate) struct Dhcp6;

impl Handler for Dhcp6 {
    fn asked(&mut self, punt: &Punt<'_>, node: &mut Node<'_>) -> Result<(), Malformed> {
        let datagram = frame::datagram(punt.frame)?;
        let std::net::IpAddr::V6(client) = datagram.src.ip() else {
            return Err(Malformed("no IPv6 packet"));
        };
        let Some(asker) = node.directory.asker(punt) else {
            return Ok(());
        };
        let frame = answer(&asker, client, datagram.payload)?;
        node.answers
            .extend(frame.map(|frame| Answer::to(&asker, frame)));
        Ok(())
    }
}

/// The frame that answers a message of `asker` from address `client`; `None` when it is not to be
/// answered.
pub(crate) fn answer(
    asker: &Asker<'_>,
    client: Ipv6Addr,
    message: &[u8],
) -> Result<Option<Vec<u8>>, Malformed> {
    let Some(subnet) = asker.network.v6 else {
        return Ok(None);
    };
    // Messages of relay agents have another form.
    let kind = message.first().copied().map(MessageType::from);
    if !matches!(
        kind,
        Some(
            MessageType::Solicit
                | MessageType::Request
                | MessageType::Confirm
                | MessageType::Renew
                | MessageType::Rebind
                | MessageType::Release
                | MessageType::Decline
                | MessageType::InformationRequest
        )
    ) {
        return Err(Malformed("no message of a client"));
    }
    let known = dhcp_options::known6(message)?;
    let asked = Message::decode(&mut Decoder::new(&known)).map_err(|_| Malformed("options"))?;
    let server = server_id(asker);
    if !is_for(&asked, &server)? {
        return Ok(None);
    }
    let Some(mut reply) = decide(asker, &asked)? else {
        return Ok(None);
    };
    let options = reply.opts_mut();
    options.insert(DhcpOption::ServerId(server));
    if let Some(id) = asked.opts().get(OptionCode::ClientId) {
        options.insert(id.clone());
    }
    options.insert(DhcpOption::DomainNameServers(vec![subnet.gateway]));
    if let Ok(domain) = Name::from_ascii(asker.network.domain() + ".") {
        options.insert(DhcpOption::DomainSearchList(vec![domain]));
    }
    let bytes = reply.to_vec().expect("these options can be written");
    let src = SocketAddr::from((asker.network.gateway_local, DHCP6_SERVER_PORT));
    let dst = SocketAddr::from((client, DHCP6_CLIENT_PORT));
    Ok(Some(frame::udp(asker, asker.member.mac, src, dst, &bytes)))
}

/// The gateway's identifier, made of its MAC address (RFC 8415, 11.4).
fn server_id(asker: &Asker<'_>) -> Vec<u8> {
    const LINK_LAYER: [u8; 4] = [0, 3, 0, 1];
    [&LINK_LAYER[..], &asker.network.gateway_mac[..]].concat()
}

/// Whether a message is for this server, by the rules of RFC 8415, 16.
fn is_for(asked: &Message, server: &[u8]) -> Result<bool, Malformed> {
    let named = match asked.opts().get(OptionCode::ServerId) {
        Some(DhcpOption::ServerId(id)) => Some(id == server),
        _ => None,
    };
    let has_client = asked.opts().get(OptionCode::ClientId).is_some();
    match asked.msg_type() {
        MessageType::Solicit | MessageType::Confirm | MessageType::Rebind => {
            if named.is_some() {
                return Err(Malformed("names a server"));
            }
        }
        MessageType::InformationRequest => return Ok(named.unwrap_or(true)),
        _ => {
            if named.is_none() {
                return Err(Malformed("names no server"));
            }
        }
    }
    if !has_client {
        return Err(Malformed("names no client"));
    }
    Ok(named.unwrap_or(true))
}

fn decide(asker: &Asker<'_>, asked: &Message) -> Result<Option<Message>, Malformed> {
    let mut reply = Message::new_with_id(MessageType::Reply, asked.xid());
    let own = asker.member.ipv6;
    match asked.msg_type() {
        MessageType::Solicit => {
            if asked.opts().get(OptionCode::RapidCommit).is_some() {
                reply.opts_mut().insert(DhcpOption::RapidCommit);
            } else {
                reply.set_msg_type(MessageType::Advertise);
                reply.opts_mut().insert(DhcpOption::Preference(PREFERENCE));
            }
            associate(asked, own, &mut reply);
        }
        MessageType::Request | MessageType::Renew | MessageType::Rebind => {
            associate(asked, own, &mut reply);
        }
        MessageType::Confirm => {
            let mut addresses = addresses(asked).peekable();
            if addresses.peek().is_none() {
                return Ok(None);
            }
            let is_here = addresses.all(|address| Some(address) == own);
            let status = if is_here {
                Status::Success
            } else {
                Status::NotOnLink
            };
            reply.opts_mut().insert(self::status(status));
        }
        MessageType::Release | MessageType::Decline => {
            if asked.msg_type() == MessageType::Decline {
                let name = &asker.member.name;
                tracing::warn!(endpoint = %name, "a workload says that its IPv6 address is taken");
            }
            reply.opts_mut().insert(status(Status::Success));
        }
        MessageType::InformationRequest => {
            let refresh = DhcpOption::InformationRefreshTime(REFRESH_S);
            reply.opts_mut().insert(refresh);
        }
        _ => return Err(Malformed("no message of a client")),
    }
    Ok(Some(reply))
}

/// Answers every identity association: one gets the address, the others get none, and addresses
/// that a client thinks it has are taken from it (RFC 8415, 18.3.4).
fn associate(asked: &Message, own: Option<Ipv6Addr>, reply: &mut Message) {
    let ids = asked.opts().iter().filter_map(|option| match option {
        DhcpOption::IANA(association) => Some(association.id),
        _ => None,
    });
    let mut chosen = ids.min();
    for option in asked.opts().iter().take(ASSOCIATIONS_MAX) {
        let answer = match option {
            DhcpOption::IANA(association) => {
                // Once, even if an identifier comes twice.
                let given = own.filter(|_| chosen.take_if(|id| *id == association.id).is_some());
                let mut opts = DhcpOptions::new();
                match given {
                    Some(address) => opts.insert(lease(address, LIFETIME_S)),
                    None => opts.insert(status(Status::NoAddrsAvail)),
                }
                held(&association.opts)
                    .filter(|address| Some(*address) != given)
                    .take(ASSOCIATIONS_MAX)
                    .for_each(|address| opts.insert(lease(address, 0)));
                DhcpOption::IANA(IANA {
                    id: association.id,
                    t1: RENEWAL_S,
                    t2: REBINDING_S,
                    opts,
                })
            }
            DhcpOption::IATA(association) => DhcpOption::IATA(IATA {
                id: association.id,
                opts: [status(Status::NoAddrsAvail)].into_iter().collect(),
            }),
            DhcpOption::IAPD(association) => DhcpOption::IAPD(IAPD {
                id: association.id,
                t1: 0,
                t2: 0,
                opts: [status(Status::NoPrefixAvail)].into_iter().collect(),
            }),
            _ => continue,
        };
        reply.opts_mut().insert(answer);
    }
}

/// Every address that a message names.
fn addresses(asked: &Message) -> impl Iterator<Item = Ipv6Addr> {
    asked
        .opts()
        .iter()
        .filter_map(|option| match option {
            DhcpOption::IANA(association) => Some(&association.opts),
            DhcpOption::IATA(association) => Some(&association.opts),
            _ => None,
        })
        .flat_map(held)
}

/// The addresses of an identity association.
fn held(options: &DhcpOptions) -> impl Iterator<Item = Ipv6Addr> {
    options.iter().filter_map(|option| match option {
        DhcpOption::IAAddr(address) => Some(address.addr),
        _ => None,
    })
}

fn lease(addr: Ipv6Addr, lifetime_s: u32) -> DhcpOption {
    DhcpOption::IAAddr(IAAddr {
        addr,
        preferred_life: lifetime_s,
        valid_life: lifetime_s,
        opts: DhcpOptions::new(),
    })
}

fn status(status: Status) -> DhcpOption {
    DhcpOption::StatusCode(StatusCode {
        status,
        msg: String::new(),
    })
}
