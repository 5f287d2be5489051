//! `sunwire policy lsp`: the language server for editors, on standard input and output.
//!
//! ```text
//! transport.rs     bytes to messages, and on after those that are none
//! server.rs        the life of a session
//! requests.rs      which request is answered by what
//! documents.rs     open texts and their changes
//! position.rs      lines and UTF-16 columns, byte offsets, paths and URIs
//! names.rs         where the meaning of names comes from
//! analysis.rs      a text with what it imports and what its names mean
//! index.rs         definitions, and the places where names are used
//! diagnostics.rs   findings in the editor's form
//! hover.rs         what is under the cursor
//! members.rs       which endpoints a set means
//! completion.rs    what may be written here
//! symbols.rs       the outline of a text
//! edits.rs         formatting and renaming
//! words.rs         the language's own words and what they mean
//! ```
//!
//! One thread reads messages, one answers them in order. Findings are computed when no message
//! waits, and proofs of assertions are given up when one comes, so typing is never held up by them.

mod analysis;
mod completion;
mod diagnostics;
mod documents;
mod edits;
mod hover;
mod index;
mod members;
mod names;
mod position;
mod requests;
mod server;
mod symbols;
mod transport;
mod words;

use std::io::{self, BufReader, BufWriter, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, TryRecvError};

use anyhow::Context as _;
use lsp_server::Message;

use self::names::Names;
use self::server::Server;
use self::transport::Incoming;
use super::NamesFrom;
use crate::exit::Outcome;
use crate::rest::Connection;

/// Serves one editor until it ends the session.
pub(super) fn run(connection: Connection, names: NamesFrom) -> anyhow::Result<Outcome> {
    let waiting = Arc::new(AtomicUsize::new(0));
    let messages = reader(waiting.clone())?;
    let mut server = Server::new(Names::new(connection, names), waiting.clone());
    loop {
        let incoming = match messages.try_recv() {
            Ok(incoming) => incoming,
            // With nothing to answer there is time for findings, one text after the other.
            Err(TryRecvError::Empty) => match server.work() {
                Some(found) => {
                    send(found)?;
                    continue;
                }
                None => match messages.recv() {
                    Ok(incoming) => incoming,
                    Err(_) => break,
                },
            },
            Err(TryRecvError::Disconnected) => break,
        };
        waiting.fetch_sub(1, Ordering::Relaxed);
        match incoming {
            Incoming::Message(message) => send(server.handle(message))?,
            Incoming::Malformed(why) => send(server.malformed(&why))?,
            Incoming::End => break,
        }
        if server.has_ended() {
            break;
        }
    }
    Ok(match server.was_shut_down() {
        true => Outcome::Done,
        false => Outcome::Negative,
    })
}

/// Reads messages in a thread of its own, counting those that wait.
fn reader(waiting: Arc<AtomicUsize>) -> anyhow::Result<Receiver<Incoming>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new()
        .name("lsp-reader".to_owned())
        .spawn(move || {
            let mut input = BufReader::new(io::stdin());
            loop {
                let incoming = transport::read(&mut input).unwrap_or(Incoming::End);
                let ends = matches!(incoming, Incoming::End);
                waiting.fetch_add(1, Ordering::Relaxed);
                if sender.send(incoming).is_err() || ends {
                    return;
                }
            }
        })
        .context("cannot start a thread")?;
    Ok(receiver)
}

fn send(messages: Vec<Message>) -> anyhow::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    for message in messages {
        message.write(&mut out)?;
    }
    out.flush()?;
    Ok(())
}
