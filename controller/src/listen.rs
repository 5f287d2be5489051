//! Where the controller may listen.
//!
//! It asks nobody who they are, so it serves only networks that no stranger reaches: loopback, and
//! the address blocks that labs use.

use std::net::{IpAddr, SocketAddr, TcpListener};

use sunwire_api::Cidr;

/// Blocks where the controller may listen: loopback, and the block for testing of RFC 2544, which
/// no network routes and where labs have their underlay.
pub const ALLOWED: [&str; 3] = ["127.0.0.0/8", "::1/128", "198.18.0.0/15"];

/// Why the controller does not listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address is outside of what is allowed.
    #[error(
        "refusing to listen on {address}, because the controller does not authenticate its \
         clients yet: give an address in {}",
        ALLOWED.join(", ")
    )]
    NotAllowed {
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be bound.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What failed.
        #[source]
        source: std::io::Error,
    },
}

/// Binds an address that is allowed.
///
/// # Errors
/// It is not allowed, or taken, or none of this host's.
pub(crate) fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    if !is_allowed(address.ip()) {
        return Err(ListenError::NotAllowed { address });
    }
    let bind = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    bind().map_err(|source| ListenError::Bind { address, source })
}

fn is_allowed(address: IpAddr) -> bool {
    ALLOWED
        .iter()
        .map(|text| text.parse::<Cidr>().expect("the list holds subnets"))
        .any(|block| block.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_and_lab_addresses_are_listened_on() {
        for good in [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "198.19.3.4",
            "198.19.255.255",
        ] {
            assert!(is_allowed(good.parse().unwrap()), "{good}");
        }
        for bad in [
            "0.0.0.0",
            "::",
            "10.0.0.1",
            "192.168.1.1",
            "198.20.0.1",
            "::ffff:127.0.0.1",
        ] {
            assert!(!is_allowed(bad.parse().unwrap()), "{bad}");
        }
    }

    #[test]
    fn a_refused_bind_says_what_to_do() {
        let error = bind("0.0.0.0:0".parse().unwrap()).unwrap_err().to_string();
        assert!(
            error.contains("0.0.0.0:0") && error.contains("127.0.0.0/8"),
            "{error}"
        );
        assert!(!error.contains('\n'));
    }
}
