//! Dropped frames themselves, for who has to know which packet it was: counts tell how many packets a
//! test may miss, the frames tell which.

use super::shaper::{DropReason, Nanos};

/// Bytes kept of a frame: the headers of a tunnelled packet and the beginning of what it carries.
pub const HEAD_BYTES: usize = 192;

/// A frame that a link did not deliver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedFrame {
    /// When, nanoseconds of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// Source node.
    pub from: String,
    /// Destination node; `None` for a frame that no link took.
    pub to: Option<String>,
    /// Length of the frame, bytes.
    pub length_bytes: u32,
    /// Why.
    pub reason: DropReason,
    /// Its first bytes, at most [`HEAD_BYTES`], from the Ethernet header on.
    pub head: Vec<u8>,
}

/// What was kept since the last time it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DroppedFrames {
    /// In the order that they were dropped in.
    pub frames: Vec<DroppedFrame>,
    /// How many there was no room for.
    pub unkept: u64,
}

#[derive(Debug)]
struct Record {
    at: Nanos,
    from: usize,
    to: Option<usize>,
    length: u32,
    reason: DropReason,
    head: Vec<u8>,
}

/// The frames kept by the engine, by numbers of nodes.
#[derive(Debug, Default)]
pub(super) struct Kept {
    frames_max: usize,
    frames: Vec<Record>,
    unkept: u64,
}

impl Kept {
    /// Keeps up to `frames_max` frames from now on; 0 keeps none.
    pub(super) fn keep(&mut self, frames_max: usize) {
        *self = Self {
            frames_max,
            ..Self::default()
        };
    }

    pub(super) fn record(
        &mut self,
        at: Nanos,
        from: usize,
        to: Option<usize>,
        reason: DropReason,
        frame: &[u8],
    ) {
        if self.frames_max == 0 {
            return;
        }
        if self.frames.len() == self.frames_max {
            self.unkept += 1;
            return;
        }
        let head = frame[..frame.len().min(HEAD_BYTES)].to_vec();
        let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        self.frames.push(Record {
            at,
            from,
            to,
            length,
            reason,
            head,
        });
    }

    pub(super) fn take(&mut self, name: impl Fn(usize) -> String) -> DroppedFrames {
        let frames = std::mem::take(&mut self.frames).into_iter();
        let frames = frames.map(|record| DroppedFrame {
            at_ns: record.at,
            from: name(record.from),
            to: record.to.map(&name),
            length_bytes: record.length,
            reason: record.reason,
            head: record.head,
        });
        DroppedFrames {
            frames: frames.collect(),
            unkept: std::mem::take(&mut self.unkept),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_kept_up_to_the_limit_and_the_rest_is_counted() {
        let mut kept = Kept::default();
        kept.record(1, 0, Some(1), DropReason::Loss, b"nobody asked");
        assert_eq!(kept.take(|node| node.to_string()), DroppedFrames::default());
        kept.keep(2);
        for at in 1..=3 {
            kept.record(at, 0, Some(1), DropReason::Loss, &[at as u8; 300]);
        }
        let taken = kept.take(|node| format!("node{node}"));
        assert_eq!((taken.frames.len(), taken.unkept), (2, 1));
        let last = &taken.frames[1];
        assert_eq!((last.at_ns, last.length_bytes), (2, 300));
        assert_eq!((&*last.from, last.to.as_deref()), ("node0", Some("node1")));
        assert_eq!(last.head, [2; HEAD_BYTES]);
        assert_eq!(kept.take(|_| String::new()), DroppedFrames::default());
    }
}
