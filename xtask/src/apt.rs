//! Debian packages: which are installed, which can be, and their installation.

use anyhow::{Result, bail};

use crate::{process, progress, workspace};

/// A package and why it is needed.
#[derive(Clone)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) reason: &'static str,
}

impl Package {
    pub(crate) fn new(name: impl Into<String>, reason: &'static str) -> Self {
        Self {
            name: name.into(),
            reason,
        }
    }
}

/// Whether this system installs its packages with apt.
pub(crate) fn is_here() -> bool {
    process::find("apt-get").is_some() && process::find("dpkg-query").is_some()
}

/// Those of `packages` that are not installed.
pub(crate) fn missing(packages: &[Package]) -> Vec<Package> {
    packages
        .iter()
        .filter(|package| !is_installed(&package.name))
        .cloned()
        .collect()
}

fn is_installed(name: &str) -> bool {
    let mut query = process::without_toolchain("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status}", name]);
    process::output(&mut query).is_ok_and(|status| status == "installed")
}

/// Installs `packages`; the package lists are brought up to date first, since old lists name files
/// that are gone from the mirrors.
///
/// # Errors
/// Without root (the message says what to run), or when a package is not offered here or apt fails.
pub(crate) fn install(packages: &[Package]) -> Result<()> {
    let names: Vec<&str> = packages.iter().map(|p| p.name.as_str()).collect();
    if !workspace::is_root() {
        bail!(
            "installing {0} needs root: run `apt-get install {0}` as root, then this again",
            names.join(" ")
        );
    }
    process::run_chatty(apt_get().args(["-q", "update"]))?;
    for name in &names {
        if !is_offered(name) {
            bail!("the package sources of this system offer no {name}");
        }
    }
    for package in packages {
        progress::item(
            "installing",
            &format!("{} ({})", package.name, package.reason),
        );
    }
    process::run_chatty(
        apt_get()
            // Not what somebody else needs and this would take the place of.
            .args([
                "-q",
                "install",
                "--yes",
                "--no-install-recommends",
                "--no-remove",
            ])
            .args(&names),
    )
}

/// Whether the package sources of this system have it, as far as their lists are known.
pub(crate) fn is_offered(name: &str) -> bool {
    let mut show = process::without_toolchain("apt-cache");
    show.args(["show", "--no-all-versions", name]);
    process::output(&mut show).is_ok_and(|text| !text.trim().is_empty())
}

fn apt_get() -> std::process::Command {
    let mut command = process::without_toolchain("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}
