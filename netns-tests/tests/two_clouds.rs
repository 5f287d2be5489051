//! Two clouds on one machine, with the same names and addresses, do not meet.

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod common;

use common::{OPEN, WEB, can_run, cloud};
use sunwire_lab::traffic::ping::{PingOptions, ping};
use sunwire_netns_tests::cloud::Cloud;

fn received(cloud: &Cloud) -> u32 {
    let client = cloud.lab().workload("client1").expect("the lab has it");
    let options = PingOptions {
        timeout: std::time::Duration::from_secs(1),
        ..Default::default()
    };
    ping(
        client.namespace(),
        WEB.parse().expect("an address"),
        options,
    )
    .unwrap()
    .received()
}

#[test]
fn two_clouds_at_once_do_not_collide() {
    if !can_run("two_clouds_at_once_do_not_collide") {
        return;
    }
    let first = cloud();
    let second = cloud();
    first.apply_policy("shop", OPEN).unwrap();
    assert!(received(&first) > 0);
    assert_eq!(
        received(&second),
        0,
        "the second has no policy, whatever the first has"
    );
    second.apply_policy("shop", OPEN).unwrap();
    assert!(received(&second) > 0);
    first.down().unwrap();
    assert!(received(&second) > 0, "the second outlives the first");
    second.down().unwrap();
}
