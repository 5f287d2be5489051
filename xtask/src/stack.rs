//! How much stack the kernel programs take, counted as Linux 6.1 counts it.
//!
//! A program and what it calls share 512 bytes (`MAX_BPF_STACK`), checked over the longest chain of
//! calls (`check_max_stack_depth` in `kernel/bpf/verifier.c`). Linux 6.1 rounds each frame up to 32
//! bytes and counts 32 for an empty one; later kernels are more generous. So an object that loads
//! here may still be refused where people run it, and that is better known when it is built.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};
use object::{
    Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionIndex,
    SectionKind, SymbolKind, read::elf::ElfFile64,
};

/// Bytes of a program's stack.
const LIMIT: u64 = 512;
/// What a frame is rounded up to.
const ROUNDED: u64 = 32;

/// The longest chain of calls from one function, itself first.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    /// Bytes of all frames, each rounded up.
    pub(crate) bytes: u64,
    /// Names of the functions.
    pub(crate) functions: Vec<String>,
}

/// Place of a function: the number of its section, and its offset in that, in bytes.
type Place = (usize, u64);

struct Function {
    name: String,
    /// Bytes of its own frame.
    frame: u64,
    calls: BTreeSet<Place>,
}

/// The longest chain of every function of `object` whose name is asked for.
///
/// # Errors
/// When the object cannot be read, or a chain is longer than a program's stack.
pub(crate) fn chains(file: &ElfFile64<'_>, names: &[&str]) -> Result<BTreeMap<String, Chain>> {
    let functions = functions(file)?;
    let mut chains = BTreeMap::new();
    for (place, function) in &functions {
        if !names.contains(&function.name.as_str()) {
            continue;
        }
        let chain = longest(&functions, *place, 0)?;
        if chain.bytes > LIMIT {
            bail!(
                "{} takes {} bytes of stack of {LIMIT} by the rules of Linux 6.1: {}",
                function.name,
                chain.bytes,
                described(&functions, &chain)
            );
        }
        chains.insert(function.name.clone(), chain);
    }
    Ok(chains)
}

fn described(functions: &BTreeMap<Place, Function>, chain: &Chain) -> String {
    let frame = |name: &String| {
        let function = functions.values().find(|function| &function.name == name);
        format!("{name} {}", function.map_or(0, |function| function.frame))
    };
    let frames: Vec<String> = chain.functions.iter().map(frame).collect();
    frames.join(" -> ")
}

fn longest(functions: &BTreeMap<Place, Function>, place: Place, depth: usize) -> Result<Chain> {
    let function = functions
        .get(&place)
        .with_context(|| format!("a call to no function, at {:#x}", place.1))?;
    // Deeper than the kernel's own bound on nested calls: it would be refused as recursion.
    if depth > 8 {
        bail!("{} is called by itself, or too deep", function.name);
    }
    let mut behind = Chain {
        bytes: 0,
        functions: Vec::new(),
    };
    for call in &function.calls {
        let chain = longest(functions, *call, depth + 1)?;
        if chain.functions.is_empty() || chain.bytes > behind.bytes {
            behind = chain;
        }
    }
    behind.bytes += function.frame.max(1).next_multiple_of(ROUNDED);
    behind.functions.insert(0, function.name.clone());
    Ok(behind)
}

fn functions(file: &ElfFile64<'_>) -> Result<BTreeMap<Place, Function>> {
    let mut functions = BTreeMap::new();
    for symbol in file.symbols().filter(|s| s.kind() == SymbolKind::Text) {
        let (Some(index), false) = (symbol.section_index(), symbol.size() == 0) else {
            continue;
        };
        let section = file.section_by_index(index)?;
        let start = symbol.address();
        let range = start as usize..(start + symbol.size()) as usize;
        let code = section.data()?.get(range);
        let code = code.with_context(|| format!("{:?} is cut off", symbol.name()))?;
        let targets = targets(file, index)?;
        functions.insert(
            (index.0, start),
            Function {
                name: symbol.name()?.to_owned(),
                frame: frame(code),
                calls: calls(code, index.0, start, &targets),
            },
        );
    }
    Ok(functions)
}

/// Where the relocations of a section lead that lead to code: the section, and the offset in it of
/// what the symbol names.
fn targets(file: &ElfFile64<'_>, index: SectionIndex) -> Result<BTreeMap<u64, Place>> {
    let mut targets = BTreeMap::new();
    for (offset, relocation) in file.section_by_index(index)?.relocations() {
        let RelocationTarget::Symbol(symbol) = relocation.target() else {
            continue;
        };
        let symbol = file.symbol_by_index(symbol)?;
        // Addresses of maps are relocated, too.
        let Some(section) = symbol.section_index() else {
            continue;
        };
        if file.section_by_index(section)?.kind() == SectionKind::Text {
            targets.insert(offset, (section.0, symbol.address()));
        }
    }
    Ok(targets)
}

/// An instruction (`struct bpf_insn`).
struct Instruction {
    opcode: u8,
    destination: u8,
    source: u8,
    offset: i16,
    immediate: i32,
}

/// The frame pointer.
const R10: u8 = 10;
/// `rX = rY`.
const MOVE: u8 = 0xbf;
/// `rX += immediate`.
const ADD: u8 = 0x07;
/// `rX = 64 bits`, of two instructions.
const LOAD_WIDE: u8 = 0x18;
const CALL: u8 = 0x85;
/// In `source` of a call: it is to a function of the program.
const TO_FUNCTION: u8 = 1;
/// In `source` of a wide load: it is the address of a function.
const OF_FUNCTION: u8 = 4;

fn instructions(code: &[u8]) -> impl Iterator<Item = (u64, Instruction)> {
    let decoded = |(at, bytes): (usize, &[u8])| {
        let instruction = Instruction {
            opcode: bytes[0],
            destination: bytes[1] & 0xf,
            source: bytes[1] >> 4,
            offset: i16::from_le_bytes([bytes[2], bytes[3]]),
            immediate: i32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        };
        (at as u64 * 8, instruction)
    };
    code.chunks_exact(8).enumerate().map(decoded)
}

/// Bytes below the frame pointer that a function touches or takes the address of.
fn frame(code: &[u8]) -> u64 {
    // Of each register, how far below the frame pointer it points.
    let mut below: [Option<i64>; 16] = [None; 16];
    below[usize::from(R10)] = Some(0);
    let mut lowest = 0;
    for (_, instruction) in instructions(code) {
        let destination = usize::from(instruction.destination);
        let source = usize::from(instruction.source);
        let reached = match instruction.opcode & 0x07 {
            // Loads are by the source register, stores by the destination.
            0x01 => below[source].map(|at| at + i64::from(instruction.offset)),
            0x02 | 0x03 => below[destination].map(|at| at + i64::from(instruction.offset)),
            _ => None,
        };
        match instruction.opcode {
            MOVE => below[destination] = below[source],
            ADD => {
                below[destination] =
                    below[destination].map(|at| at + i64::from(instruction.immediate));
            }
            CALL => below[..6].fill(None),
            opcode if matches!(opcode & 0x07, 0x00 | 0x01 | 0x04 | 0x07) => {
                below[destination] = None;
            }
            _ => {}
        }
        below[usize::from(R10)] = Some(0);
        let pointed = below[destination].unwrap_or(0);
        lowest = lowest.min(reached.unwrap_or(0)).min(pointed);
    }
    lowest.unsigned_abs()
}

fn calls(
    code: &[u8],
    section: usize,
    start: u64,
    targets: &BTreeMap<u64, Place>,
) -> BTreeSet<Place> {
    let mut calls = BTreeSet::new();
    for (at, instruction) in instructions(code) {
        let target = targets.get(&(start + at));
        match (instruction.opcode, instruction.source, target) {
            // The addend is in the instruction, in instructions less one.
            (CALL, TO_FUNCTION, Some((section, symbol))) => {
                let addend = (i64::from(instruction.immediate) + 1) * 8;
                calls.insert((*section, symbol.wrapping_add_signed(addend)));
            }
            (CALL, TO_FUNCTION, None) => {
                let distance = (i64::from(instruction.immediate) + 1) * 8;
                calls.insert((section, (start + at).wrapping_add_signed(distance)));
            }
            // The addend is in the instruction, in bytes.
            (LOAD_WIDE, 0 | OF_FUNCTION, Some((section, symbol))) => {
                let addend = i64::from(instruction.immediate);
                calls.insert((*section, symbol.wrapping_add_signed(addend)));
            }
            _ => {}
        }
    }
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instruction(opcode: u8, registers: u8, offset: i16, immediate: i32) -> [u8; 8] {
        let [o1, o2] = offset.to_le_bytes();
        let [i1, i2, i3, i4] = immediate.to_le_bytes();
        [opcode, registers, o1, o2, i1, i2, i3, i4]
    }

    #[test]
    fn a_frame_is_as_deep_as_what_is_touched_or_pointed_to() {
        // *(u64 *)(r10 - 24) = r1
        let stored = instruction(0x7b, 0x1a, -24, 0);
        assert_eq!(frame(&stored), 24);
        // r2 = r10; r2 += -40; r2 = 0; r2 += -400
        let pointed = [
            instruction(MOVE, 0xa2, 0, 0),
            instruction(ADD, 0x02, 0, -40),
            instruction(0xb7, 0x02, 0, 0),
            instruction(ADD, 0x02, 0, -400),
        ];
        assert_eq!(frame(pointed.as_flattened()), 40);
        assert_eq!(frame(&[]), 0);
    }

    #[test]
    fn the_longest_chain_counts_empty_frames_too() {
        let section = 1;
        let function = |name: &str, frame, calls: &[u64]| Function {
            name: name.to_owned(),
            frame,
            calls: calls.iter().map(|at| (section, *at)).collect(),
        };
        let mut functions = BTreeMap::from([
            ((section, 0), function("program", 33, &[8, 16])),
            ((section, 8), function("deep", 200, &[])),
            ((section, 16), function("long", 150, &[24])),
            ((section, 24), function("empty", 0, &[])),
        ]);
        let chain = longest(&functions, (section, 0), 0).unwrap();
        assert_eq!((chain.bytes, chain.functions.len()), (64 + 224, 2));
        functions.get_mut(&(section, 16)).unwrap().frame = 170;
        let chain = longest(&functions, (section, 0), 0).unwrap();
        assert_eq!(chain.bytes, 64 + 192 + 32);
        functions
            .get_mut(&(section, 24))
            .unwrap()
            .calls
            .insert((section, 0));
        assert!(longest(&functions, (section, 0), 0).is_err());
    }
}
