//! What is remembered of a datagram's first fragment, for those after it.

use crate::{
    address::Address,
    headers::{Family, Headers, Parsed},
};

/// Which datagram a fragment belongs to (RFC 791, 3.2; RFC 8200, 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct FragmentKey {
    /// VXLAN network identifier in the upper 24 bits, IP protocol in the lower 8.
    pub network_protocol: u32,
    /// The datagram's identification.
    pub id: u32,
    /// Source address.
    pub src: Address,
    /// Destination address.
    pub dst: Address,
}

/// What the first fragment has and the others have not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct FragmentPorts {
    /// Source port, host order.
    pub src_port: u16,
    /// Destination port, host order.
    pub dst_port: u16,
    /// ICMP identifier.
    pub icmp_id: u16,
    /// ICMP type.
    pub icmp_type: u8,
    /// ICMP code.
    pub icmp_code: u8,
}

const _: () = assert!(size_of::<FragmentKey>() == 40);
const _: () = assert!(size_of::<FragmentPorts>() == 8);

impl FragmentKey {
    /// The key of a fragment.
    #[inline(always)]
    #[must_use]
    pub fn new(network: u32, parsed: &Parsed) -> Self {
        FragmentKey {
            network_protocol: network << 8 | u32::from(parsed.headers.protocol),
            id: parsed.fragment_id,
            src: parsed.headers.src,
            dst: parsed.headers.dst,
        }
    }
}

impl FragmentPorts {
    /// Those of a first fragment.
    #[inline(always)]
    #[must_use]
    pub fn new(headers: &Headers) -> Self {
        FragmentPorts {
            src_port: headers.src_port,
            dst_port: headers.dst_port,
            icmp_id: headers.icmp_id,
            icmp_type: headers.icmp_type,
            icmp_code: headers.icmp_code,
        }
    }

    /// Puts them into the headers of a later fragment.
    #[inline(always)]
    pub fn give(&self, headers: &mut Headers) {
        if headers.family == Family::None {
            return;
        }
        headers.src_port = self.src_port;
        headers.dst_port = self.dst_port;
        headers.icmp_id = self.icmp_id;
        headers.icmp_type = self.icmp_type;
        headers.icmp_code = self.icmp_code;
    }
}
