//! Separates Rust code from its comments and literals, so that rules about code do not trip over
//! prose or test data.

/// `text` with comments and the contents of string and character literals replaced by blanks; lines
/// keep their numbers.
pub(super) fn code_only(text: &str) -> String {
    let mut output = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = ' ';
    while let Some(first) = rest.chars().next() {
        let length = skipped_length(rest, before);
        if length == 0 {
            output.push(first);
            rest = &rest[first.len_utf8()..];
            before = first;
        } else {
            let (skipped, after) = rest.split_at(length);
            output.extend(skipped.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = after;
            before = ' ';
        }
    }
    output
}

/// The length of the comment or literal at the start of `text`, 0 when there is none. `before` is
/// the character before it: an `r` inside of a word begins no raw string.
fn skipped_length(text: &str, before: char) -> usize {
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return block_comment_length(text);
    }
    if text.starts_with('"') {
        return quoted_length(text, '"');
    }
    if text.starts_with('\'') {
        return character_length(text);
    }
    let in_word = (before.is_alphanumeric() && before != 'b' && before != 'c') || before == '_';
    if text.starts_with('r') && !in_word {
        return raw_string_length(text);
    }
    0
}

/// Block comments nest.
fn block_comment_length(text: &str) -> usize {
    let mut depth = 0usize;
    let mut at = 0;
    while let Some(next) = text[at..].find(['/', '*']) {
        at += next;
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

fn quoted_length(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if character == '\\' {
            escaped = true;
        } else if character == quote {
            return at + 1;
        }
    }
    text.len()
}

/// 0 for a lifetime.
fn character_length(text: &str) -> usize {
    let mut characters = text.chars().skip(1);
    match (characters.next(), characters.next()) {
        (Some('\\'), _) => quoted_length(text, '\''),
        (Some(character), Some('\'')) => character.len_utf8() + 2,
        _ => 0,
    }
}

/// 0 for a word that begins with `r`, such as `return` or `r#type`.
fn raw_string_length(text: &str) -> usize {
    let hashes = text[1..].chars().take_while(|&c| c == '#').count();
    let content = 1 + hashes + 1;
    if !text[1 + hashes..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    text[content..]
        .find(&end)
        .map_or(text.len(), |at| content + at + end.len())
}

#[cfg(test)]
mod tests {
    use super::code_only;

    fn words(text: &str) -> Vec<String> {
        code_only(text)
            .split_whitespace()
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn comments_and_literals_vanish() {
        assert_eq!(words("a // x\nb /* y /* z */ w */ c"), ["a", "b", "c"]);
        assert_eq!(words(r#"a "x \" y" b"#), ["a", "b"]);
        assert_eq!(
            words("a r##\"x \"# y\"## b br\"q\" c"),
            ["a", "b", "b", "c"]
        );
        assert_eq!(words(r"a '\'' b '/' c"), ["a", "b", "c"]);
    }

    #[test]
    fn what_only_looks_like_a_literal_stays() {
        assert_eq!(
            words("fn f<'a>(x: &'a str)"),
            ["fn", "f<'a>(x:", "&'a", "str)"]
        );
        assert_eq!(words("r#type for_\"x\" bar"), ["r#type", "for_", "bar"]);
    }

    #[test]
    fn line_numbers_are_kept() {
        let code = code_only("a\n\"x\ny\"\n/*\n*/ b");
        assert_eq!(code.lines().count(), 5);
        assert!(code.lines().nth(4).unwrap().contains('b'));
    }

    #[test]
    fn unfinished_literals_end_with_the_file() {
        for text in ["\"x", "/* x", "r#\"x", "'\\", "//", "'"] {
            code_only(text);
        }
    }
}
