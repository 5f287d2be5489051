//! Differences of texts, line by line, in the unified format of POSIX `diff -u`.
//!
//! The edit script is a shortest one (Myers, "An O(ND) Difference Algorithm and Its Variations",
//! 1986); texts that differ by more than [`MAX_EDITS`] lines are shown as replaced in the part that
//! differs, so that time and memory stay bounded.

use std::fmt::Write as _;
use std::ops::Range;

/// Lines of context around a change.
const CONTEXT: usize = 3;
/// Lines that are inserted or deleted in a shortest script that is looked for.
const MAX_EDITS: usize = 2048;

/// A run of lines, by their places in both texts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    old: Range<usize>,
    new: Range<usize>,
}

/// The difference from one text to another; empty when there is none.
pub(super) fn unified(old: &str, new: &str, old_name: &str, new_name: &str) -> String {
    let (a, b) = (lines(old), lines(new));
    let changes = changes(&a, &b);
    if changes.is_empty() {
        return String::new();
    }
    let mut out = format!("--- {old_name}\n+++ {new_name}\n");
    let mut rest = &changes[..];
    while !rest.is_empty() {
        // Changes whose contexts touch stand in one hunk.
        let apart = |pair: &[Change]| pair[1].old.start - pair[0].old.end > 2 * CONTEXT;
        let count = rest
            .windows(2)
            .position(apart)
            .map_or(rest.len(), |at| at + 1);
        let (hunk, after) = rest.split_at(count);
        write_hunk(&mut out, &a, &b, hunk);
        rest = after;
    }
    out
}

/// Lines with their ends, so that a last line without one differs from one with it.
fn lines(text: &str) -> Vec<&str> {
    text.split_inclusive('\n').collect()
}

fn write_hunk(out: &mut String, a: &[&str], b: &[&str], hunk: &[Change]) {
    let (Some(first), Some(last)) = (hunk.first(), hunk.last()) else {
        return;
    };
    let before = first.old.start.min(CONTEXT);
    let after = (a.len() - last.old.end).min(CONTEXT);
    let old = first.old.start - before..last.old.end + after;
    let new = first.new.start - before..last.new.end + after;
    // Writing to a string cannot fail.
    let _ = writeln!(out, "@@ -{} +{} @@", place(&old), place(&new));
    let mut at = old.start;
    for change in hunk {
        write_lines(out, ' ', &a[at..change.old.start]);
        write_lines(out, '-', &a[change.old.clone()]);
        write_lines(out, '+', &b[change.new.clone()]);
        at = change.old.end;
    }
    write_lines(out, ' ', &a[at..old.end]);
}

/// First line, from 1, and count; an empty run is named after the line before it.
fn place(lines: &Range<usize>) -> String {
    match lines.len() {
        0 => format!("{},0", lines.start),
        1 => format!("{}", lines.start + 1),
        count => format!("{},{count}", lines.start + 1),
    }
}

fn write_lines(out: &mut String, sign: char, lines: &[&str]) {
    for line in lines {
        out.push(sign);
        out.push_str(line);
        if !line.ends_with('\n') {
            out.push_str("\n\\ No newline at end of file\n");
        }
    }
}

/// What is to be replaced, in order, apart from each other.
fn changes(a: &[&str], b: &[&str]) -> Vec<Change> {
    let same = |(left, right): &(&&str, &&str)| left == right;
    let front = a.iter().zip(b).take_while(same).count();
    let (a, b) = (&a[front..], &b[front..]);
    let back = a.iter().rev().zip(b.iter().rev()).take_while(same).count();
    let (a, b) = (&a[..a.len() - back], &b[..b.len() - back]);
    if a.is_empty() && b.is_empty() {
        return Vec::new();
    }
    let whole = || {
        vec![Change {
            old: 0..a.len(),
            new: 0..b.len(),
        }]
    };
    let mut found = shortest(a, b).unwrap_or_else(whole);
    for change in &mut found {
        change.old = change.old.start + front..change.old.end + front;
        change.new = change.new.start + front..change.new.end + front;
    }
    found
}

/// A shortest edit script, unless it has more than [`MAX_EDITS`] lines.
fn shortest(a: &[&str], b: &[&str]) -> Option<Vec<Change>> {
    let (n, m) = (a.len() as isize, b.len() as isize);
    let most = (a.len() + b.len()).min(MAX_EDITS);
    // The furthest place in `a` on each diagonal, for each number of edits so far.
    let mut furthest = vec![0isize; 2 * most + 3];
    let at = |diagonal: isize| (diagonal + most as isize + 1) as usize;
    let mut trace: Vec<Vec<isize>> = Vec::new();
    for edits in 0..=most as isize {
        let from = at(-edits) - 1;
        trace.push(furthest[from..=at(edits) + 1].to_vec());
        for diagonal in (-edits..=edits).step_by(2) {
            let down = diagonal == -edits
                || diagonal != edits && furthest[at(diagonal - 1)] < furthest[at(diagonal + 1)];
            let mut x = match down {
                true => furthest[at(diagonal + 1)],
                false => furthest[at(diagonal - 1)] + 1,
            };
            let mut y = x - diagonal;
            while x < n && y < m && a[x as usize] == b[y as usize] {
                x += 1;
                y += 1;
            }
            furthest[at(diagonal)] = x;
            if x >= n && y >= m {
                return Some(script(&trace, n, m));
            }
        }
    }
    None
}

/// Walks the trace back from the end, and joins neighbouring edits.
fn script(trace: &[Vec<isize>], n: isize, m: isize) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    let (mut x, mut y) = (n, m);
    for (edits, furthest) in trace.iter().enumerate().skip(1).rev() {
        let edits = edits as isize;
        // Index 0 of each row is diagonal `-edits - 1`.
        let get = |diagonal: isize| furthest[(diagonal + edits + 1) as usize];
        let diagonal = x - y;
        let down = diagonal == -edits || diagonal != edits && get(diagonal - 1) < get(diagonal + 1);
        let before = if down { diagonal + 1 } else { diagonal - 1 };
        let (from_x, from_y) = (get(before), get(before) - before);
        let (to_x, to_y) = match down {
            true => (from_x, from_y + 1),
            false => (from_x + 1, from_y),
        };
        let change = Change {
            old: from_x as usize..to_x as usize,
            new: from_y as usize..to_y as usize,
        };
        match changes.last_mut() {
            Some(next) if next.old.start == change.old.end && next.new.start == change.new.end => {
                next.old.start = change.old.start;
                next.new.start = change.new.start;
            }
            _ => changes.push(change),
        }
        (x, y) = (from_x, from_y);
    }
    changes.reverse();
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_have_no_difference() {
        for text in ["", "a", "a\nb\n"] {
            assert_eq!(unified(text, text, "a", "b"), "");
        }
    }

    #[test]
    fn a_changed_line_stands_in_its_context() {
        let old = "1\n2\n3\n4\n5\n6\n7\n8\n9\n";
        let new = old.replace("5\n", "five\n");
        assert_eq!(
            unified(old, &new, "old", "new"),
            "--- old\n+++ new\n@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n"
        );
    }

    #[test]
    fn changes_far_apart_stand_in_hunks_of_their_own() {
        let old: String = (0..40).map(|n| format!("{n}\n")).collect();
        let new = old.replace("\n3\n", "\n").replace("\n30\n", "\n30\nx\n");
        let text = unified(&old, &new, "a", "b");
        assert_eq!(text.matches("@@ -").count(), 2, "{text}");
        assert!(text.contains("@@ -1,7 +1,6 @@"), "{text}");
    }

    #[test]
    fn a_text_from_nothing_and_without_a_last_line_end() {
        assert_eq!(
            unified("", "a", "x", "y"),
            "--- x\n+++ y\n@@ -0,0 +1 @@\n+a\n\\ No newline at end of file\n"
        );
        assert!(!unified("a", "a\n", "x", "y").is_empty());
    }

    #[test]
    fn every_difference_makes_the_new_text_of_the_old_one() {
        // A linear congruential generator (Knuth, MMIX) is enough to mix lines.
        let mut state = 7u64;
        let mut next = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for _ in 0..500 {
            let mut text = || -> Vec<String> {
                let count = next(12);
                (0..count).map(|_| format!("{}\n", next(4))).collect()
            };
            let (old, new) = (text(), text());
            let a: Vec<&str> = old.iter().map(String::as_str).collect();
            let b: Vec<&str> = new.iter().map(String::as_str).collect();
            let mut made = Vec::new();
            let mut at = 0;
            for change in changes(&a, &b) {
                made.extend_from_slice(&a[at..change.old.start]);
                made.extend_from_slice(&b[change.new.clone()]);
                assert!(at <= change.old.start && (change.old.len(), change.new.len()) != (0, 0));
                at = change.old.end;
            }
            made.extend_from_slice(&a[at..]);
            assert_eq!(made, b, "{a:?}");
        }
    }
}
