//! Frames of wires of a network with outer checksums.

use crate::{
    LONG, VNI, desired,
    fixture::{
        devices::UNDERLAY,
        wire::{summed, with_outer_checksum},
    },
    frames, node_mac, start, tunnelled, vtep,
};

#[test]
fn kernel_frames_of_wires_have_the_outer_checksum_of_their_network() {
    let test = "kernel_frames_of_wires_have_the_outer_checksum_of_their_network";
    let Some(mut node) = start(test) else { return };
    let mut state = desired();
    state.networks.get_mut(&VNI).unwrap().checksum = true;
    node.write_checksums();
    node.apply(&state).unwrap();
    for (name, frame) in frames() {
        let sent = node.send_raw("ep1", &frame);
        let [(device, sent)] = <[_; 1]>::try_from(sent).unwrap();
        assert_eq!(device, UNDERLAY);
        let expected = tunnelled((1, 2), LONG, false, 0, &frame);
        assert_eq!(summed(sent), expected, "{name}");
    }
    // Its end has moved on: so do frames, with a checksum for where they go.
    let end = state.endpoints.get_mut(&1).unwrap();
    (end.node, end.other) = (3, 1);
    node.resolve(vtep(3), node_mac(3));
    node.apply(&state).unwrap();
    let frame = frames().remove(3).1;
    let arriving = tunnelled((2, 1), LONG, true, 0, &frame);
    for checksum in [0, 0x1234] {
        let arriving = with_outer_checksum(arriving.clone(), checksum);
        let sent = node.send_raw(UNDERLAY, &arriving);
        let [(device, sent)] = <[_; 1]>::try_from(sent).unwrap();
        assert_eq!(device, UNDERLAY);
        assert_eq!(summed(sent), tunnelled((1, 3), LONG, true, 1, &frame));
    }
}
