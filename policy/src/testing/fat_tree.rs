//! Routing in a fat tree (Al-Fares, Loukissas, Vahdat, SIGCOMM 2008) as policies: many switches,
//! each with few rules, the classic measure of a NetKAT compiler.
//!
//! A tree of `k` pods has `k²/4` core switches and `k²` switches in its pods, with `k` ports each.
//! Host `h` under edge switch `e` of pod `p` has the address `10.p.e.h`. A switch is a node, and its
//! ports are the endpoints 1 to `k`, so these policies pass through the whole compiler.

use std::fmt::Write;
use std::net::Ipv4Addr;

use crate::environment::{Endpoint, Environment, Network, Node};

/// How packets find their way up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uplinks {
    /// By two neighbouring pods at a time, for packets that come from elsewhere: the policy that
    /// Frenetic's benchmark generates, which compiles to `1.75 k³ + 3.5 k²` OpenFlow rules there.
    PodPairs,
    /// By every other pod, and by every other edge switch of the own pod: shortest paths, in
    /// `2 k³ - 1.5 k²` rules.
    ShortestPaths,
}

/// The policies of a fat tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FatTree {
    pods: u32,
    uplinks: Uplinks,
}

impl FatTree {
    /// The tree with `pods` pods.
    ///
    /// # Panics
    /// When the number is odd, zero, or more than an octet of an address can name.
    #[must_use]
    pub fn new(pods: u32, uplinks: Uplinks) -> Self {
        assert!(
            pods > 0 && pods.is_multiple_of(2) && pods < 256,
            "a fat tree has an even number of pods below 256"
        );
        FatTree { pods, uplinks }
    }

    /// Number of switches.
    #[must_use]
    pub fn switches(&self) -> u32 {
        self.pods * self.pods * 5 / 4
    }

    /// Number of rules: tests of a destination with the port that they lead to.
    #[must_use]
    pub fn rules(&self) -> usize {
        (1..=self.switches())
            .map(|number| self.routes(number).len())
            .sum()
    }

    /// The ports of a switch, and the switches.
    #[must_use]
    pub fn environment(&self) -> Environment {
        Environment {
            networks: vec![Network {
                name: "fabric".to_owned(),
                vni: 1,
                subnets: vec![(Ipv4Addr::new(10, 0, 0, 0).into(), 8)],
                ..Network::default()
            }],
            endpoints: (1..=self.pods)
                .map(|number| Endpoint {
                    name: format!("port{number}"),
                    number,
                    network: "fabric".to_owned(),
                    addresses: Vec::new(),
                    mac: [2, 0, 0, 0, 0, number as u8],
                    labels: Default::default(),
                })
                .collect(),
            nodes: (1..=self.switches())
                .map(|number| Node {
                    name: format!("switch{number}"),
                    number,
                })
                .collect(),
        }
    }

    /// The policy of the whole network: at every switch its own.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = "network fabric\npolicy main =\n".to_owned();
        for number in 1..=self.switches() {
            let plus = if number == 1 { ' ' } else { '+' };
            let _ = write!(text, "{plus} (filter node = {number}; (");
            self.switch(number, &mut text);
            text += "))\n";
        }
        text
    }

    /// The policy of one switch, by its number from 1.
    #[must_use]
    pub fn switch_text(&self, number: u32) -> String {
        let mut text = "network fabric\npolicy main =\n".to_owned();
        self.switch(number, &mut text);
        text
    }

    fn switch(&self, number: u32, text: &mut String) {
        for (at, route) in self.routes(number).iter().enumerate() {
            let plus = if at == 0 { "" } else { " + " };
            let Route {
                prefix,
                length,
                port,
                outside,
            } = route;
            let _ = write!(text, "{plus}filter ethTyp = 0x800");
            if let Some((local, length)) = outside {
                let _ = write!(text, " and not ip4Src = {local}/{length}");
            }
            let _ = write!(text, " and ip4Dst = {prefix}/{length}; port := {port}");
        }
    }

    fn routes(&self, number: u32) -> Vec<Route> {
        let half = self.pods / 2;
        let cores = half * half;
        let at = number - 1;
        let Some(in_pods) = at.checked_sub(cores) else {
            return (0..self.pods)
                .map(|pod| Route::new(pod, 0, 0, 16, pod))
                .collect();
        };
        let (pod, switch) = (in_pods / self.pods, in_pods % self.pods);
        let mut routes = Vec::new();
        if switch < half {
            // Aggregation: down by edge switch, up by pod.
            routes.extend((0..half).map(|edge| Route::new(pod, edge, 0, 24, half + edge)));
            self.up(pod, None, 0, &mut routes);
        } else {
            let edge = switch - half;
            routes.extend((0..half).map(|host| Route::new(pod, edge, host, 32, host)));
            self.up(pod, Some(edge), half, &mut routes);
        }
        routes
    }

    /// The ways up of a switch in `pod`, by ports from `first`.
    fn up(&self, pod: u32, edge: Option<u32>, first: u32, routes: &mut Vec<Route>) {
        let half = self.pods / 2;
        match self.uplinks {
            Uplinks::PodPairs => {
                let own = Ipv4Addr::new(10, pod as u8, edge.unwrap_or(0) as u8, 0);
                let outside = Some((own, if edge.is_some() { 24 } else { 16 }));
                routes.extend((0..half).map(|pair| Route {
                    outside,
                    ..Route::new(2 * pair, 0, 0, 15, first + pair)
                }));
            }
            Uplinks::ShortestPaths => {
                if let Some(own) = edge {
                    let others = (0..half).filter(|other| *other != own);
                    routes.extend(others.map(|e| Route::new(pod, e, 0, 24, first + e % half)));
                }
                let others = (0..self.pods).filter(|other| *other != pod);
                routes.extend(others.map(|p| Route::new(p, 0, 0, 16, first + p % half)));
            }
        }
    }
}

/// Where packets to a prefix go.
struct Route {
    prefix: Ipv4Addr,
    length: u8,
    /// Number of the port as an endpoint, from 1.
    port: u32,
    /// Only for packets that come from outside of this prefix.
    outside: Option<(Ipv4Addr, u8)>,
}

impl Route {
    /// To the port with this index, from 0.
    fn new(pod: u32, edge: u32, host: u32, length: u8, port: u32) -> Self {
        Route {
            prefix: Ipv4Addr::new(10, pod as u8, edge as u8, host as u8),
            length,
            port: port + 1,
            outside: None,
        }
    }
}
