//! Translation validation: the flow tables of a policy, proved equal to its term.
//!
//! The tables are read back as a program, by what they are and not by how they were made, and
//! compared with the policy for all packets that networks carry. A compiler's mistake is thereby
//! refused before it is in force, with the packet that shows it. Labels are not compared: they
//! change no packet.
//!
//! ```text
//! Resolved --translate--> program  \
//!                                   = ?
//! FlowTables ---tables---> program /
//! ```

mod classes;
mod follow;
mod tables;

pub use follow::validate_classes;

use crate::diagnostic::{Code, Diagnostic};
use crate::field::Field;
use crate::prove::traffic::well_formed;
use crate::prove::translate::Translation;
use crate::show::show_packet;
use crate::tables::FlowTables;
use crate::term::Resolved;
use crate::verify::options::{Limit, Options};
use crate::verify::symbolic::Symbolic;

/// Why tables are not put in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// They do something else than the policy says.
    #[error("the tables do not do what the policy says with {packet}")]
    Differ {
        /// A packet that shows it.
        packet: String,
    },
    /// They are not well-formed.
    #[error("the tables are damaged: {0}")]
    Damaged(&'static str),
    /// Proving took more than the limits permit.
    #[error("that the tables do what the policy says could not be proved: {0}")]
    Undecided(#[source] Limit),
}

impl From<Limit> for Invalid {
    fn from(limit: Limit) -> Self {
        Invalid::Undecided(limit)
    }
}

impl Invalid {
    /// The refusal of the policy.
    #[must_use]
    pub fn locate(&self, policy: &Resolved) -> Diagnostic {
        Diagnostic::new(
            policy.source(),
            Code::TablesWrong,
            policy.span,
            self.to_string(),
        )
    }
}

/// Proves that tables do what a policy says, for every packet that a network carries.
///
/// # Errors
/// [`Invalid`] when they do not, or when that cannot be proved within the limits.
pub fn validate(policy: &Resolved, tables: &FlowTables, options: &Options) -> Result<(), Invalid> {
    let mut to = Translation::new();
    let meant = to.policy(policy);
    let made = tables::program(&mut to, tables)?;
    let exist = well_formed(&mut to);
    // Where a policy has links, the node is a place inside it.
    let end = match policy.links {
        true => to.assign(Field::Node, 0),
        false => to.program.id(),
    };
    let [meant, made] = [meant, made].map(|side| to.program.sequence([exist, side, end]));
    let mut engine = Symbolic::new(&to.program, &[meant, made], options)?;
    let (left, right) = (engine.spp_of(meant)?, engine.spp_of(made)?);
    if left == right {
        return Ok(());
    }
    let differ = engine.diagrams.symmetric_difference(left, right)?;
    let differ = engine.diagrams.domain(differ)?;
    let cube = engine.cubes(differ).next();
    let values: Vec<_> = cube
        .iter()
        .flat_map(|cube| &cube.fields)
        .filter_map(|(field, ranges)| Some((*field, ranges.first()?.0)))
        .collect();
    Err(Invalid::Differ {
        packet: show_packet(&to.packet(&values)),
    })
}
