//! The walk of the flow tables by the kernel: how many probes a packet makes and what a packet costs,
//! as the rules grow.
//!
//! Real policies are compiled and installed as an agent does it, and the kernel runs the endpoint
//! program on packets that meet their rules (`BPF_PROG_TEST_RUN`). A packet that meets a rule is
//! dropped by it, so a figure is the whole way of a packet up to its verdict: parsing, anti-spoof,
//! classes, walk, counters.
//!
//! *Hot* is one key again and again within one call of the kernel. *Random* keys go over all rules,
//! one call for each, because a call repeats one packet; what a call adds is taken off again by
//! comparison with a hot key that has calls of its own: `hot + (random alone - hot alone)`.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use sunwire_dataplane_common::address::{Address, Mac};
use sunwire_userspace::dataplane::{Dataplane, Surroundings};
use sunwire_userspace::maps::Capacity;
use sunwire_userspace::netlink;
use sunwire_userspace::state::{Desired, Endpoint, Network, Node};

use super::rules::{self, Key, Rules, VNI};
use crate::bench::dataplane::{BPF_DIRECTORY, own_bpf_file_system};
use crate::bench::namespace::Namespace;
use crate::bench::tables;
use crate::bench::veth::{self, End};

/// Numbers of rules that are measured.
pub const RULES: [usize; 3] = [10, 1_000, 100_000];

const OWN: u32 = 1;
const VTEP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const MTU: u32 = 1_300;
/// Bytes of `struct __sk_buff`, and where in it a test says the ifindex.
const CONTEXT_BYTES: usize = 192;
const IFINDEX: usize = 40;
/// TC_ACT_SHOT.
const DROPPED: u32 = 2;

/// What was measured of one policy.
#[derive(Clone, Debug)]
pub struct Walk {
    /// Rules of the policy.
    pub rules: usize,
    /// Inner nodes of its tables.
    pub table_nodes: usize,
    /// Exact edges of its tables.
    pub table_edges: usize,
    /// Compiling it, in milliseconds of wall-clock time.
    pub compile_ms: f64,
    /// Installing it in the kernel, the same.
    pub install_ms: f64,
    /// Nodes that packets visit, one probe each: mean over the random keys.
    pub probes_mean: f64,
    /// The most of them.
    pub probes_max: u32,
    /// A packet whose key is always the same, in nanoseconds.
    pub hot_ns: f64,
    /// A packet whose key is any rule's, in nanoseconds.
    pub random_ns: f64,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Packets within the one call for the hot key.
    pub repeats: u32,
    /// Random keys, and calls for the hot key alone.
    pub keys: usize,
    /// Times that both are done; medians are taken.
    pub rounds: usize,
    /// Seed of the random keys.
    pub seed: u64,
}

impl Default for Effort {
    fn default() -> Self {
        Effort {
            repeats: 1_000_000,
            keys: 20_000,
            rounds: 7,
            seed: 1,
        }
    }
}

/// Measures policies of `rules` rules each. Mounts a BPF file system that only the calling thread
/// and those it starts see.
///
/// # Errors
/// When a policy cannot be compiled or installed, or a packet does not meet the rule it is for.
pub fn run(rules: &[usize], effort: Effort) -> Result<Vec<Walk>> {
    own_bpf_file_system()?;
    let measured = rules.iter().map(|count| {
        measure(&Rules::new(*count), effort).with_context(|| format!("with {count} rules"))
    });
    measured.collect()
}

fn measure(rules: &Rules, effort: Effort) -> Result<Walk> {
    let start = Instant::now();
    let tables = rules.compile()?;
    let compile_ms = milliseconds(start);
    let namespace = Namespace::new()?;
    for number in 1..=rules.endpoints {
        connect(&namespace, number)?;
    }
    let devices = namespace.netlink(async |handle| Ok(netlink::devices(handle).await?))?;
    let around = Surroundings {
        devices,
        ..Surroundings::default()
    };
    let mut desired = cloud(rules);
    tables::install(&tables, VNI, &mut desired);
    namespace.run(|| {
        let directory = Path::new(BPF_DIRECTORY).join(format!("walk-{}", rules.count()));
        let mut dataplane = Dataplane::load(&directory, Capacity::default())?;
        let start = Instant::now();
        dataplane.apply(&desired, OWN, VTEP, &around)?;
        let install_ms = milliseconds(start);

        let keys: Vec<Key> = Random(effort.seed)
            .take(effort.keys)
            .map(|number| rules.key(number as usize % rules.count()))
            .collect();
        let probes = keys.iter().map(|key| rules::probes(&tables, *key));
        let probes: Vec<u32> = probes.collect();
        let packets: Vec<Packet> = keys
            .iter()
            .map(|key| Packet::new(*key, around.devices[&device(key.from)].ifindex))
            .collect();
        let program = dataplane.endpoint_program()?;
        let hot = packets.first().context("at least one key is needed")?;
        let (mut hots, mut randoms) = (Vec::new(), Vec::new());
        for _ in 0..effort.rounds {
            let together = hot.run(program, effort.repeats)?;
            let alone = (0..effort.keys).map(|_| hot.run(program, 1));
            let alone = median(alone.collect::<Result<_>>()?);
            let random = packets.iter().map(|packet| packet.run(program, 1));
            let random = median(random.collect::<Result<_>>()?);
            hots.push(together);
            randoms.push(together + random - alone);
        }
        Ok(Walk {
            rules: rules.count(),
            table_nodes: tables.nodes.len(),
            table_edges: tables.nodes.values().map(|node| node.edges.len()).sum(),
            compile_ms,
            install_ms,
            probes_mean: f64::from(probes.iter().sum::<u32>()) / probes.len() as f64,
            probes_max: probes.iter().copied().max().unwrap_or(0),
            hot_ns: median(hots),
            random_ns: median(randoms),
        })
    })
}

/// The host-side device of an endpoint.
fn device(number: u32) -> String {
    format!("host{number}")
}

fn connect(namespace: &Namespace, number: u32) -> Result<()> {
    let (host, workload) = (device(number), format!("work{number}"));
    let end = |name, mac| End {
        namespace,
        name,
        mac,
        address: None,
    };
    let mut host_mac = rules::mac(number);
    host_mac[1] ^= 1;
    veth::connect(
        &end(&host, host_mac),
        &end(&workload, rules::mac(number)),
        MTU,
    )
}

/// One node with all endpoints, and no policy yet.
fn cloud(rules: &Rules) -> Desired {
    let mut desired = Desired::default();
    let node = Node::without_key("node1", VTEP);
    desired.nodes.insert(OWN, node);
    let network = Network {
        outbound: 0,
        encryption: Default::default(),
        relayed: false,
        enforced: false,
        checksum: false,
        port: sunwire_dataplane_common::vxlan::PORT,
        peers: Vec::new(),
        name: "bench".to_owned(),
        mtu: MTU,
        gateway_v4: Address::v4([10, 255, 255, 254]),
        gateway_v6: Address::ZERO,
        gateway_mac: Mac::new([2, 0, 0, 20, 255, 254]),
        prefix_v4: 8,
        prefix_v6: 0,
    };
    desired.networks.insert(VNI, network);
    for number in 1..=rules.endpoints {
        let endpoint = Endpoint {
            name: format!("e{number}"),
            vni: VNI,
            device: device(number),
            mac: Mac::new(rules::mac(number)),
            ipv4: Address::v4(rules::address(number).octets()),
            ipv6: Address::ZERO,
            node: OWN,
            other: 0,
            moving: false,
            epoch: 1,
        };
        desired.endpoints.insert(number, endpoint);
    }
    desired
}

/// A TCP packet and where it enters.
struct Packet {
    frame: Vec<u8>,
    context: [u8; CONTEXT_BYTES],
}

impl Packet {
    fn new(key: Key, ifindex: u32) -> Self {
        let mut frame = Vec::new();
        frame.extend(rules::mac(key.to));
        frame.extend(rules::mac(key.from));
        frame.extend(0x0800_u16.to_be_bytes());
        // Version and header length, 40 bytes in all, TTL 64, TCP. Nobody reads the checksums of a
        // packet that is dropped.
        frame.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
        frame.extend(rules::address(key.from).octets());
        frame.extend(rules::address(key.to).octets());
        frame.extend(40_000_u16.to_be_bytes());
        frame.extend(key.port.to_be_bytes());
        // Sequence, acknowledgement, header length, ACK, window, checksum, urgent pointer.
        frame.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 2, 0, 0, 0, 0, 0]);
        let mut context = [0; CONTEXT_BYTES];
        context[IFINDEX..IFINDEX + 4].copy_from_slice(&ifindex.to_ne_bytes());
        Packet { frame, context }
    }

    /// Nanoseconds of one run, the mean of `repeats`.
    fn run(&self, program: &SchedClassifier, repeats: u32) -> Result<f64> {
        let result = program.test_run(TestRunOptions {
            data_in: Some(&self.frame),
            ctx_in: Some(&self.context),
            repeat: repeats,
            ..TestRunOptions::default()
        })?;
        ensure!(
            result.return_value == DROPPED,
            "the packet met no rule: the program returned {}",
            result.return_value
        );
        Ok(result.duration.as_nanos() as f64)
    }
}

/// Marsaglia's xorshift64 (J. Stat. Softw. 8/14, 2003): the same keys for the same seed.
struct Random(u64);

impl Iterator for Random {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        // Zero would stay zero.
        self.0 = self.0.max(1);
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        Some(self.0)
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn milliseconds(start: Instant) -> f64 {
    let taken: Duration = start.elapsed();
    taken.as_secs_f64() * 1e3
}
