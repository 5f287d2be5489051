//! The agent's hold on the process that encrypts: starts it, or adopts the one that an earlier
//! agent started, and tells it what to have.

use std::{
    fs::OpenOptions,
    io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::{
    listener::{self, SOCKET},
    protocol::{Answer, Configuration, Request, Status, VERSION},
};

/// Name of the TAP device.
pub const DEVICE: &str = "sw-crypt";
/// UDP port of encrypted packets, WireGuard's own.
pub const PORT: u16 = 51820;
/// Name of the process's log in the state directory.
const LOG: &str = "crypt.log";
/// How long a process may take to be there, or to be gone.
const WITHIN: Duration = Duration::from_secs(10);
/// How often it is looked for meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The process cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// It cannot be started.
    #[error("cannot start the process that encrypts")]
    Start(#[source] io::Error),
    /// It was started and does not answer.
    #[error("the process that encrypts does not answer; {} says why", log.display())]
    Silent {
        /// Its log.
        log: PathBuf,
    },
    /// It ended while it was asked.
    #[error("the process that encrypts went away")]
    Gone(#[source] io::Error),
    /// It refuses what it is told.
    #[error("the process that encrypts refuses: {0}")]
    Refused(String),
}

/// The process, or the lack of it.
#[derive(Debug)]
pub struct Supervisor {
    directory: PathBuf,
    port: u16,
    /// Started by this agent: waited for when it has ended.
    child: Option<Child>,
    /// What it was told last by this agent.
    configured: Option<Configuration>,
}

impl Supervisor {
    /// A hold on the process of a state directory, if there is one.
    #[must_use]
    pub fn new(directory: &Path, port: u16) -> Self {
        Supervisor {
            directory: directory.to_owned(),
            port,
            child: None,
            configured: None,
        }
    }

    /// Has the process run with a configuration, or end.
    ///
    /// # Errors
    /// When it cannot be started or does not answer; then nothing is encrypted.
    pub async fn ensure(&mut self, wanted: Option<&Configuration>) -> Result<(), SupervisorError> {
        self.reap();
        let Some(wanted) = wanted else {
            self.configured = None;
            return self.end().await;
        };
        let running = self.status().await;
        if !running.as_ref().is_ok_and(|status| self.fits(status)) {
            if let Ok(status) = &running {
                tracing::info!(
                    version = status.version,
                    "an encrypting process of another kind is replaced; tunnels come up anew"
                );
                self.end().await?;
            }
            self.configured = None;
            self.start().await?;
        }
        if self.configured.as_ref() != Some(wanted) {
            match self.ask(Request::Configure(wanted.clone())).await? {
                Answer::Refused { reason } => return Err(SupervisorError::Refused(reason)),
                Answer::Done | Answer::Status(_) => {}
            }
            self.configured = Some(wanted.clone());
        }
        Ok(())
    }

    /// How it and its tunnels are.
    ///
    /// # Errors
    /// When there is none.
    pub async fn status(&self) -> Result<Status, SupervisorError> {
        match self.ask(Request::Status).await? {
            Answer::Status(status) => Ok(status),
            Answer::Refused { reason } => Err(SupervisorError::Refused(reason)),
            Answer::Done => Err(SupervisorError::Refused("no status".to_owned())),
        }
    }

    fn fits(&self, status: &Status) -> bool {
        status.version == VERSION && status.device == DEVICE && status.port == self.port
    }

    async fn start(&mut self) -> Result<(), SupervisorError> {
        let path = self.directory.join(LOG);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(SupervisorError::Start)?;
        let errors = log.try_clone().map_err(SupervisorError::Start)?;
        // This very program, whatever its file is called by now.
        let mut command = Command::new("/proc/self/exe");
        command
            .args([
                "crypt",
                "--device",
                DEVICE,
                "--port",
                &self.port.to_string(),
            ])
            .arg("--state-dir")
            .arg(&self.directory)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            // What ends the agent by its group (Ctrl-C) must not end it.
            .process_group(0);
        let child = command.spawn().map_err(SupervisorError::Start)?;
        tracing::info!(process = child.id(), "a process that encrypts was started");
        self.child = Some(child);
        let deadline = tokio::time::Instant::now() + WITHIN;
        while tokio::time::Instant::now() < deadline {
            if self.status().await.is_ok() {
                return Ok(());
            }
            self.reap();
            if self.child.is_none() {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Err(SupervisorError::Silent { log: path })
    }

    /// Ends the process, if there is one, and waits until it is gone.
    async fn end(&mut self) -> Result<(), SupervisorError> {
        if !self.directory.join(SOCKET).exists() || self.ask(Request::End).await.is_err() {
            return Ok(());
        }
        let deadline = tokio::time::Instant::now() + WITHIN;
        while self.ask(Request::Status).await.is_ok() {
            if tokio::time::Instant::now() > deadline {
                return Err(SupervisorError::Refused("it does not end".to_owned()));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    async fn ask(&self, request: Request) -> Result<Answer, SupervisorError> {
        let directory = self.directory.clone();
        let asked = tokio::task::spawn_blocking(move || listener::call(&directory, &request)).await;
        asked
            .map_err(io::Error::other)
            .and_then(|answer| answer)
            .map_err(SupervisorError::Gone)
    }

    /// Waits for a child that has ended, so that it does not stay as a dead entry.
    fn reap(&mut self) {
        if let Some(child) = &mut self.child
            && let Ok(Some(status)) = child.try_wait()
        {
            tracing::warn!(%status, "the process that encrypts has ended");
            self.child = None;
        }
    }
}
