//! Logs go to standard error, so that standard output holds answers only.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::exit::Usage;

/// Starts logging by `filter`, or by the default of servers and other commands.
pub(crate) fn start(filter: Option<&str>, is_server: bool) -> anyhow::Result<()> {
    let default = if is_server { "info" } else { "warn" };
    let filter = filter.unwrap_or(default);
    let filter = EnvFilter::builder()
        .parse(filter)
        .map_err(|error| Usage(format!("--log {filter:?} is no log filter: {error}")))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    Ok(())
}
