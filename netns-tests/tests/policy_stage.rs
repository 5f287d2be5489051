//! A staged policy is counted on live flows by the agents of the nodes where packets enter, and
//! stops none of them.

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod common;

use common::{OPEN, WEB, can_run, cloud};
use nix::sys::signal::Signal;
use sunwire_api::{ApplyRequest, AuditTotals, Name, client::Guard};
use sunwire_lab::{
    eventually,
    traffic::tcp_bulk::{BulkReceiver, BulkSender},
};
use sunwire_netns_tests::cloud::{Cloud, PATIENCE};

const LABELLED: &str = "network shop\npolicy main = forward \"open\"\n";
const STILL_OPEN: &str = "network shop\npolicy main = forward \"still open\"\n";
/// Would end the flow.
const CLOSING: &str = "network shop
policy main = if tcp and dst port 7100 then drop \"no bulk\" else forward \"others\"
";

fn shop() -> Name {
    "shop".parse().unwrap()
}

fn stage(cloud: &Cloud) {
    let staged = cloud.rest(|client| client.stage_policy(&shop(), CLOSING, Guard::Any));
    cloud.wait_applied(staged.unwrap().revision).unwrap();
}

/// What is counted of packets that one rule let through and the candidate's rule would not, or
/// would, too.
fn counted(cloud: &Cloud, live: &str, staged: &str, is_allowed: bool) -> Option<AuditTotals> {
    let candidate = cloud.rest(|client| client.staged_policy(&shop())).unwrap();
    candidate.audit.into_iter().find(|totals| {
        totals.live_label == live
            && totals.staged_label == staged
            && totals.live_allowed
            && totals.staged_allowed == is_allowed
    })
}

fn packets(cloud: &Cloud, live: &str, staged: &str, is_allowed: bool) -> u64 {
    counted(cloud, live, staged, is_allowed).map_or(0, |totals| totals.packets)
}

#[test]
fn a_staged_policy_counts_the_flow_that_it_would_end_and_the_flow_goes_on() {
    if !can_run("a_staged_policy_counts_the_flow_that_it_would_end_and_the_flow_goes_on") {
        return;
    }
    let mut cloud = cloud();
    cloud.apply_policy("shop", LABELLED).unwrap();
    let (client, web) = (
        cloud.lab().workload("client1").unwrap(),
        cloud.lab().workload("web1").unwrap(),
    );
    let address = format!("{WEB}:7100").parse().unwrap();
    let receiver = BulkReceiver::start(web.namespace(), address).unwrap();
    let sender =
        BulkSender::start(client.namespace(), receiver.address(), Some(10.0), PATIENCE).unwrap();
    let flows = || {
        let enough = receiver.bytes() + 500_000;
        eventually("the flow to go on", PATIENCE, || receiver.bytes() > enough).unwrap();
    };
    let counts = |cloud: &Cloud, live: &str, than: u64| {
        eventually("packets that would be dropped", PATIENCE, || {
            packets(cloud, live, "no bulk", false) > than
        })
        .unwrap();
    };
    flows();

    stage(&cloud);
    flows();
    counts(&cloud, "open", 50);
    // The other direction enters at the other node.
    eventually("packets that would pass", PATIENCE, || {
        packets(&cloud, "open", "others", true) > 10
    })
    .unwrap();
    let totals = counted(&cloud, "open", "no bulk", false).unwrap();
    assert!(totals.bytes > totals.packets * 40, "{totals:?}");

    // The count is the kernel's: it goes on where it was when the agent comes back.
    let before = packets(&cloud, "open", "no bulk", false);
    cloud.stop_agent("near", Signal::SIGKILL);
    flows();
    cloud.start_agent("near").unwrap();
    cloud.wait_connected().unwrap();
    counts(&cloud, "open", before);

    // The policy in force changes under the candidate.
    cloud.apply_policy("shop", STILL_OPEN).unwrap();
    counts(&cloud, "still open", 50);
    flows();

    let unstaged = cloud.rest(|client| client.unstage_policy(&shop(), Guard::Any));
    cloud.wait_applied(unstaged.unwrap().revision).unwrap();
    flows();
    let gone = cloud.rest(|client| client.staged_policy(&shop()));
    assert!(gone.is_err(), "{gone:?}");
    assert_eq!(cloud.label_packets("no bulk").unwrap(), 0);

    stage(&cloud);
    counts(&cloud, "still open", 50);
    let applied = cloud.rest(|client| {
        let candidate = ApplyRequest::default();
        client.apply_policy(&shop(), &candidate, Guard::Any)
    });
    cloud.wait_applied(applied.unwrap().revision).unwrap();
    let dropped_more = || {
        let earlier = cloud.label_packets("no bulk").unwrap();
        eventually("packets to be dropped", PATIENCE, || {
            cloud.label_packets("no bulk").unwrap() > earlier
        })
        .unwrap();
    };
    // Counters come every second: what had passed before has arrived by the second time.
    dropped_more();
    dropped_more();
    let bytes = receiver.bytes();
    dropped_more();
    assert_eq!(receiver.bytes(), bytes);

    cloud.apply_policy("shop", OPEN).unwrap();
    flows();
    assert_eq!(sender.stop().unwrap().broken, None);
    assert_eq!(receiver.finish().unwrap().broken, None);
    cloud.down().unwrap();
}
