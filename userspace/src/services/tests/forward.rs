//! Questions to resolvers, which are tasks of the test.

use std::{net::SocketAddr, time::Duration};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RecordType},
};
use tokio::net::UdpSocket;

use crate::services::dns::{
    answer::Forward, forward::Forwarder, message::Limit, upstream::Upstream,
};

fn question(name: &str) -> Forward {
    let mut asked = Message::new(0x1234, MessageType::Query, OpCode::Query);
    asked.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    Forward {
        query: asked.to_vec().unwrap(),
        asked: Box::new(asked),
        limit: Limit::Bytes(512),
    }
}

async fn resolver() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

async fn receive(socket: &UdpSocket) -> (Message, SocketAddr) {
    let mut buffer = [0; 1500];
    let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
    (Message::from_vec(&buffer[..length]).unwrap(), from)
}

fn refusal(asked: &Message) -> Message {
    let id = asked.metadata.id;
    let mut answer = Message::error_msg(id, OpCode::Query, ResponseCode::Refused);
    answer.add_query(asked.queries[0].clone());
    answer
}

async fn resolve(forwarder: &Forwarder, forward: &Forward) -> ResponseCode {
    let permit = forwarder.admit(1).unwrap();
    let bytes = forwarder.resolve(forward, permit).await;
    let answer = Message::from_vec(&bytes).unwrap();
    assert_eq!(answer.metadata.id, 0x1234);
    assert_eq!(answer.queries, forward.asked.queries);
    answer.metadata.response_code
}

#[tokio::test]
async fn only_the_answer_to_the_question_is_taken() {
    let (socket, address) = resolver().await;
    let forwarder = Forwarder::new(Upstream::Given(vec![address]));
    let forward = question("www.example.org.");
    let play = async {
        let (asked, from) = receive(&socket).await;
        // A guesser with the wrong identifier, one with the wrong question, garbage, one who is
        // not the resolver; then the resolver.
        let mut forged = refusal(&asked);
        forged.metadata.response_code = ResponseCode::NXDomain;
        let mut wrong = forged.clone();
        wrong.metadata.id ^= 1;
        let wrong_question = {
            let name = Name::from_ascii("www.example.com.").unwrap();
            let mut wrong = forged.clone();
            wrong.queries = vec![Query::query(name, RecordType::A)];
            wrong
        };
        for bytes in [
            wrong.to_vec().unwrap(),
            wrong_question.to_vec().unwrap(),
            b"garbage".to_vec(),
        ] {
            socket.send_to(&bytes, from).await.unwrap();
        }
        let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let forged = forged.to_vec().unwrap();
        stranger.send_to(&forged, from).await.unwrap();
        let answer = refusal(&asked).to_vec().unwrap();
        socket.send_to(&answer, from).await.unwrap();
    };
    let (code, ()) = tokio::join!(resolve(&forwarder, &forward), play);
    assert_eq!(code, ResponseCode::Refused);
}

#[tokio::test]
async fn every_question_has_an_identifier_and_a_port_of_its_own() {
    let (socket, address) = resolver().await;
    let forwarder = Forwarder::new(Upstream::Given(vec![address]));
    let forward = question("www.example.org.");
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let play = async {
            let (asked, from) = receive(&socket).await;
            let answer = refusal(&asked).to_vec().unwrap();
            socket.send_to(&answer, from).await.unwrap();
            (asked.metadata.id, from.port())
        };
        let (_, asked) = tokio::join!(resolve(&forwarder, &forward), play);
        seen.insert(asked);
    }
    let ids: std::collections::BTreeSet<u16> = seen.iter().map(|(id, _)| *id).collect();
    let ports: std::collections::BTreeSet<u16> = seen.iter().map(|(_, port)| *port).collect();
    // Chance may repeat one, but not many.
    assert!(ids.len() > 15, "{ids:?}");
    assert!(ports.len() > 10, "{ports:?}");
}

#[tokio::test]
async fn the_next_resolver_is_asked_when_one_is_silent() {
    let (_silent, first) = resolver().await;
    let (socket, second) = resolver().await;
    let forwarder = Forwarder::new(Upstream::Given(vec![first, second]));
    let forward = question("www.example.org.");
    let play = async {
        let (asked, from) = receive(&socket).await;
        let answer = refusal(&asked).to_vec().unwrap();
        socket.send_to(&answer, from).await.unwrap();
    };
    let (code, ()) = tokio::join!(resolve(&forwarder, &forward), play);
    assert_eq!(code, ResponseCode::Refused);
}

#[tokio::test]
async fn the_asker_is_told_when_nobody_answers() {
    let forward = question("www.example.org.");
    let nobody = Forwarder::new(Upstream::Given(vec![]));
    assert_eq!(resolve(&nobody, &forward).await, ResponseCode::ServFail);
    let (_silent, address) = resolver().await;
    let silent = Forwarder::new(Upstream::Given(vec![address]));
    let asked = tokio::time::timeout(Duration::from_secs(60), resolve(&silent, &forward));
    assert_eq!(asked.await, Ok(ResponseCode::ServFail));
}

#[test]
fn so_many_questions_of_an_endpoint_are_under_way() {
    let forwarder = Forwarder::new(Upstream::Given(vec![]));
    let mut permits: Vec<_> = (0..128).map(|_| forwarder.admit(1).unwrap()).collect();
    assert!(forwarder.admit(1).is_none());
    permits.pop();
    permits.push(forwarder.admit(1).unwrap());
    // Another one is not kept from asking, until all are too many.
    for endpoint in 2..17 {
        permits.extend((0..128).map(|_| forwarder.admit(endpoint).unwrap()));
    }
    assert!(forwarder.admit(17).is_none());
    drop(permits);
    assert!(forwarder.admit(17).is_some());
}
