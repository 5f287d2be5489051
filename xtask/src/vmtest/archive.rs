//! Writes a cpio archive as the kernel reads it for its first root: the "new ASCII" format of
//! `Documentation/driver-api/early-userspace/buffer-format.rst`.
//!
//! Every entry is a header of six magic characters and thirteen numbers of eight hexadecimal digits,
//! the name with a zero byte, and the content, each filled up to a multiple of four bytes.

use std::collections::BTreeSet;

const MAGIC: &str = "070701";
const TRAILER: &str = "TRAILER!!!";
const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_755;

/// An archive that grows.
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    folders: BTreeSet<String>,
    entries: u32,
}

impl Archive {
    /// Adds an executable file, and the folders it is in. `path` has no slash at its beginning.
    pub(super) fn file(&mut self, path: &str, content: &[u8]) {
        let ends: Vec<usize> = path.match_indices('/').map(|(at, _)| at).collect();
        for end in ends {
            self.folder(&path[..end]);
        }
        self.entry(path, FILE, content);
    }

    /// The archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry(TRAILER, 0, &[]);
        self.bytes
    }

    fn folder(&mut self, path: &str) {
        if self.folders.insert(path.to_owned()) {
            self.entry(path, DIRECTORY, &[]);
        }
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let length = |bytes: usize| u32::try_from(bytes).expect("an entry has less than 4 GiB");
        let numbers = [
            self.entries,
            mode,
            0, // owner
            0, // group
            1, // links
            0, // time
            length(content.len()),
            0, // device, major and minor
            0,
            0, // of a device file
            0,
            length(path.len() + 1),
            0, // checksum, unused
        ];
        self.bytes.extend(MAGIC.as_bytes());
        for number in numbers {
            self.bytes.extend(format!("{number:08x}").as_bytes());
        }
        self.bytes.extend(path.as_bytes());
        self.bytes.push(0);
        self.fill_up();
        self.bytes.extend(content);
        self.fill_up();
    }

    fn fill_up(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::Archive;

    #[test]
    fn folders_come_once_and_before_what_is_in_them() {
        let mut archive = Archive::default();
        archive.file("a/b/c", b"12345");
        archive.file("a/b/d", b"");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        let names: Vec<&str> = text
            .split("070701")
            .skip(1)
            .map(|entry| entry[104..].split('\0').next().unwrap())
            .collect();
        assert_eq!(names, ["a", "a/b", "a/b/c", "a/b/d", "TRAILER!!!"]);
        let content = text.split_once("a/b/c\0").unwrap().1;
        assert!(
            content.starts_with("12345\x00\x00\x00\x30\x37"),
            "{content}"
        );
    }
}
