//! Agents and the controller tell Prometheus what they count, the agents also without the controller.

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod common;

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use common::{WEB, can_run, cloud};
use nix::sys::signal::Signal;
use sunwire_lab::{
    NodeHandle, eventually,
    traffic::udp::{UdpReceiver, UdpSender},
};
use sunwire_netns_tests::cloud::{Cloud, PATIENCE};

/// Datagrams to port 7000 pass under a label of their own, others are dropped.
const POLICY: &str = "network shop
policy main =
    if udp and dst port 7000 then forward \"numbered\"
    else drop \"the rest\"
";

/// Values by the name and labels as they stand in the text.
type Samples = BTreeMap<String, f64>;

fn scrape(node: &NodeHandle, address: SocketAddr) -> Samples {
    let asked = node.namespace.run(|| {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        std::io::Result::Ok(answer)
    });
    let answer = asked.unwrap().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("application/openmetrics-text"), "{head}");
    parse(body)
}

/// Reads the text by the letter: each sample belongs to a metric that was announced with its type, no
/// sample comes twice, totals are totals of counters, and the end is marked.
fn parse(text: &str) -> Samples {
    let mut kinds = BTreeMap::new();
    let mut samples = Samples::new();
    let mut lines = text.lines();
    for line in lines.by_ref() {
        if line == "# EOF" {
            break;
        } else if let Some(announced) = line.strip_prefix("# TYPE ") {
            let (name, kind) = announced.split_once(' ').unwrap();
            assert!(
                kinds.insert(name, kind).is_none(),
                "{name} is announced twice"
            );
        } else if !line.starts_with("# ") {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            let of = name.strip_suffix("_total").unwrap_or(name);
            let expected = if of == name { "gauge" } else { "counter" };
            assert_eq!(kinds.get(of), Some(&expected), "{line}");
            assert!(name.starts_with("sunwire_"), "{line}");
            let value: f64 = value.parse().unwrap();
            assert!(samples.insert(series.to_owned(), value).is_none(), "{line}");
        }
    }
    assert_eq!(lines.next(), None, "nothing follows the end");
    samples
}

fn of_agent(cloud: &Cloud, node: &str) -> Samples {
    let node = cloud.lab().node(node).unwrap();
    scrape(node, "127.0.0.1:7512".parse().unwrap())
}

fn value(samples: &Samples, series: &str) -> f64 {
    samples.get(series).copied().unwrap_or(0.0)
}

#[test]
fn lab_metrics_count_what_happens_and_outlive_the_controller() {
    if !can_run("lab_metrics_count_what_happens_and_outlive_the_controller") {
        return;
    }
    let mut cloud = cloud();
    cloud.apply_policy("shop", POLICY).unwrap();
    let (client, web) = (
        cloud.lab().workload("client1").unwrap(),
        cloud.lab().workload("web1").unwrap(),
    );
    let send = |port: u16, count: u64| {
        let to = format!("{WEB}:{port}").parse().unwrap();
        let sent = UdpSender::start(client.namespace(), to, 100, 1_000.0, Some(count));
        assert_eq!(sent.unwrap().finish().sent, count);
    };
    let receiver = UdpReceiver::start(web.namespace(), format!("{WEB}:7000").parse().unwrap());
    let receiver = receiver.unwrap();
    send(7000, 200);
    send(7001, 50);
    eventually("all to arrive", PATIENCE, || receiver.received() == 200).unwrap();

    let passed = "sunwire_policy_packets_total{network=\"shop\",label=\"numbered\"}";
    let refused = "sunwire_policy_packets_total{network=\"shop\",label=\"the rest\"}";
    let dropped = "sunwire_dropped_packets_total{reason=\"policy\"}";
    eventually("the node to have read its counters", PATIENCE, || {
        let near = of_agent(&cloud, "near");
        value(&near, passed) == 200.0 && value(&near, refused) >= 50.0
    })
    .unwrap();
    let near = of_agent(&cloud, "near");
    assert!(value(&near, dropped) >= 50.0, "{near:#?}");
    let bytes = value(&near, &passed.replace("packets", "bytes"));
    assert!(bytes >= 200.0 * 128.0, "{bytes} B with their headers");
    assert_eq!(value(&near, "sunwire_agent_connected"), 1.0);
    assert!(value(&near, "sunwire_agent_generation") >= 1.0);
    assert_eq!(value(&near, "sunwire_endpoints{state=\"attached\"}"), 1.0);
    assert_eq!(
        value(&near, "sunwire_tunnel{node=\"far\",state=\"encrypted\"}"),
        1.0,
        "{near:#?}"
    );
    assert!(value(&near, "sunwire_flows_capacity") > 0.0);

    // The controller tells the same of all nodes, once it has heard it.
    let controller = cloud.lab().controller().unwrap().clone();
    let rest = SocketAddr::from((controller.underlay_address, 7510));
    let of_near =
        "sunwire_node_policy_packets_total{node=\"near\",network=\"shop\",label=\"numbered\"}";
    eventually("the controller to hear", PATIENCE, || {
        value(&scrape(&controller, rest), of_near) == 200.0
    })
    .unwrap();
    let all = scrape(&controller, rest);
    assert_eq!(value(&all, "sunwire_node_connected{node=\"far\"}"), 1.0);
    let revision = cloud.rest(|client| client.status()).unwrap().revision;
    assert!(value(&all, "sunwire_controller_revision") <= revision as f64);

    cloud.stop_controller(Signal::SIGKILL);
    send(7000, 100);
    eventually("the agent to tell without the controller", PATIENCE, || {
        let near = of_agent(&cloud, "near");
        value(&near, passed) == 300.0 && value(&near, "sunwire_agent_connected") == 0.0
    })
    .unwrap();
    cloud.down().unwrap();
}
