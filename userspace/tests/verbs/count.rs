//! `count` counts every packet that comes by it, and nothing else.

use sunwire_userspace::maps::Capacity;

use super::{CLIENT, DB, WEB, World, once};
use crate::fixture::wire::Transport;

const POLICY: &str = "policy main =
    count all;
    if tcp and dst port 80 then (count web; forward \"web\")
    else if tcp and dst port 81 then (count web; count other; dscp := 10; forward \"marked\")
    else if udp then (count refused; drop \"no datagrams\")
    else if icmp then (count ping; forward + count other; port := db1)
    else drop
";

#[test]
fn kernel_packets_are_counted_by_name_wherever_they_come_by() {
    let Some(mut world) = World::new("kernel_counted", Capacity::default()) else {
        return;
    };
    world.apply(POLICY);
    let mut named = 0;
    for is_v4 in [true, false] {
        let icmp = if is_v4 { 8 } else { 128 };
        for transport in [
            Transport::Tcp(4000, 80),
            Transport::Tcp(4000, 81),
            Transport::Tcp(4000, 82),
            Transport::Udp(4000, 80),
            Transport::Icmp(icmp, 0),
            // No flow is remembered of these.
            Transport::Icmp(if is_v4 { 3 } else { 1 }, 1),
        ] {
            for to in [DB, CLIENT] {
                let frame = world.frame(WEB, to, is_v4, transport);
                let (expected, _) = world.noted(WEB, &frame);
                assert!(expected.contains("all"), "{expected:?}");
                named += expected.len();
                // Later packets find what the first one left.
                for round in 0..3 {
                    let found = world.send(WEB, &frame).counts;
                    assert_eq!(found, once(expected.clone()), "{transport:?} {round}");
                }
            }
        }
    }
    assert!(named > 40, "{named}");
}

#[test]
fn kernel_a_new_policy_counts_known_flows_by_its_own_names() {
    let Some(mut world) = World::new("kernel_counted_anew", Capacity::default()) else {
        return;
    };
    let frame = world.frame(WEB, DB, true, Transport::Tcp(4000, 80));
    for name in ["one", "two"] {
        world.apply(&format!("policy main = count {name}; forward"));
        for _ in 0..2 {
            let (expected, _) = world.noted(WEB, &frame);
            assert_eq!(expected.len(), 1);
            assert_eq!(world.send(WEB, &frame).counts, once(expected));
        }
    }
    // A name and a label may be one word: they count apart.
    world.apply("policy main = count two; forward \"two\"");
    let fate = world.send(WEB, &frame);
    assert_eq!((fate.counts.len(), fate.labels.len()), (1, 1));
    world.apply("policy main = forward \"two\"");
    let fate = world.send(WEB, &frame);
    assert_eq!((fate.counts.len(), fate.labels.len()), (0, 1));
}
