//! The shape that every resource and every list has.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Name;

/// A resource: what was asked for, what became of it, and when it last changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Resource<Spec, Status> {
    /// Unique among the resources of its kind.
    pub name: Name,
    /// What was asked for.
    pub spec: Spec,
    /// What became of it.
    pub status: Status,
    /// Revision of the last change. Its `ETag` is this number in quotes.
    pub revision: u64,
}

/// One page of a list, in the order of names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The resources.
    pub items: Vec<T>,
    /// What to pass as `page_token` for the next page; absent on the last. Opaque.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

/// Answer to a request that deleted a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Deleted {
    /// Revision since which it is gone.
    pub revision: u64,
}
