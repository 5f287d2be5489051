//! What is measured.

/// A workload and the figure that is read off it; more is better in all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Bytes received over one TCP connection.
    Tcp1,
    /// Bytes received over four TCP connections.
    Tcp4,
    /// Datagrams of 64 bytes received from one sender.
    UdpSmall,
    /// The same from as many ports as [`FLOWS`], in turn.
    UdpSmall16k,
    /// Datagrams of 64 bytes of one flow in both directions at once.
    UdpTwoWay,
    /// One byte there and one back by UDP, one at a time.
    UdpRr,
    /// One byte there and one back over one TCP connection, one at a time.
    TcpRr,
    /// A TCP connection made, one byte there and one back, and the connection ended, one at a time.
    TcpCrr,
}

/// Payload of a datagram where many are sent, bytes.
pub(super) const DATAGRAM_BYTES: usize = 64;
/// Flows of [`Metric::UdpSmall16k`].
pub const FLOWS: u16 = 16_000;

impl Metric {
    /// All metrics, in the order they are measured.
    pub const ALL: [Metric; 8] = [
        Metric::Tcp1,
        Metric::Tcp4,
        Metric::UdpSmall,
        Metric::UdpSmall16k,
        Metric::UdpTwoWay,
        Metric::UdpRr,
        Metric::TcpRr,
        Metric::TcpCrr,
    ];

    /// The name in results; the unit is its end.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Metric::Tcp1 => "tcp1_gbps",
            Metric::Tcp4 => "tcp4_gbps",
            Metric::UdpSmall => "udp_small_pps",
            Metric::UdpSmall16k => "udp_small_16k_pps",
            Metric::UdpTwoWay => "udp_two_way_pps",
            Metric::UdpRr => "udp_rr_per_s",
            Metric::TcpRr => "tcp_rr_per_s",
            Metric::TcpCrr => "tcp_crr_per_s",
        }
    }

    /// The unit of the value.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Metric::Tcp1 | Metric::Tcp4 => "Gbit/s",
            Metric::UdpSmall | Metric::UdpSmall16k | Metric::UdpTwoWay => "packets/s",
            Metric::UdpRr | Metric::TcpRr | Metric::TcpCrr => "transactions/s",
        }
    }

    /// Whether client and server wait for each other.
    #[must_use]
    pub const fn takes_turns(self) -> bool {
        matches!(self, Metric::UdpRr | Metric::TcpRr | Metric::TcpCrr)
    }

    /// Samples of a figure in a whole run. Differences of single requests are small: more of them.
    #[must_use]
    pub const fn rounds(self) -> usize {
        match self {
            Metric::UdpRr | Metric::TcpRr => 15,
            _ => 7,
        }
    }

    /// Flows at the same time.
    #[must_use]
    pub const fn flows(self) -> u64 {
        match self {
            Metric::UdpSmall16k => FLOWS as u64,
            Metric::Tcp4 => 4,
            _ => 1,
        }
    }

    /// The value for `count` (bytes for TCP streams, else datagrams or transactions) in `seconds`.
    #[must_use]
    pub fn value(self, count: u64, seconds: f64) -> f64 {
        let per_second = count as f64 / seconds;
        match self {
            Metric::Tcp1 | Metric::Tcp4 => per_second * 8.0 / 1e9,
            _ => per_second,
        }
    }

    /// How many packets, or transactions, the value 1 stands for; of streams, full segments of
    /// 1,448 bytes.
    #[must_use]
    pub const fn packets_per_unit(self) -> f64 {
        match self {
            Metric::Tcp1 | Metric::Tcp4 => 1e9 / 8.0 / 1448.0,
            _ => 1.0,
        }
    }

    /// What [`Metric::packets_per_unit`] counts.
    #[must_use]
    pub const fn packet_name(self) -> &'static str {
        match self {
            Metric::Tcp1 | Metric::Tcp4 => "1,448 bytes",
            Metric::UdpSmall | Metric::UdpSmall16k | Metric::UdpTwoWay => "datagram",
            Metric::UdpRr | Metric::TcpRr | Metric::TcpCrr => "transaction",
        }
    }

    /// The least bytes in IP packets, both directions together, that must have crossed for `count`.
    /// Headers of streams and acknowledgements, which may be merged, are left out.
    #[must_use]
    pub const fn least_bytes(self, count: u64) -> u64 {
        const UDP: u64 = 20 + 8;
        const TCP: u64 = 20 + 20;
        match self {
            Metric::Tcp1 | Metric::Tcp4 => count,
            Metric::UdpSmall | Metric::UdpSmall16k | Metric::UdpTwoWay => {
                count * (UDP + DATAGRAM_BYTES as u64)
            }
            Metric::UdpRr => count * 2 * (UDP + 1),
            Metric::TcpRr => count * 2 * (TCP + 1),
            // SYN and SYN-ACK, the two bytes, two FINs.
            Metric::TcpCrr => count * (6 * TCP + 2),
        }
    }
}
