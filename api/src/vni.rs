//! VXLAN network identifiers.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A VXLAN network identifier: 24 bits (RFC 7348), never 0.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(try_from = "u32", into = "u32")]
#[schema(value_type = u32, minimum = 1, maximum = 16_777_215)]
pub struct Vni(u32);

/// A number that is no [`Vni`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no VNI: write a number from 1 to 16777215")]
pub struct VniError(u32);

impl Vni {
    /// The smallest.
    pub const MIN: Vni = Vni(1);
    /// The greatest.
    pub const MAX: Vni = Vni(0x00ff_ffff);

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The next greater one, or `None` after [`Vni::MAX`].
    #[must_use]
    pub fn next(self) -> Option<Vni> {
        Vni::try_from(self.0 + 1).ok()
    }
}

impl TryFrom<u32> for Vni {
    type Error = VniError;

    fn try_from(number: u32) -> Result<Self, VniError> {
        if (Self::MIN.0..=Self::MAX.0).contains(&number) {
            Ok(Vni(number))
        } else {
            Err(VniError(number))
        }
    }
}

impl From<Vni> for u32 {
    fn from(vni: Vni) -> u32 {
        vni.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vni_has_24_bits_and_is_never_zero() {
        assert!(serde_json::from_str::<Vni>("0").is_err());
        assert!(serde_json::from_str::<Vni>("16777216").is_err());
        assert_eq!(serde_json::from_str::<Vni>("16777215").unwrap(), Vni::MAX);
        assert_eq!(Vni::MAX.next(), None);
    }
}
