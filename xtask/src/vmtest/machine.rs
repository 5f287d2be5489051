//! A virtual machine: QEMU and the daemon that shows it this machine's files, from start to end.
//!
//! QEMU translates the guest's instructions (TCG), so no KVM is needed, and it emulates AMD's nested
//! paging, so a guest has KVM itself. Both processes end with this value, and when the program is
//! killed, with it. While it runs, QEMU's monitor for people is at `monitor.sock` in its folder: `stop` there
//! holds the machine, its clocks with it, and `cont` lets it go on.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};

use super::image;
use super::kernel::KernelFiles;
use super::patience::Patience;
use super::tools::Tools;
use crate::process;

/// EPYC has what a hypervisor inside wants. Without `cx16`, because QEMU 7.2's `cmpxchg16b`
/// corrupts the memory allocator of Linux 6.12: 24 of 28 boots failed, and none of 14 without.
const PROCESSOR: &str = "EPYC,+svm,+npt,-cx16";
/// Memory that the kernel gives out is not filled with zeros first, as Debian has it: the verifier takes
/// and gives back so much of it that tests would need a sixth more.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 quiet panic=-1 mitigations=off init_on_alloc=0";
/// Until the guest runs its script, on an idle machine; it takes about three seconds.
const BOOT: Duration = Duration::from_secs(60);
/// How long the daemon may take to listen.
const LISTEN: Duration = Duration::from_secs(20);
/// Where QEMU is told to hold the machine while something else is measured.
const MONITOR: &str = "monitor.sock";
const IMAGE: &str = "image";

/// What a machine is to be.
pub(super) struct Config<'a> {
    pub(super) tools: &'a Tools,
    pub(super) kernel: &'a KernelFiles,
    /// Holds its image and its logs; emptied at the start.
    pub(super) folder: PathBuf,
    pub(super) memory_mib: u32,
    /// What it runs: see `init.sh`.
    pub(super) script: &'a str,
    /// How long that may take on an idle machine.
    pub(super) limit: Duration,
}

/// A machine that runs.
pub(super) struct Machine {
    folder: PathBuf,
    socket: String,
    qemu: Process,
    // After QEMU, which uses it.
    _virtiofsd: Process,
    limit: Duration,
}

/// A machine that ended before its script was through.
pub(super) struct Ended {
    /// Whether the script had begun.
    pub(super) was_up: bool,
    pub(super) error: anyhow::Error,
}

/// A child process that ends with this value.
struct Process(Child);

impl Machine {
    /// Starts one.
    ///
    /// # Errors
    /// When its image cannot be made or a program does not start.
    pub(super) fn start(config: &Config) -> Result<Self> {
        let folder = config.folder.clone();
        if folder.exists() {
            fs::remove_dir_all(&folder)
                .with_context(|| format!("cannot empty {}", folder.display()))?;
        }
        let scratch = folder.join("scratch");
        fs::create_dir_all(&scratch)
            .with_context(|| format!("cannot create {}", scratch.display()))?;
        let image = folder.join(IMAGE);
        image::write(&image, config.kernel, &scratch, config.script)?;

        let socket = socket(&folder);
        let mut virtiofsd = ending_with_us(config.tools, &config.tools.virtiofsd);
        virtiofsd
            // By a short name: the path of a socket has at most 107 bytes.
            .arg(format!("--socket-path={socket}"))
            .args(["-o", "source=/", "-o", "cache=auto", "-o", "sandbox=chroot"]);
        let mut virtiofsd = spawn(&mut virtiofsd, &folder, "virtiofsd.log", Stdio::null())?;
        wait_for_daemon(&mut virtiofsd, &folder, &socket)?;
        let memory = config.memory_mib;
        let mut qemu = ending_with_us(config.tools, &config.tools.qemu);
        qemu.args(["-accel", "tcg,thread=multi", "-cpu", PROCESSOR, "-smp", "2"])
            .args(["-m", &memory.to_string()])
            // The daemon reads the guest's memory.
            .arg("-object")
            .arg(format!(
                "memory-backend-memfd,id=memory,size={memory}M,share=on"
            ))
            .args(["-numa", "node,memdev=memory"])
            .args(["-nodefaults", "-nographic", "-no-reboot"])
            .args(["-serial", "file:console.log", "-serial", "stdio"])
            // By a short name, as above.
            .arg("-monitor")
            .arg(format!("unix:{MONITOR},server=on,wait=off"))
            .arg("-kernel")
            .arg(&config.kernel.image)
            .arg("-initrd")
            .arg(&image)
            .args(["-append", KERNEL_ARGUMENTS])
            .args(["-chardev", &format!("socket,id=files,path={socket}")])
            .args(["-device", "vhost-user-fs-pci,chardev=files,tag=host"]);
        Ok(Machine {
            qemu: spawn(&mut qemu, &folder, "qemu.log", Stdio::piped())?,
            _virtiofsd: virtiofsd,
            folder,
            socket,
            limit: config.limit,
        })
    }

    /// Gives each line that the script prints to `line`, until it is through.
    ///
    /// # Errors
    /// When the machine does not come up, dies, or takes too long; the message says where to look.
    pub(super) fn follow(mut self, mut line: impl FnMut(&str)) -> Result<(), Ended> {
        let output = self.qemu.0.stdout.take().expect("it was asked for");
        let lines = lines(output);
        let mut patience = Patience::new(BOOT);
        let mut is_up = false;
        loop {
            match lines.recv_timeout(Duration::from_millis(200)) {
                Ok(text) => match text.strip_prefix("vmtest: ") {
                    Some("done") => return Ok(()),
                    Some(message) if message.starts_with("up ") => {
                        is_up = true;
                        patience = Patience::new(self.limit);
                    }
                    Some(message) => {
                        if let Some(why) = message.strip_prefix("failed: ") {
                            return Err(self.failure(is_up, why));
                        }
                    }
                    None => line(&text),
                },
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.qemu.0.wait();
                    let status = status.map_or(String::new(), |status| format!(" ({status})"));
                    return Err(
                        self.failure(is_up, &format!("the machine ended by itself{status}"))
                    );
                }
                Err(RecvTimeoutError::Timeout) if patience.is_over() => {
                    let what = if is_up { "is not through" } else { "is not up" };
                    return Err(self.failure(is_up, &format!("the machine {what} in time")));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            // Also while it prints without end.
            if patience.is_over() {
                return Err(self.failure(is_up, "the machine is not through in time"));
            }
        }
    }

    /// An error with the last that the kernel and QEMU said.
    fn failure(&self, was_up: bool, what: &str) -> Ended {
        let mut text = what.to_owned();
        for log in ["console.log", "qemu.log"] {
            let path = self.folder.join(log);
            let content = fs::read(&path).unwrap_or_default();
            let content = String::from_utf8_lossy(&content);
            let kept: Vec<&str> = content
                .lines()
                .filter(|line| !line.trim().is_empty() && !line.contains("TCG doesn't support"))
                .collect();
            let last = &kept[kept.len().saturating_sub(12)..];
            text.push_str(&format!("\n  the end of {}:\n    ", path.display()));
            text.push_str(&last.join("\n    "));
        }
        Ended {
            was_up,
            error: anyhow!(text),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // All can be made again.
        for file in [&self.socket, MONITOR, IMAGE] {
            let _ = fs::remove_file(self.folder.join(file));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a process that has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the daemon listens on. It locks a file that all daemons with a socket of the same name, as it is given,
/// share, so no two machines may have one.
fn socket(folder: &Path) -> String {
    let machine = folder.file_name().unwrap_or_default().to_string_lossy();
    format!("files-{machine}-{}.sock", std::process::id())
}

fn wait_for_daemon(virtiofsd: &mut Process, folder: &Path, socket: &str) -> Result<()> {
    let mut patience = Patience::new(LISTEN);
    while !folder.join(socket).exists() {
        if let Some(status) = virtiofsd.0.try_wait().context("lost virtiofsd")? {
            let said = fs::read_to_string(folder.join("virtiofsd.log")).unwrap_or_default();
            bail!("virtiofsd does not start ({status}): {}", said.trim());
        }
        if patience.is_over() {
            bail!("virtiofsd does not listen");
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// `program`, which the kernel ends when the thread that starts it does.
fn ending_with_us(tools: &Tools, program: &Path) -> Command {
    match &tools.setpriv {
        Some(setpriv) => {
            let mut command = process::without_toolchain(setpriv);
            command.args(["--pdeathsig", "KILL"]).arg(program);
            command
        }
        None => process::without_toolchain(program),
    }
}

/// Starts a program in `folder`; what it says on standard error goes to `log`.
fn spawn(command: &mut Command, folder: &Path, log: &str, output: Stdio) -> Result<Process> {
    let log = File::create(folder.join(log)).with_context(|| format!("cannot write {log}"))?;
    command
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(log)
        .spawn()
        .map(Process)
        .with_context(|| format!("cannot start `{}`", process::line(command)))
}

/// The lines of a stream, from a thread that reads it; bytes that are no text are replaced.
fn lines(output: ChildStdout) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut bytes = Vec::new();
        // An error ends the output like its end does.
        while output
            .read_until(b'\n', &mut bytes)
            .is_ok_and(|read| read > 0)
        {
            let text = String::from_utf8_lossy(&bytes);
            let text = text.trim_end_matches(['\r', '\n']).to_owned();
            bytes.clear();
            if sender.send(text).is_err() {
                break;
            }
        }
    });
    lines
}
