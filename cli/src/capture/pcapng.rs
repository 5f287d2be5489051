//! Captured packets as pcap-ng: every node an interface, what became of a packet its comment.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use anyhow::Context as _;
use pcap_file::DataLink;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use sunwire_api::{CapturedPacket, Flow, from_hex};

/// A pcap-ng file in the making. What is in it is whole after every packet.
pub(super) struct Capture {
    writer: PcapNgWriter<Whole>,
    /// Interfaces by node, in the order of their blocks.
    interfaces: BTreeMap<String, u32>,
    bytes: u32,
}

/// Collects a block, so that it is written by one call: who reads a pipe sees whole packets.
struct Whole {
    out: Box<dyn Write + Send>,
    block: Vec<u8>,
}

impl Write for Whole {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.block.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.write_all(&self.block)?;
        self.block.clear();
        self.out.flush()
    }
}

impl Capture {
    pub(super) fn new(out: Box<dyn Write + Send>, bytes: u32) -> anyhow::Result<Self> {
        let block = Vec::new();
        let mut writer = PcapNgWriter::new(Whole { out, block })?;
        writer.get_mut().flush()?;
        Ok(Capture {
            writer,
            interfaces: BTreeMap::new(),
            bytes,
        })
    }

    pub(super) fn write(&mut self, packet: &CapturedPacket) -> anyhow::Result<()> {
        let frame = from_hex(&packet.frame).context("a captured frame is not hexadecimal")?;
        let interface_id = self.interface(&packet.flow.node)?;
        let block = EnhancedPacketBlock {
            interface_id,
            timestamp: Duration::from_nanos(packet.flow.time_unix_ns),
            original_len: packet.length,
            data: Cow::Owned(frame),
            options: vec![EnhancedPacketOption::Comment(Cow::Owned(comment(
                &packet.flow,
            )))],
        };
        self.writer.write_pcapng_block(block)?;
        self.writer.get_mut().flush()?;
        Ok(())
    }

    fn interface(&mut self, node: &str) -> anyhow::Result<u32> {
        if let Some(id) = self.interfaces.get(node) {
            return Ok(*id);
        }
        let id = self.interfaces.len() as u32;
        let block = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: self.bytes,
            options: vec![
                InterfaceDescriptionOption::IfName(Cow::Owned(node.to_owned())),
                // Nanoseconds.
                InterfaceDescriptionOption::IfTsResol(9),
            ],
        };
        self.writer.write_pcapng_block(block)?;
        self.interfaces.insert(node.to_owned(), id);
        Ok(id)
    }
}

/// What became of a packet: verdict, reason, label, node, and where it went.
fn comment(flow: &Flow) -> String {
    let mut parts = vec![format!("verdict={}", flow.verdict.name())];
    let mut add = |name: &str, value: &Option<String>| {
        if let Some(value) = value {
            parts.push(format!("{name}={value}"));
        }
    };
    add("reason", &flow.reason);
    add("label", &flow.label);
    add("wire", &flow.wire);
    add("network", &flow.network);
    add("from", &flow.from.endpoint);
    add("to", &flow.to.endpoint);
    add("destination", &flow.destination);
    add("egress", &flow.egress);
    add("previous-node", &flow.previous_node);
    add("next-node", &flow.next_node);
    parts.push(format!("node={}", flow.node));
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::{Arc, Mutex};

    use pcap_file::pcapng::{Block, PcapNgReader};
    use sunwire_api::{FlowCause, FlowEnd, FlowEntry, FlowVerdict, to_hex};

    use super::*;

    /// What is written, shared with the test.
    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A UDP packet from 10.20.0.1 to 10.20.0.2, port 53.
    fn packet(node: &str, time_unix_ns: u64) -> CapturedPacket {
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
        frame.extend([0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, 17, 0x26, 0xa9]);
        frame.extend([10, 20, 0, 1, 10, 20, 0, 2]);
        frame.extend([0x9c, 0x40, 0, 53, 0, 8, 0, 0]);
        let flow = Flow {
            time_unix_ns,
            node: node.to_owned(),
            causes: vec![FlowCause::Capture],
            verdict: FlowVerdict::Dropped,
            reason: Some("policy".to_owned()),
            label: Some("default deny".to_owned()),
            log: None,
            network: Some("shop".to_owned()),
            wire: None,
            entry: FlowEntry::Endpoint,
            from: FlowEnd::default(),
            to: FlowEnd::default(),
            ether_type: None,
            protocol: Some(17),
            tcp_flags: None,
            icmp: None,
            connection: None,
            destination: None,
            egress: None,
            next_node: None,
            previous_node: None,
            tunnel_rtt_s: None,
            bytes: frame.len() as u32,
            packets: 1,
        };
        let length = frame.len() as u32 + 100;
        CapturedPacket {
            flow,
            frame: to_hex(&frame),
            length,
        }
    }

    fn captured() -> Vec<u8> {
        let shared = Shared::default();
        let mut capture = Capture::new(Box::new(shared.clone()), 256).unwrap();
        for (node, time) in [
            ("near", 1_700_000_000_123_456_789),
            ("far", 1_700_000_001_000_000_001),
            ("near", 1_700_000_002_000_000_000),
        ] {
            let before = shared.0.lock().unwrap().len();
            capture.write(&packet(node, time)).unwrap();
            assert!(
                shared.0.lock().unwrap().len() > before,
                "nothing waits in between"
            );
        }
        drop(capture);
        Arc::into_inner(shared.0).unwrap().into_inner().unwrap()
    }

    #[test]
    fn a_capture_is_read_back_with_comments_times_and_nodes() {
        let bytes = captured();
        let mut reader = PcapNgReader::new(&bytes[..]).unwrap();
        let (mut nodes, mut packets) = (Vec::new(), Vec::new());
        while let Some(block) = reader.next_block() {
            match block.unwrap() {
                Block::InterfaceDescription(interface) => {
                    assert_eq!(interface.linktype, DataLink::ETHERNET);
                    for option in &interface.options {
                        if let InterfaceDescriptionOption::IfName(name) = option {
                            nodes.push(name.to_string());
                        }
                    }
                }
                Block::EnhancedPacket(packet) => {
                    let EnhancedPacketOption::Comment(comment) = &packet.options[0] else {
                        panic!("{packet:?}");
                    };
                    assert_eq!(packet.original_len, 142);
                    packets.push((packet.interface_id, comment.to_string()));
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(nodes, ["near", "far"]);
        let interfaces: Vec<u32> = packets.iter().map(|(id, _)| *id).collect();
        assert_eq!(interfaces, [0, 1, 0]);
        let expected = "verdict=dropped reason=policy label=default deny network=shop node=near";
        assert_eq!(packets[0].1, expected);
    }

    #[test]
    fn wireshark_reads_a_capture() {
        let present = Command::new("tshark").arg("--version").output();
        if !present.is_ok_and(|output| output.status.success()) {
            eprintln!("SKIPPED wireshark_reads_a_capture: tshark is not installed");
            return;
        }
        let path = std::env::temp_dir().join(format!("sunwire-{}.pcapng", std::process::id()));
        std::fs::write(&path, captured()).unwrap();
        let output = Command::new("tshark")
            .arg("-r")
            .arg(&path)
            .args(["-T", "fields", "-E", "separator=|"])
            .args(["-e", "frame.time_epoch", "-e", "frame.interface_name"])
            .args(["-e", "ip.src", "-e", "udp.dstport", "-e", "frame.comment"])
            .output()
            .unwrap();
        std::fs::remove_file(&path).unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let lines: Vec<&str> = text.lines().collect();
        let comment = "verdict=dropped reason=policy label=default deny network=shop node=";
        assert_eq!(lines.len(), 3, "{text}");
        let first = format!("1700000000.123456789|near|10.20.0.1|53|{comment}near");
        assert_eq!(lines[0], first);
        let second = format!("1700000001.000000001|far|10.20.0.1|53|{comment}far");
        assert_eq!(lines[1], second);
    }
}
