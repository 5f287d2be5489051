//! Messages of DNS: how long they may be, and which answer belongs to which question.

use hickory_proto::{
    op::{Header, Message, MessageType, Query, ResponseCode},
    serialize::binary::{BinDecodable as _, BinDecoder},
};

use super::answer::edns;

/// Bytes of a datagram that are taken here: what fits into every network (RFC 9715, 3.1).
pub(crate) const PAYLOAD_BYTES: u16 = 1232;
/// Bytes that every client takes (RFC 1035, 4.2.1).
const PAYLOAD_BYTES_MIN: u16 = 512;
/// IPv6 and UDP headers.
const HEADERS_BYTES: u16 = 48;
/// Bytes of the fixed header.
const HEADER_BYTES: usize = 12;

/// How long an answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// By UDP, in one packet of at most so many bytes from the IP header on.
    Packet(u16),
    /// So many bytes.
    Bytes(u16),
}

impl Limit {
    /// The limit for answers to a query.
    pub(crate) fn of(self, asked: &Message) -> Limit {
        match self {
            Limit::Packet(mtu) => {
                let fits = mtu.saturating_sub(HEADERS_BYTES).max(PAYLOAD_BYTES_MIN);
                Limit::Bytes(asked.max_payload().clamp(PAYLOAD_BYTES_MIN, fits))
            }
            limit => limit,
        }
    }

    fn bytes(self) -> usize {
        let (Limit::Packet(bytes) | Limit::Bytes(bytes)) = self;
        usize::from(bytes)
    }
}

/// An answer to `asked` without records.
pub(crate) fn reply(asked: &Message, code: ResponseCode) -> Message {
    let mut reply = Message::error_msg(asked.metadata.id, asked.metadata.op_code, code);
    reply.metadata.recursion_desired = asked.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.metadata.checking_disabled = asked.metadata.checking_disabled;
    // More than one is refused, and then none is repeated.
    if let [question] = &asked.queries[..] {
        reply.add_query(question.clone());
    }
    reply.edns = edns(asked);
    if let Some(edns) = &mut reply.edns {
        edns.set_rcode_high(code.high());
    }
    reply
}

/// The bytes of an answer; without its records, and marked so, when it is too long.
pub(crate) fn write(answer: &Message, limit: Limit) -> Vec<u8> {
    let whole = answer.to_vec().unwrap_or_default();
    if !whole.is_empty() && whole.len() <= limit.bytes() {
        return whole;
    }
    let mut short = answer.clone();
    short.answers.clear();
    short.authorities.clear();
    short.additionals.clear();
    short.metadata.truncation = true;
    short.to_vec().unwrap_or_default()
}

/// The answer to a query that cannot be read, if it has a header at all.
pub(crate) fn format_error(query: &[u8]) -> Option<Vec<u8>> {
    let header = Header::read(&mut BinDecoder::new(query)).ok()?;
    if header.metadata.message_type != MessageType::Query {
        return None;
    }
    let (id, op_code) = (header.metadata.id, header.metadata.op_code);
    let reply = Message::error_msg(id, op_code, ResponseCode::FormErr);
    reply.to_vec().ok()
}

/// Puts another identifier into a message.
pub(crate) fn set_id(message: &mut [u8], id: u16) {
    if let Some(bytes) = message.first_chunk_mut::<2>() {
        *bytes = id.to_be_bytes();
    }
}

/// What a resolver's message must be to be the answer to a question (RFC 5452, 9.1); who sent it
/// was checked before.
pub(crate) fn is_answer(message: &[u8], id: u16, question: &Query) -> bool {
    if message.len() < HEADER_BYTES {
        return false;
    }
    let mut decoder = BinDecoder::new(message);
    let Ok(header) = Header::read(&mut decoder) else {
        return false;
    };
    if header.metadata.id != id || header.metadata.message_type != MessageType::Response {
        return false;
    }
    if header.counts.queries != 1 {
        return false;
    }
    Query::read(&mut decoder).is_ok_and(|asked| {
        asked.name() == question.name()
            && asked.query_type() == question.query_type()
            && asked.query_class() == question.query_class()
    })
}

/// A resolver's answer as the client gets it: under its own identifier, and not too long for it.
pub(crate) fn relay(mut answer: Vec<u8>, asked: &Message, limit: Limit) -> Vec<u8> {
    if answer.len() <= limit.bytes() {
        set_id(&mut answer, asked.metadata.id);
        return answer;
    }
    let header = Header::read(&mut BinDecoder::new(&answer));
    let code = header.map_or(ResponseCode::ServFail, |header| {
        header.metadata.response_code
    });
    let mut short = reply(asked, code);
    short.metadata.truncation = true;
    write(&short, limit)
}
