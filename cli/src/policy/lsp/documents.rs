//! Open texts, and how editors change them.

use std::collections::BTreeMap;

use lsp_types::{TextDocumentContentChangeEvent, Uri};

use super::position::{self, Lines};

/// A text that is open in the editor.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) uri: Uri,
    /// The path of its file; without one, the URI, so that it still has a name.
    pub(super) path: String,
    pub(super) text: String,
    /// The editor's number of this state of the text.
    pub(super) version: i32,
}

/// The open texts, by URI.
#[derive(Debug, Default)]
pub(super) struct Documents(BTreeMap<String, Open>);

impl Documents {
    pub(super) fn open(&mut self, uri: Uri, text: String, version: i32) {
        let path = position::path(&uri);
        let path = path.map(|path| path.to_string_lossy().into_owned());
        let open = Open {
            path: path.unwrap_or_else(|| uri.as_str().to_owned()),
            text,
            version,
            uri: uri.clone(),
        };
        self.0.insert(uri.as_str().to_owned(), open);
    }

    /// Changes a text; one that is not open stays unknown.
    pub(super) fn change(
        &mut self,
        uri: &Uri,
        version: i32,
        changes: Vec<TextDocumentContentChangeEvent>,
    ) {
        let Some(open) = self.0.get_mut(uri.as_str()) else {
            return;
        };
        open.version = version;
        for change in changes {
            let Some(range) = change.range else {
                open.text = change.text;
                continue;
            };
            let lines = Lines::new(&open.text);
            let from = lines.offset(&open.text, range.start) as usize;
            let to = lines.offset(&open.text, range.end) as usize;
            open.text.replace_range(from..to.max(from), &change.text);
        }
    }

    pub(super) fn close(&mut self, uri: &Uri) {
        self.0.remove(uri.as_str());
    }

    pub(super) fn get(&self, uri: &Uri) -> Option<&Open> {
        self.0.get(uri.as_str())
    }

    /// The open text of a file.
    pub(super) fn at_path(&self, path: &str) -> Option<&Open> {
        self.0.values().find(|open| open.path == path)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Open> {
        self.0.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(range: Option<[u32; 4]>, text: &str) -> TextDocumentContentChangeEvent {
        let range = range.map(|[a, b, c, d]| {
            let position = lsp_types::Position::new;
            lsp_types::Range::new(position(a, b), position(c, d))
        });
        TextDocumentContentChangeEvent {
            range,
            range_length: None,
            text: text.to_owned(),
        }
    }

    #[test]
    fn changes_apply_in_their_order_each_to_what_the_one_before_left() {
        let uri: Uri = "file:///a.nk".parse().unwrap();
        let mut documents = Documents::default();
        documents.open(uri.clone(), "set a = {}\n".to_owned(), 1);
        documents.change(
            &uri,
            2,
            vec![
                change(Some([0, 9, 0, 9]), " ä𝄞 "),
                change(Some([0, 11, 0, 13]), "x"),
                change(Some([1, 0, 9, 9]), "policy main = drop"),
            ],
        );
        let open = documents.get(&uri).unwrap();
        assert_eq!(open.text, "set a = { äx }\npolicy main = drop");
        assert_eq!(open.version, 2);
        documents.change(&uri, 3, vec![change(None, "whole")]);
        assert_eq!(documents.get(&uri).unwrap().text, "whole");
        // Backwards, and of a text that is not open: nothing breaks.
        documents.change(&uri, 4, vec![change(Some([0, 3, 0, 1]), "")]);
        documents.change(&"file:///b.nk".parse().unwrap(), 1, vec![change(None, "")]);
        assert_eq!(documents.get(&uri).unwrap().text, "whole");
    }
}
