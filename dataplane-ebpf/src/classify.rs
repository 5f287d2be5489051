//! The policy's decision on a packet: address classes, then the walk of the flow tables.

use aya_ebpf::maps::{LpmTrie, lpm_trie::Key};
use sunwire_dataplane_common::{
    entries::{ClassKeyV4, ClassKeyV6, EndpointEntry, SourceClasses, endpoint as flags},
    flow_key::{Connection, Context, Field, FlowKey, state},
    group::EACH_ITS_OWN,
    headers::{Family, Headers},
    tables::{EdgeKey, Next, Reads, RootEntry, RootKey, Tables, slot, walk_noting},
};

use crate::{
    endpoint, frame,
    maps::{
        CLASSES_V4, CLASSES_V6, EDGES, NODES, QUESTION, ROOTS, STAGED_ROOTS, STAGED_V4, STAGED_V6,
        VERDICTS,
    },
    routes,
};

/// The tables that policies in force and staged ones share.
struct KernelTables;

impl Tables for KernelTables {
    #[inline(always)]
    fn edge(&self, key: &EdgeKey) -> Option<Next> {
        // SAFETY: an edge is replaced whole and freed only after a grace period.
        unsafe { EDGES.get(key) }.copied()
    }

    #[inline(always)]
    fn node(&self, slot: u32) -> Option<Next> {
        NODES.get(slot).copied()
    }
}

/// No policy has anything to say of the packet: its network has none, or its address no class.
pub(crate) const NO_POLICY: u32 = u32::MAX;
/// The tables are incomplete.
pub(crate) const BAD_TABLES: u32 = u32::MAX - 1;

/// What is asked of a policy, in memory of each CPU: the stack is short, and what comes from memory
/// is one case to the verifier where what comes from the stack would be many.
#[repr(C)]
pub(crate) struct Question {
    /// Where the walk starts.
    root: Next,
    /// The packet.
    key: FlowKey,
    /// The key of the root.
    root_key: RootKey,
    /// The destination, of whichever family it is.
    class_v4: Key<ClassKeyV4>,
    class_v6: Key<ClassKeyV6>,
}

/// What a policy says of a packet.
#[derive(Clone, Copy)]
pub(crate) struct Decided {
    /// Slot in `VERDICTS`, or [`NO_POLICY`] or [`BAD_TABLES`].
    pub(crate) slot: u32,
    /// What the walk has looked at.
    pub(crate) reads: Reads,
}

impl Decided {
    #[inline(always)]
    const fn nothing(slot: u32) -> Self {
        Decided {
            slot,
            reads: Reads(0),
        }
    }

    /// Both in one number: a function of the kernel's returns no more.
    #[inline(always)]
    const fn pack(self) -> u64 {
        (self.reads.0 as u64) << 32 | self.slot as u64
    }

    #[inline(always)]
    const fn unpack(word: u64) -> Self {
        Decided {
            slot: word as u32,
            reads: Reads((word >> 32) as u32),
        }
    }
}

/// What the policy of a generation says of the packet at hand, which an endpoint, by its number, sent
/// in at a device; `state` is of [`preset`].
#[inline(always)]
pub(crate) fn in_force((ifindex, number): (u32, u32), state: u32, generation: u32) -> Decided {
    Decided::unpack(decide_in_force(ifindex, number, state, generation))
}

/// A global function, like `walk_tables`, and for the same reason.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn decide_in_force(ifindex: u32, number: u32, state: u32, generation: u32) -> u64 {
    let nothing = Decided::nothing(BAD_TABLES).pack();
    let (Some(parsed), Some(endpoint)) = (frame::parsed(), endpoint::sender(ifindex, number))
    else {
        return nothing;
    };
    let headers = &parsed.headers;
    if !ask_policy(headers, endpoint, generation, endpoint.node, state) {
        return Decided::nothing(NO_POLICY).pack();
    }
    let mut decided = walk_tables();
    if endpoint.flags & flags::LINK != 0 {
        // Where it goes its MAC address says, which is not in a flow's key: it is asked each time.
        decided |= u64::from(Reads::ETH_DST) << 32;
    }
    if state >> state::BUCKET_SHIFT == 0 || !is_drop(decided as u32) {
        return decided;
    }
    // The back end that the connection keeps is none any more.
    let state = state & ((1 << state::BUCKET_SHIFT) - 1);
    if !ask_policy(headers, endpoint, generation, endpoint.node, state) {
        return nothing;
    }
    walk_tables()
}

/// Whether a verdict sends nothing.
#[inline(always)]
fn is_drop(slot: u32) -> bool {
    VERDICTS
        .get(slot)
        .is_some_and(|verdict| verdict.copies == 0)
}

/// What the staged policy says; `number` is `Control::staged`.
#[inline(always)]
pub(crate) fn staged(
    headers: &Headers,
    endpoint: &EndpointEntry,
    number: u32,
    node: u32,
    state: u32,
) -> Decided {
    // What a staged rate would admit is not known: nothing is taken for it.
    match ask_candidate(headers, endpoint, number, node, with_token(state, true)) {
        true => Decided::unpack(walk_tables()),
        false => Decided::nothing(NO_POLICY),
    }
}

/// What is set before the policy, but for what its root asks for: the state of the connection, and the
/// bucket that the connection keeps or zero.
#[inline(always)]
pub(crate) fn preset(connection: Connection, bucket: u32) -> u32 {
    (connection as u32) << state::CONNECTION_SHIFT | bucket << state::BUCKET_SHIFT
}

/// The same with whether the rate admits the packet.
#[inline(always)]
pub(crate) const fn with_token(state: u32, token: bool) -> u32 {
    state | (token as u32) << state::TOKEN_SHIFT
}

// Functions of their own: one after the other they use the same stack, of which there are 512 bytes
// in all.
#[inline(never)]
fn ask_policy(
    headers: &Headers,
    endpoint: &EndpointEntry,
    generation: u32,
    node: u32,
    state: u32,
) -> bool {
    let own = Some(&endpoint.classes);
    let sender = Sender::of(endpoint);
    let classes = (&CLASSES_V4, &CLASSES_V6, own);
    ask(
        headers,
        sender,
        classes,
        (generation, node, state),
        root_in_force,
    )
}

#[inline(always)]
fn root_in_force(key: &RootKey) -> Option<RootEntry> {
    // SAFETY: a root is replaced whole and freed only after a grace period.
    unsafe { ROOTS.get(key) }.copied()
}

/// What the policy of a generation says of the packet at hand, had it entered by an endpoint of another
/// node, number `from`, at that `node`; `state` is of [`preset`].
///
/// A global function, like `walk_tables`, and for the same reason.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn decide_received(from: u32, node: u32, state: u32, generation: u32) -> u64 {
    let (Some(parsed), Some(source)) = (frame::parsed(), routes::location(from)) else {
        return Decided::nothing(BAD_TABLES).pack();
    };
    let sender = Sender {
        network: source.network,
        number: from,
        is_looked_up: true,
    };
    let classes = (&CLASSES_V4, &CLASSES_V6, None);
    let headers = &parsed.headers;
    if !ask(
        headers,
        sender,
        classes,
        (generation, node, state),
        root_in_force,
    ) {
        return Decided::nothing(NO_POLICY).pack();
    }
    let Some(question) = question() else {
        return Decided::nothing(BAD_TABLES).pack();
    };
    // As the endpoint sent it: its own address, which a gateway's may have replaced.
    let (high, low) = source.mac.split();
    question.key.slots[Field::EthSrcHigh as usize] = high;
    question.key.slots[Field::EthSrcLow as usize] = low;
    if headers.eth_dst == EACH_ITS_OWN {
        // It was one endpoint's, which one is not known.
        question.key.slots[Field::EthDstHigh as usize] = 0;
        question.key.slots[Field::EthDstLow as usize] = 0;
    }
    walk_tables()
}

/// As [`in_force`], of a packet that another node sent: see `enforce`.
#[inline(always)]
pub(crate) fn received(from: u32, node: u32, state: u32, generation: u32) -> Decided {
    Decided::unpack(decide_received(from, node, state, generation))
}

#[inline(never)]
fn ask_candidate(
    headers: &Headers,
    endpoint: &EndpointEntry,
    number: u32,
    node: u32,
    state: u32,
) -> bool {
    let own = Some(&endpoint.staged_classes);
    let sender = Sender::of(endpoint);
    // SAFETY: as for the policy in force.
    let find = |key: &RootKey| unsafe { STAGED_ROOTS.get(key) }.map(|staged| staged.root);
    let classes = (&STAGED_V4, &STAGED_V6, own);
    ask(headers, sender, classes, (number, node, state), find)
}

/// The class maps of a policy, and the classes of the endpoint itself where they are at hand.
type Classes<'a> = (
    &'static LpmTrie<ClassKeyV4, [u32; 2]>,
    &'static LpmTrie<ClassKeyV6, [u32; 2]>,
    Option<&'a SourceClasses>,
);

/// Who sends.
#[derive(Clone, Copy)]
struct Sender {
    /// Its network, whose policy is asked.
    network: u32,
    /// Its number.
    number: u32,
    /// The class of its address has to be looked up.
    is_looked_up: bool,
}

impl Sender {
    /// The source is the endpoint's own address, so its class needs no look-up; but for an endpoint
    /// that has none.
    #[inline(always)]
    fn of(endpoint: &EndpointEntry) -> Self {
        Sender {
            network: endpoint.network,
            number: endpoint.number,
            is_looked_up: endpoint.flags & flags::LINK != 0,
        }
    }
}

/// Puts the question into `QUESTION`; tells whether there is a policy to answer it.
#[inline(always)]
fn ask(
    headers: &Headers,
    sender: Sender,
    (classes_v4, classes_v6, own): Classes<'_>,
    (generation, node, preset): (u32, u32, u32),
    find_root: impl FnOnce(&RootKey) -> Option<RootEntry>,
) -> bool {
    let Some(question) = question() else {
        return false;
    };
    let parity = (generation & 1) as usize;
    let network = sender.network.to_be();
    let known = own.filter(|_| !sender.is_looked_up);
    let (source_class, destination_class) = match headers.family {
        Family::V4 => {
            let address = headers.dst.0[0];
            question.class_v4 = Key::new(64, ClassKeyV4 { network, address });
            let Some(classes) = classes_v4.get(&question.class_v4) else {
                return false;
            };
            let destination = classes[parity];
            if let Some(own) = known {
                (own.v4[parity], destination)
            } else {
                let address = headers.src.0[0];
                question.class_v4 = Key::new(64, ClassKeyV4 { network, address });
                let Some(classes) = classes_v4.get(&question.class_v4) else {
                    return false;
                };
                (classes[parity], destination)
            }
        }
        Family::V6 => {
            let address = headers.dst;
            question.class_v6 = Key::new(160, ClassKeyV6 { network, address });
            let Some(classes) = classes_v6.get(&question.class_v6) else {
                return false;
            };
            let destination = classes[parity];
            if let Some(own) = known {
                (own.v6[parity], destination)
            } else {
                let address = headers.src;
                question.class_v6 = Key::new(160, ClassKeyV6 { network, address });
                let Some(classes) = classes_v6.get(&question.class_v6) else {
                    return false;
                };
                (classes[parity], destination)
            }
        }
        Family::None => {
            let class = match own {
                Some(own) => own.none[parity],
                None => {
                    let key = ClassKeyV4::without_address(sender.network);
                    question.class_v4 = Key::new(ClassKeyV4::NETWORK_BITS, key);
                    let Some(classes) = classes_v4.get(&question.class_v4) else {
                        return false;
                    };
                    classes[parity]
                }
            };
            (class, class)
        }
    };
    question.root_key = RootKey {
        network: sender.network,
        generation,
    };
    let Some(root) = find_root(&question.root_key) else {
        return false;
    };
    // Field by field: a whole value would be copied by a call, which takes stack.
    question.root.node = root.next.node;
    question.root.default = root.next.default;
    question.root.field = root.next.field;
    question.root.shift = root.next.shift;
    question.root.width = root.next.width;
    question.root.kind = root.next.kind;
    let mut preset = preset;
    if root.bucket != 0 && preset >> state::BUCKET_SHIFT == 0 {
        preset |= slot(headers, sender.number, root.bucket) << state::BUCKET_SHIFT;
    }
    question.key = FlowKey::new(
        headers,
        Context {
            source_class,
            destination_class,
            endpoint: sender.number,
            node,
            state: preset,
        },
    );
    true
}

/// The memory in which the keys of addresses are made.
#[inline(always)]
pub(crate) fn keys() -> Option<(&'static mut Key<ClassKeyV4>, &'static mut Key<ClassKeyV6>)> {
    let question = question()?;
    Some((&mut question.class_v4, &mut question.class_v6))
}

/// Memory of this CPU for the question that is being asked.
#[inline(always)]
fn question() -> Option<&'static mut Question> {
    let question = QUESTION.get_ptr_mut(0)?;
    // SAFETY: a program runs to its end on one CPU before another one of ours starts there.
    Some(unsafe { &mut *question })
}

/// The walk: what is in `QUESTION` to a [`Decided`], packed.
///
/// A global function of its own with nothing handed over: the verifier looks at it once, and not
/// anew for every way that leads here.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn walk_tables() -> u64 {
    let Some(question) = question() else {
        return Decided::nothing(BAD_TABLES).pack();
    };
    let mut reads = Reads::default();
    let slot = walk_noting(&KernelTables, question.root, &question.key, &mut reads);
    let slot = slot.unwrap_or(BAD_TABLES);
    Decided { slot, reads }.pack()
}
