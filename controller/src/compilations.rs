//! Compilations that are kept, so that the next one only does what a change reaches.
//!
//! Most changes are of one endpoint, and most of those change no table: a [`Session`] finds that
//! out without reading the policy again. What it gives is what compiling anew gives, to the byte, so
//! nothing depends on what is kept: not the state, and not what another replica finds.
//!
//! Whatever comes out is proved equal to the policy before it leaves: the tables as a whole, or
//! after a change of classes alone, the addresses that changed.

use std::sync::{Arc, Mutex, PoisonError};

use sunwire_policy::diagnostic::Diagnostic;
use sunwire_policy::environment::Environment;
use sunwire_policy::incremental::{Delta, Session};
use sunwire_policy::judge;
use sunwire_policy::lower::Capacity;
use sunwire_policy::tables::FlowTables;
use sunwire_policy::validate::{validate, validate_classes};
use sunwire_policy::verify::options::Options;

/// Compilations that are kept, the one used last at the end. There are few policies, and each may
/// have a candidate.
static KEPT: Mutex<Vec<Kept>> = Mutex::new(Vec::new());
const MOST_KEPT: usize = 8;

struct Kept {
    text: String,
    session: Session,
    tables: Arc<FlowTables>,
}

/// A compiled text.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    /// Name of the network that it is for.
    pub(crate) network: String,
    /// Its tables.
    pub(crate) tables: Arc<FlowTables>,
    /// Findings that are no errors.
    pub(crate) warnings: Vec<Diagnostic>,
    /// Whether it has assertions or tests.
    pub(crate) claims: bool,
}

/// Compiles a text, from what is kept of it.
///
/// # Errors
/// All errors that the compiler found, and the warnings among them.
pub(crate) fn compile(text: &str, environment: &Environment) -> Result<Made, Vec<Diagnostic>> {
    // It is taken out while it is worked on: other texts need not wait, and one that panics is gone.
    let (kept, delta) = match take(text) {
        Some(mut kept) => {
            let delta = kept.session.set_environment(environment)?;
            (Some(kept), delta)
        }
        None => (None, Delta::default()),
    };
    let kept = match kept {
        Some(mut kept) => {
            if !delta.is_empty() {
                prove(&kept.session, Some(&delta))?;
                kept.tables = Arc::new(kept.session.tables().clone());
            }
            kept
        }
        None => {
            let mut session = Session::new(environment.clone(), Capacity::default());
            session.set_text(text)?;
            prove(&session, None)?;
            Kept {
                text: text.to_owned(),
                tables: Arc::new(session.tables().clone()),
                session,
            }
        }
    };
    let policy = kept
        .session
        .policy()
        .expect("a session that has compiled has a policy");
    let judged = judge::check(policy, &kept.tables, environment).map_err(|refused| {
        let warnings = kept.session.warnings().iter().cloned();
        warnings.chain([refused]).collect::<Vec<_>>()
    });
    let made = Made {
        network: policy.network.name.clone(),
        tables: kept.tables.clone(),
        warnings: kept.session.warnings().to_vec(),
        claims: !policy.assertions().is_empty() || !policy.tests().is_empty(),
    };
    keep(kept);
    judged.map(|()| made)
}

/// Proves the tables of a session; after `delta`, what it can have changed.
fn prove(session: &Session, delta: Option<&Delta>) -> Result<(), Vec<Diagnostic>> {
    let Some(policy) = session.policy() else {
        return Ok(());
    };
    let followed = delta.is_some_and(|delta| {
        delta.is_of_classes()
            && !session.statistics().resolved
            && validate_classes(policy, session.tables(), &delta.prefixes)
    });
    if followed {
        return Ok(());
    }
    validate(policy, session.tables(), &Options::default())
        .map_err(|invalid| vec![invalid.locate(policy)])
}

fn take(text: &str) -> Option<Kept> {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let at = kept.iter().position(|one| one.text == text)?;
    Some(kept.remove(at))
}

fn keep(one: Kept) {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    kept.retain(|other| other.text != one.text);
    kept.push(one);
    let surplus = kept.len().saturating_sub(MOST_KEPT);
    kept.drain(..surplus);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sunwire_policy::compile_text;
    use sunwire_policy::environment::{Endpoint, Network};

    use super::*;

    fn environment(endpoints: u32) -> Environment {
        let endpoint = |number: u32| Endpoint {
            name: format!("e{number}"),
            number,
            network: "shop".to_owned(),
            addresses: vec![std::net::Ipv4Addr::from_bits(0x0a14_0000 + number).into()],
            mac: [2, 0, 0, 0, 0, number as u8],
            labels: BTreeMap::from([("group".to_owned(), (number % 3).to_string())]),
        };
        Environment {
            networks: vec![Network {
                name: "shop".to_owned(),
                vni: 7,
                subnets: vec![("10.20.0.0".parse().expect("an address"), 16)],
                ..Network::default()
            }],
            endpoints: (1..=endpoints).map(endpoint).collect(),
            nodes: vec![],
        }
    }

    const TEXT: &str = "set a = labels(group = \"0\") set b = labels(group = \"1\")
        policy main = if src in a and dst in b and tcp then forward else drop";

    #[test]
    fn what_is_kept_gives_what_compiling_anew_gives() {
        let mut environment = environment(20);
        for step in 0..40u32 {
            let at = (step * 7 % 20) as usize;
            let group = (step % 4).to_string();
            environment.endpoints[at]
                .labels
                .insert("group".to_owned(), group);
            // One endpoint goes and comes back.
            environment
                .endpoints
                .retain(|endpoint| endpoint.name != "e21");
            if step % 9 > 4 {
                environment
                    .endpoints
                    .extend(self::environment(21).endpoints.pop());
            }
            let kept = compile(TEXT, &environment).expect("a policy");
            let anew = compile_text(TEXT, &environment).expect("a policy");
            assert_eq!(*kept.tables, anew.tables, "step {step}");
        }
    }

    #[test]
    fn a_text_that_is_wrong_for_a_while_is_right_again_after_it() {
        let text = "policy main = if src = e7 then forward else drop";
        let all = environment(9);
        let first = compile(text, &all).expect("a policy").tables;
        let mut without = all.clone();
        without.endpoints.retain(|endpoint| endpoint.name != "e7");
        assert!(compile(text, &without).is_err());
        assert_eq!(compile(text, &all).expect("a policy").tables, first);
    }
}
