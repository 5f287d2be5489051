//! The policy language: text to flow tables
