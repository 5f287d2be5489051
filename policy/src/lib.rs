//! The policy language: text to flow tables.
#![forbid(unsafe_code)]

pub mod address;
pub mod ast;
pub mod diagnostic;
pub mod environment;
pub mod evaluate;
pub mod field;
mod nearest;
pub mod packet;
pub mod parser;
pub mod resolve;
pub mod tables;
pub mod term;
mod token;
