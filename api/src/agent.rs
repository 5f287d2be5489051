//! The agent protocol, generated from `proto/agent.proto`: its comments are the documentation.

#![allow(
    unreachable_pub,
    missing_docs,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]

tonic::include_proto!("sunwire.agent.v1");
