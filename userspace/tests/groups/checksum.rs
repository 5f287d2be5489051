//! Copies of a network with outer checksums.

use crate::{
    VNI, broadcast,
    fixture::{devices::UNDERLAY, wire::summed},
    flooding, members, over_ipv6, start, tag, to_device, tunnel, tunnel_v6,
};

#[test]
fn kernel_copies_have_the_outer_checksum_of_their_network_whatever_they_go_over() {
    let test = "kernel_copies_have_the_outer_checksum_of_their_network_whatever_they_go_over";
    let mut desired = flooding(2);
    let Some(mut node) = start(test, 2, &desired) else {
        return;
    };
    over_ipv6(&mut node, &mut desired, &[3]);
    node.write_checksums();
    desired.networks.get_mut(&VNI).unwrap().checksum = true;
    node.apply(&desired).unwrap();
    let frame = broadcast(1);
    let sent = node.send_raw("ep1", &frame);
    let (away, here): (Vec<_>, Vec<_>) =
        sent.into_iter().partition(|(device, _)| device == UNDERLAY);
    assert_eq!(here, [to_device(2, &frame)]);
    let mut away: Vec<_> = away.into_iter().map(|(_, frame)| summed(frame)).collect();
    away.sort();
    let tag = tag(&members(2));
    let mut expected = vec![
        tunnel(1, 2).wrap_for(tag, &frame),
        tunnel_v6(1, 3).wrap_for(tag, &frame),
    ];
    expected.sort();
    assert_eq!(away, expected);
}
