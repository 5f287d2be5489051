//! When a node's key is replaced, and when the older one is given up.
//!
//! ```text
//!          due                    known to all            a session by it with everybody,
//!  [one key] ---> [two, announced] -------> [two, in use] --- for some time ---> [one key]
//! ```
//!
//! Pure: what it is told are the keys, what the controller says, the sessions and the time.

use sunwire_api::PublicKey;

use super::{
    key::KeyRing,
    protocol::{PeerStatus, Status},
};

/// Seconds that both keys stay in use after the newer one works with everybody: what is under way
/// by the older one arrives.
const SETTLE_S: u64 = 5;
/// Bytes that come by the older key within that time though nobody uses it: idle tunnels say that
/// they are there, and sessions are renewed.
const NOISE_BYTES: u64 = 300;
/// Seconds after which the older key is given up although some peer has not come up by the newer
/// one: it may be gone for good.
const PATIENCE_S: u64 = 600;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing now.
    Wait,
    /// Make a newer key and announce it.
    Begin,
    /// Give the older key up, and announce that.
    Finish,
}

/// How far a rotation is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rotation {
    /// Since when the newer key has worked with everybody, in seconds of any clock.
    works_since: Option<u64>,
    /// What had come by the older key then, in bytes.
    by_older: u64,
    /// Since when the others know it.
    known_since: Option<u64>,
    /// Somebody asked for a new key.
    asked: bool,
}

impl Rotation {
    /// Somebody asks for a new key, whatever the age of the present one.
    pub fn ask(&mut self) {
        self.asked = true;
    }

    /// What is to be done at `now_s`, when `known` are the keys that the controller has told the
    /// others of, and `status` is how tunnels are: `None` when there are none.
    pub fn step(
        &mut self,
        ring: &KeyRing,
        known: &[PublicKey],
        status: Option<&Status>,
        lifetime_s: u64,
        now_s: u64,
    ) -> Step {
        if !ring.is_rotating() {
            let is_due = ring.newest().made_at.saturating_add(lifetime_s) <= now_s;
            // A key that nobody knows yet need not be replaced.
            let is_known = known == ring.public();
            if is_known && (std::mem::take(&mut self.asked) || is_due) {
                *self = Rotation::default();
                return Step::Begin;
            }
            return Step::Wait;
        }
        self.asked = false;
        if known != ring.public() {
            self.works_since = None;
            self.known_since = None;
            return Step::Wait;
        }
        let known_since = *self.known_since.get_or_insert(now_s);
        let newest = ring.newest().private.public();
        let works = status.is_none_or(|status| status.peers.iter().all(|p| works(p, newest)));
        let older = ring.keys().next().map(|key| key.private.public());
        let by_older: u64 = status
            .iter()
            .flat_map(|status| &status.peers)
            .flat_map(|peer| &peer.received_by)
            .filter(|(own, ..)| Some(*own) == older)
            .map(|(.., bytes)| bytes)
            .sum();
        // Others take their time to send by the newer one: until they do, the older one is needed. What
        // came by a key that a peer has given up is no longer counted; then counting begins anew.
        let is_used = by_older < self.by_older || by_older - self.by_older > NOISE_BYTES;
        if !works || is_used {
            self.works_since = None;
        }
        if self.works_since.is_none() {
            self.by_older = by_older;
        }
        let settled = works && {
            let since = *self.works_since.get_or_insert(now_s);
            since.saturating_add(SETTLE_S) <= now_s
        };
        if settled || known_since.saturating_add(PATIENCE_S) <= now_s {
            *self = Rotation::default();
            Step::Finish
        } else {
            Step::Wait
        }
    }
}

/// A peer that has a session has one by the newest key. One without any is not waited for: it
/// loses nothing.
fn works(peer: &PeerStatus, newest: PublicKey) -> bool {
    peer.sessions.is_empty() || peer.sessions.iter().any(|(own, _)| *own == newest)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;

    fn with_sessions(own: &[&[PublicKey]]) -> Status {
        let peers = own.iter().enumerate().map(|(at, own)| {
            let address = Ipv4Addr::new(198, 18, 0, at as u8);
            PeerStatus {
                address,
                endpoint: SocketAddr::new(address.into(), 1),
                handshake_age_s: None,
                keys: None,
                received_by: Vec::new(),
                sessions: own.iter().map(|own| (*own, PublicKey([9; 32]))).collect(),
                handshakes: 0,
                sent_packets: 0,
                sent_bytes: 0,
                received_packets: 0,
                received_bytes: 0,
                decrypt_errors: 0,
                unsent_packets: 0,
                wrong_key: 0,
                send_error: None,
            }
        });
        Status {
            peers: peers.collect(),
            ..Status::default()
        }
    }

    const DAY: u64 = 86_400;

    #[test]
    fn a_key_is_replaced_when_it_is_due_or_asked_for() {
        let ring = KeyRing::generate();
        let made = ring.newest().made_at;
        let mut rotation = Rotation::default();
        let known = ring.public();
        let mut step = |now| rotation.step(&ring, &known, None, DAY, now);
        assert_eq!(step(made), Step::Wait);
        assert_eq!(step(made + DAY - 1), Step::Wait);
        assert_eq!(step(made + DAY), Step::Begin);
        rotation.ask();
        assert_eq!(
            rotation.step(&ring, &[], None, DAY, made),
            Step::Wait,
            "not known yet"
        );
        assert_eq!(rotation.step(&ring, &known, None, DAY, made), Step::Begin);
        assert_eq!(
            rotation.step(&ring, &known, None, DAY, made),
            Step::Wait,
            "once"
        );
    }

    #[test]
    fn the_older_key_stays_until_the_newer_one_works_with_everybody() {
        let ring = KeyRing::generate().with_newer();
        let [older, newer] = ring.public()[..] else {
            panic!("two keys")
        };
        let mut rotation = Rotation::default();
        let mut step = |known: &[PublicKey], status: &Status, now| {
            rotation.step(&ring, known, Some(status), DAY, now)
        };
        let known = ring.public();
        let half = with_sessions(&[&[older, newer], &[older], &[]]);
        let whole = with_sessions(&[&[older, newer], &[newer], &[]]);
        assert_eq!(step(&known[..1], &whole, 0), Step::Wait, "not announced");
        assert_eq!(step(&known, &half, 1), Step::Wait);
        assert_eq!(step(&known, &whole, 10), Step::Wait);
        assert_eq!(step(&known, &whole, 14), Step::Wait);
        assert_eq!(step(&known, &half, 14), Step::Wait, "one has lost it again");
        assert_eq!(step(&known, &whole, 15), Step::Wait);
        assert_eq!(step(&known, &whole, 20), Step::Finish);
    }

    #[test]
    fn the_older_key_stays_while_others_send_by_it() {
        let ring = KeyRing::generate().with_newer();
        let known = ring.public();
        let [older, newer] = known[..] else {
            panic!("two keys")
        };
        let mut rotation = Rotation::default();
        let mut step = |received: u64, now| {
            let mut status = with_sessions(&[&[older, newer]]);
            status.peers[0].received_by = vec![
                (older, PublicKey([9; 32]), received),
                (newer, PublicKey([9; 32]), 1_000_000 * now),
            ];
            rotation.step(&ring, &known, Some(&status), DAY, now)
        };
        assert_eq!(step(50_000, 10), Step::Wait);
        for second in 0..20 {
            let received = 60_000 + 10_000 * second;
            assert_eq!(step(received, 11 + second), Step::Wait, "{second}");
        }
        // Nothing but a sign of life since.
        assert_eq!(step(250_032, 34), Step::Wait);
        assert_eq!(step(250_032, 35), Step::Finish);
    }

    #[test]
    fn what_came_by_a_key_that_a_peer_gives_up_hides_nothing() {
        let ring = KeyRing::generate().with_newer();
        let known = ring.public();
        let [older, newer] = known[..] else {
            panic!("two keys")
        };
        let mut rotation = Rotation::default();
        let mut step = |received: &[u64], now| {
            let mut status = with_sessions(&[&[older, newer]]);
            let by = received.iter().zip(1_u8..);
            status.peers[0].received_by = by
                .map(|(bytes, theirs)| (older, PublicKey([theirs; 32]), *bytes))
                .collect();
            rotation.step(&ring, &known, Some(&status), DAY, now)
        };
        assert_eq!(step(&[1_000_000, 0], 10), Step::Wait);
        for second in 11..40 {
            let received = 10_000 * (second - 10);
            assert_eq!(step(&[received], second), Step::Wait, "{second}");
        }
        for second in 40..45 {
            assert_eq!(step(&[300_000], second), Step::Wait, "{second}");
        }
        assert_eq!(step(&[300_000], 45), Step::Finish);
    }

    #[test]
    fn a_peer_that_never_comes_up_does_not_keep_the_older_key_for_ever() {
        let ring = KeyRing::generate().with_newer();
        let known = ring.public();
        let status = with_sessions(&[&known[..1]]);
        let mut rotation = Rotation::default();
        assert_eq!(
            rotation.step(&ring, &known, Some(&status), DAY, 100),
            Step::Wait
        );
        assert_eq!(
            rotation.step(&ring, &known, Some(&status), DAY, 699),
            Step::Wait
        );
        assert_eq!(
            rotation.step(&ring, &known, Some(&status), DAY, 700),
            Step::Finish
        );
    }
}
