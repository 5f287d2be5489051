//! Exit codes and messages that need no controller.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::net::TcpListener;

use common::sunwire;

#[test]
fn wrong_usage_ends_with_3_and_says_what_is_wrong() {
    for (arguments, word) in [
        (&["nonsense"][..], "nonsense"),
        (&["network", "create", "shop"], "--subnet"),
        (&["network", "get", "Shop!"], "is no name"),
        (
            &["network", "create", "shop", "--subnet", "10.20.0.1/16"],
            "10.20.0.0/16",
        ),
        (&["network", "set", "shop"], "--encryption"),
        (&["network", "set", "shop", "--encryption", "off"], "never"),
        (&["endpoint", "label", "web1", "tier"], "KEY=VALUE"),
        (&["agent"], "--node"),
        (
            &["agent", "--node", "a", "--location", "mars"],
            "CLOUD:REGION",
        ),
        (&["controller", "--rest", "here"], "--rest"),
        (&["lab", "link", "x", "a", "b"], "--delay-ms"),
        (&["lab", "link", "x", "a", "b", "--loss", "1.5"], "fraction"),
        (
            &["lab", "link", "x", "a", "b", "--delay-ms", "-1"],
            "delay_ms",
        ),
        (&["lab", "link", "x", "a", "a", "--up", "false"], "two ends"),
        (
            &["policy", "apply", "a.nk", "b.nk", "--name", "x"],
            "one file",
        ),
        (&["status", "--log", "a=b=c"], "log filter"),
        (&["status", "-o", "yaml"], "yaml"),
        (&["status", "--server", "127.0.0.1:7510"], "http://"),
        (&["status", "--server", "ftp://host"], "http://"),
        (&["flows", "reason polcy"], "did you mean policy?"),
        (&["capture", "--count", "0"], "1.."),
        (&["network", "set", "shop"], "--checksum"),
        (&["network", "create", "shop"], "--no-subnet"),
        (&["trace", "a", "b", "tpc", "80"], "no protocol"),
        (&["trace", "a", "b", "tcp"], "destination port"),
        (&["trace", "a", "b", "icmp", "8"], "only TCP and UDP"),
        (&["trace", "a", "b", "udp", "8", "--flags", "S"], "only TCP"),
        (&["trace", "a", "--frame", "0x00"], "hexadecimal"),
        (&["trace", "a", "--frame", "00"], "14 bytes"),
    ] {
        let ran = sunwire(arguments);
        assert_eq!(ran.code, 3, "{arguments:?} {ran:#?}");
        assert!(ran.err.contains(word), "{word} in {ran:#?}");
        assert_eq!(ran.out, "", "{arguments:?}");
    }
}

#[test]
fn help_and_version_end_with_0_on_standard_output() {
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["agent", "--help"],
        &["agent", "release", "--help"],
        &["controller", "--help"],
        &["network", "create", "--help"],
        &["endpoint", "move", "--help"],
        &["policy", "--help"],
        &["lab", "up", "--help"],
    ] {
        let ran = sunwire(arguments);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{arguments:?}");
        assert!(!ran.out.is_empty());
    }
    assert!(sunwire(&["--help"]).out.contains("Exit codes"));
}

#[test]
fn an_agent_that_is_not_there_ends_with_2_and_its_socket_is_named() {
    for arguments in [
        &["agent", "status", "--state-dir", "/nowhere"][..],
        &["connections", "--state-dir", "/nowhere"],
        &["flows", "--local=/nowhere"],
    ] {
        let ran = sunwire(arguments);
        assert_eq!(ran.code, 2, "{ran:#?}");
        assert!(ran.err.contains("/nowhere/agent.sock"), "{ran:#?}");
        assert!(ran.err.contains("is one running"), "{ran:#?}");
    }
}

#[test]
fn a_capture_that_is_refused_leaves_an_earlier_one_alone() {
    let path = std::env::temp_dir().join(format!("sunwire-kept-{}.pcapng", std::process::id()));
    std::fs::write(&path, "an earlier capture").unwrap();
    let ran = sunwire(&[
        "capture",
        "--server",
        "http://127.0.0.1:1",
        "-w",
        path.to_str().unwrap(),
    ]);
    let kept = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(ran.code, 2, "{ran:#?}");
    assert_eq!(kept, "an earlier capture");
}

#[test]
fn an_unreachable_controller_ends_with_2_and_is_named() {
    // Bound and dropped: nobody listens there.
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let server = format!("http://{address}");
    let ran = sunwire(&["status", "--server", &server]);
    assert_eq!(ran.code, 2, "{ran:#?}");
    assert!(
        ran.err.starts_with("error: no answer from the controller"),
        "{ran:#?}"
    );
    assert!(ran.err.contains(&server), "{ran:#?}");
    assert!(ran.err.contains("because: Connection refused"), "{ran:#?}");
    assert!(ran.err.contains("hint:"), "{ran:#?}");
    assert_eq!(ran.out, "");
}

#[test]
fn an_agent_or_lab_that_is_not_there_ends_with_2() {
    let empty = tempfile::tempdir().unwrap();
    let state_dir = empty.path().to_str().unwrap();
    for arguments in [
        &["agent", "status", "--state-dir", state_dir][..],
        &["agent", "release", "web1", "--state-dir", state_dir],
        &["endpoint", "list", "--lab", "nosuchlab"],
        &["lab", "exec", "nosuchlab", "web1", "--", "true"],
        &["lab", "status", "nosuchlab"],
        &["lab", "up", "no-such-file.toml"],
        &["policy", "check", "no-such-file.nk"],
    ] {
        let ran = sunwire(arguments);
        assert_eq!(ran.code, 2, "{arguments:?} {ran:#?}");
        assert!(ran.err.starts_with("error: "), "{ran:#?}");
    }
}

#[test]
fn a_topology_with_a_mistake_is_refused_where_it_stands() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lab.toml");
    std::fs::write(&file, "[[node]]\nname = \"a\"\nregion = \"nowhere\"\n").unwrap();
    let ran = sunwire(&["lab", "up", file.to_str().unwrap()]);
    assert_eq!(ran.code, 2, "{ran:#?}");
    assert!(
        ran.err.contains("line 2") && ran.err.contains('^'),
        "{ran:#?}"
    );
}

#[test]
fn a_bind_that_strangers_could_reach_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().to_str().unwrap();
    let ran = sunwire(&[
        "controller",
        "--rest",
        "0.0.0.0:0",
        "--agents",
        "127.0.0.1:0",
        "--data-dir",
        data_dir,
    ]);
    assert_eq!(ran.code, 2, "{ran:#?}");
    assert!(ran.err.contains("127.0.0.0/8"), "{ran:#?}");
}
