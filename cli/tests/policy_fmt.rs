//! `sunwire policy fmt` as people and scripts run it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Stdio;

use common::{command, sunwire};

const MESSY: &str =
    "set   web={web1}\npolicy main=if src in web then forward else drop -- all else\n";
const NEAT: &str =
    "set web = { web1 }\npolicy main = if src in web then forward else drop  -- all else\n";

#[test]
fn files_are_formatted_in_place_and_keep_their_permissions_and_links() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("real.nk"), MESSY).unwrap();
    fs::set_permissions(path("real.nk"), PermissionsExt::from_mode(0o640)).unwrap();
    symlink("real.nk", path("link.nk")).unwrap();
    let link = path("link.nk").to_str().unwrap().to_owned();
    let ran = sunwire(&["policy", "fmt", &link]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:#?}");
    assert_eq!(fs::read_to_string(path("real.nk")).unwrap(), NEAT);
    assert!(fs::symlink_metadata(path("link.nk")).unwrap().is_symlink());
    let mode = fs::metadata(path("real.nk")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    assert_eq!(
        fs::read_dir(directory.path()).unwrap().count(),
        2,
        "nothing is left over"
    );
    // What is neat is not written again.
    let before = fs::metadata(path("real.nk")).unwrap().modified().unwrap();
    let ran = sunwire(&["policy", "fmt", &link]);
    assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{ran:#?}");
    assert_eq!(
        fs::metadata(path("real.nk")).unwrap().modified().unwrap(),
        before
    );
}

#[test]
fn check_changes_nothing_and_shows_what_would_change() {
    let directory = tempfile::tempdir().unwrap();
    let messy = directory.path().join("messy.nk");
    let neat = directory.path().join("neat.nk");
    fs::write(&messy, MESSY).unwrap();
    fs::write(&neat, NEAT).unwrap();
    let (messy_name, neat_name) = (messy.to_str().unwrap(), neat.to_str().unwrap());
    let ran = sunwire(&["policy", "fmt", "--check", messy_name, neat_name]);
    assert_eq!(ran.code, 1, "{ran:#?}");
    assert!(ran.out.contains(&format!("--- {messy_name}")), "{ran:#?}");
    assert!(ran.out.contains("-set   web={web1}"), "{ran:#?}");
    assert!(ran.out.contains("+set web = { web1 }"), "{ran:#?}");
    assert!(!ran.out.contains(neat_name), "{ran:#?}");
    assert_eq!(fs::read_to_string(&messy).unwrap(), MESSY);
    assert_eq!(sunwire(&["policy", "fmt", "--check", neat_name]).code, 0);
    let ran = sunwire(&["policy", "fmt", "--check", messy_name, "-o", "json"]);
    assert_eq!(
        (ran.code, ran.json()[0]["changed"].as_bool()),
        (1, Some(true))
    );
}

#[test]
fn a_file_that_does_not_parse_stays_and_the_others_are_formatted() {
    let directory = tempfile::tempdir().unwrap();
    let wrong = directory.path().join("wrong.nk");
    let messy = directory.path().join("messy.nk");
    fs::write(&wrong, "policy main=if tcp then forward").unwrap();
    fs::write(&messy, MESSY).unwrap();
    let (wrong_name, messy_name) = (wrong.to_str().unwrap(), messy.to_str().unwrap());
    let ran = sunwire(&["policy", "fmt", wrong_name, messy_name]);
    assert_eq!(ran.code, 2, "{ran:#?}");
    assert!(
        ran.err.contains("SW0203") && ran.err.contains(wrong_name),
        "{ran:#?}"
    );
    let kept = fs::read_to_string(&wrong).unwrap();
    assert_eq!(kept, "policy main=if tcp then forward");
    assert_eq!(fs::read_to_string(&messy).unwrap(), NEAT);
    let ran = sunwire(&["policy", "fmt", "-", messy_name]);
    assert_eq!(ran.code, 3, "{ran:#?}");
}

#[test]
fn standard_input_is_formatted_to_standard_output() {
    let mut child = command()
        .args(["policy", "fmt", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(MESSY.as_bytes()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), NEAT);
    assert!(output.status.success());
}
