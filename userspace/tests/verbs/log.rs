//! `log` tells of every new flow that comes by it, and of what is dropped behind it.

use sunwire_dataplane_common::event::{verdict, why};
use sunwire_userspace::maps::Capacity;

use super::{CLIENT, DB, WEB, World};
use crate::fixture::wire::Transport;

const POLICY: &str = "policy main =
    if tcp and dst port 22 then (log \"ssh\"; forward)
    else if tcp and dst port 23 then (log \"telnet\"; drop \"no telnet\")
    else if tcp and dst port 24 then (log; forward)
    else if icmp then (log \"icmp\"; forward)
    else forward
";

#[test]
fn kernel_new_flows_and_drops_behind_log_are_told_as_logged() {
    let Some(mut world) = World::new("kernel_logged", Capacity::default()) else {
        return;
    };
    world.apply(POLICY);
    let mut logged = 0;
    for is_v4 in [true, false] {
        for transport in [
            Transport::Tcp(4000, 22),
            Transport::Tcp(4000, 23),
            Transport::Tcp(4000, 24),
            Transport::Tcp(4000, 25),
            // No flow is remembered of this: each packet is the first.
            Transport::Icmp(if is_v4 { 3 } else { 1 }, 1),
        ] {
            for to in [DB, CLIENT] {
                let frame = world.frame(WEB, to, is_v4, transport);
                let (_, expected) = world.noted(WEB, &frame);
                for round in 0..3 {
                    world.send(WEB, &frame);
                    let told = world.told();
                    let drops = transport == Transport::Tcp(4000, 23);
                    let has_flow = matches!(transport, Transport::Tcp(..)) && !drops;
                    let again = round > 0 && has_flow;
                    let is_logged = expected.is_some() && !again;
                    let event = told.iter().find(|event| event.why & why::LOG != 0);
                    assert_eq!(
                        event.is_some(),
                        is_logged,
                        "{transport:?} {round}: {told:?}"
                    );
                    if let Some(event) = event {
                        assert_eq!(event.verdict == verdict::DROPPED, drops);
                        assert_eq!(event.why & why::NEW != 0, has_flow);
                        let log = event.log;
                        assert_eq!(world.text(log), expected, "{transport:?}");
                        logged += 1;
                    } else {
                        assert!(told.iter().all(|event| event.log == 0));
                    }
                }
            }
        }
    }
    assert_eq!(logged, 2 * 2 * (1 + 3 + 1 + 3));
}
