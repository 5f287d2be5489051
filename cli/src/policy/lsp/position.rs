//! Byte offsets and the editor's positions: lines from 0, columns in UTF-16 units; paths and URIs.

use std::path::PathBuf;

use lsp_types::{Position, Range, Uri};
use sunwire_policy::diagnostic::Span;

/// Finds the lines of a text.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    /// The first byte of each line.
    starts: Vec<u32>,
}

impl Lines {
    pub(super) fn new(text: &str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let behind = breaks.map(|(at, _)| at as u32 + 1);
        Lines {
            starts: std::iter::once(0).chain(behind).collect(),
        }
    }

    /// The position of a byte; of one within a character, where that begins.
    pub(super) fn position(&self, text: &str, offset: u32) -> Position {
        let line = self.starts.partition_point(|start| *start <= offset) - 1;
        let start = self.starts[line] as usize;
        let mut end = (offset as usize).min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let before = text.get(start..end).unwrap_or("");
        let column = before.chars().map(|c| c.len_utf16() as u32).sum();
        Position::new(line as u32, column)
    }

    pub(super) fn range(&self, text: &str, span: Span) -> Range {
        Range::new(
            self.position(text, span.start),
            self.position(text, span.end.max(span.start)),
        )
    }

    /// The byte at a position; beyond the end of a line or of the text, that end.
    pub(super) fn offset(&self, text: &str, position: Position) -> u32 {
        let line = position.line as usize;
        let Some(start) = self.starts.get(line).copied() else {
            return text.len() as u32;
        };
        let end = self
            .starts
            .get(line + 1)
            .map_or(text.len(), |s| *s as usize);
        let line = text.get(start as usize..end).unwrap_or("");
        let line = line.trim_end_matches(['\n', '\r']);
        let mut column = 0;
        for (at, character) in line.char_indices() {
            if column >= position.character {
                return start + at as u32;
            }
            column += character.len_utf16() as u32;
        }
        start + line.len() as u32
    }
}

/// The path that a URI of a file leads to.
pub(super) fn path(uri: &Uri) -> Option<PathBuf> {
    let rest = uri.as_str().strip_prefix("file://")?;
    // A host may stand before the path: of files, only our own is meant.
    let path = &rest[rest.find('/')?..];
    let path = path.split(['?', '#']).next().unwrap_or(path);
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next()?, rest.next()?];
        let digits = std::str::from_utf8(&digits).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
    }
    String::from_utf8(bytes).ok().map(PathBuf::from)
}

/// The URI of a file's path.
pub(super) fn uri(path: &str) -> Option<Uri> {
    let mut text = String::from("file://");
    for byte in path.bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' | b'~' => text.push(byte as char),
            _ if byte.is_ascii_alphanumeric() => text.push(byte as char),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_found_again_by_its_position() {
        let text = "set ä = { 𝄞x }\r\n\n  web\n";
        let lines = Lines::new(text);
        for (offset, character) in text.char_indices() {
            if character == '\r' || character == '\n' {
                continue;
            }
            let position = lines.position(text, offset as u32);
            assert_eq!(lines.offset(text, position), offset as u32);
        }
        // The clef takes two UTF-16 units.
        let x = text.find('x').unwrap() as u32;
        assert_eq!(lines.position(text, x), Position::new(0, 12));
        let end = lines.position(text, text.len() as u32);
        assert_eq!(end, Position::new(3, 0));
    }

    #[test]
    fn positions_outside_of_the_text_mean_its_nearest_end() {
        let text = "ab\ncd";
        let lines = Lines::new(text);
        assert_eq!(lines.offset(text, Position::new(0, 99)), 2);
        assert_eq!(lines.offset(text, Position::new(99, 0)), 5);
        assert_eq!(lines.offset("", Position::new(0, 5)), 0);
    }

    #[test]
    fn paths_survive_their_uris() {
        for file in ["/a/b.nk", "/with blank/ä%#?.nk"] {
            assert_eq!(path(&uri(file).unwrap()), Some(PathBuf::from(file)));
        }
        assert_eq!(path(&"untitled:Untitled-1".parse().unwrap()), None);
    }
}
