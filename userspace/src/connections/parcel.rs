//! Connections on their way to another node.
//!
//! An endpoint's connections move with it. What travels has no number of a node's own: addresses,
//! ports, what was seen, for how long it is silent, and what balancing and translation have decided.
//! The verdict does not travel: the policy decides anew where the endpoint arrives.
//!
//! ```text
//!  0      4       5    6     8         12            16
//!  +------+-------+----+-----+---------+-------------+--------------------+----------------+
//!  | SWFL |version|kind|count| sequence| zero        | `count` connections| BLAKE3, 16 B   |
//!  +------+-------+----+-----+---------+-------------+--------------------+----------------+
//!
//!  connection: what (1) protocol (1) sent (1) received (1) local port (2) remote port (2)
//!              silent ms (8) bucket (4) local (4|16) remote (4|16) [port (2) address (4|16)]
//!  what:       bit 0 IPv6, bit 1 gone, bit 2 translated (the last two fields are there)
//! ```
//!
//! Numbers are big endian. A parcel is bounded ([`CONNECTIONS_MAX`]), so a large table is many of
//! them, each checked by itself; their order does not matter but for the first one of a whole table.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Connections of a parcel, at most.
pub const CONNECTIONS_MAX: usize = 512;
/// Version of the layout.
const VERSION: u8 = 1;
const MAGIC: [u8; 4] = *b"SWFL";
const HEADER_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 16;

const IS_V6: u8 = 1 << 0;
const IS_GONE: u8 = 1 << 1;
const IS_TRANSLATED: u8 = 1 << 2;

/// What tells a connection of an endpoint from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ends {
    /// IP protocol.
    pub protocol: u8,
    /// The endpoint's address.
    pub local: IpAddr,
    /// The other side's.
    pub remote: IpAddr,
    /// The endpoint's port; of an ICMP echo, its identifier.
    pub local_port: u16,
    /// The other side's, likewise.
    pub remote_port: u16,
}

/// A connection of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Which.
    pub ends: Ends,
    /// What the endpoint has sent, bits of `sunwire_dataplane_common::flow::seen`.
    pub sent: u8,
    /// What was delivered to it.
    pub received: u8,
    /// For how long nothing was heard of it, ms.
    pub silent_ms: u64,
    /// The other side as the endpoint knows it, when the policy has translated it.
    pub translated: Option<(IpAddr, u16)>,
    /// The bucket that balancing chose.
    pub bucket: u32,
}

/// Some connections of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// Whether this is of a whole table, and not of what has changed since.
    pub is_whole: bool,
    /// Which one it is, from zero.
    pub sequence: u32,
    /// Connections that are.
    pub connections: Vec<Connection>,
    /// Connections that are no more.
    pub gone: Vec<Ends>,
}

/// Bytes that are no parcel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParcelError {
    /// They are cut short, or go on after the end.
    #[error("connections do not arrive whole: {bytes} bytes do not hold them")]
    Length {
        /// How many there are.
        bytes: usize,
    },
    /// They are something else.
    #[error("these are no connections")]
    Magic,
    /// A newer version made them.
    #[error(
        "connections come in version {found} of their layout; this node reads version {VERSION}"
    )]
    Version {
        /// What they say.
        found: u8,
    },
    /// They have changed on the way.
    #[error("connections were damaged on the way: their checksum is another")]
    Checksum,
    /// A field has a value that it cannot have.
    #[error("connections have a bad {field}")]
    Field {
        /// Which field.
        field: &'static str,
    },
}

impl Parcel {
    /// Parcels of all these connections, at least one.
    #[must_use]
    pub fn pack(is_whole: bool, connections: Vec<Connection>, gone: Vec<Ends>) -> Vec<Parcel> {
        let mut parcels = Vec::new();
        let mut push = |connections: Vec<Connection>, gone: Vec<Ends>| {
            let sequence = parcels.len() as u32;
            parcels.push(Parcel {
                is_whole,
                sequence,
                connections,
                gone,
            });
        };
        if connections.is_empty() && gone.is_empty() {
            push(Vec::new(), Vec::new());
        }
        for some in connections.chunks(CONNECTIONS_MAX) {
            push(some.to_vec(), Vec::new());
        }
        for some in gone.chunks(CONNECTIONS_MAX) {
            push(Vec::new(), some.to_vec());
        }
        parcels
    }

    /// The bytes that travel.
    ///
    /// # Panics
    /// When there are more than [`CONNECTIONS_MAX`], which [`Parcel::pack`] never makes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let count = self.connections.len() + self.gone.len();
        assert!(count <= CONNECTIONS_MAX, "a parcel is bounded");
        let mut bytes = Vec::with_capacity(HEADER_BYTES + CHECKSUM_BYTES + count * 72);
        bytes.extend(MAGIC);
        bytes.extend([VERSION, u8::from(self.is_whole)]);
        bytes.extend((count as u16).to_be_bytes());
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend([0; 4]);
        for connection in &self.connections {
            write(&mut bytes, connection, 0);
        }
        for ends in &self.gone {
            let connection = Connection {
                ends: *ends,
                sent: 0,
                received: 0,
                silent_ms: 0,
                translated: None,
                bucket: 0,
            };
            write(&mut bytes, &connection, IS_GONE);
        }
        let checksum = blake3::hash(&bytes);
        bytes.extend(&checksum.as_bytes()[..CHECKSUM_BYTES]);
        bytes
    }

    /// Reads a parcel.
    ///
    /// # Errors
    /// [`ParcelError`] when the bytes are anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ParcelError> {
        let length = ParcelError::Length { bytes: bytes.len() };
        let end = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or(length)?;
        let (content, checksum) = bytes.split_at(end);
        let mut reader = Reader(content);
        let magic: [u8; 4] = reader.take().ok_or(length)?;
        if magic != MAGIC {
            return Err(ParcelError::Magic);
        }
        let [version, kind] = reader.take().ok_or(length)?;
        if version != VERSION {
            return Err(ParcelError::Version { found: version });
        }
        if blake3::hash(content).as_bytes()[..CHECKSUM_BYTES] != *checksum {
            return Err(ParcelError::Checksum);
        }
        let count = usize::from(u16::from_be_bytes(reader.take().ok_or(length)?));
        let sequence = u32::from_be_bytes(reader.take().ok_or(length)?);
        let zero: [u8; 4] = reader.take().ok_or(length)?;
        for (field, is_bad) in [
            ("kind", kind > 1),
            ("count", count > CONNECTIONS_MAX),
            ("header", zero != [0; 4]),
        ] {
            if is_bad {
                return Err(ParcelError::Field { field });
            }
        }
        let mut parcel = Parcel {
            is_whole: kind == 1,
            sequence,
            connections: Vec::new(),
            gone: Vec::new(),
        };
        for _ in 0..count {
            let (connection, what) = reader.connection().ok_or(length)?;
            if what & !(IS_V6 | IS_GONE | IS_TRANSLATED) != 0 {
                return Err(ParcelError::Field { field: "what" });
            }
            if what & IS_GONE != 0 {
                parcel.gone.push(connection.ends);
            } else {
                parcel.connections.push(connection);
            }
        }
        if !reader.0.is_empty() {
            return Err(length);
        }
        Ok(parcel)
    }
}

fn write(bytes: &mut Vec<u8>, connection: &Connection, what: u8) {
    let ends = &connection.ends;
    let mut what = what;
    if ends.local.is_ipv6() {
        what |= IS_V6;
    }
    if connection.translated.is_some() {
        what |= IS_TRANSLATED;
    }
    bytes.extend([what, ends.protocol, connection.sent, connection.received]);
    bytes.extend(ends.local_port.to_be_bytes());
    bytes.extend(ends.remote_port.to_be_bytes());
    bytes.extend(connection.silent_ms.to_be_bytes());
    bytes.extend(connection.bucket.to_be_bytes());
    write_address(bytes, ends.local);
    write_address(bytes, ends.remote);
    if let Some((address, port)) = connection.translated {
        bytes.extend(port.to_be_bytes());
        write_address(bytes, address);
    }
}

fn write_address(bytes: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => bytes.extend(address.octets()),
        IpAddr::V6(address) => bytes.extend(address.octets()),
    }
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn address(&mut self, is_v6: bool) -> Option<IpAddr> {
        Some(if is_v6 {
            Ipv6Addr::from(self.take::<16>()?).into()
        } else {
            Ipv4Addr::from(self.take::<4>()?).into()
        })
    }

    fn connection(&mut self) -> Option<(Connection, u8)> {
        let [what, protocol, sent, received] = self.take()?;
        let is_v6 = what & IS_V6 != 0;
        let local_port = u16::from_be_bytes(self.take()?);
        let remote_port = u16::from_be_bytes(self.take()?);
        let silent_ms = u64::from_be_bytes(self.take()?);
        let bucket = u32::from_be_bytes(self.take()?);
        let (local, remote) = (self.address(is_v6)?, self.address(is_v6)?);
        let translated = if what & IS_TRANSLATED != 0 {
            let port = u16::from_be_bytes(self.take()?);
            Some((self.address(is_v6)?, port))
        } else {
            None
        };
        let ends = Ends {
            protocol,
            local,
            remote,
            local_port,
            remote_port,
        };
        let connection = Connection {
            ends,
            sent,
            received,
            silent_ms,
            translated,
            bucket,
        };
        Some((connection, what))
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn address(is_v6: bool) -> BoxedStrategy<IpAddr> {
        if is_v6 {
            any::<[u8; 16]>()
                .prop_map(|bytes| Ipv6Addr::from(bytes).into())
                .boxed()
        } else {
            any::<[u8; 4]>()
                .prop_map(|bytes| Ipv4Addr::from(bytes).into())
                .boxed()
        }
    }

    fn connection() -> impl Strategy<Value = Connection> {
        any::<bool>().prop_flat_map(|is_v6| {
            let ends = (
                any::<u8>(),
                address(is_v6),
                address(is_v6),
                any::<(u16, u16)>(),
            );
            let translated = proptest::option::of((address(is_v6), any::<u16>()));
            let rest = (any::<u8>(), any::<u8>(), any::<u64>(), any::<u32>());
            (ends, translated, rest).prop_map(
                |(
                    (protocol, local, remote, ports),
                    translated,
                    (sent, received, silent_ms, bucket),
                )| {
                    let ends = Ends {
                        protocol,
                        local,
                        remote,
                        local_port: ports.0,
                        remote_port: ports.1,
                    };
                    Connection {
                        ends,
                        sent,
                        received,
                        silent_ms,
                        translated,
                        bucket,
                    }
                },
            )
        })
    }

    proptest! {
        #[test]
        fn what_is_packed_arrives(
            is_whole: bool,
            connections in vec(connection(), 0..8),
            gone in vec(connection(), 0..4),
        ) {
            let gone: Vec<Ends> = gone.iter().map(|connection| connection.ends).collect();
            let parcels = Parcel::pack(is_whole, connections.clone(), gone.clone());
            let mut arrived = (Vec::new(), Vec::new());
            for (number, parcel) in parcels.iter().enumerate() {
                let read = Parcel::from_bytes(&parcel.to_bytes()).unwrap();
                prop_assert_eq!(&read, parcel);
                prop_assert_eq!((read.is_whole, read.sequence), (is_whole, number as u32));
                arrived.0.extend(read.connections);
                arrived.1.extend(read.gone);
            }
            prop_assert_eq!(arrived, (connections, gone));
        }

        #[test]
        fn nothing_else_is_taken_for_a_parcel(bytes in vec(any::<u8>(), 0..200)) {
            prop_assert!(Parcel::from_bytes(&bytes).is_err());
        }

        #[test]
        fn a_parcel_that_was_changed_or_cut_is_refused(
            connections in vec(connection(), 1..4),
            at: prop::sample::Index,
            flip in 1..=255u8,
        ) {
            let whole = Parcel::pack(true, connections, Vec::new())[0].to_bytes();
            let mut bytes = whole.clone();
            bytes[at.index(whole.len())] ^= flip;
            prop_assert!(Parcel::from_bytes(&bytes).is_err());
            prop_assert!(Parcel::from_bytes(&whole[..at.index(whole.len())]).is_err());
        }
    }

    #[test]
    fn the_layout_is_the_one_that_other_versions_read() {
        let connection = Connection {
            ends: Ends {
                protocol: 6,
                local: Ipv4Addr::new(10, 0, 0, 1).into(),
                remote: Ipv4Addr::new(10, 0, 0, 2).into(),
                local_port: 443,
                remote_port: 40_000,
            },
            sent: 3,
            received: 1,
            silent_ms: 1500,
            translated: Some((Ipv4Addr::new(192, 0, 2, 9).into(), 80)),
            bucket: 7,
        };
        let parcel = &Parcel::pack(true, vec![connection], Vec::new())[0];
        let bytes = parcel.to_bytes();
        let expected = [
            0x53, 0x57, 0x46, 0x4c, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, // header
            4, 6, 3, 1, 0x01, 0xbb, 0x9c, 0x40, // what it is
            0, 0, 0, 0, 0, 0, 0x05, 0xdc, 0, 0, 0, 7, // silent, bucket
            10, 0, 0, 1, 10, 0, 0, 2, // the ends
            0, 80, 192, 0, 2, 9, // translated
        ];
        assert_eq!(bytes[..bytes.len() - CHECKSUM_BYTES], expected);
    }

    #[test]
    fn a_large_table_is_many_bounded_parcels() {
        let ends = |number: u32| Ends {
            protocol: 17,
            local: Ipv4Addr::LOCALHOST.into(),
            remote: Ipv4Addr::from(number).into(),
            local_port: 1,
            remote_port: 2,
        };
        let parcels = Parcel::pack(false, Vec::new(), (0..2000).map(ends).collect());
        assert_eq!(parcels.len(), 4);
        assert!(
            parcels
                .iter()
                .all(|parcel| parcel.gone.len() <= CONNECTIONS_MAX)
        );
        // Also nothing is said: that there is nothing.
        assert_eq!(Parcel::pack(true, Vec::new(), Vec::new()).len(), 1);
    }
}
