//! One node's part of a trace: what its programs would do with a packet, asked of the programs
//! themselves.
//!
//! The kernel runs the node's own program on the packet (BPF_PROG_TEST_RUN), compiled of the same
//! source but for its effects: nothing is counted, kept or sent. So a trace cannot say anything
//! else than the data plane does, whatever the data plane learns to do.

use aya::programs::{ProgramError, SchedClassifier, TestRun as _, TestRunOptions};
use sunwire_dataplane_common::{drop_reason::DropReason, event::notes};

/// Bytes of `struct __sk_buff`, and where in it the kernel takes and gives what we need.
const CONTEXT_BYTES: usize = 192;
const MARK: usize = 8;
const IFINDEX: usize = 40;
const CONTROL_BLOCK: usize = 48;
const GSO_SIZE: usize = 176;
/// Largest frame that a trace returns: the kernel runs programs on little more.
const FRAME_BYTES: usize = 16_384;

/// A packet as it comes to a node.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arrival<'a> {
    /// ifindex of the device it comes in by.
    pub ifindex: u32,
    /// Whether that is the underlay device.
    pub underlay: bool,
    /// The frame, from the Ethernet header on.
    pub frame: &'a [u8],
    /// Payload bytes of a segment, when it is a super-packet; else zero.
    pub gso_size: u32,
}

/// What becomes of a packet, or of one copy of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepOutcome {
    /// It is dropped.
    Dropped(DropReason),
    /// It ends here and is no loss.
    Consumed,
    /// It is not the switch's: the kernel's own stack goes on with it.
    Passed,
    /// It goes on, to another node or to an endpoint here.
    Forwarded {
        /// Number of the node; zero when it stays here.
        node: u32,
        /// Number of the endpoint; zero when it goes back where it came from, as an answer.
        destination: u32,
    },
}

/// What a program does with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What becomes of it.
    pub outcome: StepOutcome,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// Whether the frame begins with the headers of a tunnel.
    pub outer: bool,
    /// Slot of the label that decided.
    pub label: Option<u32>,
    /// VNI, where the program found it in the packet.
    pub network: u32,
    /// One of `sunwire_dataplane_common::event::connection`.
    pub connection: u32,
    /// Whether it goes by a wire.
    pub wire: bool,
    /// Where no copy of a packet for several is told: why.
    pub remark: Option<&'static str>,
}

/// The kernel does not run the program.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// It refuses the packet: too short, or longer than a page or so.
    #[error("the kernel does not run its program on a frame of {bytes} bytes")]
    Refused {
        /// Length of the frame.
        bytes: usize,
        /// Why.
        #[source]
        source: Box<ProgramError>,
    },
    /// The program returned what it never returns.
    #[error("the program returned {0}")]
    Unexpected(u32),
}

/// Asks a program what it would do; one step for each copy that the verdict makes.
///
/// # Errors
/// [`StepError`] when the kernel does not run it.
pub fn steps(program: &SchedClassifier, arrival: &Arrival<'_>) -> Result<Vec<Step>, StepError> {
    let (first, copies, mark) = run(program, arrival, 0)?;
    let mut steps = vec![first];
    for number in 1..copies {
        let mark = mark | number << notes::COPY_NUMBER_SHIFT;
        let (copy, _, _) = run(program, arrival, mark)?;
        let label = steps[0].label;
        steps.push(Step { label, ..copy });
    }
    Ok(steps)
}

fn run(
    program: &SchedClassifier,
    arrival: &Arrival<'_>,
    mark: u32,
) -> Result<(Step, u32, u32), StepError> {
    let mut context = [0; CONTEXT_BYTES];
    let fields = [
        (MARK, mark),
        (IFINDEX, arrival.ifindex),
        (GSO_SIZE, arrival.gso_size),
    ];
    for (offset, value) in fields {
        context[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
    }
    let mut after = [0; CONTEXT_BYTES];
    let mut frame = vec![0; FRAME_BYTES];
    let result = program
        .test_run(TestRunOptions {
            data_in: Some(arrival.frame),
            data_out: Some(&mut frame),
            ctx_in: Some(&context),
            ctx_out: Some(&mut after),
            ..TestRunOptions::default()
        })
        .map_err(|source| StepError::Refused {
            bytes: arrival.frame.len(),
            source: source.into(),
        })?;
    frame.truncate(result.data_size_out as usize);
    let word = |offset: usize| {
        let bytes = after[offset..].first_chunk().expect("within the context");
        u32::from_ne_bytes(*bytes)
    };
    let note = |index: usize| word(CONTROL_BLOCK + 4 * index);
    let flags = note(4);
    let reason = (flags >> notes::REASON_SHIFT & 0xff).checked_sub(1);
    let reason = reason.and_then(|reason| DropReason::ALL.get(reason as usize));
    let outcome = match (result.return_value, reason) {
        // TC_ACT_OK, TC_ACT_SHOT, TC_ACT_REDIRECT.
        (0, None) => StepOutcome::Passed,
        (2, None) => StepOutcome::Consumed,
        (2, Some(reason)) => StepOutcome::Dropped(*reason),
        (7, None) => StepOutcome::Forwarded {
            node: note(2),
            destination: note(1),
        },
        (other, _) => return Err(StepError::Unexpected(other)),
    };
    let step = Step {
        outcome,
        frame,
        // What the underlay's program delivers it has unwrapped.
        outer: match (arrival.underlay, outcome) {
            (true, StepOutcome::Forwarded { node, .. }) => node != 0,
            (true, _) => true,
            (false, _) => flags & notes::OUTER != 0,
        },
        network: note(3),
        label: note(0).checked_sub(1),
        connection: flags >> notes::CONNECTION_SHIFT & 3,
        wire: flags & notes::WIRE != 0,
        remark: None,
    };
    Ok((step, flags >> notes::COPIES_SHIFT & 7, word(MARK)))
}
