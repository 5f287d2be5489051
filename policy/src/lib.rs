//! The policy language: text to flow tables.
#![forbid(unsafe_code)]

pub mod environment;
pub mod tables;
