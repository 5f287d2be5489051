//! The kernel accepts the programs, and an agent that comes back finds its maps.

mod fixture;

use aya::maps::MapData;
use fixture::BpfDirectory;
use sunwire_userspace::{connections::Connections, dataplane::Dataplane, maps::Capacity};

#[test]
fn the_kernel_accepts_the_programs() {
    let Some(directory) = BpfDirectory::new("the_kernel_accepts_the_programs") else {
        return;
    };
    let mut dataplane = Dataplane::load(directory.path(), Capacity::default()).unwrap();
    dataplane.load_rest().unwrap();
    Connections::load(directory.path(), Capacity::default()).unwrap();
    // Again, against the maps that are pinned now.
    Dataplane::load(directory.path(), Capacity::default()).unwrap();
}

#[test]
fn pins_of_an_older_layout_go_and_those_of_this_one_stay() {
    let Some(directory) = BpfDirectory::new("pins_of_an_older_layout") else {
        return;
    };
    Dataplane::load(directory.path(), Capacity::default()).unwrap();
    // An older version had a map of this name, too.
    let older = directory.path().join("maps-v0");
    let mut pinned = std::fs::read_dir(directory.path()).unwrap().flatten();
    let is_layout = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with("maps-v");
    let current = pinned.find(|entry| is_layout(&entry.file_name()));
    let current = current.unwrap().path();
    std::fs::create_dir(&older).unwrap();
    let map = MapData::from_pin(current.join("CONTROL")).unwrap();
    map.pin(older.join("CONTROL")).unwrap();
    Dataplane::load(directory.path(), Capacity::default()).unwrap();
    assert!(!older.exists());
    assert!(current.join("CONTROL").exists());
}

#[test]
fn a_directory_in_no_bpf_file_system_is_refused_and_left_alone() {
    let path = std::env::temp_dir().join(format!("sunwire-no-bpf-{}", std::process::id()));
    let Err(error) = Dataplane::load(&path, Capacity::default()) else {
        panic!("maps cannot be pinned in {}", path.display());
    };
    assert!(error.to_string().contains("mount -t bpf"), "{error}");
    assert!(!path.exists());
}
