//! What a URL asks for: endpoints, credentials and certificates.

use tooz_core::driver::{BackendUrl, ConnectArgs, CredentialSource, OptionSpec, OptionValue, PASSWORD_FILE};
use tooz_core::{Error, Result};

use crate::tls::Tls;

/// The port on which etcd serves its clients.
const PORT: u16 = 2379;

pub(crate) const OPTIONS: &[OptionSpec] = &[
    PASSWORD_FILE,
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
    /// `http://host:port`, one for each host of the URL, in its order.
    pub(crate) endpoints: Vec<String>,
    /// The user and the password, asked for at each log-in.
    pub(crate) credentials: CredentialSource,
    pub(crate) tls: Option<Tls>,
}

/// Reads what this driver's part of the connect arguments says.
pub(crate) fn read(args: &ConnectArgs) -> Result<Settings> {
    let with_tls = args.url.scheme().ends_with("https");
    let tls = if with_tls {
        Some(Tls::read(&args.options)?)
    } else {
        for name in ["ca", "cert", "key"] {
            if args.options.text(name).is_some() {
                return Err(Error::config(format!(
                    "option {name} is about TLS, but the URL is without: write etcd+https://…, or leave it out"
                )));
            }
        }
        None
    };
    Ok(Settings { endpoints: endpoints(&args.url, with_tls)?, credentials: args.credentials.clone(), tls })
}

fn endpoints(url: &BackendUrl, with_tls: bool) -> Result<Vec<String>> {
    if !matches!(url.path(), "" | "/") {
        return Err(Error::config(format!(
            "etcd has no databases, but the URL has the path {:?}: leave it out; namespace=… keeps fleets apart",
            url.path()
        )));
    }
    let web = if with_tls { "https" } else { "http" };
    let mut endpoints: Vec<_> = Vec::new();
    for host in url.hosts() {
        let endpoint = match host.port {
            Some(_) => format!("{web}://{host}"),
            None => format!("{web}://{host}:{PORT}"),
        };
        // A host that is named twice would be asked twice.
        if !endpoints.contains(&endpoint) {
            endpoints.push(endpoint);
        }
    }
    if endpoints.is_empty() {
        endpoints.push(format!("{web}://127.0.0.1:{PORT}"));
    }
    Ok(endpoints)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Result<Vec<String>> {
        endpoints(&BackendUrl::parse(text).unwrap(), text.contains("https"))
    }

    #[test]
    fn every_host_is_an_endpoint() {
        assert_eq!(
            of("etcd://h1,h2:4001,[::1],h1").unwrap(),
            ["http://h1:2379", "http://h2:4001", "http://[::1]:2379"]
        );
        assert_eq!(of("etcd+https://h").unwrap(), ["https://h:2379"]);
        assert_eq!(of("etcd:").unwrap(), ["http://127.0.0.1:2379"]);
    }

    proptest! {
        #[test]
        fn no_url_panics(text: String, hosts in "[a-z0-9.:,\\[\\]%@-]{0,40}") {
            for text in [text, format!("etcd://{hosts}"), format!("etcd+https://{hosts}/")] {
                let Ok(url) = BackendUrl::parse(&text) else { continue };
                let Ok(endpoints) = endpoints(&url, false) else { continue };
                prop_assert!(!endpoints.is_empty() && endpoints.iter().all(|one| one.starts_with("http://")));
            }
        }
    }

    #[test]
    fn what_etcd_does_not_have_is_refused_with_what_would_be_right() {
        assert!(of("etcd://h/0").unwrap_err().to_string().contains("namespace"));
    }
}
