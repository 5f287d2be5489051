//! The kernel programs, carried inside the binary.

/// The ELF object with the TC programs, aligned as its reader needs.
pub static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sunwire-dataplane"));
