//! Paths of imported files, as text: no file system is asked.

/// The path of `import`, named in the file `from` (`None`: in the first text), without `.` and
/// without `..` where a folder precedes it. Two spellings of one file are thereby one path, so
/// that a file that imports itself is recognised.
pub(crate) fn joined(from: Option<&str>, import: &str) -> String {
    let folder = from.and_then(|from| Some(from.rsplit_once('/')?.0));
    let whole = match folder {
        Some(folder) if !import.starts_with('/') => format!("{folder}/{import}"),
        _ => import.to_owned(),
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    let root = if whole.starts_with('/') { "/" } else { "" };
    format!("{root}{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::joined;

    #[test]
    fn imports_are_relative_to_the_file_that_names_them() {
        assert_eq!(joined(None, "../n/topology.nkpl"), "../n/topology.nkpl");
        assert_eq!(joined(Some("../n/a.nkpl"), "b.nkpl"), "../n/b.nkpl");
        assert_eq!(joined(Some("n/a.nkpl"), "./../b.nkpl"), "b.nkpl");
        assert_eq!(joined(Some("../a.nkpl"), "../b.nkpl"), "../../b.nkpl");
        assert_eq!(joined(Some("n/a.nkpl"), "/x/../b.nkpl"), "/b.nkpl");
        assert_eq!(joined(Some("a.nkpl"), "b.nkpl"), "b.nkpl");
    }
}
