//! What a virtual machine starts from: a small root in memory with busybox, the modules that are
//! needed to reach this machine's files, and the suite's script.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::archive::Archive;
use super::kernel::KernelFiles;

const INIT: &str = include_str!("init.sh");
/// Loaded before this machine's files are there; the kernel may have them built in.
const FIRST_MODULES: [&str; 2] = ["virtio_pci", "virtiofs"];

/// Writes the image: `script` is for busybox' shell and finds the function `run PROGRAM ARGUMENTS…`
/// of `init.sh`. Temporary files of the tests will lie in memory over the empty folder `scratch`.
///
/// # Errors
/// When a file cannot be read or written.
pub(super) fn write(path: &Path, kernel: &KernelFiles, scratch: &Path, script: &str) -> Result<()> {
    let read =
        |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let mut archive = Archive::default();
    archive.file("init", INIT.as_bytes());
    archive.file("bin/busybox", &read(&kernel.busybox())?);
    let names = format!(
        "SCRATCH={}\nKERNEL={}\n",
        quoted(scratch)?,
        quoted(&kernel.root)?
    );
    archive.file("vmtest/names", names.as_bytes());
    archive.file("vmtest/script", script.as_bytes());

    let modules = kernel.modules();
    let inside = format!("lib/modules/{}", kernel.release);
    let dependencies = fs::read_to_string(modules.join("modules.dep"))
        .context("the kernel's modules are not prepared")?;
    for file in with_dependencies(&dependencies, &FIRST_MODULES) {
        archive.file(&format!("{inside}/{file}"), &read(&modules.join(file))?);
    }
    for list in ["modules.dep", "modules.builtin"] {
        archive.file(&format!("{inside}/{list}"), &read(&modules.join(list))?);
    }
    fs::write(path, archive.finish()).with_context(|| format!("cannot write {}", path.display()))
}

/// A path as the shell reads it.
///
/// # Errors
/// When it is not UTF-8.
pub(super) fn quoted(path: &Path) -> Result<String> {
    match path.to_str() {
        Some(text) => Ok(quoted_text(text)),
        None => bail!("{} is not UTF-8", path.display()),
    }
}

/// A word as the shell reads it.
pub(super) fn quoted_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Files of the named modules and of all that they need; those that are built in have none.
fn with_dependencies<'a>(dependencies: &'a str, names: &[&str]) -> Vec<&'a str> {
    let mut files = Vec::new();
    for line in dependencies.lines() {
        let Some((file, needs)) = line.split_once(':') else {
            continue;
        };
        let name = Path::new(file).file_stem().and_then(|name| name.to_str());
        if name.is_some_and(|name| names.contains(&name)) {
            files.push(file);
            files.extend(needs.split_whitespace());
        }
    }
    files.sort_unstable();
    files.dedup();
    files
}

#[cfg(test)]
mod tests {
    use super::{quoted_text, with_dependencies};

    #[test]
    fn modules_come_with_what_they_need_and_built_in_ones_do_not() {
        let dependencies = "fs/virtiofs.ko: fs/fuse.ko virtio/virtio.ko\n\
                            virtio/virtio_pci.ko: virtio/virtio.ko\nfs/fuse.ko:\nnet/veth.ko:\n";
        assert_eq!(
            with_dependencies(dependencies, &["virtiofs", "virtio_pci", "built_in"]),
            [
                "fs/fuse.ko",
                "fs/virtiofs.ko",
                "virtio/virtio.ko",
                "virtio/virtio_pci.ko"
            ]
        );
    }

    #[test]
    fn the_shell_reads_a_quoted_word_as_it_was() {
        assert_eq!(quoted_text("a b"), "'a b'");
        assert_eq!(quoted_text("it's"), r"'it'\''s'");
    }
}
