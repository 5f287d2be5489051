//! The policy language: text to flow tables.
//!
//! A policy says what becomes of a packet that enters a network: a function from one packet at one
//! place to a set of packets at places, in NetKAT with names around it. This crate is pure: no
//! input or output, no clock, no threads. One public function per arrow:
//!
//! ```text
//! text --parse--> Document --resolve--> Resolved --compile--> Fdd --lower--> FlowTables
//!                                          \--evaluate--> Outcome of one packet
//! ```
//!
//! - [`parser`]: text to syntax tree ([`ast`]), with every mistake located ([`diagnostic`]).
//! - [`resolve`](mod@resolve): names to the addresses, numbers and sets they stand for
//!   ([`environment`]), giving a [`term`].
//! - [`evaluate`](mod@evaluate): the meaning of a term, straight from the papers; the oracle.
//! - [`compile`](mod@compile): a term to a decision diagram ([`fdd`]) over address classes
//!   ([`atoms`]).
//! - [`lower`](mod@lower): a diagram to [`tables`] for the data plane.
//! - [`incremental`]: the same again after a change, where the change reaches.
//! - [`installed`]: tables in memory, walked by the code that the kernel runs.
//!
//! # Example
//!
//! ```
//! use sunwire_policy::environment::{Endpoint, Environment, Network};
//! use sunwire_policy::installed::Installed;
//! use sunwire_policy::packet::Packet;
//! use sunwire_policy::{compile_text, diagnostic::render_all};
//!
//! let endpoint = |name: &str, number, address: &str| Endpoint {
//!     name: name.to_owned(),
//!     number,
//!     network: "shop".to_owned(),
//!     addresses: vec![address.parse().unwrap()],
//!     mac: [2, 0, 0, 0, 0, number as u8],
//!     labels: Default::default(),
//! };
//! let environment = Environment {
//!     networks: vec![Network {
//!         name: "shop".to_owned(),
//!         vni: 100,
//!         subnets: vec![("10.20.0.0".parse().unwrap(), 16)],
//!         ..Network::default()
//!     }],
//!     endpoints: vec![endpoint("web1", 1, "10.20.0.1"), endpoint("db1", 2, "10.20.0.2")],
//!     nodes: vec![],
//! };
//! let text = r#"
//!     network shop
//!     set web = { web1 }
//!     policy main =
//!         if src in web and dst = db1 and tcp dst port 5432 then forward
//!         else drop "default deny"
//! "#;
//! let compiled = compile_text(text, &environment)
//!     .map_err(|diagnostics| render_all(&diagnostics, text))
//!     .unwrap();
//!
//! let tables = Installed::new(&compiled.tables).unwrap();
//! let mut packet = Packet {
//!     src: "10.20.0.1".parse::<std::net::IpAddr>().unwrap().into(),
//!     dst: "10.20.0.2".parse::<std::net::IpAddr>().unwrap().into(),
//!     port: 1,
//!     eth_type: 0x0800,
//!     protocol: 6,
//!     dst_port: 5432,
//!     ..Packet::default()
//! };
//! assert_eq!(tables.verdict(&packet).unwrap().label, "main:5 forward");
//! packet.dst_port = 22;
//! assert_eq!(tables.verdict(&packet).unwrap().label, "default deny");
//! ```
#![forbid(unsafe_code)]

pub mod address;
pub mod ast;
pub mod atoms;
pub mod claim;
pub mod claims_check;
pub mod compile;
pub mod diagnostic;
pub mod environment;
pub mod evaluate;
pub mod explain;
pub mod fdd;
pub mod feature;
pub mod field;
pub mod format;
pub mod import;
pub mod imports;
pub mod incremental;
pub mod installed;
pub mod judge;
pub mod lower;
mod nearest;
pub mod packet;
pub mod parser;
mod pipeline;
pub mod plan;
mod print;
pub mod prove;
pub mod resolve;
pub mod show;
pub mod tables;
pub mod term;
#[cfg(feature = "testing")]
pub mod testing;
pub mod tests_run;
mod token;
pub mod validate;
pub mod verify;

pub use claims_check::check_claims;
pub use compile::{compile, equivalent};
pub use evaluate::evaluate;
pub use lower::lower;
pub use parser::parse;
pub use pipeline::{Compiled, Statistics, compile_text, resolve_text};
pub use resolve::resolve;
pub use validate::validate;
