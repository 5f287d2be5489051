//! nftables on the bridges of the peer: connection tracking and the rules, as an operator writes
//! them who knows what costs: established connections first, new ones by one look-up in a verdict
//! map, tunnelled packets of the node itself not tracked.
//!
//! A kernel without connection tracking in the bridge family does it in the IP family, to which the
//! bridge hands its packets (`bridge-nf-call-iptables`).

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::Value;
use sunwire_dataplane_common::vxlan;

use super::rules::rules;
use crate::bench::namespace::{Namespace, set};

const TABLE: &str = "sunwire_bench";

/// The table's family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Bridge,
    Ip,
}

impl Family {
    const fn name(self) -> &'static str {
        match self {
            Family::Bridge => "bridge",
            Family::Ip => "ip",
        }
    }
}

/// The rules in force in a namespace.
pub(super) struct Firewall {
    namespace: Namespace,
    family: Family,
}

/// What the rules have counted so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    /// Bytes of packets, with their IP headers, that were let through.
    pub(super) admitted_bytes: u64,
    /// Packets that were not.
    pub(super) refused_packets: u64,
}

impl Firewall {
    /// Puts the rules in force.
    ///
    /// # Errors
    /// When there is no `nft`, or the kernel cannot track connections on a bridge.
    pub(super) fn start(namespace: &Namespace) -> Result<Self> {
        let tried = namespace.run(|| apply(Family::Bridge));
        let family = match tried {
            Ok(()) => Family::Bridge,
            Err(_) => {
                namespace.run(|| {
                    set("net/bridge/bridge-nf-call-iptables", "1")?;
                    apply(Family::Ip)
                })?;
                Family::Ip
            }
        };
        namespace.run(|| {
            // Connections that ended seconds ago would fill the table while others are measured.
            set("net/netfilter/nf_conntrack_tcp_timeout_time_wait", "5")
        })?;
        Ok(Firewall {
            namespace: namespace.clone(),
            family,
        })
    }

    /// Reads the counters.
    pub(super) fn counted(&self) -> Result<Counted> {
        let family = self.family.name();
        let listed = self.namespace.run(|| {
            let arguments = ["--json", "list", "counters", "table", family, TABLE];
            nft(&arguments, "")
        })?;
        parse(&listed).with_context(|| format!("nft counts something else: {listed}"))
    }

    /// Connections that are tracked.
    pub(super) fn connections(&self) -> Result<u64> {
        self.namespace.run(|| {
            let path = "/proc/sys/net/netfilter/nf_conntrack_count";
            let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
            text.trim().parse().context("not a number of connections")
        })
    }
}

/// What is missing for a firewall.
pub(super) fn missing() -> Option<String> {
    let error = nft(&["--version"], "").err()?;
    Some(format!("{error:#}"))
}

/// Installs the rules from inside the namespace.
fn apply(family: Family) -> Result<()> {
    nft(&["--file", "-"], &text(family)).map(drop)
}

fn text(family: Family) -> String {
    let mut elements = String::new();
    for rule in rules() {
        let (from, to) = (rule.from.prefix(), rule.to.prefix());
        let (protocol, port) = (rule.protocol, rule.port);
        let _ = writeln!(
            elements,
            "{protocol} . {from} . {to} . {port} : goto admit,"
        );
    }
    let port = vxlan::PORT;
    // A bridge has frames that are not IP, and the node's own packets pass no bridge.
    let arp = match family {
        Family::Bridge => "ether type arp accept",
        Family::Ip => "",
    };
    format!(
        "table {family} {TABLE} {{
            counter established {{ }}
            counter opened {{ }}
            counter refused {{ }}
            map services {{
                type inet_proto . ipv4_addr . ipv4_addr . inet_service : verdict
                flags interval
                elements = {{ {elements} }}
            }}
            chain admit {{
                counter name opened accept
            }}
            chain forward {{
                type filter hook forward priority filter; policy drop;
                ct state established,related counter name established accept
                ct state invalid counter name refused drop
                {arp}
                meta l4proto icmp counter name opened accept
                meta l4proto . ip saddr . ip daddr . th dport vmap @services
                counter name refused
            }}
        }}
        table ip {TABLE}_underlay {{
            chain prerouting {{
                type filter hook prerouting priority raw;
                udp dport {port} notrack
            }}
            chain output {{
                type filter hook output priority raw;
                udp dport {port} notrack
            }}
        }}",
        family = family.name()
    )
}

fn nft(arguments: &[&str], input: &str) -> Result<String> {
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start nft (package nftables)")?;
    let mut stdin = child.stdin.take().context("nft has no standard input")?;
    stdin.write_all(input.as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output().context("cannot wait for nft")?;
    ensure!(
        output.status.success(),
        anyhow!("nft: {}", String::from_utf8_lossy(&output.stderr).trim())
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Reads what `nft --json list counters` writes.
fn parse(listed: &str) -> Option<Counted> {
    let listed: Value = serde_json::from_str(listed).ok()?;
    let objects = listed.get("nftables")?.as_array()?;
    let counter = |name: &str, field: &str| {
        let counters = objects.iter().filter_map(|object| object.get("counter"));
        let mut named = counters.filter(|c| c.get("name").and_then(Value::as_str) == Some(name));
        named.next()?.get(field)?.as_u64()
    };
    Some(Counted {
        admitted_bytes: counter("established", "bytes")? + counter("opened", "bytes")?,
        refused_packets: counter("refused", "packets")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_admitted_is_added_up_and_what_is_refused_is_apart() {
        let listed = r#"{"nftables": [{"metainfo": {}},
            {"counter": {"name": "established", "packets": 3, "bytes": 300}},
            {"counter": {"name": "opened", "packets": 1, "bytes": 40}},
            {"counter": {"name": "refused", "packets": 7, "bytes": 700}}]}"#;
        let expected = Counted {
            admitted_bytes: 340,
            refused_packets: 7,
        };
        assert_eq!(parse(listed), Some(expected));
        assert_eq!(parse(r#"{"nftables": []}"#), None);
    }

    #[test]
    fn every_rule_is_an_element_of_the_map() {
        let text = text(Family::Ip);
        assert_eq!(text.matches(": goto admit").count(), 100);
        assert!(text.contains("tcp . 10.20.0.1/32 . 10.20.0.2/32 . 80 : goto admit"));
    }
}
