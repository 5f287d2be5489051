//! However many rules a policy has, a packet makes the same few probes.

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

use sunwire_netns_tests::bench::policy::walk::{Effort, run};

#[test]
fn the_number_of_probes_does_not_grow_with_the_rules() {
    let test = "the_number_of_probes_does_not_grow_with_the_rules";
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED {test}: root is needed to load programs");
        return;
    }
    let effort = Effort {
        repeats: 10,
        keys: 500,
        rounds: 1,
        ..Effort::default()
    };
    // Every packet is seen to meet its rule.
    let walks = run(&[10, 1_000, 6_250], effort).unwrap();
    for walk in &walks {
        eprintln!("{walk:?}");
    }
    let [few, some, many] = &walks[..] else {
        panic!("three were asked for");
    };
    assert!(many.table_edges > 4 * some.table_edges && some.table_edges > 50 * few.table_edges);
    assert_eq!(many.probes_max, some.probes_max);
    assert!(many.probes_max <= 8, "{many:?}");
}
