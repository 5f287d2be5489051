//! What the statements of a text and of the files it imports share.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::import::builder::{Builder, Excess};
use crate::verify::program::{Domain, FieldId, NodeId, Program, Value};

use super::{Check, Definition, Loader};

pub(super) struct World<'w, 'l> {
    pub(super) builder: Builder<'w>,
    pub(super) loader: &'w mut Loader<'l>,
    pub(super) definitions: HashMap<String, Definition>,
    /// Names whose definition could not be read; using them is no further mistake.
    pub(super) broken: HashSet<String>,
    pub(super) checks: Vec<Check>,
    /// The variables of the loops that are being read, and their values.
    pub(super) loops: Vec<(String, i64)>,
    /// The files that are being read, the innermost last.
    pub(super) open: Vec<Arc<str>>,
    /// The files that were read.
    pub(super) texts: HashMap<Arc<str>, Arc<str>>,
    pub(super) imports: usize,
    /// Rounds of loops so far.
    pub(super) rounds: usize,
    /// Bytes of tokens read so far.
    pub(super) read: usize,
    /// Whether a limit was reached and reported: what follows would only reach it again.
    pub(super) ended: bool,
    /// Above zero where nothing takes effect: in statements that only print, and in loops that
    /// never run.
    pub(super) idle: usize,
    /// Operands of the expressions around the one that is being read.
    pub(super) operands: Vec<NodeId>,
    fields: HashMap<String, FieldId>,
    tests: HashMap<(FieldId, i64, bool), NodeId>,
}

impl<'w, 'l> World<'w, 'l> {
    pub(super) fn new(program: &'w mut Program, loader: &'w mut Loader<'l>) -> Self {
        World {
            builder: Builder::new(program),
            loader,
            definitions: HashMap::new(),
            broken: HashSet::new(),
            checks: Vec::new(),
            loops: Vec::new(),
            open: Vec::new(),
            texts: HashMap::new(),
            imports: 0,
            rounds: 0,
            read: 0,
            ended: false,
            idle: 0,
            operands: Vec::new(),
            fields: HashMap::new(),
            tests: HashMap::new(),
        }
    }

    /// A field of integers.
    pub(super) fn field(&mut self, name: &str) -> Result<FieldId, Excess> {
        if let Some(known) = self.fields.get(name) {
            return Ok(*known);
        }
        let id = self.builder.field(name, Domain::Integer)?;
        self.fields.insert(name.to_owned(), id);
        Ok(id)
    }

    /// `@field = value` or `@field ≠ value`.
    pub(super) fn test(
        &mut self,
        field: FieldId,
        value: i64,
        equal: bool,
    ) -> Result<NodeId, Excess> {
        if let Some(known) = self.tests.get(&(field, value, equal)) {
            return Ok(*known);
        }
        let integer = Value::integer(value);
        let mut test = self.builder.test(field, [(integer, integer)])?;
        if !equal {
            test = self.builder.not(test)?;
        }
        self.tests.insert((field, value, equal), test);
        Ok(test)
    }
}
