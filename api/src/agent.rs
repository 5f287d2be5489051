//! The agent protocol, generated from `proto/agent.proto`: its comments are the documentation.

#![allow(
    unreachable_pub,
    missing_docs,
    clippy::doc_markdown,
    reason = "generated code"
)]

tonic::include_proto!("sunwire.agent.v1");
