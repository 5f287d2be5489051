//! What Sunwire has to reach beside its peers. A ratio below does not fail a run: machines differ,
//! and the table says so where it is read.

use super::{Case, Metric, System};

/// How many times a peer's figure Sunwire's has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// The promise.
    pub at_least: f64,
    /// The best that was thought to be possible, where it was thought about.
    pub stretch: Option<f64>,
}

impl Target {
    /// What a ratio is, beside the target.
    #[must_use]
    pub fn judge(&self, ratio: f64) -> &'static str {
        if ratio < self.at_least {
            "MISSED"
        } else if self.stretch.is_some_and(|stretch| ratio >= stretch) {
            "ok+"
        } else {
            "ok"
        }
    }
}

/// The target of a metric beside a peer, if there is one.
#[must_use]
pub fn target(case: Case, metric: Metric, peer: System) -> Option<Target> {
    let (at_least, stretch) = match peer {
        System::KernelVxlan => {
            let (at_least, stretch) = beside_bridge(case, metric)?;
            (at_least, Some(stretch))
        }
        System::KernelVxlanNft => (beside_firewall(case, metric), None),
        // The upper bound is asked about where nothing but the packet's way counts.
        System::Veth if metric == Metric::UdpSmall => (0.68, Some(0.78)),
        System::Veth | System::Routing | System::Ovs | System::Sunwire => return None,
    };
    Some(Target { at_least, stretch })
}

fn beside_bridge(case: Case, metric: Metric) -> Option<(f64, f64)> {
    Some(match metric {
        Metric::UdpSmall => (1.5, 1.75),
        Metric::UdpSmall16k => (1.3, 1.45),
        // Measured for the peer that tracks connections.
        Metric::UdpTwoWay => return None,
        Metric::UdpRr => (1.3, 1.5),
        Metric::TcpRr => (1.2, 1.3),
        Metric::TcpCrr => (1.25, 1.4),
        Metric::Tcp1 | Metric::Tcp4 => match case {
            Case::SuperPacket => (1.1, 1.2),
            Case::WireLike1500 => (1.05, 1.15),
            Case::WireLike9000 => (1.15, 1.25),
        },
    })
}

fn beside_firewall(case: Case, metric: Metric) -> f64 {
    match metric {
        Metric::UdpSmall | Metric::UdpSmall16k | Metric::UdpTwoWay => 2.0,
        Metric::UdpRr => 1.6,
        Metric::TcpRr => 1.5,
        Metric::TcpCrr => 1.8,
        Metric::Tcp1 | Metric::Tcp4 if case.is_wire_like() => 1.1,
        Metric::Tcp1 | Metric::Tcp4 => 1.2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_missed_below_the_promise_and_marked_from_the_stretch_on() {
        let target = Target {
            at_least: 1.5,
            stretch: Some(1.75),
        };
        assert_eq!(target.judge(1.499), "MISSED");
        assert_eq!(target.judge(1.5), "ok");
        assert_eq!(target.judge(1.75), "ok+");
        assert_eq!(target.judge(f64::NAN), "ok");
    }

    #[test]
    fn every_metric_has_a_target_beside_the_peer_that_does_the_same_work() {
        for case in Case::ALL {
            for metric in Metric::ALL {
                let nft = target(case, metric, System::KernelVxlanNft);
                let bridge = target(case, metric, System::KernelVxlan);
                let (nft, bridge) = (nft.unwrap(), bridge.map(|target| target.at_least));
                assert!(nft.at_least >= 1.1);
                // The peer with rules is slower, or as fast where frames cost the most.
                let is_9000 = case == Case::WireLike9000;
                assert!(is_9000 || bridge.is_none_or(|bridge| bridge <= nft.at_least));
            }
        }
    }

    #[test]
    fn streams_have_a_target_for_each_kind_of_wire() {
        let of = |case| {
            target(case, Metric::Tcp4, System::KernelVxlan)
                .unwrap()
                .at_least
        };
        assert_eq!(Case::ALL.map(of), [1.1, 1.05, 1.15]);
    }
}
