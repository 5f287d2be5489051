//! `sunwire controller`.

use std::net::SocketAddr;
use std::path::PathBuf;

use sunwire_controller::{Config, Controller};

use crate::exit::Outcome;
use crate::shutdown;

/// Run the controller.
///
/// It decides what is agreed, keeps it durably in --data-dir, serves people by REST and agents by
/// gRPC. It does not authenticate anybody yet and therefore listens on loopback and lab addresses
/// only. SIGTERM and SIGINT end it in good order.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sunwire controller --rest 127.0.0.1:7510 --agents 127.0.0.1:7511 \\
      --data-dir /var/lib/sunwire/controller")]
pub(crate) struct Args {
    /// Where people and programs are served by REST; may be repeated. Port 0 takes a free one.
    #[arg(long, required = true, num_args = 1.., value_name = "ADDR:PORT")]
    rest: Vec<SocketAddr>,
    /// Where agents are served by gRPC; may be repeated. Port 0 takes a free one.
    #[arg(long, required = true, num_args = 1.., value_name = "ADDR:PORT")]
    agents: Vec<SocketAddr>,
    /// Directory of the durable log; made when it is missing.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
}

pub(crate) fn run(args: Args) -> anyhow::Result<Outcome> {
    let config = Config {
        rest: args.rest,
        grpc: args.agents,
        data_dir: args.data_dir,
    };
    shutdown::until_signal(async |shutdown| {
        let controller = Controller::open(&config)?;
        for address in controller.rest_addresses() {
            tracing::info!(%address, "REST is served");
        }
        for address in controller.grpc_addresses() {
            tracing::info!(%address, "agents are served");
        }
        controller.run(shutdown).await?;
        tracing::info!("stopped");
        Ok(())
    })?;
    Ok(Outcome::Done)
}
