//! The cloud that the packet tests happen in, seen from node 1.
//!
//! Network `shop` has endpoints here, elsewhere and in every state of a move; network `twin` has
//! the same addresses, MAC addresses included; network `lawless` has no policy. What the policy
//! does is chosen by the destination port, or by the DSCP where there are no ports.

use std::net::{Ipv4Addr, Ipv6Addr};

use sunwire_api::EncryptionMode;
use sunwire_dataplane_common::{
    address::Mac,
    flow_key::Field,
    tables::{Copied, OUT_ENDPOINT, OUT_NONE, OUT_OWNER, set},
};
use sunwire_userspace::{
    maps::Capacity,
    programs::Hook,
    state::{Desired, Endpoint, Node},
};

use crate::fixture::{
    desired::{Policy, endpoint, network, node},
    devices::UNDERLAY_MAC,
    node::{TestNode, VTEP},
    wire::{Frame, Transport, Tunnel},
};

pub(crate) const SHOP: u32 = 100;
pub(crate) const TWIN: u32 = 0x0a_bcde;
pub(crate) const LAWLESS: u32 = 300;
pub(crate) const MTU: u32 = 1300;

/// Host-side devices: of `web` and `db` in `shop`, of `web` and `db` in `twin`, of the endpoint of
/// `lawless`, and one that belongs to nobody.
pub(crate) const WEB: &str = "ep1";
pub(crate) const DB: &str = "ep2";
pub(crate) const TWIN_WEB: &str = "ep3";
pub(crate) const TWIN_DB: &str = "ep4";
pub(crate) const LAWLESS_ONE: &str = "ep5";
pub(crate) const NOBODY: &str = "ep6";
const DEVICES: usize = 6;

/// An endpoint as the tests name it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Who(pub(crate) u32);

/// Here.
pub(crate) const WEB_1: Who = Who(1);
/// Here.
pub(crate) const DB_2: Who = Who(2);
/// At node 2.
pub(crate) const AWAY_3: Who = Who(3);
/// At node 1, but its device has not come.
pub(crate) const MISSING_4: Who = Who(4);
/// Moved from here to node 2.
pub(crate) const LEFT_5: Who = Who(5);
/// Moving from node 2 to here; its device has not come.
pub(crate) const COMING_6: Who = Who(6);
/// Moving from here to node 2; its device has gone.
pub(crate) const GOING_7: Who = Who(7);
/// At node 4, whose next hop is not resolved.
pub(crate) const UNREACHABLE_8: Who = Who(8);
/// Moved from node 2 to node 3.
pub(crate) const MOVED_9: Who = Who(9);
/// At node 5, which is in another cloud and has announced no key.
pub(crate) const ABROAD_10: Who = Who(10);
/// At node 6, which has no agent.
pub(crate) const FOREIGN_15: Who = Who(15);
/// At node 6 too.
pub(crate) const FOREIGN_16: Who = Who(16);
/// An address that nobody owns.
pub(crate) const NOBODY_99: Who = Who(99);
/// The gateway.
pub(crate) const GATEWAY: Who = Who(254);
/// An endpoint of another network.
const TWIN_WEB_11: u32 = 11;

pub(crate) const GATEWAY_MAC: [u8; 6] = [2, 0x53, 0x57, 0, 0, 0xfe];
/// A MAC address that a policy writes.
pub(crate) const OTHER_MAC: [u8; 6] = [2, 9, 9, 9, 9, 9];
/// An address that a policy writes and nobody owns.
pub(crate) const OTHER_ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

impl Who {
    pub(crate) fn mac(self) -> [u8; 6] {
        [2, 0x53, 0x57, 0, 0, self.0 as u8]
    }

    pub(crate) fn v4(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 20, 0, self.0 as u8)
    }

    pub(crate) fn v6(self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 20, 0, 0, 0, 0, 0, self.0 as u16)
    }

    pub(crate) fn link_local(self) -> Ipv6Addr {
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, self.0 as u16)
    }
}

/// The underlay address of a node.
pub(crate) fn vtep(number: u32) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, number as u8)
}

/// The MAC address of a node on the underlay.
pub(crate) fn node_mac(number: u32) -> [u8; 6] {
    [2, 0, 0, 0, 0xff, number as u8]
}

/// An IPv4 packet of `web`, or of another endpoint, with the MAC address of its destination.
pub(crate) fn v4(src: Who, dst: Who, transport: Transport) -> Frame {
    Frame {
        eth_src: src.mac(),
        eth_dst: dst.mac(),
        src: src.v4().into(),
        dst: dst.v4().into(),
        dscp: 0,
        transport,
        payload: 33,
    }
}

/// An IPv6 packet.
pub(crate) fn v6(src: Who, dst: Who, transport: Transport) -> Frame {
    let (from, to) = (src.v6().into(), dst.v6().into());
    Frame {
        src: from,
        dst: to,
        ..v4(src, dst, transport)
    }
}

/// A tunnelled frame as this node sends it to another.
pub(crate) fn to_node(number: u32, vni: u32, inner: &[u8]) -> Vec<u8> {
    Tunnel {
        eth_src: UNDERLAY_MAC,
        eth_dst: node_mac(number),
        src: VTEP.into(),
        dst: vtep(number).into(),
        vni,
        hops: 0,
    }
    .wrap(inner)
}

/// A tunnel as another node sends it to this one.
pub(crate) fn from_node(number: u32, vni: u32) -> Tunnel {
    Tunnel {
        eth_src: node_mac(number),
        eth_dst: UNDERLAY_MAC,
        src: vtep(number).into(),
        dst: VTEP.into(),
        vni,
        hops: 0,
    }
}

/// A node in this cloud; `None`, after saying why, where it cannot be.
pub(crate) fn start(test: &str) -> Option<TestNode> {
    start_at(test, None)
}

/// Likewise, with the programs attached at `hook`.
pub(crate) fn start_at(test: &str, hook: Option<Hook>) -> Option<TestNode> {
    let mut node = TestNode::new_at(test, DEVICES, Capacity::default(), hook)?;
    for number in [2, 3, 6] {
        node.resolve(vtep(number), node_mac(number));
    }
    node.apply(&desired()).expect("the cloud fits");
    Some(node)
}

/// The whole cloud.
pub(crate) fn desired() -> Desired {
    let mut desired = Desired::default();
    for number in 1..=4 {
        let name = format!("node{number}");
        desired.nodes.insert(number, node(&name, vtep(number)));
    }
    desired.encryption = EncryptionMode::BetweenClouds;
    let abroad = Node {
        cloud: "abroad".to_owned(),
        ..node("node5", vtep(5))
    };
    desired.nodes.insert(5, abroad);
    let foreign = Node {
        foreign: true,
        ..node("node6", vtep(6))
    };
    desired.nodes.insert(6, foreign);
    for (vni, name) in [(SHOP, "shop"), (TWIN, "twin"), (LAWLESS, "lawless")] {
        let network = network(name, MTU, GATEWAY.v4(), GATEWAY.v6(), GATEWAY_MAC);
        desired.networks.insert(vni, network);
    }
    let at = |vni, number, who: Who, device, node| {
        let addresses = (Some(who.v4()), Some(who.v6()));
        endpoint((vni, number), device, who.mac(), addresses, node)
    };
    let moved = |endpoint, other, moving| Endpoint {
        other,
        moving,
        ..endpoint
    };
    // A device number without a device: the workload is not here.
    let none = 99;
    desired.endpoints.extend([
        (1, at(SHOP, 1, WEB_1, 1, 1)),
        (2, at(SHOP, 2, DB_2, 2, 1)),
        (3, at(SHOP, 3, AWAY_3, none, 2)),
        (4, at(SHOP, 4, MISSING_4, none, 1)),
        (5, moved(at(SHOP, 5, LEFT_5, none, 2), 1, false)),
        (6, moved(at(SHOP, 6, COMING_6, none, 2), 1, true)),
        (7, moved(at(SHOP, 7, GOING_7, none, 1), 2, true)),
        (8, at(SHOP, 8, UNREACHABLE_8, none, 4)),
        (9, moved(at(SHOP, 9, MOVED_9, none, 3), 2, false)),
        (10, at(SHOP, 10, ABROAD_10, none, 5)),
        (15, at(SHOP, 15, FOREIGN_15, none, 6)),
        (16, at(SHOP, 16, FOREIGN_16, none, 6)),
        (TWIN_WEB_11, at(TWIN, TWIN_WEB_11, WEB_1, 3, 1)),
        (12, at(TWIN, 12, DB_2, 4, 1)),
        (13, at(TWIN, 13, AWAY_3, none, 3)),
        (21, at(LAWLESS, 21, WEB_1, 5, 1)),
    ]);
    shop_policy(&mut desired);
    twin_policy(&mut desired);
    desired
}

/// A copy to the owner of the destination address.
pub(crate) fn owner() -> Copied {
    Copied {
        out: OUT_OWNER,
        ..Copied::default()
    }
}

fn to_endpoint(endpoint: u32) -> Copied {
    Copied {
        out: OUT_ENDPOINT,
        endpoint,
        ..Copied::default()
    }
}

/// What each destination port of [`shop_policy`] stands for.
pub(crate) mod port {
    pub(crate) const DENIED: u16 = 9;
    pub(crate) const STAYS: u16 = 10;
    pub(crate) const TO_DB: u16 = 11;
    pub(crate) const TO_AWAY: u16 = 12;
    pub(crate) const TO_ANOTHER_NETWORK: u16 = 13;
    pub(crate) const SETS_DSCP: u16 = 20;
    pub(crate) const SETS_SRC_PORT: u16 = 21;
    pub(crate) const SETS_DST_PORT: u16 = 22;
    pub(crate) const SETS_IP4_SRC: u16 = 23;
    pub(crate) const SETS_IP4_DST: u16 = 24;
    pub(crate) const SETS_ETH_SRC: u16 = 25;
    pub(crate) const SETS_ETH_DST: u16 = 26;
    pub(crate) const SETS_ALL: u16 = 27;
    pub(crate) const TWO_COPIES: u16 = 30;
    pub(crate) const FOUR_COPIES: u16 = 31;
    pub(crate) const COPIES_OF_WHICH_ONE_STAYS: u16 = 32;
}

/// What each DSCP stands for in packets to no known port.
pub(crate) mod dscp {
    pub(crate) const SETS_PORTS: u8 = 10;
    pub(crate) const SETS_DSCP: u8 = 12;
    pub(crate) const SETS_IP4_DST: u8 = 14;
    pub(crate) const SETS_PORTS_TO_ZERO: u8 = 16;
}

/// What each EtherType stands for in packets that are no IP packets.
pub(crate) mod ether_type {
    pub(crate) const PLAIN: u16 = 0x88b5;
    pub(crate) const SETS_DSCP: u16 = 0x88b6;
    pub(crate) const SETS_ETH_DST: u16 = 0x88b7;
    pub(crate) const SETS_DSCP_TO_ZERO: u16 = 0x88b8;
}

/// DSCP that the policy writes.
pub(crate) const NEW_DSCP: u8 = 46;
/// Source port that the policy writes.
pub(crate) const NEW_SRC_PORT: u16 = 4242;
/// Destination port that the policy writes.
pub(crate) const NEW_DST_PORT: u16 = 8080;

fn word(address: Ipv4Addr) -> u32 {
    u32::from_ne_bytes(address.octets())
}

fn shop_policy(desired: &mut Desired) {
    let mut policy = Policy::new(SHOP, "shop");
    let dscp = Copied {
        set: set::DSCP,
        dscp: NEW_DSCP,
        ..owner()
    };
    let src_port = Copied {
        set: set::SRC_PORT,
        src_port: NEW_SRC_PORT,
        ..owner()
    };
    let dst_port = Copied {
        set: set::DST_PORT,
        dst_port: NEW_DST_PORT,
        ..owner()
    };
    let ip4_src = Copied {
        set: set::IP4_SRC,
        ip4_src: word(OTHER_ADDRESS),
        ..owner()
    };
    let ip4_dst = Copied {
        set: set::IP4_DST,
        ip4_dst: word(DB_2.v4()),
        ..owner()
    };
    let eth_src = Copied {
        set: set::ETH_SRC,
        eth_src: Mac::new(OTHER_MAC),
        ..owner()
    };
    let eth_dst = Copied {
        set: set::ETH_DST,
        eth_dst: Mac::new(OTHER_MAC),
        ..owner()
    };
    let eth_dst_db = Copied {
        set: set::ETH_DST,
        eth_dst: Mac::new(DB_2.mac()),
        ..owner()
    };
    let everything = Copied {
        set: 0x7f,
        dscp: NEW_DSCP,
        src_port: NEW_SRC_PORT,
        dst_port: NEW_DST_PORT,
        ip4_src: word(OTHER_ADDRESS),
        ip4_dst: word(DB_2.v4()),
        eth_src: Mac::new(OTHER_MAC),
        eth_dst: Mac::new(OTHER_MAC),
        ..owner()
    };
    let ports = Copied {
        set: set::SRC_PORT | set::DST_PORT,
        ..src_port
    };
    let no_ports = Copied {
        set: set::SRC_PORT | set::DST_PORT,
        ..owner()
    };
    let no_dscp = Copied {
        set: set::DSCP,
        ..owner()
    };
    let stays = Copied {
        out: OUT_NONE,
        ..Copied::default()
    };
    let to_db = to_endpoint(DB_2.0);
    let to_away = to_endpoint(AWAY_3.0);
    let to_db_marked = Copied {
        set: set::DSCP,
        dscp: NEW_DSCP,
        ..to_db
    };
    let by_port: Vec<(u16, &str, Vec<Copied>)> = vec![
        (port::DENIED, "denied", vec![]),
        (port::STAYS, "stays", vec![stays]),
        (port::TO_DB, "to db", vec![to_db]),
        (port::TO_AWAY, "to away", vec![to_away]),
        (
            port::TO_ANOTHER_NETWORK,
            "to twin",
            vec![to_endpoint(TWIN_WEB_11)],
        ),
        (port::SETS_DSCP, "dscp", vec![dscp]),
        (port::SETS_SRC_PORT, "src port", vec![src_port]),
        (port::SETS_DST_PORT, "dst port", vec![dst_port]),
        (port::SETS_IP4_SRC, "ip4 src", vec![ip4_src]),
        (port::SETS_IP4_DST, "ip4 dst", vec![ip4_dst]),
        (port::SETS_ETH_SRC, "eth src", vec![eth_src]),
        (port::SETS_ETH_DST, "eth dst", vec![eth_dst]),
        (port::SETS_ALL, "all fields", vec![everything]),
        (port::TWO_COPIES, "two", vec![to_away, to_db_marked]),
        (
            port::FOUR_COPIES,
            "four",
            vec![to_db, to_db_marked, to_away, dscp],
        ),
        (
            port::COPIES_OF_WHICH_ONE_STAYS,
            "one stays",
            vec![to_db, stays],
        ),
    ];
    let forward = policy.leaf("forward", &[owner()]);
    let sets_dscp = policy.leaf("dscp without ports", &[dscp]);
    let sets_eth_dst = policy.leaf("eth dst without ip", &[eth_dst_db]);
    let edges = [
        (ether_type::SETS_DSCP.into(), sets_dscp),
        (ether_type::SETS_ETH_DST.into(), sets_eth_dst),
        (
            ether_type::SETS_DSCP_TO_ZERO.into(),
            policy.leaf("no dscp", &[no_dscp]),
        ),
    ];
    let by_ether_type = policy.test("ether type", Field::EtherType, &edges, forward);
    let edges = [
        (
            dscp::SETS_PORTS.into(),
            policy.leaf("ports without ports", &[ports]),
        ),
        (dscp::SETS_DSCP.into(), sets_dscp),
        (
            dscp::SETS_IP4_DST.into(),
            policy.leaf("ip4 without ports", &[ip4_dst]),
        ),
        (
            dscp::SETS_PORTS_TO_ZERO.into(),
            policy.leaf("no ports", &[no_ports]),
        ),
    ];
    let by_dscp = policy.test("dscp", Field::Dscp, &edges, by_ether_type);
    let edges: Vec<_> = by_port
        .iter()
        .map(|(port, label, copies)| (u32::from(*port), policy.leaf(label, copies)))
        .collect();
    let root = policy.test("dst port", Field::DestinationPort, &edges, by_dscp);
    policy.install(root, desired);
}

/// All is forwarded but port 80.
fn twin_policy(desired: &mut Desired) {
    let mut policy = Policy::new(TWIN, "twin");
    let forward = policy.leaf("forward", &[owner()]);
    let denied = policy.leaf("denied", &[]);
    let root = policy.test("dst port", Field::DestinationPort, &[(80, denied)], forward);
    policy.install(root, desired);
}
