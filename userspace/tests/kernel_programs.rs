//! The kernel accepts the programs, and an agent that comes back finds its maps.

mod fixture;

use fixture::BpfDirectory;
use sunwire_userspace::{dataplane::Dataplane, maps::Capacity};

#[test]
fn the_kernel_accepts_the_programs() {
    let Some(directory) = BpfDirectory::new("the_kernel_accepts_the_programs") else {
        return;
    };
    Dataplane::load(directory.path(), Capacity::default()).unwrap();
    // Again, against the maps that are pinned now.
    Dataplane::load(directory.path(), Capacity::default()).unwrap();
}
