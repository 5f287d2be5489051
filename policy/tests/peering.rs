//! Policies of peered networks: what crosses is let through by both, and everything that looks at a
//! policy sees the same.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use sunwire_policy::compile::Options;
use sunwire_policy::diagnostic::render_all;
use sunwire_policy::environment::{Environment, Network};
use sunwire_policy::field::OWNER;
use sunwire_policy::installed::Installed;
use sunwire_policy::lower::{Capacity, Refused};
use sunwire_policy::packet::{Outcome, Packet, Place};
use sunwire_policy::testing::{Kind, document, environment, for_all, packets, policies};
use sunwire_policy::verify::options::Options as ProofOptions;
use sunwire_policy::{
    check_claims, compile, compile_text, evaluate, lower, resolve_text, validate,
};

/// `shop` (10.20.0.0/16) peered with `lab` (10.30.0.0/16), whose policy is `there`.
fn peered(there: Option<&str>) -> Environment {
    let mut environment = environment();
    for network in &mut environment.networks {
        let peer = if network.name == "shop" {
            "lab"
        } else {
            "shop"
        };
        network.peers = vec![peer.to_owned()];
        if network.name == "lab" {
            network.policy = there.map(Arc::from);
        }
    }
    environment
}

/// Port 80 over TCP from `web1` in `shop` to `bench1` in `lab`.
fn to_lab() -> Packet {
    Packet {
        src: "10.20.0.1"
            .parse::<std::net::IpAddr>()
            .expect("an address")
            .into(),
        dst: "10.30.0.9"
            .parse::<std::net::IpAddr>()
            .expect("an address")
            .into(),
        port: 1,
        node: 1,
        eth_type: 0x0800,
        protocol: 6,
        src_port: 49_152,
        dst_port: 80,
        token: 1,
        ..Packet::default()
    }
}

fn from_lab() -> Packet {
    let there = to_lab();
    Packet {
        src: there.dst,
        dst: there.src,
        src_port: there.dst_port,
        dst_port: there.src_port,
        port: 9,
        connection: 1,
        ..there
    }
}

/// What becomes of a packet, and by which label; all stages agree on it.
fn verdict(own: &str, environment: &Environment, packet: &Packet) -> (bool, String) {
    let compiled =
        compile_text(own, environment).unwrap_or_else(|d| panic!("{}", render_all(&d, own)));
    let (policy, _) = resolve_text(own, environment).expect("what compiles is evaluated");
    let outcome = evaluate(&policy, packet).expect("what compiles is evaluated");
    let label = policy.label(outcome.label(), outcome.copies.is_empty());
    let sent = outcome
        .copies
        .keys()
        .any(|copy| copy.place(packet) == Place::Owner);
    if packet.port != 9 {
        let tables = Installed::new(&compiled.tables).expect("what compiles is evaluated");
        let found = tables.verdict(packet).expect("what compiles is evaluated");
        assert_eq!(found.label, label);
        assert_eq!(!found.emit(packet).is_empty(), sent);
    }
    (sent, label)
}

#[test]
fn what_crosses_is_let_through_by_both_policies_and_a_drop_names_whose_rule_it_was() {
    let all = "network shop policy main = forward \"all of shop\"";
    let web = "network lab policy main = if http then forward else drop \"only web\"";
    let environment = peered(Some(web));
    assert_eq!(
        verdict(all, &environment, &to_lab()),
        (true, "all of shop".to_owned())
    );
    let ssh = Packet {
        dst_port: 22,
        ..to_lab()
    };
    assert_eq!(
        verdict(all, &environment, &ssh),
        (false, "lab: only web".to_owned())
    );
    let none = "network shop policy main = drop \"nothing leaves\"";
    assert_eq!(
        verdict(none, &environment, &to_lab()),
        (false, "nothing leaves".to_owned())
    );
    let silent = peered(Some("network lab policy main = filter http"));
    assert_eq!(
        verdict(all, &silent, &to_lab()),
        (false, "lab: not forwarded".to_owned())
    );
    assert_eq!(
        verdict(all, &peered(None), &to_lab()),
        (false, "lab: no policy in force".to_owned())
    );
    // What stays is the own policy's alone.
    let inside = Packet {
        dst: "10.20.0.3".parse::<std::net::IpAddr>().unwrap().into(),
        ..ssh
    };
    assert_eq!(
        verdict(all, &environment, &inside),
        (true, "all of shop".to_owned())
    );
}

#[test]
fn replies_cross_back_where_the_first_packet_was_let_through_by_both() {
    let shop = "network shop policy main = if src = web1 then forward else if established then forward else drop \"shop\"";
    let lab = "network lab policy main = if http then forward else if established then forward else drop \"lab\"";
    let environment = peered(Some(lab));
    assert!(verdict(shop, &environment, &to_lab()).0);
    assert!(verdict(shop, &environment, &from_lab()).0);
    let first = Packet {
        connection: 0,
        ..from_lab()
    };
    assert!(!verdict(shop, &environment, &first).0);
    let of_ssh = Packet {
        src_port: 22,
        ..from_lab()
    };
    assert!(
        !verdict(shop, &environment, &of_ssh).0,
        "lab does not admit ssh"
    );
    // The same as seen from the other network, whose tables decide about replies.
    let mut other = environment.clone();
    for network in &mut other.networks {
        network.policy = Some(Arc::from(if network.name == "shop" { shop } else { lab }));
    }
    let compiled = compile_text(lab, &other).unwrap();
    let tables = Installed::new(&compiled.tables).unwrap();
    let goes = |packet: &Packet| !tables.verdict(packet).unwrap().emit(packet).is_empty();
    assert!(goes(&from_lab()));
    assert!(!goes(&first) && !goes(&of_ssh));
}

#[test]
fn peers_and_their_endpoints_have_names_and_are_not_the_internet() {
    let lab = peered(Some("network lab policy main = forward"));
    let drops = |condition: &str| {
        let text = format!(
            "network shop {{ peer lab }} policy main = if {condition} then drop \"it\" else forward"
        );
        verdict(&text, &lab, &to_lab()).1 == "it"
    };
    assert!(drops("dst in lab") && drops("dst = bench1") && drops("dst = lab.bench1"));
    assert!(drops(
        "src in shop and dst in lab.bench1 and not dst in internet"
    ));
    assert!(!drops("dst in internet") && !drops("dst = web1"));
    let internet = peered(Some(
        "network lab policy main = if internet then drop else forward",
    ));
    assert!(verdict("network shop policy main = forward", &internet, &to_lab()).0);
}

#[test]
fn assertions_and_tests_speak_of_peers() {
    let shop = "network shop
        policy main = if src = web1 then forward else if established then forward else drop
        assert reach(web1, lab.bench1 where http)
        assert isolated(web2, lab)
        assert isolated(web1, lab where tcp and dst port 22)
        test \"across\" {
            from web1 to lab.bench1 tcp 80 : forward to lab.bench1
            from web1 to lab.bench1 tcp 22 : drop \"lab: only web\"
            from lab.bench1 to web1 tcp 80 : drop
        }";
    let lab = peered(Some(
        "network lab policy main = if http then forward else if established then forward else drop \"only web\"",
    ));
    let checked = check_claims(shop, &lab, &ProofOptions::default()).unwrap();
    assert!(checked.holds(), "{}", render_all(&checked.failures(), shop));
    let wrong = "network shop policy main = forward
        assert isolated(web2, lab)
        assert reach(web1, lab where tcp and dst port 22)
        assert isolated(lab, web1)";
    let open = peered(Some(
        "network lab policy main = if src in shop and not http then drop else forward",
    ));
    let checked = check_claims(wrong, &open, &ProofOptions::default()).unwrap();
    let failing: Vec<bool> = checked.proofs.iter().map(|proof| proof.holds()).collect();
    assert_eq!(failing, [false; 3]);
    // Without peering nothing crosses, whatever policies say.
    let apart = "network shop policy main = forward assert isolated(shop, lab)";
    assert!(
        check_claims(apart, &environment(), &ProofOptions::default())
            .unwrap()
            .holds()
    );
    let apart = "network shop policy main = forward assert reach(web1, lab)";
    assert!(
        !check_claims(apart, &environment(), &ProofOptions::default())
            .unwrap()
            .holds()
    );
}

#[test]
fn a_text_that_is_wrong_about_peers_says_so() {
    let says = |text: &str, environment: &Environment| -> String {
        let found = resolve_text(text, environment).expect_err(text);
        render_all(&found, text)
    };
    let lonely = environment();
    let text = "network shop { peer lab } policy main = drop";
    assert!(says(text, &lonely).contains("sunwire network peer shop lab"));
    let text = "network shop { peer lap } policy main = drop";
    assert!(says(text, &lonely).contains("there is no network `lap`"));
    let text = "network shop policy main = if dst = lab.bench1 then forward else drop";
    assert!(says(text, &lonely).contains("network `shop` has no peer `lab`"));
    let text = "network shop policy main = if dst = lab.web9 then forward else drop";
    assert!(says(text, &peered(None)).contains("there is no endpoint `web9` in network `lab`"));
    let text = "network shop policy main = limit 100/s per src; forward";
    let other = "network lab policy main = limit 200/s per src; forward";
    assert!(says(text, &peered(Some(other))).contains("one token"));
}

#[test]
fn translated_sources_do_not_cross_and_translated_destinations_do() {
    let lab = peered(Some("network lab policy main = forward"));
    let snat = "network shop policy main = snat 10.20.0.200; forward";
    let label = "shop: translated sources do not cross";
    assert_eq!(verdict(snat, &lab, &to_lab()), (false, label.to_owned()));
    let dnat = "network shop policy main = if dst = 10.20.0.100 then dnat lab.bench1 ip4; forward else drop";
    let text = dnat.replace("dnat lab.bench1 ip4", "dnat 10.30.0.9");
    let vip = Packet {
        dst: "10.20.0.100".parse::<std::net::IpAddr>().unwrap().into(),
        ..to_lab()
    };
    assert!(verdict(&text, &lab, &vip).0);
    let closed = peered(Some("network lab policy main = drop \"closed\""));
    assert_eq!(
        verdict(&text, &closed, &vip),
        (false, "lab: closed".to_owned())
    );
}

/// What the two policies make of a packet of `shop`, each evaluated by itself.
fn by_hand(shop: &Outcome, lab: impl Fn(&Packet) -> Outcome) -> BTreeSet<Packet> {
    let mut out = BTreeSet::new();
    for copy in shop.copies.keys() {
        let crosses = u64::from(copy.port) == OWNER && inside(copy);
        if !crosses {
            out.insert(*copy);
            continue;
        }
        let there = lab(&Packet { port: 0, ..*copy });
        let forwarded = there.copies.into_keys();
        out.extend(forwarded.filter(|copy| u64::from(copy.port) == OWNER));
    }
    out
}

fn inside(packet: &Packet) -> bool {
    let network = Network {
        subnets: environment().networks[1].subnets.clone(),
        ..Network::default()
    };
    let number = match packet.dst {
        sunwire_policy::address::Address::None => return false,
        sunwire_policy::address::Address::V4(v4) => sunwire_policy::address::number(v4.into()),
        sunwire_policy::address::Address::V6(v6) => sunwire_policy::address::number(v6.into()),
    };
    network
        .prefixes()
        .any(|prefix| prefix.family == number.0 && prefix.contains(number.1))
}

/// The random policies are of `shop`; with the names of `lab` in their place, one of `lab`.
fn text_of_lab(text: &str) -> String {
    let mut text = text.replace("network shop", "network lab");
    for (from, to) in [
        ("10.20.0.0/16", "10.30.0.0/16"),
        ("fd00:14::/64", "fd00:1e::/64"),
    ] {
        text = text.replacen(from, to, 1);
    }
    text
}

#[test]
fn evaluator_diagram_and_tables_agree_on_what_crosses_and_with_both_policies_by_themselves() {
    let plain = environment();
    let mut everywhere = plain.clone();
    // Both networks have endpoints of the same names, so that one generator serves both.
    let twins = plain.endpoints.iter().filter(|e| e.network == "shop");
    let twins: Vec<_> = twins
        .map(|endpoint| {
            let mut twin = endpoint.clone();
            twin.network = "lab".to_owned();
            twin.number += 20;
            twin
        })
        .collect();
    everywhere
        .endpoints
        .retain(|endpoint| endpoint.network != "shop");
    everywhere.endpoints.extend(twins);
    let values = (
        policies(Kind::Stateless),
        policies(Kind::Stateless),
        prop::collection::vec(packets(&plain, "shop"), 8),
    );
    let crossed = std::cell::Cell::new(0);
    for_all(
        "composed = one after the other",
        400,
        &values,
        |(shop, lab, packets)| {
            let shop = document(shop).to_string();
            let lab = text_of_lab(&document(lab).to_string());
            let wrong = |d: Vec<_>, text: &str| format!("{text}\n{}", render_all(&d, text));
            // What is outside is more for a network without peers.
            let outside = |text: &str| {
                let body = text.split_once("policy main").map_or("", |(_, body)| body);
                body.contains("internet") || body.contains("outside")
            };
            if outside(&shop) || outside(&lab) {
                return Ok(());
            }
            // What copies of `shop` to endpoints of `lab` would be by number is another's in the twin.
            let Ok((alone, _)) = resolve_text(&shop, &plain) else {
                return Ok(());
            };
            let Ok((there, _)) = resolve_text(&lab, &everywhere) else {
                return Ok(());
            };
            let mut environment = peered(Some(&lab));
            environment.endpoints.extend(
                everywhere
                    .endpoints
                    .iter()
                    .filter(|e| e.network == "lab" && e.number > 20)
                    .map(|e| {
                        let mut endpoint = e.clone();
                        endpoint.name = format!("lab-{}", e.name);
                        endpoint
                    }),
            );
            // The peer's text must not name what is not there: with its names it is left out.
            let names = ["web1", "web2", "db1", "client1", "legacy1"];
            if names.iter().any(|name| {
                lab.split_once("policy main")
                    .is_some_and(|(_, body)| body.contains(name))
            }) {
                return Ok(());
            }
            let lab = lab.replace(
                "set web = { web1, web2 }",
                "set web = { 10.20.0.1, 10.20.0.2, fd00:14::1, fd00:14::2 }",
            );
            for network in &mut environment.networks {
                if network.name == "lab" {
                    network.policy = Some(Arc::from(lab.as_str()));
                }
            }
            let (policy, _) = resolve_text(&shop, &environment).map_err(|d| wrong(d, &shop))?;
            let fdd = compile(&policy, &Options::default()).map_err(|e| e.to_string())?;
            let tables = match lower(&fdd, &policy, &Capacity::default()) {
                Ok(tables) => tables,
                Err(Refused::TooManyCopies { .. }) => return Ok(()),
                Err(other) => return Err(other.to_string()),
            };
            validate(&policy, &tables, &ProofOptions::default()).map_err(|e| e.to_string())?;
            let installed = Installed::new(&tables).map_err(|e| e.to_string())?;
            for (at, mut packet) in packets.into_iter().enumerate() {
                if at % 2 == 0 && packet.eth_type != 0 {
                    packet.dst = match packet.src {
                        sunwire_policy::address::Address::V4(_) => to_lab().dst,
                        sunwire_policy::address::Address::V6(_) => {
                            "fd00:1e::9".parse::<std::net::IpAddr>().unwrap().into()
                        }
                        other => other,
                    };
                }
                let outcome = evaluate(&policy, &packet).map_err(|e| e.to_string())?;
                let found: BTreeSet<Packet> = outcome.copies.keys().copied().collect();
                let first = evaluate(&alone, &packet).map_err(|e| e.to_string())?;
                let expected = by_hand(&first, |packet| evaluate(&there, packet).unwrap());
                crossed.set(crossed.get() + usize::from(first.copies.keys().any(inside)));
                // What writes sources, and copies by number, have rules of their own.
                let written = |text: &str| {
                    [
                        "snat",
                        "Src :=",
                        "src :=",
                        "multicast",
                        "flood",
                        "mirror",
                        "port :=",
                    ]
                    .iter()
                    .any(|w| text.contains(w))
                };
                if !written(&shop) && !written(&lab) && found != expected {
                    return Err(format!(
                        "{shop}\n{lab}\n{packet:?}\n{found:?}\n{expected:?}"
                    ));
                }
                if fdd.evaluate(&packet) != outcome {
                    return Err(format!("{shop}\n{lab}\n{packet:?}: diagram"));
                }
                let verdict = installed.verdict(&packet).ok_or("the walk does not end")?;
                let label = policy.label(outcome.label(), outcome.copies.is_empty());
                let places = outcome
                    .copies
                    .keys()
                    .filter(|c| c.can_be_made_of(&packet))
                    .count();
                if verdict.label != label
                    || verdict.emit(&packet).len() > places.max(outcome.copies.len())
                {
                    return Err(format!(
                        "{shop}\n{lab}\n{packet:?}: {verdict:?} and {label}"
                    ));
                }
            }
            Ok(())
        },
    );
    assert!(crossed.get() > 50, "only {} packets crossed", crossed.get());
}
