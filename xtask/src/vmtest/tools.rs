//! The programs that a virtual machine needs here, where they are, and the packages they come in.

use std::path::{Path, PathBuf};

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
    /// Linked statically, since it is all there is in the machine's own root.
    pub(super) busybox: PathBuf,
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
        Package::new("busybox-static", "what the virtual machine starts with"),
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
        let busybox = process::find_all("busybox")
            .into_iter()
            .find(|path| is_static(path));
        let (Some(qemu), Some(virtiofsd), Some(busybox)) = (&qemu, &virtiofsd, &busybox) else {
            let missing: Vec<&str> = [
                ("qemu-system-x86_64", qemu.is_some()),
                ("virtiofsd", virtiofsd.is_some()),
                ("a busybox that is linked statically", busybox.is_some()),
            ]
            .into_iter()
            .filter(|(_, is_here)| !is_here)
            .map(|(name, _)| name)
            .collect();
            bail!(
                "vmtest needs {}: `cargo xtask setup --vm` installs it on Debian, where the packages \
                 are qemu-system-x86, qemu-system-common or virtiofsd, and busybox-static",
                missing.join(" and ")
            );
        };
        Ok(Tools {
            qemu: qemu.clone(),
            virtiofsd: virtiofsd.clone(),
            busybox: busybox.clone(),
            setpriv: process::find("setpriv"),
        })
    }
}

/// Whether an executable of this machine needs nothing beside it.
fn is_static(path: &Path) -> bool {
    std::fs::read(path).is_ok_and(|bytes| names_interpreter(&bytes) == Some(false))
}

/// Whether a 64-bit ELF file has a program header of type `PT_INTERP`, which names the program that
/// loads its libraries; `None` when it is no such file (ELF-64 Object File Format, 1.5).
fn names_interpreter(elf: &[u8]) -> Option<bool> {
    const PT_INTERP: u32 = 3;
    let half = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?));
    let headers = u64::from_le_bytes(elf.get(32..40)?.try_into().ok()?);
    let headers = usize::try_from(headers).ok()?;
    let (size, count) = (usize::from(half(54)?), usize::from(half(56)?));
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    for number in 0..count {
        let at = headers.checked_add(number * size)?;
        let kind = elf.get(at..at.checked_add(4)?)?;
        if u32::from_le_bytes(kind.try_into().ok()?) == PT_INTERP {
            return Some(true);
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::names_interpreter;

    #[test]
    fn this_program_needs_an_interpreter_and_a_text_is_no_program() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        let is_dynamic = !cfg!(target_feature = "crt-static");
        assert_eq!(names_interpreter(&own), Some(is_dynamic));
        let text = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap();
        assert_eq!(names_interpreter(&text), None);
        assert_eq!(names_interpreter(b"\x7fELF"), None);
    }
}
