//! What workloads ask of their node, as their own stacks and resolvers would.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use dhcproto::{
    Decodable as _, Decoder, Encodable as _,
    v4::{self, DhcpOption},
};
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query},
    rr::{Name, RecordType},
};
use sunwire_lab::Workload;

/// How long one datagram is waited for before it is sent again.
const TRY: Duration = Duration::from_secs(3);

/// Sends a DHCP message and waits for the answer, as a client without an address does.
pub(crate) fn exchange(workload: &Workload, message: &v4::Message) -> v4::Message {
    let bytes = message.to_vec().unwrap();
    let received = workload.namespace().run(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 68))?;
        nix::sys::socket::setsockopt(
            &socket,
            nix::sys::socket::sockopt::BindToDevice,
            &"eth0".into(),
        )?;
        socket.set_broadcast(true)?;
        socket.set_read_timeout(Some(TRY))?;
        let mut buffer = [0; 1500];
        for _ in 0..10 {
            socket.send_to(&bytes, (Ipv4Addr::BROADCAST, 67))?;
            match socket.recv_from(&mut buffer) {
                Ok((length, from)) => return Ok((buffer[..length].to_vec(), from)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Err(std::io::Error::from(ErrorKind::TimedOut))
    });
    let (bytes, from) = received.unwrap().unwrap();
    assert_eq!(from.port(), 67);
    v4::Message::decode(&mut Decoder::new(&bytes)).unwrap()
}

/// A DHCP message of a workload that has no address.
pub(crate) fn dhcp(workload: &Workload, kind: v4::MessageType) -> v4::Message {
    let mut message = v4::Message::default();
    message
        .set_flags(v4::Flags::default().set_broadcast())
        .set_chaddr(&workload.spec().effective_mac().0);
    message.opts_mut().insert(DhcpOption::MessageType(kind));
    message
}

/// A query for the records of a kind under a name.
pub(crate) fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(rand_id(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn rand_id() -> u16 {
    std::process::id() as u16 ^ 0x5a5a
}

/// Asks the gateway by UDP, as a stub resolver does.
pub(crate) fn ask(workload: &Workload, server: IpAddr, name: &str, kind: RecordType) -> Message {
    let asked = query(name, kind);
    let bytes = asked.to_vec().unwrap();
    let answer = workload.namespace().run(|| {
        let any: SocketAddr = match server {
            IpAddr::V4(_) => "0.0.0.0:0".parse().unwrap(),
            IpAddr::V6(_) => "[::]:0".parse().unwrap(),
        };
        let socket = UdpSocket::bind(any)?;
        socket.connect((server, 53))?;
        socket.set_read_timeout(Some(TRY))?;
        let mut buffer = [0; 4096];
        for _ in 0..10 {
            socket.send(&bytes)?;
            match socket.recv(&mut buffer) {
                Ok(length) => return Ok(buffer[..length].to_vec()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Err(std::io::Error::from(ErrorKind::TimedOut))
    });
    let answer = Message::from_vec(&answer.unwrap().unwrap()).unwrap();
    assert_eq!(answer.metadata.id, asked.metadata.id);
    answer
}
