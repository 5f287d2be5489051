//! Where the meaning of names comes from, kept while editing.
//!
//! A controller or a topology is asked when the session begins and whenever a text is saved. While
//! it does not answer, what it said last holds, or else what the text itself assumes.

use std::rc::Rc;

use sunwire_policy::environment::Environment;

use super::super::surroundings::Surroundings;
use super::super::{NamesFrom, assumed};
use crate::rest::Connection;

/// What says what names mean.
pub(super) struct Names {
    connection: Connection,
    from: NamesFrom,
    known: Option<Rc<Environment>>,
}

impl Names {
    pub(super) fn new(connection: Connection, from: NamesFrom) -> Self {
        Names {
            connection,
            from,
            known: None,
        }
    }

    /// Asks anew; what is wrong when there is no answer.
    pub(super) fn refresh(&mut self) -> Result<(), String> {
        if self.from.topology.is_none() && !self.connection.is_named() {
            return Ok(());
        }
        let found = Surroundings::find(&self.connection, &self.from, &[]);
        let found = found.map_err(|error| format!("{error:#}"))?;
        self.known = Some(Rc::new(found.environment));
        Ok(())
    }

    /// What names mean in a text, and whether that is known and not assumed.
    pub(super) fn environment(&self, text: &str) -> (Rc<Environment>, bool) {
        match &self.known {
            Some(known) => (known.clone(), true),
            None => (Rc::new(assumed::by(&[text]).0), false),
        }
    }
}
