//! The table of flows beside a plain map, and with many processors at once.

use std::{
    collections::HashMap,
    sync::{
        Barrier,
        atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::SeqCst},
    },
    thread,
};

use sunwire_dataplane_common::{
    flow::{TupleV4, tag},
    flow_table::{Added, Geometry, LineKey, Lines, WINDOW, add, find, free},
};

/// Lines in memory that threads share, as processors do the kernel's.
struct Memory {
    geometry: Geometry,
    lines: Vec<Cell>,
}

#[derive(Default)]
struct Cell {
    head: AtomicU64,
    ends: AtomicU64,
    tag: AtomicU32,
    seen: AtomicU8,
}

/// A flow that is looked for or added, and what was seen of it.
struct Search<'a> {
    memory: &'a Memory,
    key: LineKey,
    seen: u8,
    /// What others do while the flow is written into its line.
    meanwhile: Option<&'a dyn Fn()>,
}

impl Memory {
    fn new(lines: u32, secret: [u64; 2]) -> Self {
        Memory {
            geometry: Geometry::new(lines, secret),
            lines: (0..lines).map(|_| Cell::default()).collect(),
        }
    }

    fn search(&self, key: LineKey, seen: u8) -> Search<'_> {
        Search {
            memory: self,
            key,
            seen,
            meanwhile: None,
        }
    }

    fn find(&self, key: LineKey) -> Option<u32> {
        let place = self.geometry.place(key);
        find(&self.search(key, 0), &self.geometry, place)
    }

    fn add(&self, key: LineKey, seen: u8) -> Added {
        let place = self.geometry.place(key);
        add(&self.search(key, seen), &self.geometry, place)
    }

    /// As a packet does that ends a flow.
    fn kill(&self, key: LineKey) -> Option<u32> {
        let slot = self.find(key)?;
        self.lines[slot as usize].tag.fetch_or(tag::DEAD, SeqCst);
        Some(slot)
    }

    /// As a sweep does when all that found the flow are over.
    fn free(&self, slot: u32) {
        let cell = &self.lines[slot as usize];
        let key = LineKey {
            head: cell.head.load(SeqCst),
            ends: cell.ends.load(SeqCst),
        };
        let place = self.geometry.place(key);
        free(&self.search(key, 0), &self.geometry, place, slot);
    }

    fn seen(&self, slot: u32) -> u8 {
        self.lines[slot as usize].seen.load(SeqCst)
    }

    /// Lines with bits of a tag.
    fn with(&self, bits: u32) -> usize {
        let tags = self.lines.iter().map(|cell| cell.tag.load(SeqCst));
        tags.filter(|tag| tag & bits != 0).count()
    }
}

impl Lines for Search<'_> {
    fn tag(&self, slot: u32) -> u32 {
        self.memory.lines[slot as usize].tag.load(SeqCst)
    }

    fn set(&self, slot: u32, bits: u32) -> u32 {
        let line = &self.memory.lines[slot as usize];
        line.tag.fetch_or(bits, SeqCst)
    }

    fn clear(&self, slot: u32, bits: u32) {
        let line = &self.memory.lines[slot as usize];
        line.tag.fetch_and(!bits, SeqCst);
    }

    fn add(&self, slot: u32, value: u32) {
        let line = &self.memory.lines[slot as usize];
        line.tag.fetch_add(value, SeqCst);
    }

    fn family(&self) -> u32 {
        tag::V4
    }

    fn is(&self, slot: u32) -> bool {
        let line = &self.memory.lines[slot as usize];
        line.head.load(SeqCst) == self.key.head && line.ends.load(SeqCst) == self.key.ends
    }

    fn write(&self, slot: u32) -> u32 {
        let line = &self.memory.lines[slot as usize];
        // Nobody else has it: what was published there would be written into otherwise.
        let tag = line.tag.load(SeqCst);
        assert_eq!(tag & tag::FLAGS, tag::TAKEN, "{slot}");
        line.head.store(self.key.head, SeqCst);
        line.ends.store(self.key.ends, SeqCst);
        line.seen.store(self.seen, SeqCst);
        if let Some(meanwhile) = self.meanwhile {
            meanwhile();
        }
        0
    }

    fn merge(&self, from: u32, to: u32) {
        let lines = &self.memory.lines;
        let seen = lines[from as usize].seen.load(SeqCst);
        lines[to as usize].seen.fetch_or(seen, SeqCst);
    }

    fn wipe(&self, slot: u32) {
        let line = &self.memory.lines[slot as usize];
        line.head.store(0, SeqCst);
        line.ends.store(0, SeqCst);
    }
}

fn key(local: u32, remote: u32, ports: (u16, u16)) -> LineKey {
    let tuple = TupleV4 {
        network_protocol: 7 << 8 | 6,
        local,
        remote,
        ports: u32::from(ports.0) << 16 | u32::from(ports.1),
    };
    assert_eq!(tuple.line_key().tuple_v4(), tuple);
    tuple.line_key()
}

/// A small generator, so that a run is the same again (xorshift64, Marsaglia 2003).
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % below
    }
}

const SECRET: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];

#[test]
fn it_holds_what_a_map_holds_and_gives_every_line_back() {
    for seed in 1..=20 {
        let mut random = Random(seed * 0x9e37_79b9);
        let memory = Memory::new(64, [random.next(u64::MAX), random.next(u64::MAX)]);
        let (mut model, mut dead) = (HashMap::new(), Vec::new());
        for step in 0..20_000 {
            // Often more flows than lines.
            let number = random.next(100) as u16;
            let flow = key(1, 2 + u32::from(number % 3), (40_000 + number, 80));
            let what = format!("seed {seed} step {step} flow {number}");
            match random.next(10) {
                0..5 => match memory.add(flow, 1) {
                    Added::New(slot) => {
                        assert_eq!(model.insert(number, slot), None, "{what}");
                    }
                    Added::There(slot) => assert_eq!(model[&number], slot, "{what}"),
                    Added::NoRoom => {
                        assert!(!model.contains_key(&number), "{what}");
                        let place = memory.geometry.place(flow);
                        for attempt in 0..WINDOW {
                            let slot = memory.geometry.slot(place, attempt);
                            let line = &memory.lines[slot as usize];
                            assert_ne!(line.tag.load(SeqCst) & tag::TAKEN, 0, "{what}");
                        }
                    }
                },
                5..9 => {
                    let gone = memory.kill(flow);
                    assert_eq!(gone, model.remove(&number), "{what}");
                    dead.extend(gone);
                }
                _ => dead.drain(..).for_each(|slot| memory.free(slot)),
            }
            assert_eq!(memory.find(flow), model.get(&number).copied(), "{what}");
        }
        model
            .values()
            .chain(&dead)
            .for_each(|slot| memory.free(*slot));
        // Nothing is counted as further on any more, either.
        assert_eq!(memory.with(u32::MAX), 0, "seed {seed}");
    }
}

#[test]
fn nobody_gets_the_line_of_a_flow_that_is_forgotten_but_not_freed() {
    let memory = Memory::new(16, SECRET);
    let flow = |number: u16| key(1, 2, (number, 80));
    let mut added = 0;
    while memory.add(flow(1000 + added), 0) != Added::NoRoom {
        added += 1;
    }
    // Every window has all 16.
    assert_eq!(added, 16);
    let gone = memory.kill(flow(1000)).unwrap();
    assert_eq!(memory.find(flow(1000)), None);
    assert_eq!(memory.add(flow(1000), 0), Added::NoRoom);
    memory.free(gone);
    assert_eq!(memory.add(flow(5000), 0), Added::New(gone));
    let rest = (1001..1000 + added).map(flow);
    assert!(rest.into_iter().all(|flow| memory.find(flow).is_some()));
}

/// Under each of the first secrets two runs begin near each other, and with any odd step the second one's
/// lines would all lie near its first.
#[test]
fn long_runs_of_ports_find_room_in_a_table_that_is_half_empty() {
    let overlapping = [
        [0x0000_a0e5_ffb2_8f7c, 0x0000_0d2e_f9c2_bcd1],
        [0x0000_b40c_e166_cf99, 0x0000_d9b9_ec34_058a],
        [0x0000_a000_fa44_1749, 0x0000_6e8e_3112_5eaf],
    ];
    let mut random = Random(1);
    let others = std::iter::repeat_with(|| [random.next(u64::MAX), random.next(u64::MAX)]);
    // The ports that Linux gives to sockets.
    let ports = 32_768..61_000_u16;
    for secret in overlapping.into_iter().chain(others.take(8)) {
        for (lines, runs) in [(1 << 16, 1), (1 << 17, 2), (1 << 18, 4)] {
            let memory = Memory::new(lines, secret);
            for client in 0..runs {
                for port in ports.clone() {
                    let added = memory.add(key(1, client, (port, 80)), 0);
                    assert!(matches!(added, Added::New(_)), "{secret:?}: {runs} runs");
                }
            }
        }
    }
}

#[test]
fn who_adds_the_same_flow_at_once_ends_with_one_entry_that_has_seen_what_all_have() {
    const THREADS: u8 = 4;
    const FLOWS: u16 = 200;
    for round in 0..20 {
        let memory = Memory::new(1024, [round, !round]);
        let barrier = Barrier::new(usize::from(THREADS));
        let flow = |number: u16| key(1, u32::from(number % 7), (number, 80));
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (memory, barrier) = (&memory, &barrier);
                scope.spawn(move || {
                    for number in 0..FLOWS {
                        if number % 8 == 0 {
                            barrier.wait();
                        }
                        let seen = 1 << thread;
                        match memory.add(flow(number), seen) {
                            Added::New(_) => {}
                            // As a packet does that finds its flow.
                            Added::There(slot) => {
                                memory.lines[slot as usize].seen.fetch_or(seen, SeqCst);
                            }
                            Added::NoRoom => panic!("round {round}: there is room"),
                        }
                        assert!(memory.find(flow(number)).is_some(), "round {round}");
                    }
                });
            }
        });
        let mut live = 0;
        for number in 0..FLOWS {
            let slot = memory.find(flow(number)).expect("it was added");
            // It may have been found just before it made way for another one: then what was seen
            // is noted with the next packet.
            assert_ne!(memory.seen(slot), 0, "round {round}");
            live += 1;
        }
        let dead = memory.with(tag::DEAD);
        assert_eq!(memory.with(tag::TAKEN), live + dead, "round {round}");
        for slot in 0..1024 {
            if memory.lines[slot as usize].tag.load(SeqCst) & tag::TAKEN != 0 {
                memory.free(slot);
            }
        }
        assert_eq!(memory.with(u32::MAX), 0, "round {round}");
    }
}

/// The one order in which both have looked before either is done, and the first one is done last.
#[test]
fn a_twin_that_was_added_meanwhile_further_on_goes_and_leaves_what_it_has_seen() {
    let memory = Memory::new(64, SECRET);
    let flow = key(1, 2, (3, 4));
    let place = memory.geometry.place(flow);
    let (home, second) = (
        memory.geometry.slot(place, 0),
        memory.geometry.slot(place, 1),
    );
    let meanwhile = || assert_eq!(memory.add(flow, 2), Added::New(second));
    let search = Search {
        meanwhile: Some(&meanwhile),
        ..memory.search(flow, 1)
    };
    assert_eq!(add(&search, &memory.geometry, place), Added::New(home));
    assert_eq!(memory.find(flow), Some(home));
    assert_eq!((memory.seen(home), memory.with(tag::DEAD)), (3, 1));
    assert_ne!(
        memory.lines[second as usize].tag.load(SeqCst) & tag::DEAD,
        0
    );
}

/// Likewise, and a line in front of the other's was freed meanwhile.
#[test]
fn a_twin_that_was_added_meanwhile_in_front_stays() {
    let memory = Memory::new(64, SECRET);
    let flow = key(1, 2, (3, 4));
    let place = memory.geometry.place(flow);
    let (home, second) = (
        memory.geometry.slot(place, 0),
        memory.geometry.slot(place, 1),
    );
    // Somebody else's flow is in the first line.
    memory.lines[home as usize].tag.store(tag::TAKEN, SeqCst);
    let meanwhile = || {
        memory.lines[home as usize]
            .tag
            .fetch_and(!tag::FLAGS, SeqCst);
        assert_eq!(memory.add(flow, 2), Added::New(home));
    };
    let search = Search {
        meanwhile: Some(&meanwhile),
        ..memory.search(flow, 1)
    };
    assert_eq!(add(&search, &memory.geometry, place), Added::There(home));
    assert_eq!(memory.find(flow), Some(home));
    assert_eq!(memory.seen(home), 3);
    assert_ne!(
        memory.lines[second as usize].tag.load(SeqCst) & tag::DEAD,
        0
    );
}

#[test]
fn ports_that_follow_each_other_are_neighbours_at_both_ends() {
    let memory = Memory::new(1 << 12, SECRET);
    let place = |ports| memory.geometry.place(key(1, 2, ports)).home;
    for port in 30_000..30_100 {
        let (client, server) = ((port, 443), (443, port));
        let next = ((port + 1, 443), (443, port + 1));
        assert_eq!(place(next.0), place(client).wrapping_add(1));
        assert_eq!(place(next.1), place(server).wrapping_add(1));
        // Two flows of two services are nowhere near.
        assert!(place((port, 444)).abs_diff(place(client)) > 1 << 12);
    }
}

/// What a table is sized for finds room: runs of ports, as clients make them, and addresses at random.
#[test]
fn a_table_that_is_half_full_has_room_for_nearly_all_and_most_are_in_their_first_line() {
    let lines = 1 << 14;
    for seed in 1..=5 {
        let mut random = Random(seed * 0x9e37_79b9_7f4a);
        let memory = Memory::new(lines, [random.next(u64::MAX), random.next(u64::MAX)]);
        let (mut beside, mut first) = (0, 0);
        let flows = lines / 2;
        for number in 0..flows {
            let flow = if number % 2 == 0 {
                // Eight clients of one service, each with its ports in order.
                let client = number / 2 % 8;
                key(1, 2 + client, (80, 32_768 + (number / 16) as u16))
            } else {
                let port = random.next(65_536) as u16;
                key(1, random.next(1 << 32) as u32, (443, port))
            };
            match memory.add(flow, 0) {
                Added::NoRoom => beside += 1,
                Added::New(slot)
                    if slot == memory.geometry.slot(memory.geometry.place(flow), 0) =>
                {
                    first += 1;
                }
                Added::New(_) | Added::There(_) => {}
            }
        }
        assert!(beside <= flows / 1000, "seed {seed}: {beside} of {flows}");
        assert!(first >= flows / 2, "seed {seed}: {first} of {flows}");
    }
}

#[test]
fn a_table_has_twice_as_many_lines_as_flows_and_a_power_of_two() {
    let cases = [
        (0, 16),
        (8, 16),
        (9, 32),
        (131_072, 262_144),
        (u32::MAX, 1 << 23),
    ];
    for (flows, lines) in cases {
        assert_eq!(Geometry::lines_for(flows), lines);
        assert_eq!(Geometry::new(lines, SECRET).mask, lines - 1);
    }
}
