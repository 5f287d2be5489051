//! Names of resources, and of network devices.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Name of a node, network, endpoint or policy: like a DNS label (RFC 1123), 1 to 63 characters
/// out of `a-z`, `0-9` and `-`, with neither end a `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "web1", pattern = "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
pub struct Name(String);

/// A text that is no [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no name: write 1 to 63 characters out of a-z, 0-9 and '-', beginning and ending \
     with a letter or digit"
)]
pub struct NameError(String);

impl Name {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let bytes = text.as_bytes();
        let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let ends = bytes.first().is_some_and(plain) && bytes.last().is_some_and(plain);
        if ends && bytes.len() <= 63 && bytes.iter().all(|byte| plain(byte) || *byte == b'-') {
            Ok(Name(text.to_owned()))
        } else {
            Err(NameError(text.chars().take(80).collect()))
        }
    }
}

/// Name of a network device as Linux allows it: 1 to 15 bytes, printable ASCII without `/`, `:`
/// and blanks, neither `.` nor `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "sw-web1", min_length = 1, max_length = 15)]
pub struct DeviceName(String);

/// A text that cannot name a network device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} cannot name a network device: write 1 to 15 printable ASCII characters without '/', \
     ':' and blanks"
)]
pub struct DeviceNameError(String);

impl DeviceName {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DeviceName {
    type Err = DeviceNameError;

    fn from_str(text: &str) -> Result<Self, DeviceNameError> {
        let good = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b':';
        let length = (1..=15).contains(&text.len());
        if length && text != "." && text != ".." && text.bytes().all(good) {
            Ok(DeviceName(text.to_owned()))
        } else {
            Err(DeviceNameError(text.chars().take(80).collect()))
        }
    }
}

macro_rules! text_conversions {
    ($name:ident, $error:ident) => {
        impl TryFrom<String> for $name {
            type Error = $error;

            fn try_from(text: String) -> Result<Self, $error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

text_conversions!(Name, NameError);
text_conversions!(DeviceName, DeviceNameError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "web1", "a-b", &"x".repeat(63)] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        for bad in ["", "-a", "a-", "Web", "a_b", "a b", "ä", &"x".repeat(64)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }

    #[test]
    fn device_names_are_what_linux_takes() {
        for good in ["eth0", "sw-web1", "a.b", &"x".repeat(15)] {
            assert!(good.parse::<DeviceName>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a:b", "a b", &"x".repeat(16)] {
            assert!(bad.parse::<DeviceName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn deserializing_checks_like_parsing() {
        assert!(serde_json::from_str::<Name>("\"web1\"").is_ok());
        assert!(serde_json::from_str::<Name>("\"Web1\"").is_err());
    }
}
