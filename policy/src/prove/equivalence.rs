//! Whether two policies are the same: the packets that come out, and their ways.

use super::translate::Translation;
use crate::term::Resolved;
use crate::verify::decide::{Answer, equivalent};
use crate::verify::options::{Limit, Options};

/// Compares two policies for every packet, whatever a network carries: what comes out, and what
/// `dup` and links record on the way. Labels are left aside.
///
/// # Errors
/// [`Limit`] when the options allow too little, or the work is cancelled.
pub fn equivalent_policies(
    left: &Resolved,
    right: &Resolved,
    options: &Options,
) -> Result<Answer, Limit> {
    let mut to = Translation::with_histories();
    let [left, right] = [left, right].map(|policy| to.policy(policy));
    equivalent(&to.program, left, right, options)
}
