//! Programs that a build made, kept from the next build: machines run them for many minutes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Programs in a folder of their own, which goes with this value.
pub(super) struct Kept {
    folder: PathBuf,
    /// In the order they were given.
    pub(super) paths: Vec<PathBuf>,
}

impl Kept {
    /// Takes the place of what is in the folder.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub(super) fn new(programs: &[PathBuf], folder: &Path) -> Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(folder)
                .with_context(|| format!("cannot empty {}", folder.display()))?;
        }
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let mut kept = Kept {
            folder: folder.to_owned(),
            paths: Vec::new(),
        };
        for path in programs {
            let to = folder.join(path.file_name().context("a program has a name")?);
            fs::hard_link(path, &to)
                .or_else(|_| fs::copy(path, &to).map(drop))
                .with_context(|| format!("cannot write {}", to.display()))?;
            kept.paths.push(to);
        }
        Ok(kept)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // The next run of the same suite empties it anyway.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::Kept;

    #[test]
    fn what_the_next_build_writes_is_not_what_is_kept() {
        let folder = std::env::temp_dir().join(format!("vmtest-kept-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let program = folder.join("program");
        fs::write(&program, "old").unwrap();
        let kept = Kept::new(std::slice::from_ref(&program), &folder.join("programs")).unwrap();
        // As a linker does it.
        fs::remove_file(&program).unwrap();
        fs::write(&program, "new").unwrap();
        assert_eq!(fs::read_to_string(&kept.paths[0]).unwrap(), "old");
        drop(kept);
        assert!(!folder.join("programs").exists());
        fs::remove_dir_all(&folder).unwrap();
    }
}
