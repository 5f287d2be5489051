//! For whoever moves an endpoint's device or memory to another node: how its connections go along.
//!
//! ```text
//! 1. export(source)                  while the endpoint goes on; may take as long as it does
//! 2. adopt(destination, parcels)     before the device arrives
//! 3. release(source, since)          from here on the endpoint's packets wait
//!    the device moves
//! 4. adopt(destination, parcels)     what has changed in between; before or after the device comes
//! ```
//!
//! Without 1 and 2 all connections come with the release. A parcel may travel by any way that keeps
//! its bytes; it is checked where it arrives. [`hand_over`] takes all four steps where one program
//! reaches both agents.

use std::{io, path::Path, time::Instant};

use crate::control::{self, Answer, Request};

/// Connections on their way, each parcel in hexadecimal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parcels(pub Vec<String>);

/// An agent did not do what a move needs.
#[derive(Debug, thiserror::Error)]
pub enum MoverError {
    /// It does not answer.
    #[error("the agent at {state_directory} does not answer")]
    Silent {
        /// Where its socket is.
        state_directory: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It refuses.
    #[error("the agent at {state_directory} refused: {reason}")]
    Refused {
        /// Where its socket is.
        state_directory: String,
        /// Why, and what to do.
        reason: String,
    },
}

/// What a hand-over carried.
#[derive(Clone, Copy, Debug)]
pub struct HandedOver {
    /// Connections that the destination took over, those that had changed once more.
    pub connections: u64,
    /// Just before the source was asked to let go: when the endpoint's packets began to wait.
    pub released_at: Instant,
}

/// A hand-over that stopped half-way. What to do depends on where.
#[derive(Debug, thiserror::Error)]
pub enum HandOverError<E> {
    /// Before the release: the endpoint is where it was and goes on.
    #[error("the endpoint is where it was, and goes on")]
    Before(#[source] MoverError),
    /// The device was released and not moved: the source attaches it again once the move is aborted
    /// at the controller.
    #[error("the endpoint's device was released, and did not move")]
    Between(#[source] E),
}

/// Carries an endpoint over: its connections by the agents, its device by `move_device`, which is
/// called as soon as the source has let go. The move has begun at the controller, and both agents know.
///
/// # Errors
/// [`HandOverError`] says how far it came. That the destination did not take the last changes over is
/// no error once the device is released: the device moves nevertheless, because packets wait.
pub fn hand_over<E>(
    source: &Path,
    destination: &Path,
    endpoint: &str,
    move_device: impl FnOnce() -> Result<(), E>,
) -> Result<HandedOver, HandOverError<E>> {
    let before = HandOverError::Before;
    let (exported, token) = export(source, endpoint).map_err(before)?;
    let mut connections = adopt(destination, endpoint, &exported).map_err(before)?;
    let released_at = Instant::now();
    let changed = release(source, endpoint, Some(token)).map_err(before)?;
    match adopt(destination, endpoint, &changed) {
        Ok(adopted) => connections += adopted,
        Err(error) => {
            let error = crate::dataplane::chain(&error);
            tracing::error!(endpoint, error, "changes of connections stay behind");
        }
    }
    move_device().map_err(HandOverError::Between)?;
    Ok(HandedOver {
        connections,
        released_at,
    })
}

/// All connections of an endpoint, and the token for what changes from now on.
///
/// # Errors
/// When the agent refuses or does not answer.
pub fn export(state_directory: &Path, endpoint: &str) -> Result<(Parcels, u64), MoverError> {
    let endpoint = endpoint.to_owned();
    let (parcels, last) = ask(state_directory, &Request::Export { endpoint })?;
    match last {
        Answer::Exported { token, .. } => Ok((parcels, token)),
        other => Err(unexpected(state_directory, &other)),
    }
}

/// Takes an endpoint off its device. From here on it is not heard at the source; the device may move.
///
/// # Errors
/// When the agent refuses, then the endpoint stays; or does not answer.
pub fn release(
    state_directory: &Path,
    endpoint: &str,
    since: Option<u64>,
) -> Result<Parcels, MoverError> {
    let endpoint = endpoint.to_owned();
    let (parcels, last) = ask(state_directory, &Request::Release { endpoint, since })?;
    match last {
        Answer::Released => Ok(parcels),
        other => Err(unexpected(state_directory, &other)),
    }
}

/// Gives connections to the agent of the node that their endpoint is moving to. Returns how many.
///
/// # Errors
/// When the agent refuses or does not answer.
pub fn adopt(state_directory: &Path, endpoint: &str, parcels: &Parcels) -> Result<u64, MoverError> {
    let mut total = 0;
    for parcel in &parcels.0 {
        let request = Request::Adopt {
            endpoint: endpoint.to_owned(),
            parcel: parcel.clone(),
        };
        match ask(state_directory, &request)? {
            (_, Answer::Adopted { connections }) => total += connections,
            (_, other) => return Err(unexpected(state_directory, &other)),
        }
    }
    Ok(total)
}

/// Parcels up to the answer that is none.
fn ask(state_directory: &Path, request: &Request) -> Result<(Parcels, Answer), MoverError> {
    let silent = |source| MoverError::Silent {
        state_directory: state_directory.display().to_string(),
        source,
    };
    let mut parcels = Parcels::default();
    for answer in control::listen(state_directory, request).map_err(silent)? {
        match answer.map_err(silent)? {
            Answer::Parcel { parcel } => parcels.0.push(parcel),
            Answer::Refused { reason } => {
                return Err(MoverError::Refused {
                    state_directory: state_directory.display().to_string(),
                    reason,
                });
            }
            last => return Ok((parcels, last)),
        }
    }
    Err(silent(io::ErrorKind::UnexpectedEof.into()))
}

fn unexpected(state_directory: &Path, answer: &Answer) -> MoverError {
    MoverError::Refused {
        state_directory: state_directory.display().to_string(),
        reason: format!("it answers out of turn: {answer:?}"),
    }
}
