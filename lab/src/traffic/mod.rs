//! Small traffic programs for use inside a lab's namespaces: what a story or a
//! test needs to send, serve and measure, without other tools.

pub mod http;
pub mod ping;
pub mod tcp_bulk;
pub mod udp;
