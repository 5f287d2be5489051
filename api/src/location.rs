//! Where a node is.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A cloud and a region or zone of it: `aws:us-east-1`, `gcp:asia-northeast1-a`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "aws:us-east-1")]
pub struct NodeLocation(String);

/// A text that is no [`NodeLocation`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no location: write CLOUD:REGION out of a-z, 0-9 and '-', like aws:us-east-1, at \
     most 63 characters each"
)]
pub struct LocationError(String);

impl NodeLocation {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The cloud.
    #[must_use]
    pub fn cloud(&self) -> &str {
        self.halves().0
    }

    /// The region or zone.
    #[must_use]
    pub fn region(&self) -> &str {
        self.halves().1
    }

    fn halves(&self) -> (&str, &str) {
        self.0
            .split_once(':')
            .expect("a location has a colon since it was parsed")
    }
}

impl FromStr for NodeLocation {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        let half = |part: &str| {
            let plain =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            (1..=63).contains(&part.len()) && part.bytes().all(plain)
        };
        match text.split_once(':') {
            Some((cloud, region)) if half(cloud) && half(region) => {
                Ok(NodeLocation(text.to_owned()))
            }
            _ => Err(LocationError(text.chars().take(160).collect())),
        }
    }
}

impl TryFrom<String> for NodeLocation {
    type Error = LocationError;

    fn try_from(text: String) -> Result<Self, LocationError> {
        text.parse()
    }
}

impl From<NodeLocation> for String {
    fn from(location: NodeLocation) -> String {
        location.0
    }
}

impl fmt::Display for NodeLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_a_cloud_and_a_region() {
        let location: NodeLocation = "gcp:asia-northeast1-a".parse().unwrap();
        assert_eq!(
            (location.cloud(), location.region()),
            ("gcp", "asia-northeast1-a")
        );
        for bad in ["", "aws", "aws:", ":us", "aws:us:east", "AWS:us"] {
            assert!(bad.parse::<NodeLocation>().is_err(), "{bad}");
        }
    }
}
