//! Why a policy cannot be done by the data plane.

use sunwire_dataplane_common::tables::{MAX_COPIES, MAX_COUNTS, MAX_DEPTH};

use crate::address::Address;
use crate::diagnostic::{Code, Diagnostic};
use crate::feature::Feature;
use crate::field::{Field, Subject};
use crate::term::{AssignedField, Resolved};

/// Why a policy cannot be done by the data plane.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The data plane cannot write this field.
    #[error("`{}` cannot be assigned: this data plane does not rewrite it", .0.name())]
    NotWritable(Subject),
    /// The policy asks for something that the data plane does not have.
    #[error("`{}` {}", .0.words(), .0.lacking())]
    NotSupported(Feature),
    /// A copy is sent to an endpoint that the network does not have.
    #[error("the network has no endpoint with the number {0}")]
    UnknownEndpoint(u32),
    /// A verdict would emit too many copies.
    #[error("one packet can become {copies} copies, and the data plane emits at most {MAX_COPIES}")]
    TooManyCopies {
        /// Copies.
        copies: usize,
        /// The label of that verdict.
        label: String,
    },
    /// A verdict would count under too many names.
    #[error(
        "one packet can be counted under {counts} names, and the data plane counts under at most \
         {MAX_COUNTS}"
    )]
    TooManyCounts {
        /// Names.
        counts: usize,
        /// The label of that verdict.
        label: String,
    },
    /// A verdict would translate a packet in two ways, and answers could not tell which.
    #[error("one packet would be sent in several translated copies, and its answers belong to one")]
    TranslatedTwice {
        /// The label of that verdict.
        label: String,
    },
    /// The walk of the tables would be too long.
    #[error("the tables are {depth} tests deep, and the data plane walks at most {MAX_DEPTH}")]
    TooDeep {
        /// Nodes on the longest path.
        depth: usize,
    },
    /// The tables do not fit.
    #[error("the policy needs {count} {what}, and the data plane holds at most {limit}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How many the policy needs.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
}

impl Refused {
    /// The refusal as a diagnostic at the place that causes it.
    #[must_use]
    pub fn locate(&self, policy: &Resolved) -> Diagnostic {
        let assigned = |field| policy.assigned.get(&field).copied();
        let (code, place, hint) = match self {
            Refused::NotWritable(subject) => {
                let field = match subject {
                    Subject::Field(field) => AssignedField::Number(*field),
                    Subject::Ip4(field) => AssignedField::V4(*field),
                    Subject::Ip6(field) => AssignedField::V6(*field),
                };
                let hint = "rewritten can be ethSrc, ethDst, src, dst, dscp, tcpSrcPort, \
                            tcpDstPort, and port, which says where the packet goes";
                (Code::NotWritable, assigned(field), hint)
            }
            Refused::NotSupported(feature) => (
                Code::NotSupported,
                policy.needs.get(feature).copied(),
                feature.instead(),
            ),
            Refused::UnknownEndpoint(_) => (
                Code::UnknownName,
                assigned(AssignedField::Number(Field::Port)),
                "write the endpoint's name: `port := web1`",
            ),
            Refused::TooManyCopies { .. } => (
                Code::TooManyCopies,
                None,
                "send fewer copies with `+` and `*`",
            ),
            Refused::TooManyCounts { .. } => (
                Code::TooManyCounts,
                None,
                "leave out a `count`, or put it where fewer others count the same packets",
            ),
            Refused::TranslatedTwice { .. } => (
                Code::TooManyCopies,
                None,
                "translate one copy, and rewrite the others with `:=`, which is not undone in answers",
            ),
            Refused::TooDeep { .. } => (Code::TablesTooDeep, None, "test fewer fields by range"),
            Refused::TooLarge { .. } => (
                Code::TablesTooLarge,
                None,
                "use fewer rules, or broader ones",
            ),
        };
        Diagnostic::new(
            &policy.source,
            code,
            place.unwrap_or(policy.span),
            self.to_string(),
        )
        .with_hint(hint)
    }

    /// The refusal to write an address of this family.
    pub(super) fn address(field: Field, address: Address) -> Self {
        Refused::NotWritable(match address {
            Address::V6(_) => Subject::Ip6(field),
            _ => Subject::Ip4(field),
        })
    }
}
