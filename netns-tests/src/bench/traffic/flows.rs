//! UDP of many flows at once: the same datagrams as of one flow, each from the next source port.

use std::io::IoSlice;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, MultiHeaders, SockFlag, SockType, SockaddrIn, connect, sendmmsg,
    socket,
};

use super::udp::{self, BATCH};
use super::{PORT, Side, Threads};
use crate::bench::metric::DATAGRAM_BYTES;
use crate::bench::namespace::Namespace;
use crate::bench::rigs::{CLIENT, SERVER};

/// The source port of the first flow.
const FIRST_PORT: u16 = 20_000;
const IPV4_BYTES: usize = 20;
const UDP_BYTES: usize = 8;
const PACKET_BYTES: usize = IPV4_BYTES + UDP_BYTES + DATAGRAM_BYTES;

/// Datagrams of `flows` flows in turn; the server counts what arrives. Every flow has had an answer
/// before the first of them.
///
/// A socket for each flow would need a system call for each datagram, so one socket sends whole
/// packets.
pub(super) fn datagrams(
    threads: &mut Threads,
    client: &Namespace,
    server: &Namespace,
    flows: u16,
) -> Result<()> {
    let receiver = udp::receiver(server)?;
    client.run(|| {
        (0..flows).try_for_each(|flow| {
            let asking = UdpSocket::bind((CLIENT, FIRST_PORT + flow))?;
            asking.set_read_timeout(Some(super::LOOK_EVERY))?;
            asking.connect((SERVER, PORT))?;
            udp::open(&asking, &receiver).with_context(|| format!("flow {flow}"))
        })
    })?;
    let sender = client.run(raw_socket)?;
    threads.start(Side::Server, server, move |shared| {
        udp::count_arrivals(&receiver, shared)
    });
    threads.start(Side::Client, client, move |shared| {
        let mut packets = [packet(); BATCH];
        let mut flow = 0;
        while !shared.is_stopped() {
            for packet in &mut packets {
                set_ports(packet, FIRST_PORT + flow, PORT);
                flow = (flow + 1) % flows;
            }
            send(&sender, &packets)?;
        }
        Ok(())
    });
    Ok(())
}

/// Ports that one source address sends from, and from which port of the server on.
const SOURCE_PORTS: u32 = 50_000;
const FIRST_SOURCE_PORT: u16 = 10_000;
const FIRST_TARGET_PORT: u16 = 20_000;

/// Datagrams of `flows` flows in turn, from every port to one port of the server after the other.
pub(super) fn endless(threads: &mut Threads, client: &Namespace, flows: u32) -> Result<()> {
    let sender = client.run(raw_socket)?;
    threads.start(Side::Client, client, move |shared| {
        let mut packets = [packet(); BATCH];
        let mut flow = 0;
        while !shared.is_stopped() {
            for packet in &mut packets {
                let source = FIRST_SOURCE_PORT + (flow % SOURCE_PORTS) as u16;
                let target = FIRST_TARGET_PORT + (flow / SOURCE_PORTS) as u16;
                set_ports(packet, source, target);
                flow = (flow + 1) % flows;
            }
            send(&sender, &packets)?;
            shared.add(BATCH as u64);
        }
        Ok(())
    });
    Ok(())
}

/// Time between two batches of SYNs: 64,000 in a second.
const SYNS_EVERY: Duration = Duration::from_millis(1);
/// A port of the server that the policy admits and nobody listens on.
const SYN_PORT: u16 = 443;

/// SYNs, each from the next port. Their checksum is wrong, so the server's stack says nothing of them,
/// as of SYNs from addresses that are not there.
pub(super) fn syns(threads: &mut Threads, client: &Namespace) -> Result<()> {
    const TCP: u8 = 6;
    const HEADER_WORDS: u8 = 5 << 4;
    const SYN: u8 = 2;
    let sender = client.run(raw_socket)?;
    // On the other processor than those whose connections are counted.
    threads.start(Side::Server, client, move |shared| {
        let mut packets = [packet(); BATCH];
        let mut port = 0_u16;
        while !shared.is_stopped() {
            for packet in &mut packets {
                packet[9] = TCP;
                packet[IPV4_BYTES + 12] = HEADER_WORDS;
                packet[IPV4_BYTES + 13] = SYN;
                set_ports(
                    packet,
                    FIRST_SOURCE_PORT + port % SOURCE_PORTS as u16,
                    SYN_PORT,
                );
                port = (port + 1) % SOURCE_PORTS as u16;
            }
            send(&sender, &packets)?;
            shared.add(BATCH as u64);
            thread::sleep(SYNS_EVERY);
        }
        Ok(())
    });
    Ok(())
}

fn raw_socket() -> Result<OwnedFd> {
    // IPPROTO_RAW: packets come with their IP header (raw(7)).
    let socket = socket(
        AddressFamily::Inet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        nix::sys::socket::SockProtocol::Raw,
    )
    .context("cannot open a raw socket")?;
    let [a, b, c, d] = SERVER.octets();
    connect(socket.as_raw_fd(), &SockaddrIn::new(a, b, c, d, 0))
        .context("cannot connect a raw socket")?;
    Ok(socket)
}

fn send(socket: &OwnedFd, packets: &[[u8; PACKET_BYTES]; BATCH]) -> Result<()> {
    let slices = packets.each_ref().map(|packet| [IoSlice::new(packet)]);
    let addresses = [None::<SockaddrIn>; BATCH];
    let mut headers = MultiHeaders::preallocate(BATCH, None);
    let flags = MsgFlags::empty();
    let sent = sendmmsg(
        socket.as_raw_fd(),
        &mut headers,
        slices.iter(),
        addresses,
        [],
        flags,
    );
    match sent {
        Ok(_) | Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR) => Ok(()),
        Err(error) => Err(error).context("cannot send datagrams"),
    }
}

/// A packet without its ports. The kernel sets its length, identification and header
/// checksum; the datagram goes without a checksum, which IPv4 allows (RFC 768).
fn packet() -> [u8; PACKET_BYTES] {
    let mut packet = [0x5a; PACKET_BYTES];
    let (ip, datagram) = packet.split_at_mut(IPV4_BYTES);
    // Version and header length, don't fragment, TTL 64, UDP.
    ip.copy_from_slice(&[
        0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ]);
    ip[12..16].copy_from_slice(&CLIENT.octets());
    ip[16..20].copy_from_slice(&SERVER.octets());
    let length = (UDP_BYTES + DATAGRAM_BYTES) as u16;
    datagram[4..6].copy_from_slice(&length.to_be_bytes());
    datagram[6..8].copy_from_slice(&[0, 0]);
    packet
}

fn set_ports(packet: &mut [u8; PACKET_BYTES], source: u16, target: u16) {
    packet[IPV4_BYTES..IPV4_BYTES + 2].copy_from_slice(&source.to_be_bytes());
    packet[IPV4_BYTES + 2..IPV4_BYTES + 4].copy_from_slice(&target.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_from_the_client_to_the_servers_port() {
        let mut packet = packet();
        set_ports(&mut packet, 0x1234, 80);
        assert_eq!(packet[12..20], [10, 20, 0, 1, 10, 20, 0, 2]);
        assert_eq!(packet[20..28], [0x12, 0x34, 0, 80, 0, 72, 0, 0]);
    }
}
