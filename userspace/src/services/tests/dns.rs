//! Names: what is answered here, and what is not.

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RData, Record, RecordType, rdata::A},
};

use super::{OTHER, SHOP, WEB, address, asker, desired, directory, endpoint};
use crate::services::directory::Directory;
use crate::services::dns::{
    answer::{Bad, Outcome, outcome},
    message::{self, Limit},
    upstream,
};

const PACKET: Limit = Limit::Packet(1300);

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn asked_by(number: u32, query: &Message) -> Result<Outcome, Bad> {
    let directory = directory();
    let asker = asker(&directory, number);
    outcome(&asker, &directory, &query.to_vec().unwrap(), PACKET)
}

/// The answer that `web1` gets.
fn answered(query: &Message) -> Message {
    let Ok(Outcome::Answer(bytes)) = asked_by(1, query) else {
        panic!("it is not answered here");
    };
    let answer = Message::from_vec(&bytes).unwrap();
    assert_eq!(answer.metadata.id, query.metadata.id);
    assert_eq!(answer.metadata.message_type, MessageType::Response);
    assert!(answer.metadata.recursion_available);
    assert!(answer.metadata.recursion_desired);
    assert_eq!(answer.queries, query.queries);
    answer
}

fn records(name: &str, kind: RecordType) -> Vec<String> {
    let answer = answered(&query(name, kind));
    assert_eq!(
        answer.metadata.response_code,
        ResponseCode::NoError,
        "{name}"
    );
    assert!(answer.metadata.authoritative);
    let records = answer.answers.iter();
    records.map(|record| record.data.to_string()).collect()
}

/// Asserts that there is nothing, and that it says for how long.
fn is_nothing(name: &str, kind: RecordType, code: ResponseCode, zone: &str) {
    let answer = answered(&query(name, kind));
    assert_eq!(answer.metadata.response_code, code, "{name}");
    assert!(answer.answers.is_empty(), "{name}");
    let [record] = &answer.authorities[..] else {
        panic!("{name}: one SOA record");
    };
    let RData::SOA(soa) = &record.data else {
        panic!("{name}: one SOA record");
    };
    assert_eq!((record.ttl, soa.minimum), (5, 5), "{name}");
    assert_eq!(record.name.to_ascii(), zone, "{name}");
}

fn is_forwarded(name: &str, kind: RecordType) -> bool {
    matches!(asked_by(1, &query(name, kind)), Ok(Outcome::Forward(_)))
}

#[test]
fn an_endpoints_name_has_its_addresses() {
    let both = ["10.20.0.11", "fd00:20::11"];
    assert_eq!(records("web1.shop.internal.", RecordType::A), both[..1]);
    assert_eq!(records("web1.shop.internal.", RecordType::AAAA), both[1..]);
    assert_eq!(records("web1.shop.internal.", RecordType::ANY), both);
    assert_eq!(records("WeB1.SHOP.Internal.", RecordType::A), both[..1]);
    assert_eq!(
        records("gateway.shop.internal.", RecordType::A),
        ["10.20.0.1"]
    );
}

#[test]
fn the_answer_repeats_the_question_as_it_was_written() {
    let answer = answered(&query("WeB1.SHOP.Internal.", RecordType::A));
    assert_eq!(answer.queries[0].name().to_ascii(), "WeB1.SHOP.Internal.");
}

#[test]
fn a_name_without_such_records_exists_all_the_same() {
    let nothing = |name, kind| is_nothing(name, kind, ResponseCode::NoError, "shop.internal.");
    nothing("four1.shop.internal.", RecordType::AAAA);
    nothing("six1.shop.internal.", RecordType::A);
    nothing("web1.shop.internal.", RecordType::MX);
    nothing("web1.shop.internal.", RecordType::HTTPS);
    nothing("shop.internal.", RecordType::A);
}

#[test]
fn a_name_that_is_not_there_does_not_exist() {
    let missing = |name| {
        is_nothing(
            name,
            RecordType::A,
            ResponseCode::NXDomain,
            "shop.internal.",
        );
    };
    missing("none.shop.internal.");
    missing("a.web1.shop.internal.");
    missing("*.shop.internal.");
    // Endpoints of other networks are not there either.
    missing("secret1.shop.internal.");
    missing("db1.shop.internal.");
}

#[test]
fn the_zone_says_who_it_is() {
    let soa = records("shop.internal.", RecordType::SOA);
    assert_eq!(soa.len(), 1);
    assert!(
        soa[0].starts_with("gateway.shop.internal. hostmaster.shop.internal."),
        "{soa:?}"
    );
    assert_eq!(
        records("shop.internal.", RecordType::NS),
        ["gateway.shop.internal."]
    );
}

#[test]
fn an_address_has_its_endpoints_name() {
    let pointer = |name| records(name, RecordType::PTR);
    assert_eq!(pointer("11.0.20.10.in-addr.arpa."), ["web1.shop.internal."]);
    assert_eq!(
        pointer("1.0.20.10.in-addr.arpa."),
        ["gateway.shop.internal."]
    );
    let v6 = "1.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.0.0.0.0.d.f.ip6.arpa.";
    assert_eq!(pointer(v6), ["web1.shop.internal."]);
    let missing = ResponseCode::NXDomain;
    // An address of another network's endpoint, and nobody's.
    for name in ["15.0.20.10.in-addr.arpa.", "99.9.20.10.in-addr.arpa."] {
        is_nothing(name, RecordType::PTR, missing, "20.10.in-addr.arpa.");
    }
    let inner = "0.20.10.in-addr.arpa.";
    is_nothing(
        inner,
        RecordType::PTR,
        ResponseCode::NoError,
        "20.10.in-addr.arpa.",
    );
}

#[test]
fn the_same_question_is_answered_by_the_askers_own_network() {
    let pointer = query("11.0.20.10.in-addr.arpa.", RecordType::PTR);
    let Ok(Outcome::Answer(bytes)) = asked_by(4, &pointer) else {
        panic!("it is not answered here");
    };
    let answer = Message::from_vec(&bytes).unwrap();
    assert_eq!(
        answer.answers[0].data.to_string(),
        "secret1.other.internal."
    );
}

#[test]
fn all_other_names_are_forwarded() {
    assert!(is_forwarded("www.example.org.", RecordType::A));
    assert!(is_forwarded("internal.", RecordType::SOA));
    assert!(is_forwarded("xshop.internal.", RecordType::A));
    assert!(is_forwarded("8.8.8.8.in-addr.arpa.", RecordType::PTR));
    assert!(is_forwarded("10.in-addr.arpa.", RecordType::NS));
    assert!(is_forwarded(".", RecordType::NS));
}

#[test]
fn names_of_a_network_that_is_no_peer_do_not_exist_and_nobody_else_is_asked() {
    let missing = ResponseCode::NXDomain;
    for name in [
        "secret1.other.internal.",
        "other.internal.",
        "none.OTHER.internal.",
    ] {
        for kind in [RecordType::A, RecordType::SOA, RecordType::ANY] {
            let zone = Name::from_ascii(name).unwrap().trim_to(2).to_ascii();
            is_nothing(name, kind, missing, &zone);
        }
    }
    // What is no network of this cloud may be somebody else's.
    assert!(is_forwarded("www.corporate.internal.", RecordType::A));
    assert!(is_forwarded("other.internal.example.org.", RecordType::A));
}

/// `shop` with the peer `lab`, and `other` with neither; what endpoint `number` is answered.
fn answered_beside_lab(is_peered: bool, number: u32, name: &str, kind: RecordType) -> Outcome {
    let mut desired = desired();
    let mut lab = desired.networks[&OTHER].clone();
    lab.name = "Lab".to_owned();
    (lab.gateway_v4, lab.gateway_v6) = (address("10.30.0.1"), address("fd00:30::1"));
    if is_peered {
        lab.peers = vec![SHOP];
        desired.networks.get_mut(&SHOP).unwrap().peers = vec![LAB];
    }
    desired.networks.insert(LAB, lab);
    let bench = endpoint("Bench1", LAB, 0x16, "10.30.0.12", "fd00:30::12");
    desired.endpoints.insert(6, bench);
    let here = (WEB..).zip(1..=6).collect();
    let directory = Directory::new(&desired, here);
    assert!(directory.reflects(&desired, &(WEB..).zip(1..=6).collect()));
    desired.networks.get_mut(&SHOP).unwrap().peers = vec![OTHER];
    assert!(!directory.reflects(&desired, &(WEB..).zip(1..=6).collect()));
    let asker = asker(&directory, number);
    let query = query(name, kind).to_vec().unwrap();
    outcome(&asker, &directory, &query, PACKET).unwrap()
}

const LAB: u32 = 102;
const BENCH_V6: &str = "2.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.3.0.0.0.0.d.f.ip6.arpa.";

/// What a question is answered with: the code, and the records.
fn said(outcome: Outcome) -> (ResponseCode, Vec<String>) {
    let Outcome::Answer(bytes) = outcome else {
        panic!("it is not answered here");
    };
    let answer = Message::from_vec(&bytes).unwrap();
    let records = answer.answers.iter();
    let records = records.map(|record| record.data.to_string()).collect();
    (answer.metadata.response_code, records)
}

#[test]
fn names_of_a_peer_are_answered_on_both_sides() {
    let found = |number, name, kind, expected: &[&str]| {
        let (code, records) = said(answered_beside_lab(true, number, name, kind));
        assert_eq!(code, ResponseCode::NoError, "{name}");
        assert_eq!(records, expected, "{name}");
    };
    let v4 = &["10.30.0.12"];
    let v6 = &["fd00:30::12"];
    found(1, "bench1.lab.internal.", RecordType::A, v4);
    found(1, "bench1.lab.internal.", RecordType::AAAA, v6);
    found(1, "BENCH1.Lab.internal.", RecordType::A, v4);
    found(1, "gateway.lab.internal.", RecordType::A, &["10.30.0.1"]);
    let bench = &["bench1.lab.internal."];
    found(1, "12.0.30.10.in-addr.arpa.", RecordType::PTR, bench);
    found(1, BENCH_V6, RecordType::PTR, bench);
    // Its own names are as before, and the other side has as much of it.
    found(1, "web1.shop.internal.", RecordType::A, &["10.20.0.11"]);
    found(6, "web1.shop.internal.", RecordType::A, &["10.20.0.11"]);
    let web = &["web1.shop.internal."];
    found(6, "11.0.20.10.in-addr.arpa.", RecordType::PTR, web);
    // What is not there is not there.
    let missing = answered_beside_lab(true, 1, "none.lab.internal.", RecordType::A);
    assert_eq!(said(missing), (ResponseCode::NXDomain, Vec::new()));
}

#[test]
fn names_of_a_network_are_answered_to_its_peers_alone() {
    let missing = (ResponseCode::NXDomain, Vec::new());
    let hidden = |is_peered, number, name| {
        let outcome = answered_beside_lab(is_peered, number, name, RecordType::A);
        assert_eq!(said(outcome), missing, "{name}");
    };
    hidden(false, 1, "bench1.lab.internal.");
    hidden(false, 6, "web1.shop.internal.");
    // Whoever is peered with nobody, and has the addresses of `shop`.
    hidden(true, 4, "bench1.lab.internal.");
    hidden(true, 4, "web1.shop.internal.");
    hidden(true, 1, "secret1.other.internal.");
    // An address outside of all subnets of the asker's is nobody's here.
    for (is_peered, number) in [(false, 1), (true, 4)] {
        let name = "12.0.30.10.in-addr.arpa.";
        let outcome = answered_beside_lab(is_peered, number, name, RecordType::PTR);
        assert!(matches!(outcome, Outcome::Forward(_)));
    }
}

#[test]
fn what_is_no_question_is_answered_so() {
    let code = |message: &Message| answered(message).metadata.response_code;
    let mut chaos = query("version.bind.", RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(code(&chaos), ResponseCode::Refused);
    assert_eq!(
        code(&query("shop.internal.", RecordType::AXFR)),
        ResponseCode::Refused
    );
    let mut notify = query("shop.internal.", RecordType::SOA);
    notify.metadata.op_code = OpCode::Notify;
    assert_eq!(code(&notify), ResponseCode::NotImp);
    let mut edns = Edns::new();
    edns.set_version(1);
    let mut newer = query("web1.shop.internal.", RecordType::A);
    newer.set_edns(edns);
    // The library has another name for the same number.
    assert_eq!(u16::from(code(&newer)), u16::from(ResponseCode::BADVERS));
}

#[test]
fn what_makes_no_sense_is_refused_and_said_so() {
    let directory = directory();
    let web = asker(&directory, 1);
    let bad = |bytes: &[u8]| outcome(&web, &directory, bytes, PACKET).unwrap_err();
    // A header and then garbage.
    let mut broken = query("web1.shop.internal.", RecordType::A)
        .to_vec()
        .unwrap();
    broken.truncate(20);
    let said = Message::from_vec(&bad(&broken).answer.unwrap()).unwrap();
    assert_eq!(said.metadata.id, 0x1234);
    assert_eq!(said.metadata.response_code, ResponseCode::FormErr);
    // Nobody to say it to.
    assert!(bad(b"garbage").answer.is_none());
    let mut reply = query("web1.shop.internal.", RecordType::A);
    reply.metadata.message_type = MessageType::Response;
    assert!(
        bad(&reply.to_vec().unwrap()).answer.is_none(),
        "no loop of answers"
    );
    let mut two = query("web1.shop.internal.", RecordType::A);
    two.add_query(two.queries[0].clone());
    assert!(bad(&two.to_vec().unwrap()).answer.is_some());
}

#[test]
fn extensions_are_answered_only_when_asked_with() {
    let plain = answered(&query("web1.shop.internal.", RecordType::A));
    assert!(plain.edns.is_none());
    let mut edns = Edns::new();
    edns.set_max_payload(4096).set_dnssec_ok(true);
    let mut extended = query("web1.shop.internal.", RecordType::A);
    extended.set_edns(edns);
    let edns = answered(&extended).edns.unwrap();
    assert_eq!(edns.max_payload(), 1232);
    assert!(edns.flags().dnssec_ok);
}

/// A resolver's answer with so many addresses.
fn answer_with(asked: &Message, addresses: usize) -> Vec<u8> {
    let mut answer = Message::response(0x7777, OpCode::Query);
    answer.add_query(asked.queries[0].clone());
    let name = asked.queries[0].name().clone();
    for _ in 0..addresses {
        let data = RData::A(A::new(203, 0, 113, 80));
        answer.add_answer(Record::from_rdata(name.clone(), 60, data));
    }
    answer.to_vec().unwrap()
}

#[test]
fn an_answer_is_no_longer_than_the_asker_takes() {
    let relayed = |payload: Option<u16>, limit: Limit| {
        let mut asked = query("www.example.org.", RecordType::A);
        if let Some(bytes) = payload {
            let mut edns = Edns::new();
            edns.set_max_payload(bytes);
            asked.set_edns(edns);
        }
        let limit = limit.of(&asked);
        let bytes = message::relay(answer_with(&asked, 100), &asked, limit);
        let answer = Message::from_vec(&bytes).unwrap();
        assert_eq!(answer.metadata.id, 0x1234);
        assert_eq!(answer.queries, asked.queries);
        (answer.metadata.truncation, answer.answers.len())
    };
    assert_eq!(relayed(None, PACKET), (true, 0));
    assert_eq!(relayed(Some(1232), PACKET), (true, 0));
    // More than fits into a packet of the network is never sent.
    assert_eq!(relayed(Some(4096), PACKET), (true, 0));
    assert_eq!(relayed(Some(4096), Limit::Packet(9000)), (false, 100));
    assert_eq!(relayed(None, Limit::Bytes(u16::MAX)), (false, 100));
}

#[test]
fn only_the_answer_to_the_question_is_one() {
    let asked = query("www.example.org.", RecordType::A);
    let question = &asked.queries[0];
    let answer = answer_with(&asked, 1);
    assert!(message::is_answer(&answer, 0x7777, question));
    assert!(!message::is_answer(&answer, 0x7778, question), "another id");
    let other = query("www.example.com.", RecordType::A);
    assert!(!message::is_answer(
        &answer_with(&other, 1),
        0x7777,
        question
    ));
    let other = query("www.example.org.", RecordType::AAAA);
    assert!(!message::is_answer(
        &answer_with(&other, 1),
        0x7777,
        question
    ));
    let mut a_query = asked.clone();
    a_query.metadata.id = 0x7777;
    assert!(!message::is_answer(
        &a_query.to_vec().unwrap(),
        0x7777,
        question
    ));
    assert!(!message::is_answer(&answer[..11], 0x7777, question));
    assert!(!message::is_answer(&[], 0x7777, question));
}

#[test]
fn resolvers_are_read_as_the_c_library_does() {
    let text = "# nameserver 192.0.2.1\nnameserver 192.0.2.2\n  nameserver\t2001:db8::3 # x\n\
                nameservers 192.0.2.4\nsearch example.org\nnameserver bad\nnameserver 192.0.2.5\n\
                nameserver 192.0.2.6\n";
    let resolvers = upstream::parse(text);
    let texts: Vec<String> = resolvers.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["192.0.2.2:53", "[2001:db8::3]:53", "192.0.2.5:53"]);
    assert!(upstream::parse("").is_empty());
}
