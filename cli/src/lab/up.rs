//! `sunwire lab up`: a whole cloud out of one file, for as long as this program runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use sunwire_api::{EncryptionMode, Name};
use sunwire_lab::{Lab, NodeRecord, Shutdown, WorkloadRecord, client};

use super::cloud::{Cloud, Interrupted};
use super::register;
use crate::exit::Outcome;
use crate::output::{self, Format};
use crate::policy;
use crate::rest::REST_PORT;

/// How often processes are looked after.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What is up.
#[derive(Debug, Serialize)]
struct Up {
    id: String,
    /// Where the controller answers, inside the lab.
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<String>,
    nodes: Vec<NodeRecord>,
    workloads: Vec<WorkloadRecord>,
    log_dir: PathBuf,
}

pub(super) fn run(
    file: &Path,
    id: Option<&str>,
    policies: &[PathBuf],
    bare: bool,
    encryption: Option<EncryptionMode>,
    format: Format,
) -> anyhow::Result<Outcome> {
    let mut topology = super::topology(file)?;
    if let Some(id) = id {
        topology = topology.with_id(id)?;
    }
    // What is wrong with the files is said before anything is made.
    let policies = policy::named_texts(policies)?;
    let shutdown = Shutdown::on_signals()?;
    let lab = Lab::up(topology)?;
    let outcome = live(&lab, &policies, bare, encryption, &shutdown, format);
    say("taking the lab down");
    lab.down()?;
    match outcome {
        // Whoever interrupts it while it comes up wants just that.
        Err(error) if error.is::<Interrupted>() => Ok(Outcome::Done),
        outcome => outcome.map(|()| Outcome::Done),
    }
}

fn live(
    lab: &Lab,
    policies: &[(Name, String)],
    bare: bool,
    encryption: Option<EncryptionMode>,
    shutdown: &Shutdown,
    format: Format,
) -> anyhow::Result<()> {
    let (id, count) = (lab.id(), lab.nodes().len());
    say(&format!(
        "lab {id}: {count} nodes, logs in {}",
        lab.log_dir().display()
    ));
    let controller = lab.controller().filter(|_| !bare);
    if controller.is_none() && !policies.is_empty() {
        anyhow::bail!("a policy needs a controller: add [controller] to the topology");
    }
    if controller.is_none() && encryption.is_some() {
        anyhow::bail!("encryption needs a controller: add [controller] to the topology");
    }
    let mut cloud = None;
    if let Some(controller) = controller {
        let mut started = Cloud::start(lab, controller, shutdown, &say)?;
        say(&register::encryption(&mut started, encryption)?);
        for network in register::networks(&started, lab)? {
            let subnets = output::list(&network.spec.subnets);
            say(&format!(
                "network {}: {subnets}, VNI {}",
                network.name, network.spec.vni
            ));
        }
        let attached = register::endpoints(&mut started, lab)?;
        say(&format!("{attached} endpoints are attached"));
        for (name, text) in policies {
            register::policy(&mut started, name, text)
                .inspect_err(|_| say(&format!("policy {name} is not put in force")))?;
            say(&format!("policy {name} is in force on every node"));
        }
        cloud = Some(started);
    }
    tell(lab, cloud.is_some(), format)?;
    loop {
        if shutdown.wait_for(LOOK_EVERY) {
            return Ok(());
        }
        if let Some(ended) = cloud.as_mut().and_then(Cloud::ended) {
            say(&ended);
        }
    }
}

/// Tells what is up, and what to do with it.
fn tell(lab: &Lab, has_cloud: bool, format: Format) -> anyhow::Result<()> {
    let record = client::find(lab.id())?;
    let controller = lab.controller().filter(|_| has_cloud);
    let up = Up {
        id: record.id,
        server: controller.map(|node| format!("http://{}:{REST_PORT}", node.underlay_address)),
        nodes: record.nodes,
        workloads: record.workloads,
        log_dir: lab.log_dir(),
    };
    output::tell(format, &up, |up| {
        let id = &up.id;
        let place = match (up.workloads.first(), up.nodes.first()) {
            (Some(workload), _) => &workload.name,
            (None, Some(node)) => &node.name,
            (None, None) => return format!("lab {id} is up"),
        };
        let mut text = format!("lab {id} is up; from another terminal:\n");
        if up.server.is_some() {
            text.push_str(&format!("  sunwire endpoint list --lab {id}\n"));
            text.push_str(&format!("  sunwire policy apply FILE --lab {id}\n"));
            text.push_str(&format!("  sunwire counters --lab {id}\n"));
        }
        text.push_str(&format!("  sunwire lab exec {id} {place} -- ip address\n"));
        text.push_str(&format!("  sunwire lab status {id}\n"));
        text.push_str("Ctrl-C takes it down.");
        text
    })
}

fn say(text: &str) {
    eprintln!("{text}");
}
