//! Finds the object of the kernel programs, which the eBPF target's own build makes.

use std::{env, fs, path::PathBuf};

fn main() {
    let manifest = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let object = PathBuf::from(manifest).join("../target/bpf/sunwire-dataplane");
    println!("cargo:rerun-if-env-changed=SUNWIRE_EBPF_OBJECT");
    let object = env::var_os("SUNWIRE_EBPF_OBJECT").map_or(object, PathBuf::from);
    println!("cargo:rerun-if-changed={}", object.display());
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it")).join("sunwire-dataplane");
    if let Err(error) = fs::copy(&object, &out) {
        panic!(
            "the kernel programs are not built ({}: {error}); run `cargo xtask build-ebpf` first",
            object.display()
        );
    }
}
