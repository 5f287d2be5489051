//! A policy's text, shared: states are copied to be examined beside the live one, texts are not.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A policy's text, byte for byte. Stored as a string.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source(Arc<str>);

impl Source {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// BLAKE3-256 of the text, in hexadecimal.
    #[must_use]
    pub fn hash(&self) -> String {
        blake3::hash(self.0.as_bytes()).to_hex().to_string()
    }
}

impl From<&str> for Source {
    fn from(text: &str) -> Self {
        Source(text.into())
    }
}

impl From<String> for Source {
    fn from(text: String) -> Self {
        Source(text.into())
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Source::from)
    }
}
