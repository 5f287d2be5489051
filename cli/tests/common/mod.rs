//! The binary as a script runs it, and a controller on loopback for it to ask.
#![allow(dead_code, reason = "every test program uses another part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::process::{Command, Output};
use std::thread::JoinHandle;

use serde_json::Value;
use sunwire_controller::{Config, Controller};
use tokio::sync::oneshot;

/// What a run of the binary gave.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// Fails the test when the command did.
    #[track_caller]
    pub(crate) fn done(&self) {
        assert_eq!(self.code, 0, "{self:#?}");
    }

    /// Standard output as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error} in {self:#?}"))
    }
}

/// Runs the binary without a controller in its environment.
pub(crate) fn sunwire(arguments: &[&str]) -> Ran {
    run(command().args(arguments))
}

/// The binary, with nothing of this program's environment that it reads.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sunwire"));
    command
        .env_remove("SUNWIRE_SERVER")
        .env_remove("SUNWIRE_LOG");
    command
}

pub(crate) fn run(command: &mut Command) -> Ran {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    Ran {
        code: status.code().unwrap(),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

/// A controller that runs in this process until it is dropped.
pub(crate) struct Running {
    rest: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    pub(crate) fn start(data_dir: &Path) -> Running {
        let loopback = "127.0.0.1:0".parse().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let controller = Controller::open(&Config {
            rest: vec![loopback],
            grpc: vec![loopback],
            data_dir: data_dir.to_owned(),
        })
        .unwrap();
        let rest = format!("http://{}", controller.rest_addresses()[0]);
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let shutdown = async {
                let _ = stopped.await;
            };
            runtime.block_on(controller.run(shutdown)).unwrap();
        });
        Running {
            rest,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Its URL.
    pub(crate) fn server(&self) -> String {
        self.rest.clone()
    }

    /// Runs the binary against this controller.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Ran {
        run(command().env("SUNWIRE_SERVER", &self.rest).args(arguments))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}
