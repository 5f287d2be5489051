//! What one direction of a link does to frames, and changes to that.
//!
//! Shared by the topology (configured values), the emulator (values in force)
//! and the control socket (changes while running). Times, rates and sizes carry
//! their unit in the name.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest delay or jitter accepted, milliseconds.
pub const DELAY_MS_MAX: f64 = 60_000.0;
/// Highest rate accepted, Mbit/s.
pub const RATE_MBPS_MAX: f64 = 1_000_000.0;
/// Queue of a rate-limited link when none is given, frames.
pub const QUEUE_PACKETS_DEFAULT: u32 = 1_000;

/// How much may wait for a rate-limited link, the frame in transmission
/// included. A link without a rate never queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QueueLimit {
    /// At most this many frames.
    Packets(u32),
    /// At most this many bytes of frames (Ethernet header included).
    Bytes(u64),
}

/// The behaviour of one ordered pair of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkParams {
    /// One-way propagation delay: no frame arrives earlier.
    pub delay: Duration,
    /// Extra delay per frame, uniform in `0..=jitter`; it may reorder frames.
    pub jitter: Duration,
    /// Probability in `0..=1` that a frame is lost.
    pub loss: f64,
    /// Serialisation rate in bit/s over whole Ethernet frames without FCS;
    /// `None` is unlimited.
    pub rate_bits_per_s: Option<u64>,
    /// Limit of the queue before the serialisation.
    pub queue: QueueLimit,
    /// Frames offered while the link is down are dropped; those already under
    /// way still arrive, like light in a fibre that is cut behind it.
    pub up: bool,
}

impl LinkParams {
    /// A link that only delays.
    #[must_use]
    pub fn with_delay(delay: Duration) -> Self {
        Self {
            delay,
            jitter: Duration::ZERO,
            loss: 0.0,
            rate_bits_per_s: None,
            queue: QueueLimit::Packets(QUEUE_PACKETS_DEFAULT),
            up: true,
        }
    }
}

/// A change to a link: keys that are absent keep their value.
///
/// The same keys as in a topology file's `[[link]]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkChange {
    /// One-way delay, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<f64>,
    /// Uniform extra delay, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter_ms: Option<f64>,
    /// Loss probability, a fraction in `0..=1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Rate, Mbit/s (10^6 bit/s); 0 is unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_mbps: Option<f64>,
    /// Queue limit in frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_packets: Option<u32>,
    /// Queue limit in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_bytes: Option<u64>,
    /// Link up or down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up: Option<bool>,
}

/// A value of a link that cannot be.
#[derive(Debug, Error, Clone, PartialEq)]
pub enum LinkError {
    /// Delay or jitter out of range.
    #[error("{key} = {value} is not between 0 and {DELAY_MS_MAX} milliseconds")]
    Delay {
        /// Key that was given.
        key: &'static str,
        /// Value that was given.
        value: f64,
    },
    /// Loss out of range.
    #[error("loss = {0} is not a fraction between 0 and 1 (1 % is 0.01)")]
    Loss(f64),
    /// Rate out of range.
    #[error("rate_mbps = {0} is not 0 (unlimited) or between 0.001 and {RATE_MBPS_MAX}")]
    Rate(f64),
    /// Two queue limits, or an empty one.
    #[error("give one of queue_packets and queue_bytes, at least 1 packet or 1514 bytes")]
    Queue,
}

impl LinkChange {
    /// A change of the delay alone, ms.
    #[must_use]
    pub fn delay_ms(delay_ms: f64) -> Self {
        Self {
            delay_ms: Some(delay_ms),
            ..Self::default()
        }
    }

    /// A change of the loss alone, a fraction.
    #[must_use]
    pub fn loss(loss: f64) -> Self {
        Self {
            loss: Some(loss),
            ..Self::default()
        }
    }

    /// A change of the rate alone, Mbit/s; 0 is unlimited.
    #[must_use]
    pub fn rate_mbps(rate_mbps: f64) -> Self {
        Self {
            rate_mbps: Some(rate_mbps),
            ..Self::default()
        }
    }

    /// Takes the link up or down.
    #[must_use]
    pub fn up(up: bool) -> Self {
        Self {
            up: Some(up),
            ..Self::default()
        }
    }

    /// Checks every value that is present.
    ///
    /// # Errors
    /// The first value out of range.
    pub fn validate(&self) -> Result<(), LinkError> {
        for (key, value) in [("delay_ms", self.delay_ms), ("jitter_ms", self.jitter_ms)] {
            if let Some(value) = value
                && !(0.0..=DELAY_MS_MAX).contains(&value)
            {
                return Err(LinkError::Delay { key, value });
            }
        }
        if let Some(loss) = self.loss
            && !(0.0..=1.0).contains(&loss)
        {
            return Err(LinkError::Loss(loss));
        }
        if let Some(rate) = self.rate_mbps
            && rate != 0.0
            && !(0.001..=RATE_MBPS_MAX).contains(&rate)
        {
            return Err(LinkError::Rate(rate));
        }
        match (self.queue_packets, self.queue_bytes) {
            (Some(_), Some(_)) | (Some(0), None) => Err(LinkError::Queue),
            (None, Some(bytes)) if bytes < 1514 => Err(LinkError::Queue),
            _ => Ok(()),
        }
    }

    /// Applies the change to `params`.
    ///
    /// # Errors
    /// As [`validate`](Self::validate); `params` is then unchanged.
    pub fn apply(&self, params: &mut LinkParams) -> Result<(), LinkError> {
        self.validate()?;
        let milliseconds = |ms: f64| Duration::from_nanos((ms * 1e6).round() as u64);
        if let Some(ms) = self.delay_ms {
            params.delay = milliseconds(ms);
        }
        if let Some(ms) = self.jitter_ms {
            params.jitter = milliseconds(ms);
        }
        if let Some(loss) = self.loss {
            params.loss = loss;
        }
        if let Some(rate) = self.rate_mbps {
            params.rate_bits_per_s = (rate != 0.0).then_some((rate * 1e6).round() as u64);
        }
        if let Some(packets) = self.queue_packets {
            params.queue = QueueLimit::Packets(packets);
        }
        if let Some(bytes) = self.queue_bytes {
            params.queue = QueueLimit::Bytes(bytes);
        }
        if let Some(up) = self.up {
            params.up = up;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_change_leaves_the_link_as_it_was() {
        let before = LinkParams::with_delay(Duration::from_millis(5));
        let mut params = before;
        let change = LinkChange {
            delay_ms: Some(1.0),
            loss: Some(1.5),
            ..LinkChange::default()
        };
        assert_eq!(change.apply(&mut params), Err(LinkError::Loss(1.5)));
        assert_eq!(params, before);
    }

    #[test]
    fn nan_is_out_of_every_range() {
        assert!(LinkChange::delay_ms(f64::NAN).validate().is_err());
        assert!(LinkChange::loss(f64::NAN).validate().is_err());
        assert!(LinkChange::rate_mbps(f64::NAN).validate().is_err());
    }

    #[test]
    fn rate_zero_lifts_the_limit() {
        let mut params = LinkParams::with_delay(Duration::ZERO);
        LinkChange::rate_mbps(10.0).apply(&mut params).unwrap();
        assert_eq!(params.rate_bits_per_s, Some(10_000_000));
        LinkChange::rate_mbps(0.0).apply(&mut params).unwrap();
        assert_eq!(params.rate_bits_per_s, None);
    }
}
