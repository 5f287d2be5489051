//! `sunwire crypt`: the process that encrypts, started by the agent.

use std::path::PathBuf;

use sunwire_api::DeviceName;
use sunwire_userspace::crypt::supervisor::{DEVICE, PORT};
use sunwire_userspace::crypt::worker::{self, Options};

use crate::exit::Outcome;

/// Encrypt the tunnels of this node; the agent starts it where it is needed.
///
/// It outlives the agent, so that an agent's restart loses no packet, and ends when the agent tells
/// it to or its socket in the state directory is removed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the TAP device that it makes.
    #[arg(long, default_value = DEVICE)]
    device: DeviceName,
    /// UDP port on which encrypted packets are received.
    #[arg(long, default_value_t = PORT)]
    port: u16,
    /// The agent's state directory.
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
}

pub(crate) fn run(args: Args) -> anyhow::Result<Outcome> {
    worker::run(&Options {
        directory: args.state_dir,
        device: args.device.to_string(),
        port: args.port,
    })?;
    Ok(Outcome::Done)
}
