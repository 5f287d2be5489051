//! What becomes of packets is told where it happens, by name, to whoever asks.

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod common;

use common::{CLIENT, OPEN, can_run, cloud, telling::first_flow};
use sunwire_api::{FlowEntry, FlowQuery, FlowVerdict, Question, Telling};
use sunwire_userspace::control::{self, Answer, Request};

#[test]
fn flows_are_told_by_name_with_label_verdict_and_way() {
    if !can_run("flows_are_told_by_name_with_label_verdict_and_way") {
        return;
    }
    let cloud = cloud();
    // Without a policy everything is dropped, and the drop says so.
    let dropped = first_flow(&cloud, "near", "from client1 and drop and icmp", 0);
    assert_eq!(dropped.verdict, FlowVerdict::Dropped);
    assert_eq!(dropped.reason.as_deref(), Some("no_policy"));
    assert_eq!(dropped.network.as_deref(), Some("shop"));
    assert_eq!(dropped.from.endpoint.as_deref(), Some("client1"));
    assert_eq!(dropped.from.address, Some(CLIENT.parse().unwrap()));
    assert_eq!(dropped.to.endpoint.as_deref(), Some("web1"));
    assert_eq!(dropped.icmp, Some((8, 0)));
    assert_eq!(dropped.node, "near");

    cloud.apply_policy("shop", OPEN).unwrap();
    let sent = first_flow(&cloud, "near", "from client1 and forwarded", 1);
    assert_eq!(sent.entry, FlowEntry::Endpoint);
    assert_eq!(sent.next_node.as_deref(), Some("far"));
    assert_eq!(sent.destination.as_deref(), Some("web1"));
    assert!(sent.label.is_some(), "{sent:?}");

    let received = first_flow(&cloud, "far", "to web1 and not drop", 1);
    assert_eq!(received.entry, FlowEntry::Tunnel);
    assert_eq!(received.previous_node.as_deref(), Some("near"));
    assert_eq!(received.next_node, None);
    assert_eq!(received.from.endpoint.as_deref(), Some("client1"));

    // A filter that is none is refused with the place of the mistake.
    let state = cloud.lab().node("near").unwrap().state_dir.clone();
    let query = FlowQuery {
        filter: "from".to_owned(),
        ..FlowQuery::default()
    };
    let answer = control::call(&state, &Request::Ask(Question::Flows(query))).unwrap();
    let Answer::Told(Telling::Refused { reason }) = answer else {
        panic!("{answer:?}");
    };
    assert!(reason.contains("is missing"), "{reason}");
    cloud.down().unwrap();
}
