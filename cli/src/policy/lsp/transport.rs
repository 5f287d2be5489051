//! Bytes to messages: headers, a blank line, and as many bytes of JSON as the headers say.
//!
//! What is no message is reported and passed over: the next header is looked for, so that one
//! broken message never ends a session. Only the end of the input does.

use std::io::{self, BufRead, Read as _};

use lsp_server::Message;

/// Longest header line.
const HEADER_BYTES: u64 = 8 << 10;
/// Longest message: several times the longest text, which JSON may swell.
const MESSAGE_BYTES: u64 = 64 << 20;
/// The header that says how long a message is, in lower case.
const LENGTH: &str = "content-length:";

/// What was read.
#[derive(Debug)]
pub(super) enum Incoming {
    Message(Message),
    /// Something that is no message, and why.
    Malformed(String),
    End,
}

/// Reads the next message.
pub(super) fn read(input: &mut impl BufRead) -> io::Result<Incoming> {
    let mut length = None;
    let mut stray = false;
    loop {
        let mut line = Vec::new();
        input.take(HEADER_BYTES).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(Incoming::End);
        }
        let line = String::from_utf8_lossy(&line).to_lowercase();
        if line.trim().is_empty() {
            if length.is_some() || stray {
                break;
            }
            continue;
        }
        // After a message shorter or longer than it said, a header may stand behind its rest.
        match line.find(LENGTH) {
            Some(at) => length = line[at + LENGTH.len()..].trim().parse::<u64>().ok(),
            None => stray |= !line.contains(':') || !line.ends_with('\n'),
        }
    }
    let Some(length) = length else {
        return Ok(Incoming::Malformed(
            "a message without a length was passed over".to_owned(),
        ));
    };
    let mut body = Vec::new();
    let mut rest = input.take(length);
    if length > MESSAGE_BYTES {
        io::copy(&mut rest, &mut io::sink())?;
        return Ok(Incoming::Malformed(format!(
            "a message of {length} bytes was passed over: it is too long"
        )));
    }
    rest.read_to_end(&mut body)?;
    Ok(match serde_json::from_slice(&body) {
        Ok(message) => Incoming::Message(message),
        Err(error) => Incoming::Malformed(format!("a message was passed over: {error}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(body: &str) -> String {
        format!("Content-Length: {}\r\n\r\n{body}", body.len())
    }

    /// The methods that are read, with what is passed over between.
    fn methods(bytes: &[u8]) -> Vec<String> {
        let mut input = bytes;
        let mut out = Vec::new();
        loop {
            match read(&mut input).unwrap() {
                Incoming::Message(Message::Notification(message)) => out.push(message.method),
                Incoming::Message(_) => out.push("?".to_owned()),
                Incoming::Malformed(_) => out.push("!".to_owned()),
                Incoming::End => return out,
            }
        }
    }

    #[test]
    fn what_is_no_message_is_passed_over_and_the_next_one_read() {
        let good = frame(r#"{"jsonrpc":"2.0","method":"good"}"#);
        for bad in [
            frame("{"),
            frame("[1, 2]"),
            frame("\u{0}\u{ff}"),
            frame(r#"{"id": {}, "method": 7}"#),
            "garbage\r\n\r\n".to_owned(),
            "Content-Length: many\r\nx\r\n\r\n".to_owned(),
            "Content-Type: text\r\nno\r\n\r\n".to_owned(),
        ] {
            let bytes = format!("{good}{bad}{good}");
            assert_eq!(methods(bytes.as_bytes()), ["good", "!", "good"], "{bad}");
        }
    }

    #[test]
    fn a_message_longer_than_it_says_costs_only_itself() {
        let good = frame(r#"{"jsonrpc":"2.0","method":"good"}"#);
        let long = "Content-Length: 5\r\n\r\n{\"jsonrpc\":\"2.0\"}".to_owned();
        let found = methods(format!("{long}{good}{good}").as_bytes());
        assert_eq!(found.last().map(String::as_str), Some("good"), "{found:?}");
        assert!(found.iter().filter(|m| *m == "good").count() >= 1);
    }

    #[test]
    fn an_input_that_ends_anywhere_ends_the_session() {
        let good = frame(r#"{"jsonrpc":"2.0","method":"good"}"#);
        for cut in 0..good.len() {
            assert!(!methods(&good.as_bytes()[..cut]).contains(&"good".to_owned()));
        }
        assert_eq!(methods(good.as_bytes()), ["good"]);
    }

    #[test]
    fn random_bytes_are_read_to_their_end() {
        let mut state = 1u64;
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        })
        .take(100_000)
        .collect();
        methods(&bytes);
    }
}
