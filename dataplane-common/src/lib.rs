#![no_std]
//! Types and code shared by the eBPF programs and user space
