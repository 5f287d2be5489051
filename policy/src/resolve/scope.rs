//! Names that hold inside an expression: parameters and `let … in`.

use std::rc::Rc;

use super::Meaning;
use crate::ast::{Argument, Let};

/// A chain of local names, innermost first; shared between the places that see it.
#[derive(Clone, Default)]
pub(super) struct Scope<'d>(Option<Rc<Link<'d>>>);

struct Link<'d> {
    name: &'d str,
    local: Local<'d>,
    outer: Scope<'d>,
}

/// What a local name stands for.
#[derive(Clone)]
pub(super) enum Local<'d> {
    /// A definition without parameters, already read.
    Meaning(Meaning),
    /// A definition with parameters, and the names that it sees.
    Definition(&'d Let, Scope<'d>),
    /// An argument, and the names that it sees.
    Argument(&'d Argument, Scope<'d>),
}

impl<'d> Scope<'d> {
    pub(super) fn with(&self, name: &'d str, local: Local<'d>) -> Self {
        Scope(Some(Rc::new(Link {
            name,
            local,
            outer: self.clone(),
        })))
    }

    pub(super) fn find(&self, name: &str) -> Option<Local<'d>> {
        let mut at = self;
        while let Some(link) = &at.0 {
            if link.name == name {
                return Some(link.local.clone());
            }
            at = &link.outer;
        }
        None
    }
}
