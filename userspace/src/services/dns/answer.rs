//! What a query is answered with: records of the asker's own network and of its peers, or a question for
//! others.

use std::net::IpAddr;

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA, NS, PTR, SOA},
    },
};

use super::message::{self, Limit};
use crate::services::{
    directory::{Asker, Directory, INTERNAL, Member, Network},
    handler::Malformed,
};

/// How long a record may be kept, in seconds. An endpoint keeps its addresses for life; what this
/// bounds is how long its name outlives it.
const TTL_S: u32 = 30;
/// How long it may be remembered that there is no such name, in seconds: how long a new endpoint
/// may be overlooked by who asked for it too early.
const NEGATIVE_TTL_S: u32 = 5;
/// The gateway's name, unless an endpoint has it.
const GATEWAY: &str = "gateway";
/// Who is responsible (RFC 1912, 2.2), by convention.
const HOSTMASTER: &str = "hostmaster";

/// What is to be done about a query.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// This is the answer.
    Answer(Vec<u8>),
    /// Others know.
    Forward(Forward),
}

/// A query to be forwarded, and what its answer must be like.
#[derive(Debug)]
pub(crate) struct Forward {
    /// The query as it came.
    pub(crate) query: Vec<u8>,
    /// Its identifier and flags, for answers made here.
    pub(crate) asked: Box<Message>,
    /// How long the answer may be.
    pub(crate) limit: Limit,
}

/// A query that makes no sense, and the answer that says so, unless there is nobody to say it to.
#[derive(Debug)]
pub(crate) struct Bad {
    pub(crate) why: Malformed,
    pub(crate) answer: Option<Vec<u8>>,
}

/// What is to be done about a query of `asker`.
pub(crate) fn outcome(
    asker: &Asker<'_>,
    directory: &Directory,
    query: &[u8],
    limit: Limit,
) -> Result<Outcome, Bad> {
    let asked = Message::from_vec(query).map_err(|_| Bad {
        why: Malformed("query"),
        answer: message::format_error(query),
    })?;
    if asked.metadata.message_type != MessageType::Query {
        return Err(Bad {
            why: Malformed("an answer, not a query"),
            answer: None,
        });
    }
    let limit = limit.of(&asked);
    let say = |code| Outcome::Answer(message::write(&message::reply(&asked, code), limit));
    if asked.metadata.op_code != OpCode::Query {
        return Ok(say(ResponseCode::NotImp));
    }
    if asked.edns.as_ref().is_some_and(|edns| edns.version() != 0) {
        return Ok(say(ResponseCode::BADVERS));
    }
    let [question] = &asked.queries[..] else {
        return Err(Bad {
            why: Malformed("not one question"),
            answer: message::format_error(query),
        });
    };
    if question.query_class() != DNSClass::IN
        || matches!(question.query_type(), RecordType::AXFR | RecordType::IXFR)
    {
        return Ok(say(ResponseCode::Refused));
    }
    match own(asker, directory, question) {
        Some(records) => {
            let answer = records.into_message(&asked);
            Ok(Outcome::Answer(message::write(&answer, limit)))
        }
        None => Ok(Outcome::Forward(Forward {
            query: query.to_vec(),
            asked: Box::new(asked),
            limit,
        })),
    }
}

/// What there is under a name of the network.
struct Records {
    /// The zone that the name is in.
    zone: Name,
    /// Where the zone's records come from.
    network: Name,
    /// Whether there is such a name; else there are no records.
    exists: bool,
    records: Vec<RData>,
    name: Name,
}

impl Records {
    fn into_message(self, asked: &Message) -> Message {
        let code = if self.exists {
            ResponseCode::NoError
        } else {
            ResponseCode::NXDomain
        };
        let mut answer = message::reply(asked, code);
        answer.metadata.authoritative = true;
        if self.records.is_empty() {
            // RFC 2308, 3: says how long the absence may be remembered.
            let soa = soa(&self.network);
            let record = Record::from_rdata(self.zone, NEGATIVE_TTL_S, RData::SOA(soa));
            answer.add_authority(record);
        }
        for data in self.records {
            let record = Record::from_rdata(self.name.clone(), TTL_S, data);
            answer.add_answer(record);
        }
        answer
    }
}

/// What the asker is told of a question without asking others; `None` when it is not about names of
/// networks.
fn own(asker: &Asker<'_>, directory: &Directory, question: &Query) -> Option<Records> {
    let name = question.name();
    let mut known = directory.networks_of(asker);
    let answered = known.find_map(|(vni, network)| {
        let known = Known {
            directory,
            vni,
            network,
        };
        let domain = Name::from_ascii(network.domain() + ".").ok()?;
        if domain.zone_of(name) {
            Some(forward(&known, question, domain))
        } else {
            reverse(&known, question, domain)
        }
    });
    answered.or_else(|| hidden(asker, directory, name))
}

/// A name of a network that is nothing to the asker: there is none, and nobody outside is asked for it.
fn hidden(asker: &Asker<'_>, directory: &Directory, name: &Name) -> Option<Records> {
    let labels: Vec<_> = name.iter().rev().take(2).collect();
    let [last, network] = labels[..] else {
        return None;
    };
    let network = String::from_utf8_lossy(network).to_ascii_lowercase();
    let is_internal = last.eq_ignore_ascii_case(INTERNAL.as_bytes());
    directory.network_named(&network).filter(|_| is_internal)?;
    Some(Records {
        zone: name.trim_to(2),
        exists: false,
        records: Vec::new(),
        name: name.clone(),
        // Who says so is the asker's own gateway.
        network: Name::from_ascii(asker.network.domain() + ".").ok()?,
    })
}

/// A network that the asker is told about.
struct Known<'a> {
    directory: &'a Directory,
    vni: u32,
    network: &'a Network,
}

/// A name in the network's domain.
fn forward(known: &Known<'_>, question: &Query, network: Name) -> Records {
    let name = question.name();
    let wants =
        |kind| matches!(question.query_type(), asked if asked == kind || asked == RecordType::ANY);
    let mut found = Records {
        zone: network.clone(),
        exists: true,
        records: Vec::new(),
        name: name.clone(),
        network,
    };
    match name.iter().count() - found.network.iter().count() {
        0 => {
            if wants(RecordType::SOA) {
                found.records.push(RData::SOA(soa(&found.network)));
            }
            if wants(RecordType::NS)
                && let Some(gateway) = gateway_name(&found.network)
            {
                found.records.push(RData::NS(NS(gateway)));
            }
        }
        1 => {
            let label = name.iter().next().unwrap_or_default();
            let label = String::from_utf8_lossy(label).to_ascii_lowercase();
            match addresses(known, &label) {
                Some(addresses) => {
                    found.records = addresses
                        .filter_map(|address| match address {
                            IpAddr::V4(address) if wants(RecordType::A) => {
                                Some(RData::A(A(address)))
                            }
                            IpAddr::V6(address) if wants(RecordType::AAAA) => {
                                Some(RData::AAAA(AAAA(address)))
                            }
                            _ => None,
                        })
                        .collect();
                }
                None => found.exists = false,
            }
        }
        _ => found.exists = false,
    }
    found
}

/// The addresses under a name; `None` when there is no such name.
fn addresses(known: &Known<'_>, label: &str) -> Option<impl Iterator<Item = IpAddr> + use<>> {
    let (v4, v6) = match known.directory.by_name(known.vni, label) {
        Some(Member { ipv4, ipv6, .. }) => (*ipv4, *ipv6),
        None if label == GATEWAY => (
            known.network.v4.map(|subnet| subnet.gateway),
            known.network.v6.map(|subnet| subnet.gateway),
        ),
        None => return None,
    };
    let v4 = v4.map(IpAddr::V4);
    let v6 = v6.map(IpAddr::V6);
    Some(v4.into_iter().chain(v6))
}

/// An address of the network's subnets, as a name (RFC 1035, 3.5; RFC 3596, 2.5).
fn reverse(known: &Known<'_>, question: &Query, network: Name) -> Option<Records> {
    let name = question.name();
    let asked = name.parse_arpa_name().ok()?;
    let (address, bits) = (asked.addr(), asked.prefix_len());
    let subnet = match address {
        IpAddr::V4(_) => known
            .network
            .v4
            .map(|of| (IpAddr::V4(of.gateway), of.prefix)),
        IpAddr::V6(_) => known
            .network
            .v6
            .map(|of| (IpAddr::V6(of.gateway), of.prefix)),
    };
    let (gateway, prefix) = subnet?;
    if bits < prefix || !same_prefix(address, gateway, prefix) {
        return None;
    }
    let (width, digit) = if address.is_ipv4() { (32, 8) } else { (128, 4) };
    // The zone is as much of the subnet as whole digits of the name say.
    let zone = name.trim_to(usize::from(prefix.div_ceil(digit)) + 2);
    let mut found = Records {
        zone,
        exists: true,
        records: Vec::new(),
        name: name.clone(),
        network,
    };
    if bits == width {
        let member = known.directory.by_address(known.vni, address);
        let owner = match member {
            Some(member) => found.network.prepend_label(member.name.as_bytes()).ok(),
            None if address == gateway => gateway_name(&found.network),
            None => None,
        };
        found.exists = owner.is_some();
        if matches!(question.query_type(), RecordType::PTR | RecordType::ANY) {
            found.records = owner
                .into_iter()
                .map(|name| RData::PTR(PTR(name)))
                .collect();
        }
    }
    Some(found)
}

/// Whether two addresses of one family begin with the same bits.
fn same_prefix(one: IpAddr, other: IpAddr, bits: u8) -> bool {
    let differing = match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            { u32::from_be_bytes(one.octets()) ^ u32::from_be_bytes(other.octets()) }
                .leading_zeros()
        }
        (IpAddr::V6(one), IpAddr::V6(other)) => {
            (u128::from(one) ^ u128::from(other)).leading_zeros()
        }
        _ => return false,
    };
    differing >= u32::from(bits)
}

fn gateway_name(network: &Name) -> Option<Name> {
    network.prepend_label(GATEWAY).ok()
}

fn soa(network: &Name) -> SOA {
    let named = |label| {
        let name = network.prepend_label(label);
        name.unwrap_or_else(|_| network.clone())
    };
    let negative = NEGATIVE_TTL_S;
    // Nobody copies the zone, so its serial number and times mean nothing.
    SOA::new(
        named(GATEWAY),
        named(HOSTMASTER),
        1,
        3600,
        600,
        86_400,
        negative,
    )
}

/// The OPT record of an answer, if the query had one (RFC 6891, 6.1.1).
pub(crate) fn edns(asked: &Message) -> Option<Edns> {
    let asked = asked.edns.as_ref()?;
    let mut edns = Edns::new();
    edns.set_max_payload(message::PAYLOAD_BYTES);
    edns.set_dnssec_ok(asked.flags().dnssec_ok);
    Some(edns)
}
