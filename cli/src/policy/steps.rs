//! Decisions about packets, as people and programs read them.

use serde::Serialize;
use sunwire_policy::imports::Bundle;
use sunwire_policy::prove::Step;
use sunwire_policy::show::show_packet;

use super::source;

/// A decision about a packet, for programs.
#[derive(Debug, Serialize)]
pub(super) struct Decided {
    /// The endpoint where the packet is.
    at: String,
    /// Which side of a comparison decides, where two are compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<String>,
    packet: String,
    /// Label of the decision.
    label: String,
    /// Where the statement that decided stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    /// What comes out; nothing is a drop.
    copies: Vec<Copied>,
}

#[derive(Debug, Serialize)]
struct Copied {
    packet: String,
    what: String,
}

impl Decided {
    pub(super) fn new(step: &Step, bundle: &Bundle) -> Self {
        let place = step.span.map(|span| source::place(bundle, span));
        let (file, line) = place.unzip();
        let copies = step.copies.iter().map(|(packet, what)| Copied {
            packet: show_packet(packet),
            what: what.clone(),
        });
        Decided {
            at: step.at.clone(),
            policy: step.policy.clone(),
            packet: show_packet(&step.packet),
            label: step.label.clone(),
            file,
            line,
            copies: copies.collect(),
        }
    }
}

/// A decision on one line, with where it was made.
pub(super) fn line(step: &Step, bundle: &Bundle) -> String {
    match step.span {
        Some(span) => {
            let (file, line) = source::place(bundle, span);
            format!("{step}  ({file}:{line})")
        }
        None => step.to_string(),
    }
}
