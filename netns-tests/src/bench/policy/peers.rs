//! Figures of others, which no run measures again.
//!
//! Each was taken from a cold process unless said otherwise, in CPU seconds. Whose they are and how
//! they were taken is said by [`Peer::citation`] and repeated in `docs/benchmarks.md`.

/// Whose figure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// Frenetic's decision procedure.
    FreneticDecision,
    /// KATch's algorithm in OCaml.
    KatchOcaml,
    /// KATch as its authors measured it.
    KatchJvmWarm,
    /// An engine over bits.
    BitLevelRust,
    /// Frenetic's compiler, switch by switch.
    FreneticLocal,
    /// Frenetic's compiler, all switches at once.
    FreneticWhole,
}

impl Peer {
    /// All of them.
    pub const ALL: [Peer; 6] = [
        Peer::FreneticDecision,
        Peer::KatchOcaml,
        Peer::KatchJvmWarm,
        Peer::BitLevelRust,
        Peer::FreneticLocal,
        Peer::FreneticWhole,
    ];

    /// The name in results.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Peer::FreneticDecision => "frenetic-decision",
            Peer::KatchOcaml => "katch-ocaml",
            Peer::KatchJvmWarm => "katch-jvm-warm",
            Peer::BitLevelRust => "bit-level-rust",
            Peer::FreneticLocal => "frenetic-local",
            Peer::FreneticWhole => "frenetic-whole",
        }
    }

    /// What it is, where it is from, and how its figures were taken.
    #[must_use]
    pub const fn citation(self) -> &'static str {
        match self {
            Peer::FreneticDecision => {
                "Frenetic's decision procedure (Foster et al., POPL 2015); \
                 measured by us on the same kind of hardware"
            }
            Peer::KatchOcaml => {
                "KATch's algorithm (Moeller et al., PLDI 2024) in OCaml; \
                 measured by us on the same kind of hardware"
            }
            Peer::KatchJvmWarm => {
                "KATch (Moeller et al., PLDI 2024), published: warm JVM, 2.1 GHz Xeon"
            }
            Peer::BitLevelRust => {
                "the same questions by diagrams over bits, in Rust; \
                 measured by us on the same kind of hardware"
            }
            Peer::FreneticLocal => {
                "Frenetic's local compiler (Smolka et al., ICFP 2015) with its own generator, \
                 published: per switch"
            }
            Peer::FreneticWhole => "the same, published: one diagram of the whole network",
        }
    }
}

/// Seconds that peers take for a question about a network of the Internet Topology Zoo: how it is
/// routed, and then how slices of it are.
struct Proof(&'static str, Peer, f64, f64);

const PROOFS: &[Proof] = &[
    Proof("Airtel", Peer::FreneticDecision, 0.26, 0.65),
    Proof("Arpa", Peer::FreneticDecision, 1.99, 4.70),
    Proof("Sanet", Peer::FreneticDecision, 12.4, 29.2),
    Proof("Uunet", Peer::FreneticDecision, 53.0, 107.0),
    Proof("Uunet", Peer::KatchOcaml, 0.05, 0.10),
    Proof("Deltacom", Peer::KatchOcaml, 0.83, 1.17),
    // One figure was given for both questions.
    Proof("Airtel", Peer::BitLevelRust, 0.01, 0.01),
    Proof("Uunet", Peer::BitLevelRust, 0.08, 0.16),
    Proof("Deltacom", Peer::BitLevelRust, 0.39, 0.79),
    Proof("Airtel", Peer::KatchJvmWarm, 0.013, 0.028),
    Proof("Uunet", Peer::KatchJvmWarm, 0.049, 0.152),
    Proof("Deltacom", Peer::KatchJvmWarm, 0.218, 0.483),
];

/// What peers need to prove reachability in a network.
pub(super) fn reach(network: &str) -> Vec<(Peer, f64)> {
    let known = PROOFS.iter().filter(|proof| proof.0 == network);
    known.map(|proof| (proof.1, proof.2)).collect()
}

/// What peers need to prove that slices of a network are apart.
pub(super) fn slice(network: &str) -> Vec<(Peer, f64)> {
    let known = PROOFS.iter().filter(|proof| proof.0 == network);
    known.map(|proof| (proof.1, proof.3)).collect()
}

/// Peak memory, megabytes, for reachability in a network of 80,000 nodes.
pub(super) const MEMORY_REACH: (Peer, f64) = (Peer::BitLevelRust, 471.0);
/// The same for slices of it.
pub(super) const MEMORY_SLICE: (Peer, f64) = (Peer::BitLevelRust, 890.0);

/// What peers need to compile the routing of a fat tree with so many pods switch by switch.
pub(super) fn fat_tree_switches(pods: u32) -> Vec<(Peer, f64)> {
    match pods {
        16 => vec![(Peer::FreneticLocal, 0.081)],
        24 => vec![(Peer::FreneticLocal, 0.55)],
        32 => vec![(Peer::FreneticLocal, 3.70)],
        _ => Vec::new(),
    }
}

/// What peers need to compile all of it at once.
pub(super) fn fat_tree_network(pods: u32) -> Vec<(Peer, f64)> {
    match pods {
        16 => vec![(Peer::FreneticWhole, 2.79)],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_peer_has_figures_and_says_how_they_were_taken() {
        for peer in Peer::ALL {
            let proofs = PROOFS.iter().map(|proof| proof.1);
            let trees = [16, 24, 32].into_iter().flat_map(|pods| {
                let both = [fat_tree_switches(pods), fat_tree_network(pods)].concat();
                both.into_iter().map(|(peer, _)| peer)
            });
            assert!(proofs.chain(trees).any(|known| known == peer), "{peer:?}");
            let told = peer.citation();
            assert!(told.contains("published") || told.contains("measured by us"));
        }
    }

    #[test]
    fn questions_have_the_figures_of_their_network() {
        assert_eq!(slice("Deltacom").len(), 3);
        assert_eq!(reach("Arpa"), [(Peer::FreneticDecision, 1.99)]);
        assert!(reach("Belnet").is_empty());
    }
}
