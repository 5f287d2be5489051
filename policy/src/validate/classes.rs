//! Which addresses have which class, by the longest prefix.

use std::collections::HashMap;

use super::Invalid;
use crate::address::{Address, Family, Prefix};
use crate::tables::{Digest, FlowTables};
use crate::verify::program::{Range, Value};

/// The addresses of every class.
pub(super) fn by_class(tables: &FlowTables) -> Result<HashMap<Digest, Vec<Range>>, Invalid> {
    let mut out: HashMap<Digest, Vec<Range>> = HashMap::new();
    let nothing = Value::address(Address::None);
    out.entry(tables.class_none)
        .or_default()
        .push((nothing, nothing));
    for family in Family::ALL {
        let mut prefixes: Vec<(Prefix, Digest)> = tables
            .classes
            .iter()
            .filter(|class| class.address.is_ipv4() == (family == Family::V4))
            .map(|class| (Prefix::new(class.address, class.prefix), class.class))
            .collect();
        // An outer prefix comes before those inside it.
        prefixes.sort_unstable_by_key(|(prefix, _)| (prefix.first, prefix.length));
        if prefixes
            .first()
            .is_none_or(|(prefix, _)| prefix.length != 0)
        {
            return Err(Invalid::Damaged("not every address has a class"));
        }
        sweep(family, &prefixes, &mut out);
    }
    Ok(out)
}

/// Cuts prefixes, which nest, into the ranges where each is the longest.
fn sweep(family: Family, prefixes: &[(Prefix, Digest)], out: &mut HashMap<Digest, Vec<Range>>) {
    let mut add = |first: u128, last: u128, class: Digest| {
        let ends = [first, last].map(|number| Value::of_family(family, number));
        out.entry(class).or_default().push((ends[0], ends[1]));
    };
    // Prefixes around the present place, outermost first, and the first address not yet given out;
    // `None` behind the last address of the family.
    let mut open: Vec<(Prefix, Digest)> = Vec::new();
    let mut next = Some(0u128);
    for (prefix, class) in prefixes {
        while let Some((outer, of)) = open.last().copied()
            && outer.last() < prefix.first
        {
            close(&mut next, outer, of, &mut add);
            open.pop();
        }
        if let (Some((_, of)), Some(start)) = (open.last(), next)
            && start < prefix.first
        {
            add(start, prefix.first - 1, *of);
        }
        next = Some(prefix.first);
        open.push((*prefix, *class));
    }
    while let Some((outer, of)) = open.pop() {
        close(&mut next, outer, of, &mut add);
    }
}

/// Gives the rest of a prefix to its class.
fn close(
    next: &mut Option<u128>,
    prefix: Prefix,
    class: Digest,
    add: &mut impl FnMut(u128, u128, Digest),
) {
    if let Some(start) = *next
        && start <= prefix.last()
    {
        add(start, prefix.last(), class);
        *next = prefix.last().checked_add(1);
    }
}
