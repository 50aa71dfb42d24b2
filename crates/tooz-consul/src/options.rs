//! What a URL asks for: agents, the token, the datacenter, the node of the sessions, and certificates.

use std::sync::Arc;

use tooz_core::driver::{BackendUrl, ConnectArgs, OptionSpec, OptionValue};
use tooz_core::{Error, Result};

use crate::login::Login;
use crate::tls::Tls;

/// The port on which an agent serves its clients.
const PORT: u16 = 8500;
/// The one for TLS, by the advice of Consul's documentation.
const TLS_PORT: u16 = 8501;
/// The catalogue's node to which sessions belong.
const NODE: &str = "tooz-sessions";

pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec::new("token", OptionValue::Secret, "none", "the token of Consul's ACLs"),
    OptionSpec::new("token_file", OptionValue::Text, "none", "a file with the token, read again at each connection"),
    OptionSpec::new("datacenter", OptionValue::Text, "the agent's own", "the datacenter whose servers keep everything"),
    OptionSpec::new(
        "node",
        OptionValue::Text,
        NODE,
        "the node of the catalogue to which sessions belong; it is registered where it is missing",
    ),
    OptionSpec::new(
        "ca",
        OptionValue::Text,
        "the system's authorities",
        "PEM file of the authorities that may vouch for the server (TLS)",
    ),
    OptionSpec::new("cert", OptionValue::Text, "none", "PEM file of the client's own certificate (TLS; with key)"),
    OptionSpec::new("key", OptionValue::Text, "none", "PEM file of the key to that certificate (TLS; with cert)"),
];

/// What a URL asks for.
pub(crate) struct Settings {
    /// One for each host of the URL, in its order; at least one.
    pub(crate) agents: Vec<Agent>,
    pub(crate) login: Login,
    pub(crate) datacenter: Option<String>,
    pub(crate) node: String,
    pub(crate) tls: Option<Tls>,
}

/// Where an agent of Consul serves its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Agent {
    /// A name, or an address without brackets.
    pub(crate) name: String,
    pub(crate) port: u16,
    /// `name:port`, as it stands in messages and in requests.
    pub(crate) address: Arc<str>,
}

/// Reads what this driver's part of the connect arguments says.
pub(crate) fn read(args: &ConnectArgs) -> Result<Settings> {
    let with_tls = args.url.scheme().ends_with("https");
    let options = &args.options;
    let tls = if with_tls {
        Some(Tls::read(options)?)
    } else {
        for name in ["ca", "cert", "key"] {
            if options.text(name).is_some() {
                return Err(Error::config(format!(
                    "option {name} is about TLS, but the URL is without: write consul+https://…, or leave it out"
                )));
            }
        }
        None
    };
    if args.url.username().is_some() || args.url.password().is_some() {
        return Err(Error::config("Consul has tokens, and no users: write token=… or token_file=FILE"));
    }
    let login = Login::read(options.text("token"), options.text("token_file"))?;
    let node = options.text("node").unwrap_or(NODE).to_owned();
    let datacenter = options.text("datacenter").map(str::to_owned);
    for (name, value) in [("node", Some(&node)), ("datacenter", datacenter.as_ref())] {
        let is_plain = |value: &String| {
            !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        if !value.is_none_or(is_plain) {
            return Err(Error::config(format!("option {name} takes letters, digits, dots, - and _")));
        }
    }
    Ok(Settings { agents: agents(&args.url, with_tls)?, login, datacenter, node, tls })
}

fn agents(url: &BackendUrl, with_tls: bool) -> Result<Vec<Agent>> {
    if !matches!(url.path(), "" | "/") {
        return Err(Error::config(format!(
            "Consul has no databases, but the URL has the path {:?}: leave it out; namespace=… keeps fleets apart",
            url.path()
        )));
    }
    let standard = if with_tls { TLS_PORT } else { PORT };
    let mut agents: Vec<Agent> = Vec::new();
    for host in url.hosts() {
        let port = host.port.unwrap_or(standard);
        let address = if host.port.is_some() { host.to_string() } else { format!("{host}:{port}") };
        let name = host.name.trim_start_matches('[').trim_end_matches(']').to_owned();
        let agent = Agent { name, port, address: address.into() };
        // A host that is named twice would be asked twice.
        if !agents.contains(&agent) {
            agents.push(agent);
        }
    }
    if agents.is_empty() {
        let address = format!("127.0.0.1:{standard}").into();
        agents.push(Agent { name: "127.0.0.1".to_owned(), port: standard, address });
    }
    Ok(agents)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Result<Vec<String>> {
        let agents = agents(&BackendUrl::parse(text).unwrap(), text.contains("https"))?;
        Ok(agents.iter().map(|agent| format!("{} {}", agent.name, agent.address)).collect())
    }

    #[test]
    fn every_host_is_an_agent() {
        assert_eq!(of("consul://h1,h2:4001,[::1],h1").unwrap(), ["h1 h1:8500", "h2 h2:4001", "::1 [::1]:8500"]);
        assert_eq!(of("consul+https://h").unwrap(), ["h h:8501"]);
        assert_eq!(of("consul:").unwrap(), ["127.0.0.1 127.0.0.1:8500"]);
    }

    proptest! {
        #[test]
        fn no_url_panics(text: String, hosts in "[a-z0-9.:,\\[\\]%@-]{0,40}") {
            for text in [text, format!("consul://{hosts}"), format!("consul+https://{hosts}/")] {
                let Ok(url) = BackendUrl::parse(&text) else { continue };
                let Ok(agents) = agents(&url, false) else { continue };
                prop_assert!(!agents.is_empty());
            }
        }
    }

    #[test]
    fn what_consul_does_not_have_is_refused_with_what_would_be_right() {
        assert!(of("consul://h/0").unwrap_err().to_string().contains("namespace"));
    }
}
