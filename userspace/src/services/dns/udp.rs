//! Queries by UDP.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{
    answer::{self, Outcome},
    forward::{self, Forwarder},
    message::Limit,
};
use crate::services::{
    directory::Asker,
    frame::{self, Datagram},
    handler::{Answer, Handler, Malformed, Node},
    ring::Punt,
};

/// Answers queries by UDP.
pub(crate) struct DnsUdp {
    pub(crate) forwarder: Arc<Forwarder>,
    /// Where answers go that take time.
    pub(crate) late: mpsc::Sender<Answer>,
}

impl Handler for DnsUdp {
    fn asked(&mut self, punt: &Punt<'_>, node: &mut Node<'_>) -> Result<(), Malformed> {
        let query = frame::datagram(punt.frame)?;
        let Some(asker) = node.directory.asker(punt) else {
            return Ok(());
        };
        let limit = Limit::Packet(asker.network.mtu);
        let back = |bytes: &[u8]| Answer::to(&asker, reply(&asker, &query, bytes));
        match answer::outcome(&asker, node.directory, query.payload, limit) {
            Ok(Outcome::Answer(bytes)) => node.answers.push(back(&bytes)),
            Ok(Outcome::Forward(forward)) => match self.forwarder.admit(asker.number) {
                Some(permit) => {
                    let (forwarder, late) = (Arc::clone(&self.forwarder), self.late.clone());
                    let (src, dst) = (query.src, query.dst);
                    let (member, network) = (asker.member.clone(), asker.network.clone());
                    let Asker {
                        number,
                        ifindex,
                        vni,
                        ..
                    } = asker;
                    tokio::spawn(async move {
                        let bytes = forwarder.resolve(&forward, permit).await;
                        let asker = Asker {
                            number,
                            ifindex,
                            vni,
                            member: &member,
                            network: &network,
                        };
                        let query = Datagram {
                            src,
                            dst,
                            payload: &[],
                        };
                        let frame = reply(&asker, &query, &bytes);
                        // The services end when nobody listens any more.
                        let _ = late.send(Answer::to(&asker, frame)).await;
                    });
                }
                None => node.answers.push(back(&forward::failure(&forward))),
            },
            Err(bad) => {
                node.answers.extend(bad.answer.map(|bytes| back(&bytes)));
                return Err(bad.why);
            }
        }
        Ok(())
    }
}

/// A datagram back to where a query came from.
fn reply(asker: &Asker<'_>, query: &Datagram<'_>, bytes: &[u8]) -> Vec<u8> {
    frame::udp(asker, asker.member.mac, query.dst, query.src, bytes)
}
