//! DHCPv6, message by message.

use std::net::Ipv6Addr;

use dhcproto::{
    Decodable as _, Decoder, Encodable as _,
    v6::{DhcpOption, DhcpOptions, IAAddr, IANA, IAPD, Message, MessageType, OptionCode, Status},
};

use super::{asker, datagram, directory};
use crate::services::{dhcp6::answer, handler::Malformed};

const LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x11);
const OWN: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x20, 0, 0, 0, 0, 0, 0x11);
const ANOTHER: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x20, 0, 0, 0, 0, 0, 0x77);
const SERVER: [u8; 10] = [0, 3, 0, 1, 0x02, 0x53, 0x57, 0, 0, 1];
const ANOTHER_SERVER: [u8; 10] = [0, 3, 0, 1, 2, 9, 9, 9, 9, 9];

fn association(id: u32, addresses: &[Ipv6Addr]) -> DhcpOption {
    let held = addresses.iter().map(|addr| {
        DhcpOption::IAAddr(IAAddr {
            addr: *addr,
            preferred_life: 0,
            valid_life: 0,
            opts: DhcpOptions::new(),
        })
    });
    DhcpOption::IANA(IANA {
        id,
        t1: 0,
        t2: 0,
        opts: held.collect(),
    })
}

/// A message of a client, with its identifier.
fn message(kind: MessageType, options: &[DhcpOption]) -> Message {
    let mut message = Message::new_with_id(kind, [1, 2, 3]);
    message
        .opts_mut()
        .insert(DhcpOption::ClientId(vec![0, 4, 7]));
    for option in options {
        message.opts_mut().insert(option.clone());
    }
    message
}

fn server(id: [u8; 10]) -> DhcpOption {
    DhcpOption::ServerId(id.to_vec())
}

fn answered_to(number: u32, message: &Message) -> Result<Option<Message>, Malformed> {
    let directory = directory();
    let frame = answer(
        &asker(&directory, number),
        LOCAL,
        &message.to_vec().unwrap(),
    )?;
    let Some(frame) = frame else { return Ok(None) };
    let (from, to, payload) = datagram(&frame);
    assert_eq!(from, "02:53:57:00:00:01 fe80::53:57ff:fe00:1 547");
    assert!(to.ends_with("fe80::11 546"), "{to}");
    let answer = Message::decode(&mut Decoder::new(&payload)).unwrap();
    assert_eq!(answer.xid(), [1, 2, 3]);
    let id = answer.opts().get(OptionCode::ServerId);
    assert_eq!(id, Some(&server(SERVER)));
    let client = message.opts().get(OptionCode::ClientId);
    assert_eq!(answer.opts().get(OptionCode::ClientId), client);
    let names = answer.opts().get(OptionCode::DomainNameServers);
    let gateway = "fd00:20::1".parse().unwrap();
    assert_eq!(names, Some(&DhcpOption::DomainNameServers(vec![gateway])));
    let Some(DhcpOption::DomainSearchList(search)) =
        answer.opts().get(OptionCode::DomainSearchList)
    else {
        panic!("no search list");
    };
    assert_eq!(search[0].to_string(), "shop.internal.");
    Ok(Some(answer))
}

fn answered(message: &Message) -> Message {
    answered_to(1, message).unwrap().unwrap()
}

/// What an association was answered with: its id, addresses with their lifetime, statuses.
type Association = (u32, Vec<(Ipv6Addr, u32)>, Vec<Status>);

fn associations(message: &Message) -> Vec<Association> {
    let options = message.opts().iter();
    let parts = |opts: &DhcpOptions| {
        let mut addresses = Vec::new();
        let mut statuses = Vec::new();
        for option in opts.iter() {
            match option {
                DhcpOption::IAAddr(address) => addresses.push((address.addr, address.valid_life)),
                DhcpOption::StatusCode(code) => statuses.push(code.status),
                _ => {}
            }
        }
        (addresses, statuses)
    };
    let mut associations: Vec<Association> = options
        .filter_map(|option| match option {
            DhcpOption::IANA(of) => Some((of.id, &of.opts)),
            DhcpOption::IAPD(of) => Some((of.id, &of.opts)),
            _ => None,
        })
        .map(|(id, opts)| {
            let (mut addresses, statuses) = parts(opts);
            addresses.sort();
            (id, addresses, statuses)
        })
        .collect();
    associations.sort_by_key(|association| association.0);
    associations
}

#[test]
fn a_solicitation_is_met_with_the_own_address() {
    let offer = answered(&message(MessageType::Solicit, &[association(9, &[])]));
    assert_eq!(offer.msg_type(), MessageType::Advertise);
    assert_eq!(associations(&offer), [(9, vec![(OWN, 86_400)], vec![])]);
    let preference = offer.opts().get(OptionCode::Preference);
    assert_eq!(preference, Some(&DhcpOption::Preference(255)));
}

#[test]
fn rapid_commit_saves_a_round_trip() {
    let asked = message(
        MessageType::Solicit,
        &[association(9, &[]), DhcpOption::RapidCommit],
    );
    let reply = answered(&asked);
    assert_eq!(reply.msg_type(), MessageType::Reply);
    assert!(reply.opts().get(OptionCode::RapidCommit).is_some());
    assert_eq!(associations(&reply), [(9, vec![(OWN, 86_400)], vec![])]);
}

#[test]
fn a_request_gets_the_own_address_and_loses_others() {
    for kind in [MessageType::Request, MessageType::Renew] {
        let held = association(9, &[ANOTHER]);
        let reply = answered(&message(kind, &[held, server(SERVER)]));
        assert_eq!(reply.msg_type(), MessageType::Reply);
        let expected = (9, vec![(OWN, 86_400), (ANOTHER, 0)], vec![]);
        assert_eq!(associations(&reply), [expected]);
    }
    let reply = answered(&message(MessageType::Rebind, &[association(9, &[OWN])]));
    assert_eq!(associations(&reply), [(9, vec![(OWN, 86_400)], vec![])]);
}

#[test]
fn there_is_one_address_and_no_prefix() {
    let prefix = DhcpOption::IAPD(IAPD {
        id: 11,
        t1: 0,
        t2: 0,
        opts: DhcpOptions::new(),
    });
    let asked = [association(9, &[]), association(10, &[]), prefix];
    let offer = answered(&message(MessageType::Solicit, &asked));
    let expected = [
        (9, vec![(OWN, 86_400)], vec![]),
        (10, vec![], vec![Status::NoAddrsAvail]),
        (11, vec![], vec![Status::NoPrefixAvail]),
    ];
    assert_eq!(associations(&offer), expected);
}

#[test]
fn an_endpoint_without_an_ipv6_address_is_told_so() {
    let asked = message(MessageType::Solicit, &[association(9, &[])]);
    let offer = answered_to(2, &asked).unwrap().unwrap();
    let expected = (9, vec![], vec![Status::NoAddrsAvail]);
    assert_eq!(associations(&offer), [expected]);
}

#[test]
fn a_confirmation_says_whether_the_link_is_the_same() {
    let status = |addresses: &[Ipv6Addr]| {
        let asked = message(MessageType::Confirm, &[association(9, addresses)]);
        let reply = answered_to(1, &asked).unwrap()?;
        match reply.opts().get(OptionCode::StatusCode) {
            Some(DhcpOption::StatusCode(code)) => Some(code.status),
            _ => panic!("no status"),
        }
    };
    assert_eq!(status(&[OWN]), Some(Status::Success));
    assert_eq!(status(&[ANOTHER]), Some(Status::NotOnLink));
    assert_eq!(status(&[OWN, ANOTHER]), Some(Status::NotOnLink));
    assert_eq!(status(&[]), None, "nothing to confirm");
}

#[test]
fn information_comes_without_an_address() {
    let mut asked = message(MessageType::InformationRequest, &[]);
    let reply = answered(&asked);
    assert_eq!(reply.msg_type(), MessageType::Reply);
    assert!(associations(&reply).is_empty());
    assert!(
        reply
            .opts()
            .get(OptionCode::InformationRefreshTime)
            .is_some()
    );
    // It need not say who it is.
    asked.opts_mut().remove(OptionCode::ClientId);
    assert!(answered_to(1, &asked).unwrap().is_some());
    asked.opts_mut().insert(server(ANOTHER_SERVER));
    assert_eq!(answered_to(1, &asked), Ok(None));
}

#[test]
fn what_is_given_back_is_acknowledged() {
    for kind in [MessageType::Release, MessageType::Decline] {
        let asked = message(kind, &[association(9, &[OWN]), server(SERVER)]);
        let reply = answered(&asked);
        let Some(DhcpOption::StatusCode(code)) = reply.opts().get(OptionCode::StatusCode) else {
            panic!("no status");
        };
        assert_eq!(code.status, Status::Success);
    }
}

#[test]
fn what_is_meant_for_another_server_is_left_to_it() {
    let asked = message(
        MessageType::Request,
        &[association(9, &[OWN]), server(ANOTHER_SERVER)],
    );
    assert_eq!(answered_to(1, &asked), Ok(None));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let refused = |message: &Message| answered_to(1, message).unwrap_err();
    let names_server = message(MessageType::Solicit, &[server(SERVER)]);
    assert_eq!(refused(&names_server), Malformed("names a server"));
    let names_none = message(MessageType::Request, &[association(9, &[])]);
    assert_eq!(refused(&names_none), Malformed("names no server"));
    let mut anonymous = message(MessageType::Solicit, &[]);
    anonymous.opts_mut().remove(OptionCode::ClientId);
    assert_eq!(refused(&anonymous), Malformed("names no client"));
    let directory = directory();
    let web = asker(&directory, 1);
    for kind in [0, 2, 7, 10, 12, 13, 200] {
        let message = [kind, 1, 2, 3];
        assert!(answer(&web, LOCAL, &message).is_err(), "{kind}");
    }
    assert!(answer(&web, LOCAL, &[]).is_err());
}
