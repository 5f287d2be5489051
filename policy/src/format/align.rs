//! Widens spaces so that what belongs together stands in one column.

use super::WIDTH;
use super::render::{Anchor, Rendered};

/// Widest difference between lines that is made up for by spaces.
const WIDEST: u32 = 40;

/// The text with its tables and the comments at the ends of its lines aligned.
pub(super) fn align(rendered: Rendered) -> String {
    let mut wider: Vec<(usize, u32)> = Vec::new();
    let mut lengths = rendered.lengths;
    let mut anchors = rendered.anchors;
    anchors.sort_by_key(|anchor| (anchor.row.table, anchor.at));
    for table in anchors
        .chunk_by(|a, b| a.row.table == b.row.table && (!a.row.adjacent || a.line + 1 == b.line))
    {
        widen(table, &mut lengths, &mut wider);
    }
    // Comments of directly following lines belong together.
    for run in rendered.trailing.chunk_by(|a, b| a.0 + 1 == b.0) {
        let length = |line: u32| lengths.get(line as usize).copied().unwrap_or(0);
        let widest = run.iter().map(|(line, _)| length(*line)).max().unwrap_or(0);
        let least = run.iter().map(|(line, _)| length(*line)).min().unwrap_or(0);
        if widest - least <= WIDEST {
            wider.extend(run.iter().map(|(line, at)| (*at, widest - length(*line))));
        }
    }
    wider.sort_unstable();
    let mut out = String::with_capacity(rendered.text.len());
    let mut from = 0;
    for (at, spaces) in wider {
        out.push_str(&rendered.text[from..at]);
        out.extend(std::iter::repeat_n(' ', spaces as usize));
        from = at;
    }
    out.push_str(&rendered.text[from..]);
    out
}

/// Aligns a table, when its author aligned any of it and no line becomes too long.
fn widen(table: &[Anchor], lengths: &mut [u32], wider: &mut Vec<(usize, u32)>) {
    let columns: Option<Vec<u32>> = table.iter().map(|anchor| anchor.column).collect();
    let Some(columns) = columns else {
        return;
    };
    let widest = columns.iter().copied().max().unwrap_or(0);
    let least = columns.iter().copied().min().unwrap_or(0);
    let fits = table.iter().zip(&columns).all(|(anchor, column)| {
        let length = lengths.get(anchor.line as usize).copied().unwrap_or(0);
        length + widest - column <= WIDTH as u32
    });
    let padded = table.iter().any(|anchor| anchor.row.padded);
    let distinct = table.windows(2).all(|pair| pair[0].line != pair[1].line);
    if !padded || !fits || !distinct || widest - least > WIDEST {
        return;
    }
    for (anchor, column) in table.iter().zip(columns) {
        let spaces = widest - column;
        if let Some(length) = lengths.get_mut(anchor.line as usize) {
            *length += spaces;
        }
        wider.push((anchor.at, spaces));
    }
}
