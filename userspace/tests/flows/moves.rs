//! An endpoint's connections go with it.

use std::net::IpAddr;

use sunwire_dataplane_common::{drop_reason::DropReason, flow::seen};
use sunwire_userspace::{
    connections::{
        exchange::ExchangeError,
        parcel::{Connection, Ends, Parcel},
    },
    maps::Capacity,
};

use super::{A, AWAY, B, World, frame, open, replies_only, udp};
use crate::{fixture::wire::Transport, packets::world::OTHER_ADDRESS};

const NAME: &str = "endpoint1";

fn bytes(parcels: &[Parcel]) -> Vec<Vec<u8>> {
    parcels.iter().map(Parcel::to_bytes).collect()
}

/// What arrives at node 1 as connections of an endpoint from another node.
fn adopt(world: &World, parcels: &[Parcel]) {
    for parcel in bytes(parcels) {
        world.connections.adopt(NAME, &parcel).unwrap();
    }
}

#[test]
fn kernel_established_connections_are_established_where_their_endpoint_arrives() {
    let Some(mut world) = World::new("kernel_moves", Capacity::default()) else {
        return;
    };
    world.put(replies_only, "replies");
    let (echo, pong) = (Transport::Icmp(128, 0), Transport::Icmp(129, 0));
    let exchanges = [
        (true, Transport::Udp(5000, 6000), Transport::Udp(6000, 5000)),
        (true, Transport::Tcp(5000, 80), Transport::Tcp(80, 5000)),
        (false, Transport::Tcp(5000, 80), Transport::Tcp(80, 5000)),
        (false, echo, pong),
    ];
    let replies = exchanges.map(|(is_v4, there, back)| {
        world.arrives(&frame(is_v4, AWAY, A, there).bytes());
        let reply = frame(is_v4, A, AWAY, back).bytes();
        world.passes(A, &reply, "reply");
        reply
    });
    let export = world.connections.export(NAME).unwrap();
    assert_eq!(export.connections, 4);
    // What happens between the export and the release: one more, one that goes on, one that ends.
    let late = udp(A, AWAY, (7000, 5000));
    world.arrives(&udp(AWAY, A, (5000, 7000)));
    world.passes(A, &replies[0], "reply");
    let ended = world.flows(A.0);
    let ended = ended.iter().find(|flow| flow.family == 6).unwrap();
    world.connections.tables().remove(6, &ended.key).unwrap();
    let rest = world.connections.rest(A.0, Some(export.token)).unwrap();
    assert_eq!(rest.len(), 2);
    assert_eq!((rest[0].connections.len(), rest[1].gone.len()), (1, 1));

    // There: nothing is known, then all but the verdicts is.
    world.connections.tables().forget(A.0).unwrap();
    world.drops(A, &replies[0], DropReason::Policy);
    let leaving = world.desired.endpoints.get_mut(&A.0).unwrap();
    (leaving.node, leaving.other, leaving.moving) = (2, 1, true);
    let device = std::mem::replace(&mut leaving.device, "not here yet".to_owned());
    world.apply();
    adopt(&world, &export.parcels);
    adopt(&world, &rest);
    let adopted = world.flows(A.0);
    assert_eq!(adopted.len(), 4);
    assert!(adopted.iter().all(|flow| flow.entry.generation == 0));
    // A sweep leaves them alone, though no device is here.
    world.connections.sweep().unwrap();
    world.desired.endpoints.get_mut(&A.0).unwrap().device = device;
    world.apply();
    let (mut passed, mut dropped) = (0, 0);
    for reply in replies.iter().chain([&late]) {
        let ran = world.send(A, reply);
        passed += u32::from(ran.fate.drops.is_empty());
        dropped += u32::from(ran.fate.drops.contains_key(&DropReason::Policy));
    }
    // The one that had ended did not come along.
    assert_eq!((passed, dropped), (4, 1));
}

#[test]
fn kernel_what_arrives_after_the_device_joins_what_its_packets_made() {
    let Some(mut world) = World::new("kernel_joins", Capacity::default()) else {
        return;
    };
    world.put(replies_only, "replies");
    world.arrives(&udp(AWAY, A, (5000, 6000)));
    let reply = udp(A, AWAY, (6000, 5000));
    world.passes(A, &reply, "reply");
    let export = world.connections.export(NAME).unwrap();
    world.connections.tables().forget(A.0).unwrap();
    // The endpoint's own packets were first here: refused, and nothing is known of the other side.
    world.put(open, "open");
    world.passes(A, &reply, "open");
    assert_eq!(world.flows(A.0)[0].entry.received, 0);
    adopt(&world, &export.parcels);
    let [flow] = &world.flows(A.0)[..] else {
        panic!("one flow");
    };
    assert_eq!(
        (flow.entry.sent, flow.entry.received),
        (seen::PACKET, seen::PACKET)
    );
    world.put(replies_only, "replies");
    world.passes(A, &reply, "reply");
}

#[test]
fn kernel_without_an_export_a_release_tells_all() {
    let Some(mut world) = World::new("kernel_release_tells_all", Capacity::default()) else {
        return;
    };
    world.put(open, "open");
    world.passes(A, &udp(A, AWAY, (1, 2)), "open");
    let export = world.connections.export(NAME).unwrap();
    // A token of another endpoint's export, one that is unknown, and none.
    let other = world.connections.export("endpoint2").unwrap().token;
    for since in [Some(other), Some(1), None] {
        let rest = world.connections.rest(A.0, since).unwrap();
        assert!(rest[0].is_whole);
        assert_eq!(rest[0].connections.len(), 1);
    }
    // With the right one there is nothing more to tell, once.
    let rest = world.connections.rest(A.0, Some(export.token)).unwrap();
    assert_eq!((rest.len(), rest[0].is_whole), (1, false));
    assert!(rest[0].connections.is_empty() && rest[0].gone.is_empty());
    assert!(world.connections.rest(A.0, Some(export.token)).unwrap()[0].is_whole);
}

#[test]
fn kernel_only_an_endpoints_own_connections_are_taken_over() {
    let Some(mut world) = World::new("kernel_own_connections", Capacity::default()) else {
        return;
    };
    world.apply();
    let connection = |local: IpAddr, translated| Connection {
        ends: Ends {
            protocol: 6,
            local,
            remote: AWAY.v4().into(),
            local_port: 80,
            remote_port: 5000,
        },
        sent: seen::PACKET,
        received: seen::PACKET,
        silent_ms: 0,
        translated,
        bucket: 3,
    };
    let adopt = |connection: Connection| {
        let parcels = Parcel::pack(true, vec![connection], Vec::new());
        world.connections.adopt(NAME, &parcels[0].to_bytes())
    };
    let original = Some((IpAddr::from(B.v4()), 443));
    let cases = [
        (connection(B.v4().into(), None), "another's"),
        (connection(B.v4().into(), original), "another's, translated"),
        (connection(OTHER_ADDRESS.into(), None), "nobody's"),
    ];
    for (foreign, what) in cases {
        let refused = adopt(foreign);
        assert!(
            matches!(refused, Err(ExchangeError::Foreign { .. })),
            "{what}"
        );
    }
    let unknown_state = Connection {
        sent: 0x80,
        ..connection(A.v4().into(), None)
    };
    assert!(matches!(
        adopt(unknown_state),
        Err(ExchangeError::Parcel(_))
    ));
    assert_eq!(world.flows(0), []);
    // Its own, and one by an address that the policy gave it.
    adopt(connection(A.v4().into(), None)).unwrap();
    adopt(connection(OTHER_ADDRESS.into(), original)).unwrap();
    let flows = world.flows(A.0);
    assert_eq!(flows.len(), 2);
    let alias = flows.iter().find(|flow| flow.entry.is_alias());
    let alias = alias.unwrap().entry;
    assert_eq!((alias.original_port, alias.bucket), (443, 3));
    // And it travels on as it came.
    let export = world.connections.export(NAME).unwrap();
    let mut onward = export.parcels[0].connections.clone();
    onward
        .iter_mut()
        .for_each(|connection| connection.silent_ms = 0);
    onward.sort_by_key(|connection| connection.translated.is_some());
    let expected = [
        connection(A.v4().into(), None),
        connection(OTHER_ADDRESS.into(), original),
    ];
    assert_eq!(onward, expected);
    // An endpoint that is elsewhere, and one that is nowhere.
    let parcel = &Parcel::pack(true, Vec::new(), Vec::new())[0].to_bytes();
    let elsewhere = world.connections.adopt("endpoint4", parcel);
    assert!(matches!(elsewhere, Err(ExchangeError::NotExpected(_))));
    let nowhere = world.connections.adopt("endpoint5", parcel);
    assert!(matches!(nowhere, Err(ExchangeError::NoEndpoint(_))));
}

#[test]
fn kernel_connections_are_listed_with_names() {
    let Some(mut world) = World::new("kernel_listed", Capacity::default()) else {
        return;
    };
    world.put(open, "open");
    world.passes(A, &udp(A, AWAY, (5000, 53)), "open");
    world.passes(A, &udp(A, B, (5001, 53)), "open");
    let listed = world.connections.list(Some(NAME)).unwrap();
    let ends: Vec<_> = listed
        .iter()
        .map(|connection| {
            let end = |end: &sunwire_userspace::connections::listing::ConnectionEnd| {
                format!("{}:{}", end.endpoint.as_deref().unwrap_or("?"), end.port)
            };
            assert_eq!(connection.network, "shop");
            assert_eq!(connection.label.as_deref(), Some("open"));
            assert_eq!(connection.phase.name(), "one-way");
            format!("{} {}", end(&connection.local), end(&connection.remote))
        })
        .collect();
    assert_eq!(
        ends,
        ["endpoint1:5000 endpoint4:53", "endpoint1:5001 endpoint2:53"]
    );
    // B has what was delivered to it, without a verdict on what it may answer.
    let listed = world.connections.list(Some("endpoint2")).unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].sent, listed[0].received), (false, true));
    assert_eq!(listed[0].label, None);
    assert_eq!(world.connections.list(None).unwrap().len(), 3);
    assert!(world.connections.list(Some("nobody")).is_err());
}
