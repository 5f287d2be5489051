//! One entry per flow: what is known of a connection and the verdict on its packets, together.
//!
//! A flow belongs to an endpoint. Its key is oriented to that endpoint, so one entry serves both
//! directions on a node, and goes with the endpoint when it moves:
//!
//! ```text
//! local endpoint --sent-->      generation, verdict, location: how its packets are decided
//!                <--received--  remote: who sends, and lives where the tunnel says
//! ```
//!
//! The verdict is a memory of the policy's, never a decision of its own: it holds for packets that
//! agree with it in the generation and in every field that the policy looked at
//! ([`FlowEntry::mask`]), and everything else is decided anew. What is *not* a memory is `received`:
//! that a packet of the other side was delivered makes the endpoint's own packets replies.

use crate::{
    address::Address,
    flow_key::Connection,
    headers::{Family, Headers, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP},
    tables::Reads,
};

/// Key of an IPv4 flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(C)]
pub struct TupleV4 {
    /// VXLAN network identifier in the upper 24 bits, IP protocol in the lower 8.
    pub network_protocol: u32,
    /// Address of the local endpoint, memory order.
    pub local: u32,
    /// Address of the other side, memory order.
    pub remote: u32,
    /// Port of the local endpoint in the upper 16 bits, of the other side in the lower; of an ICMP
    /// echo, its identifier in both.
    pub ports: u32,
}

/// Key of an IPv6 flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(C)]
pub struct TupleV6 {
    /// As in [`TupleV4`].
    pub network_protocol: u32,
    /// As in [`TupleV4`].
    pub ports: u32,
    /// Address of the local endpoint.
    pub local: Address,
    /// Address of the other side.
    pub remote: Address,
}

/// Which of a packet's two ends is the local endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Its source: the endpoint sent it.
    Sent,
    /// Its destination: it is delivered to the endpoint.
    Received,
}

/// Bits of [`FlowEntry::sent`] and [`FlowEntry::received`].
pub mod seen {
    /// A packet was let through in this direction.
    pub const PACKET: u8 = 1 << 0;
    /// A TCP SYN.
    pub const SYN: u8 = 1 << 1;
    /// A TCP FIN.
    pub const FIN: u8 = 1 << 2;
    /// A TCP RST.
    pub const RST: u8 = 1 << 3;
    /// Of what was received: the policy in force here has admitted it, in the generation that
    /// [`bucket`](super::FlowEntry::bucket) says; see [`FlowEntry::is_admitted`](super::FlowEntry::is_admitted).
    pub const ADMITTED: u8 = 1 << 4;
}

/// What an entry is and how its line of the table is used: [`FlowEntry::tag`].
///
/// ```text
/// 31                      8      5      4     3     2    1    0
/// | flows that lie further on | SWEPT | DEAD | ALIAS | V6 | V4 | TAKEN |
/// ```
pub mod tag {
    /// Somebody has the line. Without a family, the flow in it is still being written.
    pub const TAKEN: u32 = 1 << 0;
    /// An IPv4 flow.
    pub const V4: u32 = 1 << 1;
    /// An IPv6 flow.
    pub const V6: u32 = 1 << 2;
    /// A flow as the other side knows it whose packets the policy rewrote: what comes back gets the
    /// address and port of the [`original`](super::FlowEntry::original) again before it is delivered.
    pub const ALIAS: u32 = 1 << 3;
    /// The flow was forgotten: nobody finds it any more, but a program that found it before may still
    /// write to it.
    pub const DEAD: u32 = 1 << 4;
    /// A sweep has seen that it was: once every program is over that ran then, the line is free.
    pub const SWEPT: u32 = 1 << 5;
    /// All of the above.
    pub const FLAGS: u32 = 0xff;
    /// One flow that would be in this line, had it been free, and lies further on.
    pub const PASSED: u32 = 1 << 8;
}

/// A flow of a local endpoint: what a line of the table holds beside the key (see
/// [`flow_table`](crate::flow_table)); zeroed means none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct FlowEntry {
    /// Bits of [`tag`].
    pub tag: u32,
    /// Generation of the verdict; zero when there is none, as for every alias.
    pub generation: u32,
    /// [`signature`] of the packet that was decided. An alias has its [`original`](Self::original) in
    /// this and the next three fields.
    pub signature: u32,
    /// Bits of the signature that the policy looked at, and [`sign::PLAIN`].
    pub mask: u32,
    /// Slot of the verdict's label.
    pub label: u32,
    /// Number of the endpoint that the first copy goes to; zero when each packet finds it anew.
    pub location: u32,
    /// Number of the local endpoint.
    pub local: u32,
    /// Number of the endpoint whose packets come in; zero when each packet finds it anew.
    pub remote: u32,
    /// Jiffies when a packet was last seen; old by up to [`SEEN_EVERY`].
    pub seen: u32,
    /// For a flow, the bucket that packets of the connection have once it is up (see
    /// [`bucket`](crate::flow_key::bucket)), or zero; where the receiver decides too, nothing is balanced,
    /// and with [`seen::ADMITTED`] it is the generation that has admitted what comes in. For an alias,
    /// the port that the endpoint has itself.
    pub bucket: u32,
    /// Slot in `VERDICTS`.
    pub verdict: u16,
    /// Outer source port, network order.
    pub tunnel_port: u16,
    /// For an alias, the port that the endpoint knows the other side by, host order. For a flow, the
    /// port that its packets get as their source, or zero when they keep theirs.
    pub original_port: u16,
    /// What the local endpoint has sent, bits of [`seen`].
    pub sent: u8,
    /// What was delivered to it, bits of [`seen`].
    pub received: u8,
}

/// Words of 64 bits that an entry is handed over in.
pub const ENTRY_WORDS: usize = 6;

const _: () = assert!(size_of::<TupleV4>() == 16);
const _: () = assert!(size_of::<TupleV6>() == 40);
const _: () = assert!(size_of::<FlowEntry>() == 8 * ENTRY_WORDS);
// A verdict's slot is half a word here.
const _: () = assert!(crate::tables::MAX_VERDICTS - 1 == u16::MAX as u32);

/// Jiffies between two writes of [`FlowEntry::seen`]: a line that is only read is shared by CPUs.
pub const SEEN_EVERY: u32 = 64;

/// TCP flags (RFC 9293, 3.1).
pub mod tcp {
    /// No more data.
    pub const FIN: u8 = 1 << 0;
    /// Begins a connection.
    pub const SYN: u8 = 1 << 1;
    /// Ends it at once.
    pub const RST: u8 = 1 << 2;
    /// Acknowledges.
    pub const ACK: u8 = 1 << 4;
    /// The flags that move a connection from one state to another.
    pub const STATE: u8 = FIN | SYN | RST;
}

/// What the local end of a packet is called by.
#[inline(always)]
fn ports(headers: &Headers, direction: Direction) -> u32 {
    let (src, dst) = match headers.protocol {
        PROTOCOL_ICMP | PROTOCOL_ICMPV6 => (headers.icmp_id, headers.icmp_id),
        _ => (headers.src_port, headers.dst_port),
    };
    match direction {
        Direction::Sent => u32::from(src) << 16 | u32::from(dst),
        Direction::Received => u32::from(dst) << 16 | u32::from(src),
    }
}

impl TupleV4 {
    /// The key of an IPv4 packet.
    #[inline(always)]
    #[must_use]
    pub fn new(network: u32, headers: &Headers, direction: Direction) -> Self {
        let (src, dst) = (headers.src.0[0], headers.dst.0[0]);
        let (local, remote) = match direction {
            Direction::Sent => (src, dst),
            Direction::Received => (dst, src),
        };
        TupleV4 {
            network_protocol: network << 8 | u32::from(headers.protocol),
            local,
            remote,
            ports: ports(headers, direction),
        }
    }
}

impl TupleV6 {
    /// The key of an IPv6 packet.
    #[inline(always)]
    #[must_use]
    pub fn new(network: u32, headers: &Headers, direction: Direction) -> Self {
        let (local, remote) = match direction {
            Direction::Sent => (headers.src, headers.dst),
            Direction::Received => (headers.dst, headers.src),
        };
        TupleV6 {
            network_protocol: network << 8 | u32::from(headers.protocol),
            ports: ports(headers, direction),
            local,
            remote,
        }
    }

    /// Makes this the key of an IPv6 packet, field by field: see [`TupleV6::new`].
    #[inline(always)]
    pub fn fill(&mut self, network: u32, headers: &Headers, direction: Direction) {
        let (local, remote) = match direction {
            Direction::Sent => (&headers.src, &headers.dst),
            Direction::Received => (&headers.dst, &headers.src),
        };
        self.network_protocol = network << 8 | u32::from(headers.protocol);
        self.ports = ports(headers, direction);
        for index in 0..4 {
            self.local.0[index] = local.0[index];
            self.remote.0[index] = remote.0[index];
        }
    }
}

/// Whether packets with these headers are told apart into flows: ICMP only when it is an echo,
/// whose identifier stands for the ports.
#[inline(always)]
#[must_use]
pub fn has_flow(headers: &Headers) -> bool {
    if headers.eth_dst.is_group() {
        return false;
    }
    match (headers.family, headers.protocol) {
        (Family::None, _) => false,
        (Family::V4, PROTOCOL_ICMP) => matches!(headers.icmp_type, 0 | 8),
        (Family::V6, PROTOCOL_ICMPV6) => matches!(headers.icmp_type, 128 | 129),
        _ => true,
    }
}

/// Bits of a [`signature`].
pub mod sign {
    /// DSCP.
    pub const DSCP: u32 = 0x3f;
    /// ICMP type.
    pub const ICMP_TYPE: u32 = 0xff << 8;
    /// ICMP code.
    pub const ICMP_CODE: u32 = 0xff << 16;
    /// State of the connection.
    pub const CONNECTION: u32 = 0x3 << 24;
    /// How far the state is shifted.
    pub const CONNECTION_SHIFT: u32 = 24;
    /// Of a mask: the policy looked at the token of `limit`, and every packet has to take one. What is
    /// remembered is for those that get one.
    pub const TOKEN: u32 = 1 << 26;
    /// Of a mask, and no bit of any signature: the verdict makes one copy, as it is.
    pub const PLAIN: u32 = 1 << 27;
}

/// What a policy may look at in a packet of a flow beside the flow's key.
#[inline(always)]
#[must_use]
pub fn signature(headers: &Headers, connection: Connection) -> u32 {
    u32::from(headers.dscp)
        | u32::from(headers.icmp_type) << 8
        | u32::from(headers.icmp_code) << 16
        | (connection as u32) << sign::CONNECTION_SHIFT
}

/// The bits of the signature that a walk looked at, or `None` when it looked at something that is in
/// neither the flow's key nor the signature: then the verdict holds for that packet alone.
///
/// The source MAC address is the endpoint's own.
#[inline(always)]
#[must_use]
pub fn mask(reads: Reads) -> Option<u32> {
    if reads.0 & Reads::ETH_DST != 0 {
        return None;
    }
    let mut mask = 0;
    if reads.0 & Reads::DSCP != 0 {
        mask |= sign::DSCP;
    }
    if reads.0 & Reads::ICMP_TYPE != 0 {
        mask |= sign::ICMP_TYPE;
    }
    if reads.0 & Reads::ICMP_CODE != 0 {
        mask |= sign::ICMP_CODE;
    }
    if reads.0 & Reads::CONNECTION != 0 {
        mask |= sign::CONNECTION;
    }
    if reads.0 & Reads::TOKEN != 0 {
        mask |= sign::TOKEN;
    }
    Some(mask)
}

/// The bits of [`seen`] that a packet stands for.
#[inline(always)]
#[must_use]
pub fn events(headers: &Headers) -> u8 {
    if headers.protocol != PROTOCOL_TCP || headers.tcp_flags & tcp::STATE == 0 {
        return seen::PACKET;
    }
    let flags = headers.tcp_flags;
    let mut events = seen::PACKET;
    if flags & tcp::SYN != 0 {
        events |= seen::SYN;
    }
    if flags & tcp::FIN != 0 {
        events |= seen::FIN;
    }
    if flags & tcp::RST != 0 {
        events |= seen::RST;
    }
    events
}

/// Whether a packet begins a connection: a SYN that acknowledges nothing.
#[inline(always)]
#[must_use]
pub fn begins(headers: &Headers) -> bool {
    headers.protocol == PROTOCOL_TCP && headers.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN
}

/// How far a flow has come, which says how long it is kept when nothing is heard of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Packets went one way only.
    OneWay,
    /// Both ways.
    Established,
    /// A TCP connection that one side has ended.
    Closing,
    /// A TCP connection that both sides have ended, or one at once.
    Closed,
}

impl FlowEntry {
    /// Whether it is an alias of another flow.
    #[inline(always)]
    #[must_use]
    pub fn is_alias(&self) -> bool {
        self.tag & tag::ALIAS != 0
    }

    /// Whether its verdict makes one copy, as it is.
    #[inline(always)]
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.mask & sign::PLAIN != 0
    }

    /// Of an alias, the address that the endpoint knows the other side by.
    #[inline(always)]
    #[must_use]
    pub fn original(&self) -> Address {
        Address([self.signature, self.mask, self.label, self.location])
    }

    /// Sets what [`original`](Self::original) returns; without effect on anything but an alias.
    #[inline(always)]
    pub fn set_original(&mut self, address: Address) {
        if self.is_alias() {
            [self.signature, self.mask, self.label, self.location] = address.0;
        }
    }

    /// The entry in words, as it is handed over to a program.
    #[must_use]
    pub fn to_words(&self) -> [u64; ENTRY_WORDS] {
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let ports = u32::from(self.verdict) | u32::from(self.tunnel_port) << 16;
        let seen = u32::from(self.original_port)
            | u32::from(self.sent) << 16
            | u32::from(self.received) << 24;
        [
            pair(self.tag, self.generation),
            pair(self.signature, self.mask),
            pair(self.label, self.location),
            pair(self.local, self.remote),
            pair(self.seen, self.bucket),
            pair(ports, seen),
        ]
    }

    /// Reads what [`to_words`](Self::to_words) made.
    #[inline(always)]
    #[must_use]
    pub fn from_words(words: [u64; ENTRY_WORDS]) -> Self {
        let low = |word: usize| words[word] as u32;
        let high = |word: usize| (words[word] >> 32) as u32;
        FlowEntry {
            tag: low(0),
            generation: high(0),
            signature: low(1),
            mask: high(1),
            label: low(2),
            location: high(2),
            local: low(3),
            remote: high(3),
            seen: low(4),
            bucket: high(4),
            verdict: low(5) as u16,
            tunnel_port: (low(5) >> 16) as u16,
            original_port: high(5) as u16,
            sent: (high(5) >> 16) as u8,
            received: (high(5) >> 24) as u8,
        }
    }

    /// The state of the connection that a packet of the local endpoint belongs to.
    #[inline(always)]
    #[must_use]
    pub fn connection(&self, headers: &Headers) -> Connection {
        if self.received & seen::PACKET != 0 && !self.begins_anew(headers) {
            Connection::Established
        } else {
            Connection::New
        }
    }

    /// The state of the connection that a packet belongs to which is delivered to the local endpoint, as
    /// its sender knows it: that the local endpoint has sent stands in for that it has arrived there.
    #[inline(always)]
    #[must_use]
    pub fn connection_of_received(&self, headers: &Headers) -> Connection {
        let is_up = self.sent & seen::PACKET != 0 && !self.is_alias();
        if is_up && !self.begins_anew(headers) {
            Connection::Established
        } else {
            Connection::New
        }
    }

    /// Whether the policy of this generation has admitted packets of the other side before.
    #[inline(always)]
    #[must_use]
    pub fn is_admitted(&self, headers: &Headers, generation: u32) -> bool {
        self.received & seen::ADMITTED != 0
            && self.bucket == generation
            && !self.begins_anew(headers)
    }

    /// Whether it is the policy of another generation that has admitted packets of the other side.
    #[inline(always)]
    #[must_use]
    pub fn was_admitted(&self, generation: u32) -> bool {
        self.received & seen::ADMITTED != 0 && self.bucket != generation
    }

    /// Remembers that the policy of a generation admits packets of the other side; without effect on
    /// an alias.
    #[inline(always)]
    pub fn admit(&mut self, generation: u32) {
        if !self.is_alias() {
            self.bucket = generation;
            self.received |= seen::ADMITTED;
        }
    }

    /// The bucket that packets of the connection have once it is up, or zero.
    #[inline(always)]
    #[must_use]
    pub fn kept_bucket(&self) -> u32 {
        if self.received & seen::ADMITTED != 0 {
            0
        } else {
            self.bucket
        }
    }

    /// Sets the bucket that packets of the connection have from here on. None leaves what the receiver
    /// has decided.
    #[inline(always)]
    pub fn keep_bucket(&mut self, bucket: u32) {
        if bucket != 0 {
            self.received &= !seen::ADMITTED;
        }
        if self.received & seen::ADMITTED == 0 {
            self.bucket = bucket;
        }
    }

    /// Whether a packet begins a connection with the ports of one that is over.
    #[inline(always)]
    #[must_use]
    pub fn begins_anew(&self, headers: &Headers) -> bool {
        begins(headers) && self.is_closed()
    }

    /// Whether a TCP connection is over, so that another one may begin with the same ports.
    #[inline(always)]
    #[must_use]
    pub fn is_closed(&self) -> bool {
        (self.sent | self.received) & seen::RST != 0 || self.sent & self.received & seen::FIN != 0
    }

    /// How far it has come.
    #[must_use]
    pub fn phase(&self) -> Phase {
        if self.is_closed() {
            Phase::Closed
        } else if (self.sent | self.received) & seen::FIN != 0 {
            Phase::Closing
        } else if self.sent & self.received & seen::PACKET != 0 {
            Phase::Established
        } else {
            Phase::OneWay
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers() -> Headers {
        Headers {
            family: Family::V4,
            protocol: PROTOCOL_TCP,
            src: Address::v4([10, 0, 0, 1]),
            dst: Address::v4([10, 0, 0, 2]),
            src_port: 40000,
            dst_port: 443,
            ..Headers::default()
        }
    }

    fn reversed(headers: &Headers) -> Headers {
        Headers {
            src: headers.dst,
            dst: headers.src,
            src_port: headers.dst_port,
            dst_port: headers.src_port,
            ..*headers
        }
    }

    #[test]
    fn what_is_sent_and_its_reply_have_one_key_at_the_same_endpoint() {
        let (there, back) = (headers(), reversed(&headers()));
        let sent = TupleV4::new(7, &there, Direction::Sent);
        assert_eq!(sent, TupleV4::new(7, &back, Direction::Received));
        assert_ne!(sent, TupleV4::new(7, &there, Direction::Received));
        assert_ne!(sent, TupleV4::new(8, &there, Direction::Sent));
        let sent = TupleV6::new(7, &there, Direction::Sent);
        assert_eq!(sent, TupleV6::new(7, &back, Direction::Received));
    }

    #[test]
    fn an_echo_and_its_reply_are_one_flow() {
        let echo = Headers {
            protocol: PROTOCOL_ICMP,
            icmp_type: 8,
            icmp_id: 77,
            src_port: 0,
            dst_port: 0,
            ..headers()
        };
        let reply = Headers {
            icmp_type: 0,
            ..reversed(&echo)
        };
        let sent = TupleV4::new(7, &echo, Direction::Sent);
        assert_eq!(sent, TupleV4::new(7, &reply, Direction::Received));
        assert!(has_flow(&echo) && has_flow(&reply));
        let unreachable = Headers {
            icmp_type: 3,
            ..echo
        };
        assert!(!has_flow(&unreachable));
    }

    #[test]
    fn a_connection_ends_by_two_fins_or_one_reset() {
        let mut entry = FlowEntry {
            sent: seen::PACKET | seen::SYN,
            ..FlowEntry::default()
        };
        assert_eq!(entry.phase(), Phase::OneWay);
        assert_eq!(entry.connection(&headers()), Connection::New);
        entry.received = seen::PACKET | seen::SYN;
        assert_eq!(entry.phase(), Phase::Established);
        assert_eq!(entry.connection(&headers()), Connection::Established);
        entry.sent |= seen::FIN;
        assert_eq!(entry.phase(), Phase::Closing);
        entry.received |= seen::FIN;
        assert_eq!(entry.phase(), Phase::Closed);
        assert_eq!(entry.connection(&headers()), Connection::Established);
        let syn = Headers {
            tcp_flags: tcp::SYN,
            ..headers()
        };
        assert_eq!(entry.connection(&syn), Connection::New);
        let reset = FlowEntry {
            received: seen::RST,
            ..FlowEntry::default()
        };
        assert_eq!(reset.phase(), Phase::Closed);
    }

    #[test]
    fn a_verdict_that_looked_at_a_mac_address_holds_for_one_packet_and_a_token_is_kept_in_mind() {
        assert_eq!(mask(Reads(0)), Some(0));
        assert_eq!(
            mask(Reads(Reads::DSCP | Reads::CONNECTION)),
            Some(sign::DSCP | sign::CONNECTION)
        );
        assert_eq!(mask(Reads(Reads::TOKEN)), Some(sign::TOKEN));
        assert_eq!(mask(Reads(Reads::ETH_DST)), None);
    }
}
