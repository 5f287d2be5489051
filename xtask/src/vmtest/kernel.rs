//! Kernels for the virtual machine: Debian's, fetched through apt and unpacked, never installed.
//!
//! apt works in folders of its own here, so that neither the package lists nor the sources of this
//! system change; only its mirror is used. Debian's cloud kernel is the smallest that has what a
//! node needs, and its modules hold peers and fault rigs that a small kernel lacks.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{process, progress};

/// The keys that Debian's archives are signed with.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Depends on the newest kernel of a suite.
const NEWEST: &str = "linux-image-cloud-amd64";
const BUSYBOX: &str = "busybox-static";
/// The suite that busybox is taken from.
const STABLE: &str = "bookworm";

/// A kernel version that the programs must run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Kernel {
    /// The oldest one in support: no TCX, and `BPF_F_ADJ_ROOM_DECAP_L3_IPV6` is unknown.
    #[value(name = "6.1")]
    V6_1,
    /// Has all that the programs use.
    #[value(name = "6.12")]
    V6_12,
}

impl Kernel {
    pub(super) const ALL: &[Kernel] = &[Kernel::V6_1, Kernel::V6_12];

    /// The suite of Debian that has it.
    const fn suite(self) -> &'static str {
        match self {
            Kernel::V6_1 => STABLE,
            Kernel::V6_12 => "bookworm-backports",
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kernel::V6_1 => "6.1",
            Kernel::V6_12 => "6.12",
        })
    }
}

/// A kernel that is unpacked and ready.
#[derive(Clone, Debug)]
pub(super) struct KernelFiles {
    /// As `uname -r` says it.
    pub(super) release: String,
    /// What QEMU starts.
    pub(super) image: PathBuf,
    /// Holds `lib/modules/RELEASE` with decompressed modules.
    pub(super) root: PathBuf,
}

impl KernelFiles {
    /// `lib/modules/RELEASE`.
    pub(super) fn modules(&self) -> PathBuf {
        self.root.join("lib/modules").join(&self.release)
    }

    /// All the programs that there are before this machine's files are.
    pub(super) fn busybox(&self) -> PathBuf {
        self.root.join("bin/busybox")
    }

    /// What is in a folder that a run before has filled completely.
    fn remembered(root: &Path) -> Option<Self> {
        let release = fs::read_to_string(root.join("release")).ok()?;
        let release = release.trim().to_owned();
        let image = root.join(format!("boot/vmlinuz-{release}"));
        let files = KernelFiles {
            release,
            image,
            root: root.to_owned(),
        };
        (files.image.is_file() && files.busybox().is_file()).then_some(files)
    }
}

/// The kernel, fetched when it is not there yet or is to be fetched anew.
///
/// # Errors
/// Without apt, without a mirror, or when apt fails.
pub(super) fn ensure(
    kernel: Kernel,
    folder: &Path,
    mirror: Option<&str>,
    refresh: bool,
) -> Result<KernelFiles> {
    let root = folder.join("kernels").join(kernel.to_string());
    if let Some(files) = KernelFiles::remembered(&root).filter(|_| !refresh) {
        return Ok(files);
    }
    progress::step(&format!("fetching kernel {kernel} from {}", kernel.suite()));
    let packages = fetch(kernel, &folder.join("apt").join(kernel.to_string()), mirror)?;
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("cannot empty {}", root.display()))?;
    }
    unpack(&packages, &root)?;
    KernelFiles::remembered(&root).context("the package of the kernel has no image")
}

/// What Open vSwitch's tools are in, and the libraries that they need.
const SWITCH: [&str; 12] = [
    "openvswitch-switch",
    "libbpf1",
    "libelf1",
    "libevent-2.1-7",
    "libgmp10",
    "libhogweed6",
    "libnettle8",
    "libnuma1",
    "libssl3",
    "libunbound8",
    "libxdp1",
    "zlib1g",
];

/// The folder that Open vSwitch's tools are unpacked in, fetched when they are not there yet or are to be
/// fetched anew. They are not installed: that would start them here.
///
/// # Errors
/// As [`ensure`].
pub(super) fn ensure_switch(folder: &Path, mirror: Option<&str>, refresh: bool) -> Result<PathBuf> {
    let root = folder.join("ovs");
    if root.join("usr/bin/ovs-dpctl").is_file() && !refresh {
        return Ok(root);
    }
    progress::step(&format!("fetching Open vSwitch from {STABLE}"));
    let own = folder.join("apt/ovs");
    let apt = Apt::new(&own, STABLE, mirror)?;
    let packages = apt.download(&SWITCH)?;
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("cannot empty {}", root.display()))?;
    }
    extract(&packages, &root)?;
    Ok(root)
}

/// Downloads the newest packages and returns where they are.
fn fetch(kernel: Kernel, folder: &Path, mirror: Option<&str>) -> Result<Vec<PathBuf>> {
    let apt = Apt::new(folder, kernel.suite(), mirror)?;
    let depends = process::output(apt.command("apt-cache").args(["depends", NEWEST]))?;
    let name = depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("linux-image-"))
        .with_context(|| format!("{NEWEST} of {} names no kernel", kernel.suite()))?;
    apt.download(&[name, BUSYBOX])
}

/// apt in a folder of its own, with the lists of a suite and of the stable one.
struct Apt<'a> {
    folder: &'a Path,
    suite: &'static str,
}

impl<'a> Apt<'a> {
    /// Fetches the lists.
    fn new(folder: &'a Path, suite: &'static str, mirror: Option<&str>) -> Result<Self> {
        for tool in ["apt-get", "dpkg-deb"] {
            if process::find(tool).is_none() {
                bail!(
                    "{tool} is needed to fetch it; a system without can run vmtest in a container of Debian"
                );
            }
        }
        if !Path::new(KEYRING).is_file() {
            bail!("{KEYRING} is missing: install the package debian-archive-keyring");
        }
        let mirror = match mirror {
            Some(mirror) => mirror.to_owned(),
            None => own_mirror()?,
        };
        for part in ["lists/partial", "cache/archives/partial"] {
            let path = folder.join(part);
            fs::create_dir_all(&path)
                .with_context(|| format!("cannot create {}", path.display()))?;
        }
        let mut suites = vec![suite, STABLE];
        suites.dedup();
        let sources: String = suites
            .iter()
            .map(|suite| format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n"))
            .collect();
        fs::write(folder.join("sources.list"), sources).context("cannot write sources.list")?;
        let apt = Apt { folder, suite };
        process::run_chatty(apt.command("apt-get").args(["-q", "update"]))?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = apt(program, self.folder);
        // Backports are to be asked for.
        command.args(["-t", self.suite]);
        command
    }

    /// Downloads the newest packages of some names and returns where they are.
    fn download(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        let downloads = self.folder.join("downloads");
        if downloads.exists() {
            fs::remove_dir_all(&downloads).context("cannot remove old downloads")?;
        }
        fs::create_dir_all(&downloads)
            .with_context(|| format!("cannot create {}", downloads.display()))?;
        process::run_chatty(
            self.command("apt-get")
                .args(["-q", "download"])
                .args(names)
                .current_dir(&downloads),
        )?;
        let downloaded: Vec<PathBuf> = fs::read_dir(&downloads)
            .context("cannot read the downloads")?
            .flatten()
            .map(|entry| entry.path())
            .collect();
        if downloaded.len() < names.len() {
            bail!(
                "apt downloaded {} of {} packages",
                downloaded.len(),
                names.len()
            );
        }
        Ok(downloaded)
    }
}

/// The mirror of Debian that this system uses.
fn own_mirror() -> Result<String> {
    let mut query = process::without_toolchain("apt-get");
    query.args(["indextargets", "--format", "$(ORIGIN) $(SUITE) $(REPO_URI)"]);
    let targets = process::output(&mut query)?;
    targets
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let origin = words.next()?;
            let suite = words.next()?;
            // Security updates are in an archive of their own.
            let is_main = origin == "Debian" && !suite.contains("security");
            words.next().filter(|_| is_main)
        })
        .next()
        .map(str::to_owned)
        .context("apt uses no mirror of Debian here; name one by --mirror URL")
}

/// apt in folders of its own; what it knows of installed packages stays this system's and is only
/// read.
fn apt(program: &str, folder: &Path) -> Command {
    let mut command = process::without_toolchain(program);
    let set = |name: &str, path: &Path| format!("{name}={}", path.display());
    for option in [
        set("Dir::Etc::SourceList", &folder.join("sources.list")),
        set("Dir::Etc::SourceParts", Path::new("/dev/null")),
        set("Dir::Etc::Preferences", Path::new("/dev/null")),
        set("Dir::Etc::PreferencesParts", Path::new("/dev/null")),
        set("Dir::State::Lists", &folder.join("lists")),
        set("Dir::Cache", &folder.join("cache")),
        // Its own user may not be able to reach the folder.
        String::from("APT::Sandbox::User=root"),
    ] {
        command.args(["-o", &option]);
    }
    command
}

/// Unpacks the packages and prepares the modules for `modprobe`.
fn unpack(packages: &[PathBuf], root: &Path) -> Result<()> {
    extract(packages, root)?;
    // Where newer packages put them.
    if !root.join("lib").exists() {
        fs::rename(root.join("usr/lib"), root.join("lib")).context("the package has no modules")?;
    }
    let release = fs::read_dir(root.join("lib/modules"))
        .context("the package has no modules")?
        .flatten()
        .find_map(|entry| entry.file_name().into_string().ok())
        .context("the package has no modules")?;
    let busybox = |applet: &str| {
        let mut command = process::without_toolchain(root.join("bin/busybox"));
        command.arg(applet);
        command
    };
    let compressed = compressed_modules(&root.join("lib/modules").join(&release))?;
    if !compressed.is_empty() {
        process::run(busybox("unxz").args(&compressed))?;
    }
    process::run(busybox("depmod").arg("-b").arg(root).arg(&release))?;
    // Last: it says that all the rest is there.
    process::replace_file(&root.join("release"), release.as_bytes())
}

fn extract(packages: &[PathBuf], root: &Path) -> Result<()> {
    fs::create_dir_all(root).with_context(|| format!("cannot create {}", root.display()))?;
    for package in packages {
        let mut extract = process::without_toolchain("dpkg-deb");
        process::run(extract.arg("--extract").arg(package).arg(root))?;
    }
    Ok(())
}

fn compressed_modules(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries =
            fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let path = entry.context("cannot read a folder of modules")?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "xz") {
                found.push(path);
            }
        }
    }
    Ok(found)
}
