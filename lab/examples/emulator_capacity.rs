//! Measures what the link emulator carries between two nodes: bulk TCP in full
//! frames, small UDP datagrams at rising rates, and the lateness of pings.
//! Run as root: `cargo run --release -p sunwire-lab --example emulator_capacity`.

use std::error::Error;
use std::thread::sleep;
use std::time::Duration;

use sunwire_lab::traffic::ping::{PingOptions, ping};
use sunwire_lab::traffic::tcp_bulk::{BulkReceiver, BulkSender};
use sunwire_lab::traffic::udp::{UdpReceiver, UdpSender};
use sunwire_lab::{Lab, LinkChange, LinkEnds, Topology};

fn main() -> Result<(), Box<dyn Error>> {
    let ends = LinkEnds::between("east", "west");
    let lab = Lab::up(
        Topology::builder()
            .node("east", "aws:us-east-1")
            .node("west", "azure:westeurope")
            .link(ends, LinkChange::delay_ms(10.0))
            .build()?,
    )?;
    let (east, west) = (lab.node("east")?, lab.node("west")?);

    let options = PingOptions {
        count: 200,
        ..PingOptions::default()
    };
    let report = ping(&east.namespace, west.underlay_address.into(), options)?;
    println!(
        "ping over 2 x 10 ms: median {:?} ms, max {:?} ms",
        report.median_ms(),
        report.max_ms()
    );
    lateness(&lab)?;

    for delay_ms in [10.0, 0.5] {
        lab.set_link_both("east", "west", LinkChange::delay_ms(delay_ms))?;
        let receiver = BulkReceiver::start(&west.namespace, (west.underlay_address, 0).into())?;
        let patience = Duration::from_secs(5);
        let sender = BulkSender::start(&east.namespace, receiver.address(), None, patience)?;
        sleep(Duration::from_secs(4));
        let sent = sender.stop()?;
        let received = receiver.finish()?;
        println!(
            "TCP over 2 x {delay_ms} ms: {:.0} Mbit/s, {} retransmits, largest gap {:.1} ms",
            received.mean_mbps(),
            sent.retransmits,
            received.largest_gap_ms
        );
        lateness(&lab)?;
    }

    for per_second in [20_000.0, 50_000.0, 100_000.0, 150_000.0] {
        let receiver = UdpReceiver::start(&west.namespace, (west.underlay_address, 0).into())?;
        let address = receiver.address();
        let limit = Some(2 * per_second as u64);
        let sender = UdpSender::start(&east.namespace, address, 18, per_second, limit)?;
        let sent = sender.finish();
        sleep(Duration::from_millis(500));
        let received = receiver.stop();
        println!(
            "UDP, 60-byte frames, {per_second:.0}/s: {} sent, {} lost, {} reordered",
            sent.sent,
            received.lost(&sent),
            received.reordered
        );
        lateness(&lab)?;
    }
    lab.down()?;
    Ok(())
}

fn lateness(lab: &Lab) -> Result<(), Box<dyn Error>> {
    let report = lab.report()?;
    for link in report.links.iter().filter(|l| l.lateness.frames > 0) {
        println!(
            "    {} -> {}: {} frames, late p50 {:.0} us, p99 {:.0} us, max {:.0} us; dropped {:?}",
            link.from,
            link.to,
            link.delivered_frames,
            link.lateness.p50_us,
            link.lateness.p99_us,
            link.lateness.max_us,
            link.dropped
        );
    }
    if let Some(reason) = &report.realtime_refused {
        println!("    {reason}");
    }
    println!(
        "    lost before the emulator {}, in the machine's backlogs {}",
        report.socket_overflow_frames, report.machine_backlog_drops
    );
    lab.reset_report()?;
    Ok(())
}
