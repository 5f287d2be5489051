//! `sunwire encryption`.

use clap::ValueEnum;
use sunwire_api::{Encryption, EncryptionMode, EncryptionSpec, NetworkEncryption};

use super::{Connection, GuardArgs};
use crate::exit::Outcome;
use crate::output::{self, Format, Table};

/// Encryption of the tunnels between nodes: get, set.
///
/// What a network says of itself comes first: `network set NAME --encryption required`, or `never`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sunwire encryption get
  sunwire encryption set between-clouds   # what leaves a cloud is encrypted; so it is by default
  sunwire node tunnels aws1               # how each tunnel of a node is")]
pub(crate) struct Args {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show which tunnels are encrypted.
    Get,
    /// Decide which tunnels are encrypted.
    Set {
        /// Which.
        mode: Mode,
        #[command(flatten)]
        guard: GuardArgs,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Mode {
    /// None, but those of networks that ask for it.
    #[value(alias = "off")]
    Never,
    /// Those between nodes of different clouds: the default of a cloud.
    BetweenClouds,
    /// All.
    Always,
}

/// `--encryption` of a network.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(super) enum OfNetwork {
    /// Where the cloud's setting says so.
    #[default]
    Default,
    /// On the way to any other node.
    Required,
    /// Nowhere, between clouds neither: everybody on their way can read and change them.
    Never,
}

impl From<OfNetwork> for NetworkEncryption {
    fn from(value: OfNetwork) -> Self {
        match value {
            OfNetwork::Default => NetworkEncryption::Default,
            OfNetwork::Required => NetworkEncryption::Required,
            OfNetwork::Never => NetworkEncryption::Never,
        }
    }
}

impl From<Mode> for EncryptionMode {
    fn from(value: Mode) -> Self {
        match value {
            Mode::Never => EncryptionMode::Never,
            Mode::BetweenClouds => EncryptionMode::BetweenClouds,
            Mode::Always => EncryptionMode::Always,
        }
    }
}

pub(crate) fn run(args: Args, format: Format) -> anyhow::Result<Outcome> {
    let Args {
        connection,
        command,
    } = args;
    connection.run(|client| {
        let encryption = match command {
            Command::Get => client.encryption()?,
            Command::Set { mode, guard } => {
                let spec = EncryptionSpec { mode: mode.into() };
                client.put_encryption(&spec, guard.guard())?
            }
        };
        output::show(format, &encryption, table)?;
        Ok(Outcome::Done)
    })
}

fn table(encryption: &Encryption) -> Table {
    let mut table = Table::new(&["MODE", "REVISION", "NODES WITHOUT KEY"]);
    table.row([
        encryption.spec.mode.to_string(),
        encryption.revision.to_string(),
        output::list(&encryption.status.nodes_without_key),
    ]);
    table
}
