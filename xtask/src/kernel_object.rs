//! Reads from an eBPF object what is worth telling: which programs it holds.

use anyhow::{Context as _, Result, bail};
use object::{
    Architecture, Endianness, Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind,
    read::elf::ElfFile64,
};

/// One program: a global function in a section of its own.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Program {
    /// The section, which tells the loader the type of the program (`tc`, `xdp`, `classifier`, …).
    pub(crate) section: String,
    pub(crate) name: String,
    /// Instructions of 8 bytes.
    pub(crate) instructions: u64,
}

/// Parses an eBPF object.
///
/// # Errors
/// When `bytes` are no little-endian 64-bit ELF file for eBPF.
pub(crate) fn parse(bytes: &[u8]) -> Result<ElfFile64<'_>> {
    let file = ElfFile64::parse(bytes).context("not a 64-bit ELF file")?;
    if file.architecture() != Architecture::Bpf || file.endian() != Endianness::Little {
        bail!("not an eBPF object ({:?})", file.architecture());
    }
    Ok(file)
}

/// The programs in an object, sorted by section and name. Functions in `.text` are callees of
/// programs and are left out.
///
/// # Errors
/// When the object's tables point outside of it.
pub(crate) fn programs(file: &ElfFile64<'_>) -> Result<Vec<Program>> {
    let mut programs = Vec::new();
    for symbol in file.symbols() {
        let Some(index) = symbol.section_index() else {
            continue;
        };
        if symbol.kind() != SymbolKind::Text || !symbol.is_global() {
            continue;
        }
        let section = file.section_by_index(index)?.name()?.to_owned();
        if section != ".text" {
            programs.push(Program {
                section,
                name: symbol.name()?.to_owned(),
                instructions: symbol.size() / 8,
            });
        }
    }
    programs.sort();
    Ok(programs)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn garbage_and_host_programs_are_refused_without_panic() {
        assert!(parse(b"").is_err());
        assert!(parse(b"\x7fELF\x02\x01").is_err());
        let this = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let error = parse(&this).unwrap_err().to_string();
        assert!(error.starts_with("not an eBPF object"), "{error}");
    }
}
