//! Tokens, and the lexer: source text to tokens, every byte accounted for.
//!
//! Addresses, prefixes and MAC addresses are single tokens, because `:` and `-` mean other things
//! elsewhere. Keywords are identifiers; the parser tells them apart.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::diagnostic::{Code, Sink, Span};

/// A token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Token<'a> {
    Ident(&'a str),
    Number(u64),
    Mac(u64),
    Address(IpAddr),
    Prefix(IpAddr, u8),
    /// The characters between the quotes; there are no escapes.
    Text(&'a str),
    /// Punctuation and operators.
    Sign(&'static str),
    /// What could not be read; already reported.
    Error,
    End,
}

/// Operators, longest first.
const SIGNS: [&str; 28] = [
    "=>>", ":=", "==", "!=", "&&", "||", "=>", "->", "<=", ">=", "(", ")", "{", "}", ",", ";", "+",
    "|", "*", "=", "!", "-", "/", ":", "@", "<", ">", ".",
];

/// Splits `source` into tokens; the last is [`Token::End`].
pub(crate) fn tokens<'a>(source: &'a str, sink: &mut Sink) -> Vec<(Token<'a>, Span)> {
    let mut lexer = Lexer {
        source,
        at: 0,
        sink,
    };
    let mut out = Vec::new();
    loop {
        lexer.skip_blank();
        let start = lexer.at;
        let token = lexer.next();
        out.push((token, lexer.span(start)));
        if token == Token::End {
            return out;
        }
    }
}

struct Lexer<'a, 's> {
    source: &'a str,
    at: usize,
    sink: &'s mut Sink,
}

fn is_ident(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

impl<'a> Lexer<'a, '_> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn byte(&self, ahead: usize) -> u8 {
        *self.source.as_bytes().get(self.at + ahead).unwrap_or(&0)
    }

    fn span(&self, start: usize) -> Span {
        Span::new(start as u32, self.at as u32)
    }

    fn skip_blank(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            if trimmed.starts_with("--") {
                self.at += trimmed.find('\n').unwrap_or(trimmed.len());
            } else if trimmed.starts_with("(*") {
                self.skip_comment();
            } else {
                return;
            }
        }
    }

    /// Skips a comment, which may hold others.
    fn skip_comment(&mut self) {
        let start = self.at;
        let bytes = self.source.as_bytes();
        let mut depth = 0usize;
        while self.at < bytes.len() {
            match &bytes[self.at..(self.at + 2).min(bytes.len())] {
                b"(*" => {
                    depth += 1;
                    self.at += 2;
                }
                b"*)" => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.at += 1,
            }
        }
        self.sink
            .report(
                Code::UnterminatedComment,
                Span::new(start as u32, start as u32 + 2),
                "this comment is not closed",
            )
            .hint("comments nest: every `(*` needs its own `*)`");
    }

    fn next(&mut self) -> Token<'a> {
        let byte = self.byte(0);
        if self.at >= self.source.len() {
            return Token::End;
        }
        if byte == b'"' {
            return self.text();
        }
        let maybe_address = byte.is_ascii_hexdigit() || self.rest().starts_with("::");
        if let Some(token) = maybe_address.then(|| self.address()).flatten() {
            return token;
        }
        if byte.is_ascii_digit() {
            return self.number();
        }
        if byte.is_ascii_alphabetic() || byte == b'_' {
            return self.ident();
        }
        for sign in SIGNS {
            if self.rest().starts_with(sign) {
                self.at += sign.len();
                return Token::Sign(sign);
            }
        }
        let start = self.at;
        let character = self.rest().chars().next().unwrap_or(' ');
        self.at += character.len_utf8();
        // A run of what cannot be read is one mistake, not many.
        while let Some(c) = self.rest().chars().next() {
            if c.is_ascii() && !c.is_ascii_control() {
                break;
            }
            self.at += c.len_utf8();
        }
        let span = self.span(start);
        self.sink.report(
            Code::UnexpectedCharacter,
            span,
            format!("unexpected character {character:?}"),
        );
        Token::Error
    }

    fn text(&mut self) -> Token<'a> {
        let start = self.at;
        let line = self.rest().lines().next().unwrap_or("");
        match line[1..].find('"') {
            Some(length) => {
                self.at += length + 2;
                Token::Text(&line[1..=length])
            }
            None => {
                self.at += line.len();
                let span = self.span(start);
                self.sink
                    .report(Code::UnterminatedText, span, "this string is not closed")
                    .hint("a string ends with `\"` on the line where it starts");
                Token::Error
            }
        }
    }

    /// An identifier; a single `-` between letters or digits belongs to it.
    fn ident(&mut self) -> Token<'a> {
        let start = self.at;
        while is_ident(self.byte(0)) || (self.byte(0) == b'-' && is_ident(self.byte(1))) {
            self.at += 1;
        }
        Token::Ident(&self.source[start..self.at])
    }

    fn number(&mut self) -> Token<'a> {
        let start = self.at;
        while is_ident(self.byte(0)) {
            self.at += 1;
        }
        let text = &self.source[start..self.at];
        let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            Some(hex) => u64::from_str_radix(hex, 16),
            None => text.parse(),
        };
        match parsed {
            Ok(number) => Token::Number(number),
            Err(_) => self.malformed(start, "a number"),
        }
    }

    fn malformed(&mut self, start: usize, what: &str) -> Token<'a> {
        let span = self.span(start);
        let text = &self.source[start..self.at];
        self.sink.report(
            Code::MalformedValue,
            span,
            format!("`{}` is not {what}", shorten(text)),
        );
        Token::Error
    }

    /// An address, a prefix or a MAC address, when the next characters look like one.
    fn address(&mut self) -> Option<Token<'a>> {
        let rest = self.rest();
        let bytes = rest.as_bytes();
        let mut length = 0;
        while let Some(byte) = bytes.get(length) {
            let assignment = *byte == b':' && bytes.get(length + 1) == Some(&b'=');
            if assignment || !(byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.')) {
                break;
            }
            length += 1;
        }
        let text = &rest[..length];
        let dotted = bytes[0].is_ascii_digit() && text.contains('.');
        if !dotted && !text.contains(':') || bytes.get(length).is_some_and(|b| is_ident(*b)) {
            return None;
        }
        let start = self.at;
        let address = if let Some(mac) = parse_mac(text) {
            self.at += length;
            return Some(Token::Mac(mac));
        } else if let Ok(v4) = text.parse::<Ipv4Addr>() {
            IpAddr::V4(v4)
        } else if let Ok(v6) = text.parse::<Ipv6Addr>() {
            IpAddr::V6(v6)
        } else if dotted || text.contains("::") {
            self.at += length;
            return Some(self.malformed(start, "an address"));
        } else {
            return None;
        };
        self.at += length;
        if self.byte(0) != b'/' || !self.byte(1).is_ascii_digit() {
            return Some(Token::Address(address));
        }
        self.at += 1;
        let digits = self.at;
        while is_ident(self.byte(0)) {
            self.at += 1;
        }
        let bits = if address.is_ipv4() { 32 } else { 128 };
        match self.source[digits..self.at].parse::<u8>() {
            Ok(prefix) if prefix <= bits => Some(Token::Prefix(address, prefix)),
            _ => Some(self.malformed(
                start,
                "a prefix: the length is at most 32 for IPv4 and 128 for IPv6",
            )),
        }
    }
}

/// A text short enough to be quoted in a message.
pub(crate) fn shorten(text: &str) -> String {
    if text.chars().count() <= 40 {
        text.to_owned()
    } else {
        let head: String = text.chars().take(37).collect();
        format!("{head}...")
    }
}

fn parse_mac(text: &str) -> Option<u64> {
    let mut mac = 0;
    let mut groups = 0;
    for group in text.split(':') {
        if group.is_empty() || group.len() > 2 {
            return None;
        }
        mac = mac << 8 | u64::from(u8::from_str_radix(group, 16).ok()?);
        groups += 1;
        if groups > 6 {
            return None;
        }
    }
    (groups == 6).then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lex(source: &str) -> Vec<Token<'_>> {
        let mut sink = Sink::new(source.into());
        let out = tokens(source, &mut sink).into_iter().map(|t| t.0).collect();
        assert_eq!(sink.finish(), vec![], "{source}");
        out
    }

    #[test]
    fn addresses_prefixes_macs_and_numbers_are_single_tokens() {
        assert_eq!(
            lex("10.0.0.1 10.0.0.0/8 fd00::1 fd00::/64 ::/0 00:1a:2b:3c:4d:5e 0x800 80"),
            vec![
                Token::Address("10.0.0.1".parse().unwrap()),
                Token::Prefix("10.0.0.0".parse().unwrap(), 8),
                Token::Address("fd00::1".parse().unwrap()),
                Token::Prefix("fd00::".parse().unwrap(), 64),
                Token::Prefix("::".parse().unwrap(), 0),
                Token::Mac(0x001a_2b3c_4d5e),
                Token::Number(0x800),
                Token::Number(80),
                Token::End
            ]
        );
    }

    #[test]
    fn an_assignment_is_never_taken_for_an_address() {
        assert_eq!(
            lex("a:=1 dscp:=2 80-90 10.0.0.1-10.0.0.9"),
            vec![
                Token::Ident("a"),
                Token::Sign(":="),
                Token::Number(1),
                Token::Ident("dscp"),
                Token::Sign(":="),
                Token::Number(2),
                Token::Number(80),
                Token::Sign("-"),
                Token::Number(90),
                Token::Address("10.0.0.1".parse().unwrap()),
                Token::Sign("-"),
                Token::Address("10.0.0.9".parse().unwrap()),
                Token::End
            ]
        );
    }

    #[test]
    fn comments_nest_and_names_may_hold_hyphens() {
        assert_eq!(
            lex("web-1 (* a (* b *) c *) -- rest\ndb_2"),
            vec![Token::Ident("web-1"), Token::Ident("db_2"), Token::End]
        );
    }

    #[test]
    fn every_lexical_mistake_is_reported() {
        let source = "\u{7}§ 10.0.0.300 99999999999999999999 10.0.0.0/33 \"open\n (* open";
        let mut sink = Sink::new(source.into());
        tokens(source, &mut sink);
        let codes: Vec<_> = sink.finish().iter().map(|d| d.code).collect();
        assert_eq!(
            codes,
            vec![
                Code::UnexpectedCharacter,
                Code::MalformedValue,
                Code::MalformedValue,
                Code::MalformedValue,
                Code::UnterminatedText,
                Code::UnterminatedComment
            ]
        );
    }
}
