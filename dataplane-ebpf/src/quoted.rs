//! The packet that an ICMP error (RFC 792, RFC 4443) quotes: read, and given back its addresses.
//!
//! ```text
//! | Ethernet | IP | ICMP error, 8 bytes | IP of the packet it is about | its first 8 bytes or more |
//! ```
//!
//! Who sent a packet that the policy rewrote does not know it as it went out. So an error about it
//! quotes the packet as it was sent, once it is delivered (RFC 5508, 4.2).

use aya_ebpf::bindings::__sk_buff;
use sunwire_dataplane_common::{
    address::Address,
    bytes::Window,
    drop_reason::DropReason,
    entries::EndpointEntry,
    flow::{Direction, FlowEntry, has_flow},
    headers::{
        Family, Headers, ICMP_BYTES, IPV4_BYTES, IPV6_BYTES, PROTOCOL_ICMP, PROTOCOL_ICMPV6,
        PROTOCOL_TCP, PROTOCOL_UDP, Parsed,
    },
    vxlan::fold_checksum,
};

use crate::{
    deliver, flow,
    frame::{self, Skb},
    maps::{ENDPOINTS, INNER},
    rewrite::{self, ICMP_CHECKSUM, ICMP_IDENTIFIER, TCP_CHECKSUM, UDP_CHECKSUM},
};

/// Bytes of the transport header that are read: the ports, or what an echo has in their place.
const TRANSPORT_BYTES: usize = 8;

/// Memory of this CPU for the headers of the packet inside: the stack is short.
#[inline(always)]
pub(crate) fn inner() -> Option<&'static mut Headers> {
    let inner = INNER.get_ptr_mut(0)?;
    // SAFETY: a program runs to its end on one CPU before another one of ours starts there.
    Some(unsafe { &mut *inner })
}

/// Reads the headers of the packet that an ICMP error quotes into `inner`; returns where its transport
/// header starts, or `None` when it cannot be read.
#[inline(always)]
pub(crate) fn read(skb: &Skb, parsed: &Parsed, inner: &mut Headers) -> Option<usize> {
    read_behind::<0>(skb, parsed, inner)
}

/// As [`read`], where so many bytes are in front of the frame.
#[inline(always)]
pub(crate) fn read_behind<const OUTER: usize>(
    skb: &Skb,
    parsed: &Parsed,
    inner: &mut Headers,
) -> Option<usize> {
    let offset = OUTER + parsed.transport_offset() + ICMP_BYTES;
    let transport = match parsed.headers.family {
        Family::V4 => inside_v4(skb, offset, inner),
        Family::V6 => inside_v6(skb, offset, inner),
        Family::None => None,
    }?;
    inside_transport(skb, transport, inner)?;
    Some(transport)
}

/// Reads the IP header, and returns where the one after it starts.
#[inline(always)]
fn inside_v4(skb: &Skb, offset: usize, inner: &mut Headers) -> Option<usize> {
    let ip = skb.window::<IPV4_BYTES>(offset)?;
    let version = ip.byte::<0>();
    let bytes = usize::from(version & 0x0f) * 4;
    // A later fragment has no ports.
    if version >> 4 != 4 || bytes < IPV4_BYTES || u16::from_be(ip.half::<6>()) & 0x1fff != 0 {
        return None;
    }
    inner.family = Family::V4;
    inner.protocol = ip.byte::<9>();
    inner.src = Address([ip.word::<12>(), 0, 0, 0]);
    inner.dst = Address([ip.word::<16>(), 0, 0, 0]);
    Some(offset + bytes)
}

/// As [`inside_v4`].
#[inline(always)]
fn inside_v6(skb: &Skb, offset: usize, inner: &mut Headers) -> Option<usize> {
    let ip = skb.window::<IPV6_BYTES>(offset)?;
    if ip.byte::<0>() >> 4 != 6 {
        return None;
    }
    inner.family = Family::V6;
    inner.protocol = ip.byte::<6>();
    inner.src.0[0] = ip.word::<8>();
    inner.src.0[1] = ip.word::<12>();
    inner.src.0[2] = ip.word::<16>();
    inner.src.0[3] = ip.word::<20>();
    inner.dst.0[0] = ip.word::<24>();
    inner.dst.0[1] = ip.word::<28>();
    inner.dst.0[2] = ip.word::<32>();
    inner.dst.0[3] = ip.word::<36>();
    Some(offset + IPV6_BYTES)
}

#[inline(always)]
fn inside_transport(skb: &Skb, offset: usize, inner: &mut Headers) -> Option<()> {
    inner.src_port = 0;
    inner.dst_port = 0;
    inner.icmp_type = 0;
    inner.icmp_id = 0;
    match inner.protocol {
        PROTOCOL_TCP | PROTOCOL_UDP => {
            let ports = skb.window::<TRANSPORT_BYTES>(offset)?;
            inner.src_port = u16::from_be(ports.half::<0>());
            inner.dst_port = u16::from_be(ports.half::<2>());
        }
        PROTOCOL_ICMP | PROTOCOL_ICMPV6 => {
            let echo = skb.window::<TRANSPORT_BYTES>(offset)?;
            inner.icmp_type = echo.byte::<0>();
            inner.icmp_id = u16::from_be(echo.half::<4>());
        }
        _ => {}
    }
    Some(())
}

/// Has the ICMP error at hand, which is delivered to endpoint `local`, speak of the packet as that
/// endpoint sent it, where the policy had it rewritten. Returns zero, or not when the packet ends
/// before what is to be written.
///
/// A global function, which the verifier looks at once: see `classify::walk_tables`.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn restore(context: *mut __sk_buff, network: u32, local: u32) -> u32 {
    let mut skb = Skb::from_raw(context, false);
    let (Some(parsed), Some(inner)) = (frame::parsed(), inner()) else {
        return 0;
    };
    let transport = read_flow(&skb, parsed, inner);
    if transport == 0 {
        return 0;
    }
    let Some(alias) = flow::find(network, inner, Direction::Sent) else {
        return 0;
    };
    let own = deliver::location(local, network).and_then(|here| ENDPOINTS.get(here.ifindex));
    let Some(own) = own.filter(|_| alias.is_alias() && alias.local == local) else {
        return 0;
    };
    let is_from_there = parsed.headers.src == inner.dst;
    if restore_quote(&mut skb, transport, alias, own).is_err() {
        return 1;
    }
    let ends = rewrite::restore_ends(&mut skb, parsed, alias, own, is_from_there);
    u32::from(ends.is_err())
}

/// What [`rename`] gives another name: the quoted packet's sender, or, with this added to the port, its
/// receiver.
pub(crate) const RECEIVER: u32 = 1 << 16;

/// Has the ICMP error at hand speak of the packet with another sender or receiver: another address, of which
/// there are the first and the last 8 bytes, and another port or identifier.
/// [`inner`] is of the quoted packet afterwards. Returns as [`restore`].
///
/// A global function, as [`restore`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn rename(context: *mut __sk_buff, port: u32, first: u64, last: u64) -> u32 {
    let mut skb = Skb::from_raw(context, false);
    let (Some(parsed), Some(inner)) = (frame::parsed(), inner()) else {
        return 1;
    };
    let transport = read_flow(&skb, parsed, inner);
    if transport == 0 {
        return 1;
    }
    let mut quote = Quote::new(parsed, inner, transport);
    let renamed = quote.rename(&mut skb, inner, port, (first, last));
    u32::from(renamed.is_err())
}

/// The first and the last 8 bytes of an address, in memory order.
#[inline(always)]
pub(crate) fn ends_of(address: &Address) -> (u64, u64) {
    let [a, b, c, d] = address.0.map(u64::from);
    (b << 32 | a, d << 32 | c)
}

// Functions of their own, one after the other: the stack is short.

/// Where the transport header of the quoted packet is, if that is one of a flow; else zero.
#[inline(never)]
fn read_flow(skb: &Skb, parsed: &Parsed, inner: &mut Headers) -> usize {
    match read(skb, parsed, inner) {
        Some(transport) if has_flow(inner) => transport,
        _ => 0,
    }
}

#[inline(never)]
fn restore_quote(
    skb: &mut Skb,
    transport: usize,
    alias: &FlowEntry,
    own: &EndpointEntry,
) -> Result<(), DropReason> {
    let (Some(parsed), Some(inner)) = (frame::parsed(), inner()) else {
        return Ok(());
    };
    Quote::new(parsed, inner, transport).restore(skb, inner, alias, own)
}

/// Where what changes in a quoted packet stands.
struct Quote {
    /// The IP header.
    ip: usize,
    /// The transport header.
    transport: usize,
    /// Checksum of the quoted transport header, or zero. It may be beyond what is quoted.
    transport_sum: usize,
}

impl Quote {
    #[inline(always)]
    fn new(parsed: &Parsed, inner: &Headers, transport: usize) -> Self {
        Quote {
            ip: parsed.transport_offset() + ICMP_BYTES,
            transport,
            transport_sum: match inner.protocol {
                PROTOCOL_TCP => transport + TCP_CHECKSUM,
                PROTOCOL_UDP => transport + UDP_CHECKSUM,
                PROTOCOL_ICMPV6 => transport + ICMP_CHECKSUM,
                _ => 0,
            },
        }
    }

    #[inline(always)]
    fn restore(
        &self,
        skb: &mut Skb,
        inner: &Headers,
        alias: &FlowEntry,
        own: &EndpointEntry,
    ) -> Result<(), DropReason> {
        if matches!(inner.protocol, PROTOCOL_TCP | PROTOCOL_UDP) {
            self.replace(skb, self.transport, (alias.bucket as u16).to_be(), 0)?;
            self.replace(skb, self.transport + 2, alias.original_port.to_be(), 0)?;
        }
        let (source, addresses, bytes, ip_sum) = match inner.family {
            Family::V4 => (&own.ipv4, self.ip + 12, 4, self.ip + 10),
            _ => (&own.ipv6, self.ip + 8, 16, 0),
        };
        for index in 0..8 {
            if index * 2 >= bytes {
                break;
            }
            let at = addresses + index * 2;
            self.replace(skb, at, half(source, index), ip_sum)?;
            let original = half(&alias.original(), index);
            self.replace(skb, at + bytes, original, ip_sum)?;
        }
        Ok(())
    }

    #[inline(always)]
    fn rename(
        &mut self,
        skb: &mut Skb,
        inner: &Headers,
        port: u32,
        (first, last): (u64, u64),
    ) -> Result<(), DropReason> {
        let is_receiver = (port & RECEIVER != 0) as usize;
        let (address, halves, ip_sum) = match inner.family {
            Family::V4 => (self.ip + 12 + is_receiver * 4, 2, self.ip + 10),
            _ => (self.ip + 8 + is_receiver * 16, 8, 0),
        };
        for index in 0..8 {
            if index >= halves {
                break;
            }
            let bytes = if index < 4 { first } else { last };
            let half = (bytes >> (16 * (index & 3))) as u16;
            self.replace(skb, address + index * 2, half, ip_sum)?;
        }
        let port = (port as u16).to_be();
        match inner.protocol {
            PROTOCOL_ICMP | PROTOCOL_ICMPV6 => {
                // That of IPv4 covers no addresses.
                self.transport_sum = self.transport + ICMP_CHECKSUM;
                self.replace(skb, self.transport + ICMP_IDENTIFIER, port, 0)
            }
            _ => self.replace(skb, self.transport + is_receiver * 2, port, 0),
        }
    }

    /// Writes two bytes of the quoted packet, in memory order; `ip_sum` is the checksum that covers
    /// them beside the transport header's, or zero.
    #[inline(always)]
    fn replace(&self, skb: &mut Skb, at: usize, new: u16, ip_sum: usize) -> Result<(), DropReason> {
        // The error's checksum covers all of the packet that it quotes.
        let sums = Sums {
            error: self.ip - ICMP_BYTES + ICMP_CHECKSUM,
            ip: ip_sum,
            transport: self.transport_sum,
        };
        match replace_quoted(skb.raw(), at as u32, u32::from(new), sums.pack()) {
            0 => Ok(()),
            _ => Err(DropReason::Malformed),
        }
    }
}

/// The checksums that cover two quoted bytes; zero where there is none.
struct Sums {
    error: usize,
    ip: usize,
    transport: usize,
}

/// Greater than every offset in an error, as far as it is read: so the verifier knows.
const OFFSETS: usize = 512;

impl Sums {
    /// All in one number: a global function takes no more.
    #[inline(always)]
    const fn pack(&self) -> u64 {
        (self.error as u64) << 32 | (self.ip as u64) << 16 | self.transport as u64
    }

    #[inline(always)]
    const fn unpack(word: u64) -> Self {
        Sums {
            error: (word >> 32) as usize % OFFSETS,
            ip: (word >> 16) as usize % OFFSETS,
            transport: word as usize % OFFSETS,
        }
    }

    /// Corrects a quoted checksum for two bytes that have changed (RFC 1624, equation 3).
    #[inline(always)]
    fn correct(&self, skb: &mut Skb, sum: usize, old: u16, new: u16) -> Result<(), DropReason> {
        if sum == 0 {
            return Ok(());
        }
        // Not quoted, or a datagram without.
        let Some(checksum) = skb.window::<2>(sum).map(|window| window.half::<0>()) else {
            return Ok(());
        };
        if checksum == 0 {
            return Ok(());
        }
        let (old, new) = (u16::from_be(old), u16::from_be(new));
        let folded = u32::from(!u16::from_be(checksum)) + u32::from(!old) + u32::from(new);
        self.write(skb, sum, fold_checksum(folded).to_be())?;
        Ok(())
    }

    /// Writes two bytes, and corrects the error's checksum; returns what they were.
    #[inline(always)]
    fn write(&self, skb: &mut Skb, at: usize, new: u16) -> Result<u16, DropReason> {
        let old = skb
            .window::<2>(at)
            .ok_or(DropReason::Malformed)?
            .half::<0>();
        if old != new {
            let (from, to) = (u32::from(old), u32::from(new));
            skb.correct_transport_checksum(self.error, from, to, 2)?;
            skb.window_mut::<2>(at)?.set_half::<0>(new);
        }
        Ok(old)
    }
}

/// Writes two bytes of a quoted packet and corrects what covers them. Returns zero, or not when the
/// packet ends before them.
///
/// A global function, as [`restore`]: it is called for each two bytes of four addresses.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn replace_quoted(context: *mut __sk_buff, at: u32, new: u32, sums: u64) -> u32 {
    let mut skb = Skb::from_raw(context, false);
    let (sums, new) = (Sums::unpack(sums), new as u16);
    let replaced = sums
        .write(&mut skb, at as usize % OFFSETS, new)
        .and_then(|old| match old == new {
            true => Ok(()),
            false => {
                sums.correct(&mut skb, sums.ip, old, new)?;
                sums.correct(&mut skb, sums.transport, old, new)
            }
        });
    u32::from(replaced.is_err())
}

/// Two bytes of an address, in memory order.
#[inline(always)]
fn half(address: &Address, index: usize) -> u16 {
    let word = address.0[(index / 2) & 3];
    // The first two bytes in memory are the lower half of a word: the target is little-endian.
    (word >> (16 * (index & 1))) as u16
}
