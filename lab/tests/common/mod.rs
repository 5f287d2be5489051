//! What the tests of running labs share.

/// Whether this machine can run a lab; says what is missing when it cannot.
pub(crate) fn can_run(test: &str) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let capabilities = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    // CAP_NET_ADMIN, CAP_NET_RAW and CAP_SYS_ADMIN (linux/capability.h).
    for (bit, name) in [
        (12, "CAP_NET_ADMIN"),
        (13, "CAP_NET_RAW"),
        (21, "CAP_SYS_ADMIN"),
    ] {
        if capabilities & (1 << bit) == 0 {
            eprintln!("SKIPPED {test}: {name} is missing, run as root");
            return false;
        }
    }
    true
}
