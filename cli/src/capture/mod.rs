//! `sunwire capture`: packets of endpoints, dropped ones included, as pcap-ng with what became of
//! each as its comment.

mod pcapng;

use std::fs::File;
use std::io::{self, Write};

use anyhow::Context as _;
use sunwire_api::{CaptureItem, CaptureQuery, CapturedPacket, Name, Question, Telling};

use self::pcapng::Capture;
use crate::exit::Outcome;
use crate::flows::{self, Source};
use crate::output::{self, Format};

/// Capture packets of an endpoint, at all nodes, dropped ones included.
///
/// A packet is captured as it enters a node, once at each node that it comes to, without the
/// headers of the tunnel. In the file every node is an interface, and the comment of every packet
/// says what became of it: verdict, reason, label, node.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Filters are those of `sunwire flows`.

Examples:
  sunwire capture --endpoint web1 -w web1.pcapng
  sunwire capture --endpoint web1 drop
  sunwire capture --endpoint web1 -w - port 443 | tshark -r - -T fields -e frame.comment
  sunwire capture --local -w all.pcapng --count 1000")]
pub(crate) struct Args {
    /// What to capture of it: all packets when there is no filter.
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
    /// The endpoint; all packets of all nodes when it is not given.
    #[arg(long, value_name = "NAME")]
    endpoint: Option<Name>,
    /// Where to write pcap-ng: a file, or - for standard output. Without it each packet is shown
    /// on a line.
    #[arg(short, long, value_name = "FILE")]
    write: Option<String>,
    /// Bytes of each frame at most.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(64..=4096))]
    bytes: u32,
    /// End after so many packets.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    #[command(flatten)]
    from: Source,
}

pub(crate) fn run(args: Args, format: Format) -> anyhow::Result<Outcome> {
    let filter = flows::parse_filter(&args.filter)?;
    let query = CaptureQuery {
        endpoint: args.endpoint.as_ref().map(Name::to_string),
        filter: filter.as_str().to_owned(),
        bytes: args.bytes,
    };
    // Not before somebody answers: an earlier capture is not lost to a name that is mistyped.
    let begin = || -> anyhow::Result<Option<Capture>> {
        let path = args.write.as_deref();
        path.map(|path| open(path, args.bytes)).transpose()
    };
    let mut file = None;
    let mut written = 0;
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut take = |file: &mut Option<Capture>, item: CaptureItem| -> anyhow::Result<bool> {
        match item {
            CaptureItem::Packet(packet) => {
                match file {
                    Some(file) => {
                        file.write(&packet).with_context(|| {
                            let path = args.write.as_deref().unwrap_or("-");
                            format!("cannot write {path}, after {written} packets")
                        })?;
                        written += 1;
                    }
                    None => show(format, &packet)?,
                }
                left = left.saturating_sub(1);
            }
            CaptureItem::Lost { node, packets } => {
                eprintln!("{node}: {packets} packets are missing so far");
            }
            CaptureItem::Silent { node } => eprintln!("{node}: is not heard"),
        }
        Ok(left > 0)
    };
    if let Some(state_dir) = &args.from.local {
        let mut done = false;
        file = begin()?;
        let outcome = flows::of_agent(
            state_dir,
            Question::Capture(query),
            |telling| match telling {
                Telling::Capture { item } => {
                    done = !take(&mut file, item)?;
                    // There is no other way out of a stream that does not end.
                    if done { Err(Enough.into()) } else { Ok(()) }
                }
                other => anyhow::bail!("the agent answers out of turn: {other:?}"),
            },
        );
        return if done { Ok(Outcome::Done) } else { outcome };
    }
    // The stream is read where the controller's address is; the file is written there, too, and
    // that changes nothing: only the network is another one.
    let connection = &args.from.connection;
    connection.run(|client| {
        let items = client.capture(&query)?;
        file = begin()?;
        for item in items {
            if !take(&mut file, item?)? {
                break;
            }
        }
        Ok(Outcome::Done)
    })
}

/// As many packets as were asked for.
#[derive(Debug, thiserror::Error)]
#[error("enough")]
struct Enough;

fn show(format: Format, packet: &CapturedPacket) -> anyhow::Result<()> {
    match format {
        Format::Json => output::text(&format!("{}\n", serde_json::to_string(packet)?)),
        Format::Table => output::text(&format!("{}\n", flows::line(&packet.flow))),
    }
}

fn open(path: &str, bytes: u32) -> anyhow::Result<Capture> {
    let out: Box<dyn Write + Send> = if path == "-" {
        Box::new(io::stdout())
    } else {
        Box::new(File::create(path).with_context(|| format!("cannot write {path}"))?)
    };
    Capture::new(out, bytes)
}
