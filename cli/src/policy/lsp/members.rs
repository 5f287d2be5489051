//! Which endpoints a set means, as the compiler sees it.
//!
//! The compiler resolves a text of nothing but the network, the set with those that it is made of,
//! and an assertion about it; so mistakes elsewhere in the text do not matter.

use std::collections::BTreeSet;

use sunwire_policy::ast::{Assertion, AssertionKind, Document, Item, ItemKind, Value, ValueKind};
use sunwire_policy::claim::{ClaimKind, Group};
use sunwire_policy::diagnostic::Span;
use sunwire_policy::{parse, resolve};

use super::analysis::Analysis;

/// The endpoints of the set with this name; nothing when it holds numbers, or a mistake.
pub(super) fn members(analysis: &Analysis, set: &str) -> Option<Group> {
    let mut needed = BTreeSet::new();
    needs(&analysis.document, set, &mut needed);
    let items = analysis
        .document
        .items
        .iter()
        .filter(|item| match &item.kind {
            ItemKind::Network { .. } => true,
            ItemKind::Set { name, .. } => needed.contains(name.text.as_str()),
            _ => false,
        });
    let mut items: Vec<Item> = items.cloned().collect();
    // Networks' public addresses lead to endpoints that may be wrong.
    for item in &mut items {
        if let ItemKind::Network {
            public,
            subnets,
            peers,
            ..
        } = &mut item.kind
        {
            public.clear();
            peers.clear();
            *subnets = None;
        }
    }
    items.extend(parse("policy main = drop").0.items);
    let named = || Value {
        kind: ValueKind::Name(set.to_owned()),
        span: Span::default(),
    };
    items.push(Item {
        kind: ItemKind::Assert(Assertion {
            kind: AssertionKind::Reach(named(), named()),
            condition: None,
        }),
        span: Span::default(),
    });
    let document = Document {
        source: analysis.document.source.clone(),
        items,
    };
    let resolved = resolve(&document, &analysis.environment).ok()?;
    match &resolved.assertions().first()?.kind {
        ClaimKind::Reach(group, _) => Some(group.clone()),
        _ => None,
    }
}

/// The sets that a set is made of, itself among them.
fn needs<'d>(document: &'d Document, set: &'d str, needed: &mut BTreeSet<&'d str>) {
    let mut open = vec![set];
    while let Some(set) = open.pop() {
        if !needed.insert(set) {
            continue;
        }
        for item in &document.items {
            if let ItemKind::Set { name, value } = &item.kind
                && name.text == set
            {
                names_in(value, &mut open);
            }
        }
    }
}

fn names_in<'d>(value: &'d Value, names: &mut Vec<&'d str>) {
    match &value.kind {
        ValueKind::Name(name) => names.push(name),
        ValueKind::Set(values) => values.iter().for_each(|value| names_in(value, names)),
        _ => {}
    }
}
