//! What a policy may ask for beyond tables, and which of it the data plane has.

use crate::field::Field;

/// Something that a policy needs of the data plane beyond tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// Connection tracking: `established`, `conn`.
    Connections,
    /// `balance`.
    Balance,
    /// `snat`, `dnat`.
    Nat,
    /// `token` without a `limit`.
    Limit,
    /// `forward to`.
    Transparent,
    /// `public` addresses.
    Public,
}

impl Feature {
    /// Every feature.
    pub const ALL: [Feature; 6] = [
        Feature::Connections,
        Feature::Balance,
        Feature::Nat,
        Feature::Limit,
        Feature::Transparent,
        Feature::Public,
    ];

    /// The words by which a policy asks for it.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Feature::Connections => "established",
            Feature::Balance => "balance",
            Feature::Nat => "snat/dnat",
            Feature::Limit => "token",
            Feature::Transparent => "forward to",
            Feature::Public => "public",
        }
    }

    /// Whether the data plane has it.
    #[must_use]
    pub const fn is_there(self) -> bool {
        matches!(self, Feature::Connections | Feature::Balance | Feature::Nat)
    }

    /// What the data plane would have to have.
    #[must_use]
    pub const fn lacking(self) -> &'static str {
        match self {
            Feature::Connections => {
                "needs connection tracking, which this data plane does not have"
            }
            Feature::Balance | Feature::Nat => {
                "needs address translation, which this data plane does not have"
            }
            Feature::Limit => "is what `limit` decides by, and the policy has no `limit`",
            Feature::Transparent => {
                "needs transparent endpoints, which this data plane does not have"
            }
            Feature::Public => "needs public addresses, which this data plane does not have",
        }
    }

    /// What to write instead.
    #[must_use]
    pub const fn instead(self) -> &'static str {
        match self {
            Feature::Connections => {
                "match reply packets by source port: `src in web and tcp src port 443`"
            }
            Feature::Balance => "forward to one endpoint",
            Feature::Nat => "rewrite one field: `ip4Src := …` or `ip4Dst := …`",
            Feature::Limit => "write `limit 100/s` where a rate shall hold",
            Feature::Transparent => "send the packet to the endpoint itself: `port := X`",
            Feature::Public => "leave it out: endpoints are reached on their own addresses",
        }
    }

    /// The feature that a test of a field needs, for the fields that are set before the policy.
    #[must_use]
    pub(crate) const fn of_field(field: Field) -> Feature {
        match field {
            Field::Bucket => Feature::Balance,
            Field::Token => Feature::Limit,
            Field::Translated => Feature::Nat,
            _ => Feature::Connections,
        }
    }
}
