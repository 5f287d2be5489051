//! DHCPv4, message by message.

use std::net::Ipv4Addr;

use dhcproto::{
    Decodable as _, Decoder, Encodable as _,
    v4::{DhcpOption, Flags, HType, Message, MessageType, Opcode, OptionCode},
};

use super::{WEB_MAC, asker, datagram, directory, hex};
use crate::services::{dhcp4::answer, handler::Malformed};

const OWN: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 11);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 1);
const ANOTHER: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 77);

/// A message of `web1`.
fn message(kind: MessageType) -> Message {
    let mut message = Message::default();
    message.set_xid(0x1234_5678).set_chaddr(&WEB_MAC);
    message.opts_mut().insert(DhcpOption::MessageType(kind));
    message
}

fn with(kind: MessageType, options: &[DhcpOption]) -> Message {
    let mut message = message(kind);
    for option in options {
        message.opts_mut().insert(option.clone());
    }
    message
}

/// The answer, with who it is to.
fn answered(message: &Message) -> Option<(String, Message)> {
    let directory = directory();
    let frame = answer(&asker(&directory, 1), &message.to_vec().unwrap()).unwrap()?;
    let (from, to, payload) = datagram(&frame);
    assert_eq!(from, "02:53:57:00:00:01 10.20.0.1 67");
    assert!(payload.len() >= 300, "{}", payload.len());
    let answer = Message::decode(&mut Decoder::new(&payload)).unwrap();
    assert_eq!(answer.xid(), message.xid());
    assert_eq!(answer.opcode(), Opcode::BootReply);
    assert_eq!(answer.chaddr(), WEB_MAC);
    let server = answer.opts().get(OptionCode::ServerIdentifier);
    assert_eq!(server, Some(&DhcpOption::ServerIdentifier(GATEWAY)));
    Some((to, answer))
}

fn kind(message: &Message) -> MessageType {
    answered(message).unwrap().1.opts().msg_type().unwrap()
}

#[test]
fn an_offer_says_everything() {
    let (to, offer) = answered(&message(MessageType::Discover)).unwrap();
    assert_eq!(to, "02:00:00:00:00:11 10.20.0.11 68");
    assert_eq!(offer.yiaddr(), OWN);
    let mut options: Vec<DhcpOption> = offer.opts().iter().map(|(_, of)| of.clone()).collect();
    options.sort_by_key(|option| u8::from(OptionCode::from(option)));
    let expected = [
        DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 0, 0)),
        DhcpOption::Router(vec![GATEWAY]),
        DhcpOption::DomainNameServer(vec![GATEWAY]),
        DhcpOption::DomainName("shop.internal".to_owned()),
        DhcpOption::InterfaceMtu(1300),
        DhcpOption::BroadcastAddr(Ipv4Addr::new(10, 20, 255, 255)),
        DhcpOption::AddressLeaseTime(86_400),
        DhcpOption::MessageType(MessageType::Offer),
        DhcpOption::ServerIdentifier(GATEWAY),
        DhcpOption::Renewal(43_200),
        DhcpOption::Rebinding(75_600),
    ];
    assert_eq!(options, expected);
}

/// The bytes themselves, so that a change of a library or of the order is seen.
#[test]
fn a_refusal_is_these_bytes() {
    let directory = directory();
    let request = with(
        MessageType::Request,
        &[DhcpOption::RequestedIpAddress(ANOTHER)],
    );
    let frame = answer(&asker(&directory, 1), &request.to_vec().unwrap());
    let frame = frame.unwrap().unwrap();
    // Ethernet, IPv4 and UDP to everybody; BOOTREPLY with the client's transaction.
    assert_eq!(hex(&frame[..14]), "ffffffffffff0253570000010800");
    assert_eq!(hex(&frame[14..24]), "4500014800004000ff11");
    assert_eq!(hex(&frame[26..42]), "0a140001ffffffff0043004401344628");
    assert_eq!(hex(&frame[42..58]), "02010600123456780000000000000000");
    assert_eq!(hex(&frame[70..76]), "020000000011");
    assert_eq!(hex(&frame[278..282]), "63825363");
}

#[test]
fn a_request_is_acknowledged_for_the_own_address_alone() {
    let selecting = |address| {
        with(
            MessageType::Request,
            &[
                DhcpOption::ServerIdentifier(GATEWAY),
                DhcpOption::RequestedIpAddress(address),
            ],
        )
    };
    assert_eq!(kind(&selecting(OWN)), MessageType::Ack);
    assert_eq!(kind(&selecting(ANOTHER)), MessageType::Nak);
    let rebooting = |address| {
        with(
            MessageType::Request,
            &[DhcpOption::RequestedIpAddress(address)],
        )
    };
    assert_eq!(kind(&rebooting(OWN)), MessageType::Ack);
    assert_eq!(kind(&rebooting(ANOTHER)), MessageType::Nak);
    let renewing = |address: Ipv4Addr| {
        let mut request = message(MessageType::Request);
        request.set_ciaddr(address);
        request
    };
    let (to, ack) = answered(&renewing(OWN)).unwrap();
    assert_eq!(to, "02:00:00:00:00:11 10.20.0.11 68");
    assert_eq!(ack.opts().msg_type(), Some(MessageType::Ack));
    assert_eq!((ack.yiaddr(), ack.ciaddr()), (OWN, OWN));
    let (to, nak) = answered(&renewing(ANOTHER)).unwrap();
    assert_eq!(to, "ff:ff:ff:ff:ff:ff 255.255.255.255 68");
    assert_eq!(nak.opts().msg_type(), Some(MessageType::Nak));
    assert_eq!(nak.yiaddr(), Ipv4Addr::UNSPECIFIED);
    assert!(!nak.opts().contains(OptionCode::AddressLeaseTime));
}

#[test]
fn a_client_that_asks_for_it_is_answered_by_broadcast() {
    let mut discover = message(MessageType::Discover);
    discover.set_flags(Flags::default().set_broadcast());
    let (to, offer) = answered(&discover).unwrap();
    assert_eq!(to, "ff:ff:ff:ff:ff:ff 255.255.255.255 68");
    assert!(offer.flags().broadcast());
}

#[test]
fn a_client_that_has_an_address_is_told_the_rest() {
    let mut inform = message(MessageType::Inform);
    inform.set_ciaddr(OWN);
    let (to, ack) = answered(&inform).unwrap();
    assert_eq!(to, "02:00:00:00:00:11 10.20.0.11 68");
    assert_eq!(ack.opts().msg_type(), Some(MessageType::Ack));
    assert_eq!(ack.yiaddr(), Ipv4Addr::UNSPECIFIED);
    assert!(!ack.opts().contains(OptionCode::AddressLeaseTime));
    assert!(ack.opts().contains(OptionCode::DomainNameServer));
}

#[test]
fn a_clients_identifier_comes_back() {
    let id = DhcpOption::ClientIdentifier(vec![0xff, 1, 2, 3]);
    let (_, offer) = answered(&with(MessageType::Discover, std::slice::from_ref(&id))).unwrap();
    assert_eq!(offer.opts().get(OptionCode::ClientIdentifier), Some(&id));
}

#[test]
fn nothing_is_said_to_who_gives_back_or_chose_another_server() {
    let another = DhcpOption::ServerIdentifier(ANOTHER);
    assert!(answered(&message(MessageType::Release)).is_none());
    assert!(answered(&message(MessageType::Decline)).is_none());
    assert!(answered(&with(MessageType::Request, &[another])).is_none());
}

#[test]
fn an_endpoint_without_an_ipv4_address_gets_none() {
    let directory = directory();
    let mut discover = message(MessageType::Discover);
    discover.set_chaddr(&[2, 0, 0, 0, 0, 0x13]);
    let six = asker(&directory, 3);
    assert_eq!(answer(&six, &discover.to_vec().unwrap()), Ok(None));
}

#[test]
fn what_makes_no_sense_is_refused_by_its_reason() {
    let directory = directory();
    let web = asker(&directory, 1);
    let refused = |message: &Message| answer(&web, &message.to_vec().unwrap()).unwrap_err();
    let mut another = message(MessageType::Discover);
    another.set_chaddr(&[2, 9, 9, 9, 9, 9]);
    assert_eq!(
        refused(&another),
        Malformed("another client's hardware address")
    );
    let mut relayed = message(MessageType::Discover);
    relayed.set_giaddr(ANOTHER);
    assert_eq!(refused(&relayed), Malformed("a relay agent"));
    let mut reply = message(MessageType::Discover);
    reply.set_opcode(Opcode::BootReply);
    let no_request = Malformed("no request from an Ethernet device");
    assert_eq!(refused(&reply), no_request);
    let mut token_ring = message(MessageType::Discover);
    token_ring.set_htype(HType::Unknown(6));
    assert_eq!(refused(&token_ring), no_request);
    assert_eq!(
        refused(&message(MessageType::Offer)),
        Malformed("no message of a client")
    );
    assert_eq!(
        refused(&message(MessageType::Request)),
        Malformed("a request for no address")
    );
    let mut untyped = message(MessageType::Discover);
    untyped.opts_mut().remove(OptionCode::MessageType);
    untyped
        .opts_mut()
        .insert(DhcpOption::Hostname("web".to_owned()));
    assert_eq!(refused(&untyped), Malformed("no message type"));
    let discover = message(MessageType::Discover).to_vec().unwrap();
    for length in 0..240 {
        assert!(answer(&web, &discover[..length]).is_err(), "{length}");
    }
}
