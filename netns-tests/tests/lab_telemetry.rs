//! The whole cloud tells what becomes of packets, through its controller: flows, traces, captures.

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod common;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{CLIENT, WEB, can_run, cloud};
use sunwire_api::client::ClientError;
use sunwire_api::{
    CaptureItem, CaptureQuery, CapturedPacket, Flow, FlowItem, FlowQuery, FlowVerdict, Name, Trace,
    TraceOutcome, TraceRequest, from_hex,
};
use sunwire_lab::traffic::ping::{PingOptions, ping};
use sunwire_netns_tests::cloud::Cloud;

/// Echoes pass, and nothing to port 80.
const POLICY: &str = "\
network shop
policy main =
  if tcp and dst port 80 then drop \"no web\" else forward \"the rest\"
";

fn ping_web(cloud: &Cloud) -> u32 {
    let client = cloud.lab().workload("client1").unwrap();
    let options = PingOptions {
        timeout: Duration::from_secs(1),
        ..Default::default()
    };
    ping(client.namespace(), WEB.parse().unwrap(), options)
        .unwrap()
        .received()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn trace(cloud: &Cloud, request: &TraceRequest) -> Trace {
    cloud.rest(|client| client.trace(request)).unwrap()
}

/// Sends pings until the stream that `open` opens has given enough.
fn until<T: Send, I: Iterator<Item = io::Result<T>>>(
    cloud: &Cloud,
    open: impl FnOnce(&sunwire_api::client::Client) -> Result<I, ClientError> + Send,
    mut enough: impl FnMut(T) -> bool + Send,
) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let pings = scope.spawn(|| {
            for _ in 0..60 {
                if done.load(Ordering::SeqCst) {
                    return;
                }
                ping_web(cloud);
            }
            panic!("not enough was told");
        });
        let told = cloud.rest(|client| {
            for item in open(client)? {
                if enough(item.unwrap()) {
                    break;
                }
            }
            Ok(())
        });
        done.store(true, Ordering::SeqCst);
        told.unwrap();
        pings.join().unwrap();
    });
}

#[test]
fn the_cloud_tells_what_becomes_of_packets() {
    if !can_run("the_cloud_tells_what_becomes_of_packets") {
        return;
    }
    let cloud = cloud();
    denied_without_a_policy(&cloud);
    cloud.apply_policy("shop", POLICY).unwrap();
    assert!(ping_web(&cloud) > 0);
    traces_are_what_happens(&cloud);
    flows_of_all_nodes(&cloud);
    captures_of_all_nodes(&cloud);
    bad_questions(&cloud);
    cloud.down().unwrap();
}

fn denied_without_a_policy(cloud: &Cloud) {
    let traced = trace(cloud, &TraceRequest::new(name("client1"), "web1"));
    assert_eq!(traced.outcome, TraceOutcome::Denied);
    assert_eq!(traced.hops.len(), 1);
    assert_eq!(traced.hops[0].flow.reason.as_deref(), Some("no_policy"));
    // What is dropped is in the capture of whom it was for.
    let query = CaptureQuery {
        endpoint: Some("web1".to_owned()),
        filter: "drop".to_owned(),
        bytes: 256,
    };
    let mut captured: Option<Box<CapturedPacket>> = None;
    until(
        cloud,
        |client| client.capture(&query),
        |item| match item {
            CaptureItem::Packet(packet) => {
                captured = Some(packet);
                true
            }
            _ => false,
        },
    );
    let captured = captured.unwrap();
    assert_eq!(captured.flow.node, "near");
    assert_eq!(captured.flow.reason.as_deref(), Some("no_policy"));
    let frame = from_hex(&captured.frame).unwrap();
    assert_eq!(frame.len(), captured.length as usize);
    assert_eq!(
        frame[26..30],
        CLIENT.parse::<std::net::Ipv4Addr>().unwrap().octets()
    );
}

fn traces_are_what_happens(cloud: &Cloud) {
    let traced = trace(cloud, &TraceRequest::new(name("client1"), "web1"));
    assert_eq!(traced.outcome, TraceOutcome::Delivered, "{traced:#?}");
    let [first, second] = &traced.hops[..] else {
        panic!("{traced:#?}");
    };
    assert_eq!(first.flow.node, "near");
    assert_eq!(first.flow.label.as_deref(), Some("the rest"));
    assert_eq!(first.flow.next_node.as_deref(), Some("far"));
    assert_eq!(second.flow.node, "far");
    assert_eq!(second.flow.previous_node.as_deref(), Some("near"));
    assert_eq!(second.after, Some(0));
    assert!(second.device.is_some());
    assert_eq!(second.flow.destination.as_deref(), Some("web1"));

    let denied = TraceRequest {
        protocol: Some("tcp".to_owned()),
        destination_port: Some(80),
        ..TraceRequest::new(name("client1"), WEB)
    };
    let traced = trace(cloud, &denied);
    assert_eq!(traced.outcome, TraceOutcome::Denied);
    assert_eq!(traced.hops[0].flow.label.as_deref(), Some("no web"));
    assert_eq!(traced.hops[0].flow.reason.as_deref(), Some("policy"));

    let forged = TraceRequest {
        source: Some("10.20.0.99".parse().unwrap()),
        ..TraceRequest::new(name("client1"), "web1")
    };
    let traced = trace(cloud, &forged);
    assert_eq!(
        traced.hops[0].flow.reason.as_deref(),
        Some("spoofed_source")
    );

    let nobody = trace(cloud, &TraceRequest::new(name("client1"), "10.20.99.99"));
    assert_eq!(nobody.outcome, TraceOutcome::Lost);
    assert_eq!(nobody.hops[0].flow.reason.as_deref(), Some("no_owner"));
}

fn flows_of_all_nodes(cloud: &Cloud) {
    let query = FlowQuery {
        filter: "from client1 and to web1 and icmp and forwarded".to_owned(),
        last: 0,
        follow: true,
        sample: 1,
    };
    let mut entered: Option<Box<Flow>> = None;
    let mut arrived: Option<Box<Flow>> = None;
    until(
        cloud,
        |client| client.flows(&query),
        |item| {
            if let FlowItem::Flow(flow) = item {
                match flow.node.as_str() {
                    "near" => entered = Some(flow),
                    "far" => arrived = Some(flow),
                    other => panic!("{other} is not on the way"),
                }
            }
            entered.is_some() && arrived.is_some()
        },
    );
    assert_eq!(entered.unwrap().next_node.as_deref(), Some("far"));
    assert_eq!(arrived.unwrap().previous_node.as_deref(), Some("near"));

    // The drops from before the policy are still known.
    let query = FlowQuery {
        filter: "reason no_policy and icmp".to_owned(),
        last: 10,
        ..FlowQuery::default()
    };
    let earlier = cloud.rest(|client| {
        let items = client.flows(&query)?;
        Ok(items.collect::<io::Result<Vec<FlowItem>>>().unwrap())
    });
    let earlier = earlier.unwrap();
    let is_drop = |item: &FlowItem| match item {
        FlowItem::Flow(flow) => flow.verdict == FlowVerdict::Dropped,
        _ => false,
    };
    assert!(earlier.iter().any(is_drop), "{earlier:?}");
}

fn captures_of_all_nodes(cloud: &Cloud) {
    // Whichever end is asked about: at one of the two nodes it is another node's.
    for endpoint in ["web1", "client1"] {
        captures_at_both_nodes(cloud, endpoint);
    }
}

fn captures_at_both_nodes(cloud: &Cloud, endpoint: &str) {
    let query = CaptureQuery {
        endpoint: Some(endpoint.to_owned()),
        filter: "icmp and from client1".to_owned(),
        bytes: 256,
    };
    let mut nodes = std::collections::BTreeSet::new();
    until(
        cloud,
        |client| client.capture(&query),
        |item| {
            if let CaptureItem::Packet(packet) = item {
                assert_eq!(packet.flow.verdict, FlowVerdict::Forwarded);
                assert_eq!(packet.flow.bytes, packet.length, "no headers of a tunnel");
                // As the workload sent it, at both nodes.
                let frame = from_hex(&packet.frame).unwrap();
                assert_eq!(frame[12..14], [8, 0]);
                assert_eq!(
                    frame[30..34],
                    WEB.parse::<std::net::Ipv4Addr>().unwrap().octets()
                );
                nodes.insert(packet.flow.node.clone());
            }
            nodes.len() == 2
        },
    );
}

fn bad_questions(cloud: &Cloud) {
    let refused = |outcome: anyhow::Result<()>, code: &str| {
        let error = format!("{:#}", outcome.unwrap_err());
        assert!(error.contains(code), "{error}");
    };
    let query = FlowQuery {
        filter: "from".to_owned(),
        ..FlowQuery::default()
    };
    refused(
        cloud.rest(|client| client.flows(&query).map(|_| ())),
        "InvalidQuery",
    );
    let query = CaptureQuery {
        endpoint: Some("nobody".to_owned()),
        ..CaptureQuery::default()
    };
    refused(
        cloud.rest(|client| client.capture(&query).map(|_| ())),
        "EndpointNotFound",
    );
    let trace = |request: TraceRequest| cloud.rest(|client| client.trace(&request).map(|_| ()));
    refused(
        trace(TraceRequest::new(name("nobody"), "web1")),
        "EndpointNotFound",
    );
    refused(
        trace(TraceRequest::new(name("client1"), "nobody")),
        "NotTraceable",
    );
    let portless = TraceRequest {
        protocol: Some("tcp".to_owned()),
        ..TraceRequest::new(name("client1"), "web1")
    };
    refused(trace(portless), "NotTraceable");
}
