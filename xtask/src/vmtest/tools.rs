//! The programs that a virtual machine needs here, where they are, and the packages they come in.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::apt::Package;
use crate::{process, workspace};

/// Where distributions put virtiofsd, which is not on PATH: Debian 12 with QEMU, Debian 13 and
/// Fedora, Arch.
const VIRTIOFSD: [&str; 3] = [
    "/usr/lib/qemu/virtiofsd",
    "/usr/libexec/virtiofsd",
    "/usr/lib/virtiofsd",
];

/// The programs.
pub(super) struct Tools {
    pub(super) qemu: PathBuf,
    pub(super) virtiofsd: PathBuf,
    /// Lets what is started end with this program, however that ends.
    pub(super) setpriv: Option<PathBuf>,
}

/// The packages of Debian that they come in.
pub(crate) fn packages() -> Vec<Package> {
    // QEMU's part until Debian 12, a package of its own since.
    let virtiofsd = if crate::apt::is_offered("virtiofsd") {
        "virtiofsd"
    } else {
        "qemu-system-common"
    };
    vec![
        Package::new("qemu-system-x86", "the virtual machine"),
        Package::new(virtiofsd, "files of this machine in the virtual one"),
        Package::new(
            "debian-archive-keyring",
            "what the packages of kernels are signed with",
        ),
    ]
}

impl Tools {
    /// Finds them.
    ///
    /// # Errors
    /// Names everything that is missing and how to get it.
    pub(super) fn find() -> Result<Self> {
        if std::env::consts::ARCH != "x86_64" {
            bail!(
                "vmtest runs kernels for x86-64, and the tests built here are for another machine"
            );
        }
        if !workspace::is_root() {
            bail!("vmtest needs root: virtiofsd shows the machine this system's files");
        }
        let qemu = process::find("qemu-system-x86_64");
        let virtiofsd = VIRTIOFSD
            .iter()
            .map(PathBuf::from)
            .find(|path| path.is_file())
            .or_else(|| process::find("virtiofsd"));
        let (Some(qemu), Some(virtiofsd)) = (&qemu, &virtiofsd) else {
            let missing: Vec<&str> = [
                ("qemu-system-x86_64", qemu.is_some()),
                ("virtiofsd", virtiofsd.is_some()),
            ]
            .into_iter()
            .filter(|(_, is_here)| !is_here)
            .map(|(name, _)| name)
            .collect();
            bail!(
                "vmtest needs {}: `cargo xtask setup --vm` installs it on Debian, where the packages \
                 are qemu-system-x86 and qemu-system-common or virtiofsd",
                missing.join(" and ")
            );
        };
        Ok(Tools {
            qemu: qemu.clone(),
            virtiofsd: virtiofsd.clone(),
            setpriv: process::find("setpriv"),
        })
    }
}
