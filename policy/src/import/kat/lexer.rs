//! Tokens of Frenetic's concrete syntax, read one at a time from the bytes of the text.
//!
//! Comments are `(* … *)`, which nest, and, beyond Frenetic, `--` to the end of the line.

use std::net::Ipv4Addr;

use crate::diagnostic::{Code, Sink, Span};
use crate::token::shorten;

/// A token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A keyword or the name of a field.
    Word(&'a str),
    /// `` `name ``, without the backquote.
    Meta(&'a str),
    Number(u64),
    Mac(u64),
    Address(u32),
    /// The characters between the quotes.
    Text(&'a str),
    /// Punctuation and operators.
    Sign(&'static str),
    /// What could not be read; already reported.
    Error,
    End,
}

/// Operators, longest first. Other spellings of one operator give the same sign.
const SIGNS: [(&str, &str); 20] = [
    ("=>>", "=>>"),
    (":=", ":="),
    ("==", "="),
    ("!=", "!="),
    ("&&", "and"),
    ("||", "or"),
    ("=>", "=>"),
    ("(", "("),
    (")", ")"),
    (";", ";"),
    ("+", "+"),
    ("|", "+"),
    ("*", "*"),
    ("=", "="),
    ("!", "not"),
    ("/", "/"),
    ("@", "@"),
    (",", ","),
    ("{", "{"),
    ("}", "}"),
];

pub(super) struct Lexer<'a> {
    source: &'a str,
    at: usize,
}

/// What a word may hold after its first character, as in Frenetic.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'\'')
}

impl<'a> Lexer<'a> {
    pub(super) fn new(source: &'a str) -> Self {
        Lexer { source, at: 0 }
    }

    fn byte(&self, ahead: usize) -> u8 {
        *self.source.as_bytes().get(self.at + ahead).unwrap_or(&0)
    }

    /// The next token and where it stands.
    pub(super) fn next(&mut self, sink: &mut Sink) -> (Token<'a>, Span) {
        self.skip_blank(sink);
        let start = self.at;
        let token = self.token(sink);
        (token, Span::new(start as u32, self.at as u32))
    }

    fn skip_blank(&mut self, sink: &mut Sink) {
        loop {
            match (self.byte(0), self.byte(1)) {
                (b' ' | b'\t' | b'\n' | b'\r', _) => self.at += 1,
                (b'-', b'-') => {
                    let rest = &self.source.as_bytes()[self.at..];
                    let line = rest.iter().position(|byte| *byte == b'\n');
                    self.at += line.unwrap_or(rest.len());
                }
                (b'(', b'*') => self.skip_comment(sink),
                _ => return,
            }
        }
    }

    fn skip_comment(&mut self, sink: &mut Sink) {
        let start = self.at as u32;
        let mut depth = 0usize;
        while self.at < self.source.len() {
            match (self.byte(0), self.byte(1)) {
                (b'(', b'*') => {
                    depth += 1;
                    self.at += 2;
                }
                (b'*', b')') => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.at += 1,
            }
        }
        let span = Span::new(start, start + 2);
        sink.report(
            Code::UnterminatedComment,
            span,
            "this comment is not closed",
        );
    }

    fn token(&mut self, sink: &mut Sink) -> Token<'a> {
        if let Some(mac) = self.mac() {
            return Token::Mac(mac);
        }
        match self.byte(0) {
            b'0'..=b'9' => self.number(sink),
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                let word = self.word();
                match word {
                    "and" => Token::Sign("and"),
                    "or" => Token::Sign("or"),
                    "not" => Token::Sign("not"),
                    "begin" => Token::Sign("("),
                    "end" => Token::Sign(")"),
                    word => Token::Word(word),
                }
            }
            b'`' => {
                let start = self.at;
                self.at += 1;
                match self.word() {
                    "" => self.fail(
                        sink,
                        start,
                        Code::ForeignToken,
                        "a backquote begins the name of a meta-field",
                    ),
                    name => Token::Meta(name),
                }
            }
            b'"' => self.text(sink),
            _ => self.sign(sink),
        }
    }

    fn word(&mut self) -> &'a str {
        let start = self.at;
        while is_word(self.byte(0)) {
            self.at += 1;
        }
        &self.source[start..self.at]
    }

    /// Six pairs of hexadecimal digits with colons between, when they are next.
    fn mac(&mut self) -> Option<u64> {
        if self.byte(2) != b':' {
            return None;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).map(u64::from);
        let mut mac = 0;
        for pair in 0..6 {
            let at = 3 * pair;
            mac = mac << 8 | digit(self.byte(at))? << 4 | digit(self.byte(at + 1))?;
            if pair < 5 && self.byte(at + 2) != b':' {
                return None;
            }
        }
        self.at += 17;
        Some(mac)
    }

    /// A number, decimal or hexadecimal, with OCaml's suffix for its width; or an IPv4 address.
    fn number(&mut self, sink: &mut Sink) -> Token<'a> {
        let start = self.at;
        let text = self.word();
        if text.contains('.') {
            return match text.parse::<Ipv4Addr>() {
                Ok(address) => Token::Address(address.to_bits()),
                Err(_) => {
                    let message = format!("`{}` is not an IPv4 address", shorten(text));
                    self.fail(sink, start, Code::ForeignValue, &message)
                }
            };
        }
        let digits = text.strip_suffix(['l', 'L']).unwrap_or(text);
        let parsed = match digits.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16),
            None => digits.parse(),
        };
        match parsed {
            Ok(number) => Token::Number(number),
            Err(_) => {
                let message = format!("`{}` is not a number of 64 bits", shorten(text));
                self.fail(sink, start, Code::ForeignValue, &message)
            }
        }
    }

    fn text(&mut self, sink: &mut Sink) -> Token<'a> {
        let start = self.at;
        let rest = &self.source[start + 1..];
        match rest.find('"') {
            Some(length) => {
                self.at += length + 2;
                Token::Text(&rest[..length])
            }
            None => {
                self.at = self.source.len();
                self.fail(
                    sink,
                    start,
                    Code::UnterminatedText,
                    "this text is not closed",
                )
            }
        }
    }

    fn sign(&mut self, sink: &mut Sink) -> Token<'a> {
        let start = self.at;
        let rest = &self.source[start..];
        for (text, sign) in SIGNS {
            if rest.starts_with(text) {
                self.at += text.len();
                return Token::Sign(sign);
            }
        }
        let Some(character) = rest.chars().next() else {
            return Token::End;
        };
        self.at += character.len_utf8();
        let message = format!("unexpected character {character:?}");
        self.fail(sink, start, Code::UnexpectedCharacter, &message)
    }

    fn fail(&self, sink: &mut Sink, start: usize, code: Code, message: &str) -> Token<'a> {
        let span = Span::new(start as u32, self.at as u32);
        let report = sink.report(code, span, message);
        match code {
            Code::UnexpectedCharacter => {
                report.hint("operators are `; + * := = != and or not => =>>`");
            }
            Code::UnterminatedText => {
                report.hint("close it with `\"`");
            }
            _ => {}
        }
        Token::Error
    }
}
