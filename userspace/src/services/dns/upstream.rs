//! The resolvers that know all other names.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Mutex,
    time::SystemTime,
};

use sunwire_dataplane_common::punt::DNS_PORT;

/// As many as the C library asks (resolv.conf(5)).
const RESOLVERS_MAX: usize = 3;

/// Where questions are forwarded to.
#[derive(Debug)]
pub(crate) enum Upstream {
    /// To these.
    Given(Vec<SocketAddr>),
    /// To those of this file, read again when it changes.
    File {
        path: PathBuf,
        read: Mutex<(Option<SystemTime>, Vec<SocketAddr>)>,
    },
}

impl Upstream {
    /// The given ones, or those of the node's own configuration when there are none.
    pub(crate) fn new(given: Vec<SocketAddr>) -> Self {
        if given.is_empty() {
            Upstream::File {
                path: PathBuf::from("/etc/resolv.conf"),
                read: Mutex::default(),
            }
        } else {
            Upstream::Given(given)
        }
    }

    /// The resolvers now; none when the file cannot be read.
    pub(crate) fn resolvers(&self) -> Vec<SocketAddr> {
        match self {
            Upstream::Given(resolvers) => resolvers.clone(),
            Upstream::File { path, read } => {
                let changed = fs::metadata(path).and_then(|of| of.modified()).ok();
                let mut read = read.lock().unwrap_or_else(|broken| broken.into_inner());
                if read.0 != changed || changed.is_none() {
                    let text = fs::read_to_string(path).unwrap_or_default();
                    *read = (changed, parse(&text));
                }
                read.1.clone()
            }
        }
    }
}

/// The resolvers of a resolv.conf(5).
pub(crate) fn parse(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| line.trim_start().strip_prefix("nameserver"))
        .filter(|rest| rest.starts_with([' ', '\t']))
        .filter_map(|rest| rest.split_whitespace().next()?.parse::<IpAddr>().ok())
        .map(|address| SocketAddr::new(address, DNS_PORT))
        .take(RESOLVERS_MAX)
        .collect()
}
