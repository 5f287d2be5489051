//! Layout of values: sets in braces fill lines, everything else stays together.

use super::layout::{Between, Layout};
use crate::ast::{Value, ValueKind};

impl Layout<'_> {
    /// A value, whose first token is the next one.
    pub(super) fn value(&mut self, value: &Value) {
        match &value.kind {
            ValueKind::Set(elements) if self.is_sign("{") => self.braces(elements),
            ValueKind::Labels(_) => {
                self.token();
                self.arguments(|layout| layout.token());
            }
            _ => self.tokens(value.span.end),
        }
    }

    fn braces(&mut self, elements: &[Value]) {
        let group = self.open();
        self.token();
        // A list that its author began on a new line keeps its lines.
        let kept = self.broken_before(0);
        if kept {
            self.break_group(group);
        }
        self.indent();
        for (at, element) in elements.iter().enumerate() {
            let from = self.next_step();
            self.gap(match at {
                0 => Between::Line,
                _ => Between::Fill {
                    broken: kept && self.lexed().breaks_before(self.at()) > 0,
                },
            });
            let to = self.next_step();
            self.value(element);
            if self.is_sign(",") {
                self.gap(Between::Nothing);
                self.token();
            }
            self.end_fill(from, to);
        }
        self.gap_closing(Between::Line);
        self.token();
        self.close();
    }

    /// What stands in brackets with commas between: on one line, or each on its own.
    ///
    /// `piece` writes at least one token; it is called until the bracket closes.
    pub(super) fn arguments(&mut self, mut piece: impl FnMut(&mut Self)) {
        if !self.is_sign("(") {
            return;
        }
        self.open();
        let closing = self.lexed().closing(self.at());
        self.gap(Between::Nothing);
        self.token();
        self.indent();
        let mut between = Between::Soft;
        while self.at() < closing {
            if self.is_sign(",") {
                self.gap(Between::Nothing);
                self.token();
                between = Between::Line;
                continue;
            }
            if between == Between::Nothing && (self.is_word("where") || self.is_word("by")) {
                between = Between::Line;
            }
            if between != Between::Nothing {
                self.gap(between);
            }
            between = Between::Nothing;
            piece(self);
        }
        self.gap_closing(Between::Soft);
        self.token();
        self.close();
    }
}
