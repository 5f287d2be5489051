//! What protects a write from crossing another one.

use sunwire_api::client::{Client, Guard};

/// Insists on a write.
#[derive(Debug, clap::Args)]
pub(crate) struct ForceArgs {
    /// Make the change although a policy will not do what it claims: it is violated then.
    #[arg(long)]
    force: bool,
}

impl ForceArgs {
    /// A client whose writes are made so.
    pub(crate) fn client(&self, client: &Client) -> Client {
        if self.force {
            client.forcing()
        } else {
            client.clone()
        }
    }
}

/// Conditions of a write.
#[derive(Debug, clap::Args)]
pub(crate) struct GuardArgs {
    /// Refuse when the resource has changed since this revision; without it, whatever it is now.
    #[arg(long, value_name = "REVISION")]
    if_revision: Option<u64>,
}

impl GuardArgs {
    /// For a resource that exists.
    pub(crate) fn guard(&self) -> Guard<'static> {
        match self.if_revision {
            Some(revision) => Guard::Revision(revision),
            None => Guard::Any,
        }
    }

    /// The revision that was named.
    pub(crate) fn revision(&self) -> Option<u64> {
        self.if_revision
    }
}
