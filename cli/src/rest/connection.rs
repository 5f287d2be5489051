//! Which controller is asked, and from where: a lab's addresses exist inside the lab only.

use sunwire_api::client::Client;
use sunwire_lab::client as labs;
use sunwire_lab::topology::CONTROLLER;

/// Port of the REST API when nothing else is said.
pub(crate) const REST_PORT: u16 = 7510;

/// Which controller to ask.
#[derive(Debug, clap::Args)]
pub(crate) struct Connection {
    /// The controller; http://127.0.0.1:7510 when neither this nor --lab is given.
    #[arg(
        long,
        global = true,
        env = "SUNWIRE_SERVER",
        value_name = "URL",
        value_parser = server,
        help_heading = "Controller"
    )]
    server: Option<String>,
    /// The controller of this lab, asked from inside of it; takes precedence over --server.
    /// Needs root.
    #[arg(long, global = true, value_name = "ID", help_heading = "Controller")]
    lab: Option<String>,
}

/// The URL of a controller: nothing else can be asked.
fn server(text: &str) -> Result<String, String> {
    if Client::can_ask(text) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "a controller is named like http://127.0.0.1:{REST_PORT}, and answers to http alone"
        ))
    }
}

impl Connection {
    /// Whether a controller was named.
    pub(crate) fn is_named(&self) -> bool {
        self.server.is_some() || self.lab.is_some()
    }

    /// Runs `ask` with a client of the controller, where the controller's address exists.
    pub(crate) fn run<T: Send>(
        &self,
        ask: impl FnOnce(&Client) -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        let Some(id) = &self.lab else {
            let server = self.server.clone();
            let server = server.unwrap_or_else(|| format!("http://127.0.0.1:{REST_PORT}"));
            return ask(&Client::new(&server));
        };
        let record = labs::find(id)?;
        let controller = record.nodes.iter().find(|node| node.name == CONTROLLER);
        let Some(controller) = controller else {
            anyhow::bail!("lab `{id}` has no controller: its topology has no [controller]");
        };
        let client = Client::new(&format!("http://{}:{REST_PORT}", controller.address));
        labs::namespace(id, CONTROLLER)?.run(|| ask(&client))?
    }
}
