//! What agents tell of flows.

use std::time::Duration;

use sunwire_api::{Flow, FlowItem, FlowQuery, Question, Telling};
use sunwire_lab::traffic::ping::{PingOptions, ping};
use sunwire_netns_tests::cloud::Cloud;
use sunwire_userspace::control::{self, Answer, Request};

use super::WEB;

fn ping_web(cloud: &Cloud) {
    let client = cloud.lab().workload("client1").unwrap();
    let options = PingOptions {
        timeout: Duration::from_secs(1),
        ..Default::default()
    };
    ping(client.namespace(), WEB.parse().unwrap(), options).unwrap();
}

/// Sends pings until the agent of `node` has told one flow that passes `filter`.
pub(crate) fn first_flow(cloud: &Cloud, node: &str, filter: &str, sample: u32) -> Flow {
    let state = cloud.lab().node(node).unwrap().state_dir.clone();
    let query = FlowQuery {
        filter: filter.to_owned(),
        last: 1,
        follow: true,
        sample,
    };
    let answers = control::listen(&state, &Request::Ask(Question::Flows(query))).unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    // Ends with the test's agent.
    std::thread::spawn(move || {
        for answer in answers {
            match answer {
                Ok(Answer::Told(Telling::Flow {
                    item: FlowItem::Flow(flow),
                })) => {
                    let _ = sender.send(Ok(flow));
                    return;
                }
                Ok(Answer::Told(Telling::Flow { .. })) => {}
                other => {
                    let _ = sender.send(Err(format!("{other:?}")));
                    return;
                }
            }
        }
    });
    for _ in 0..60 {
        ping_web(cloud);
        match receiver.recv_timeout(Duration::from_secs(1)) {
            Ok(flow) => return *flow.unwrap(),
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("no flow of {node} passes {filter}");
}
