//! From the URL and its options to what the driver connects to.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tooz_core::driver::{BackendUrl, CertificateFiles, ConnectArgs, Host, OptionSpec, OptionValue, Options};
use tooz_core::{Error, Result};

/// The options beside the common ones.
pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(
        "ca",
        OptionValue::Text,
        "the system's",
        "a PEM file of the authorities to trust with memcached+tls://",
    ),
    OptionSpec::new("cert", OptionValue::Text, "none", "PEM file of the client's own certificate (TLS; with key)"),
    OptionSpec::new("key", OptionValue::Text, "none", "PEM file of the key to that certificate (TLS; with cert)"),
];

/// Where the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Server(String, u16),
    Socket(PathBuf),
}

/// Everything that the URL says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) target: Target,
    /// By which files the connection is secured, if it is.
    pub(crate) tls: Option<CertificateFiles>,
}

const PORT: u16 = 11211;

/// The longest session timeout: a record is kept for thirty days, and is looked after far more often than that.
const LONGEST_TIMEOUT: Duration = Duration::from_hours(24);

const FORMS: &str =
    "the URL is memcached://host:port, memcached+tls://host:port, or memcached+unix:///path/of/socket, of one server";

impl Settings {
    pub(crate) fn read(args: &ConnectArgs) -> Result<Self> {
        if args.session_timeout > LONGEST_TIMEOUT {
            return Err(Error::config(format!(
                "session_timeout is at most {} hours here",
                LONGEST_TIMEOUT.as_secs() / 3600
            )));
        }
        Self::of(&args.url, &args.options)
    }

    fn of(url: &BackendUrl, options: &Options) -> Result<Self> {
        if url.username().is_some() || url.password().is_some() {
            return Err(wrong("this driver has no log-in (SASL, or the server's -Y): leave out user and password"));
        }
        Ok(Settings { target: target(url)?, tls: tls(url, options)? })
    }
}

fn wrong(why: impl fmt::Display) -> Error {
    Error::config(format!("{why}; {FORMS}"))
}

fn target(url: &BackendUrl) -> Result<Target> {
    if url.scheme() == "memcached+unix" {
        return match (url.hosts(), url.path()) {
            ([], path) if path.len() > 1 => Ok(Target::Socket(path.into())),
            ([], _) => Err(wrong("memcached+unix: needs the path of the socket")),
            _ => Err(wrong("a socket has no host: write three slashes, memcached+unix:///path")),
        };
    }
    if url.path().len() > 1 {
        return Err(wrong("memcached has no databases: leave out the path"));
    }
    match url.hosts() {
        [] => Ok(Target::Server("127.0.0.1".to_owned(), PORT)),
        [host] => Ok(Target::Server(host.name.clone(), host.port.unwrap_or(PORT))),
        // A lock and the session that vouches for it have to be at one server.
        _ => Err(wrong("several servers would share the keys among them, and each could lose some: name one")),
    }
}

fn tls(url: &BackendUrl, options: &Options) -> Result<Option<CertificateFiles>> {
    if url.scheme() != "memcached+tls" {
        return match ["ca", "cert", "key"].iter().find(|name| options.text(name).is_some()) {
            Some(name) => Err(wrong(format_args!("{name} is for memcached+tls:// alone"))),
            None => Ok(None),
        };
    }
    if !cfg!(feature = "tls") {
        return Err(Error::config(
            "memcached+tls:// needs TLS, which this program was built without: enable feature \"tls\" of tooz or tooz-memcached",
        ));
    }
    CertificateFiles::named(options).map(Some)
}

/// Where it is.
impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Server(name, port) => Host { name: name.clone(), port: Some(*port) }.fmt(formatter),
            Target::Socket(path) => path.display().fmt(formatter),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use tooz_core::driver::{ConnectFuture, Session};
    use tooz_core::{ConnectOptions, Driver, ErrorKind};

    use super::*;

    /// Reads the options as the driver does, and goes no further: the error of kind `Backend` says that they can be read.
    static CARD: Driver =
        Driver::new("memcached", &["memcached", "memcached+tls", "memcached+unix"], read_only).options(OPTIONS);

    fn read_only(args: ConnectArgs) -> ConnectFuture {
        Box::pin(async move {
            Settings::read(&args)?;
            Err::<Arc<dyn Session>, _>(Error::new(ErrorKind::Backend, "read"))
        })
    }

    fn refused(url: &str) -> Option<Error> {
        let connect = ConnectOptions::new(url).ok()?.driver(&CARD).member("m").ok()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Some(runtime.block_on(connect.connect()).unwrap_err())
    }

    proptest! {
        #[test]
        fn each_url_is_read_or_refused_and_shows_no_password(
            text: String,
            hosts in "[a-z0-9.:,\\[\\]%@-]{0,40}",
            rest in "(/[a-z0-9/%.]{0,8})?(\\?(ca|cert|key)=[a-z0-9%]{0,6})?",
        ) {
            for url in [text, format!("memcached://{hosts}{rest}"), format!("memcached+tls://me:pass-word@{hosts}{rest}"), format!("memcached+unix://{rest}")] {
                let Some(error) = refused(&url) else { continue };
                prop_assert!(matches!(error.kind(), ErrorKind::Backend | ErrorKind::Config), "{url}: {error}");
                prop_assert!(!error.to_string().contains("pass-word"), "{url}: {error}");
            }
        }
    }
}
