//! Reads from an eBPF object what is worth telling: which programs it holds.
//!
//! Only the section headers and the symbol table of a little-endian 64-bit ELF file are read
//! (System V ABI, chapter 4); every offset is checked, since the file may be anything.

use anyhow::{Context as _, Result, bail};

/// `e_machine` of eBPF.
const MACHINE_BPF: u16 = 247;
const SECTION_SYMBOLS: u32 = 2;
const SECTION_CODE: u64 = 4;
const SYMBOL_GLOBAL_FUNCTION: u8 = 1 << 4 | 2;

/// One program: a global function in a section of its own.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Program {
    /// The section, which tells the loader the type of the program (`tc`, `xdp`, `classifier`, …).
    pub(crate) section: String,
    pub(crate) name: String,
    /// Instructions of 8 bytes.
    pub(crate) instructions: u64,
}

struct Section {
    name: u32,
    kind: u32,
    flags: u64,
    offset: u64,
    size: u64,
    link: u32,
}

/// The programs in `object`, sorted by section and name. Functions in `.text` are callees of
/// programs and are left out.
///
/// # Errors
/// When `object` is not an eBPF object or its tables point outside of it.
pub(crate) fn programs(object: &[u8]) -> Result<Vec<Program>> {
    if object.get(..6) != Some(b"\x7fELF\x02\x01") {
        bail!("not a little-endian 64-bit ELF file");
    }
    let machine = number::<2>(object, 18)?;
    if machine != u64::from(MACHINE_BPF) {
        bail!("not an eBPF object (machine {machine})");
    }
    let sections = sections(object)?;
    let section_names = sections
        .get(number::<2>(object, 62)? as usize)
        .context("no section names")?;

    let mut programs = Vec::new();
    for table in sections.iter().filter(|s| s.kind == SECTION_SYMBOLS) {
        let names = sections
            .get(table.link as usize)
            .context("no symbol names")?;
        for at in (table.offset..table.offset + table.size).step_by(24) {
            let info = number::<1>(object, at + 4)? as u8;
            let index = number::<2>(object, at + 6)? as usize;
            let Some(section) = sections.get(index) else {
                continue; // Absolute and common symbols have reserved indices.
            };
            if info != SYMBOL_GLOBAL_FUNCTION || section.flags & SECTION_CODE == 0 {
                continue;
            }
            let section_name = text(object, section_names, section.name)?;
            if section_name == ".text" {
                continue;
            }
            programs.push(Program {
                section: section_name,
                name: text(object, names, number::<4>(object, at)? as u32)?,
                instructions: number::<8>(object, at + 16)? / 8,
            });
        }
    }
    programs.sort();
    Ok(programs)
}

fn sections(object: &[u8]) -> Result<Vec<Section>> {
    let start = number::<8>(object, 40)?;
    let size = number::<2>(object, 58)?;
    let count = number::<2>(object, 60)?;
    (0..count)
        .map(|index| {
            let at = start + index * size;
            Ok(Section {
                name: number::<4>(object, at)? as u32,
                kind: number::<4>(object, at + 4)? as u32,
                flags: number::<8>(object, at + 8)?,
                offset: number::<8>(object, at + 24)?,
                size: number::<8>(object, at + 32)?,
                link: number::<4>(object, at + 40)? as u32,
            })
        })
        .collect()
}

/// The little-endian number of `N` bytes at `offset`.
fn number<const N: usize>(object: &[u8], offset: u64) -> Result<u64> {
    let bytes = usize::try_from(offset)
        .ok()
        .and_then(|start| object.get(start..start.checked_add(N)?))
        .with_context(|| format!("truncated at byte {offset}"))?;
    Ok(bytes
        .iter()
        .rev()
        .fold(0, |value, &byte| value << 8 | u64::from(byte)))
}

fn text(object: &[u8], table: &Section, offset: u32) -> Result<String> {
    let start = usize::try_from(table.offset + u64::from(offset))?;
    let bytes = object.get(start..).context("a name outside of the file")?;
    let end = bytes
        .iter()
        .position(|&byte| byte == 0)
        .context("a name without an end")?;
    Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::programs;

    #[test]
    fn garbage_and_host_programs_are_refused_without_panic() {
        assert!(programs(b"").is_err());
        assert!(programs(b"\x7fELF\x02\x01").is_err());
        let this = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let error = programs(&this).unwrap_err().to_string();
        assert!(error.starts_with("not an eBPF object"), "{error}");
    }

    #[test]
    fn a_truncated_object_is_an_error_not_a_panic() {
        let mut header = vec![0u8; 64];
        header[..6].copy_from_slice(b"\x7fELF\x02\x01");
        header[18] = 247;
        header[40] = 0xff; // Section headers beyond the end.
        header[58] = 64;
        header[60] = 3;
        let error = programs(&header).unwrap_err().to_string();
        assert!(error.starts_with("truncated at byte"), "{error}");
    }
}
