//! From the URL and its options to what the driver connects to.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tooz_core::driver::{
    BackendUrl, CertificateFiles, ConnectArgs, Host, OptionSpec, OptionValue, Options, PASSWORD_FILE,
};
use tooz_core::{Error, Result};

/// The options beside the common ones.
pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(
        "sentinel",
        OptionValue::Text,
        "none",
        "the name of the primary that the URL's hosts, Sentinels, watch",
    ),
    OptionSpec::new("sentinel_user", OptionValue::Text, "none", "the user at the Sentinels"),
    OptionSpec::new("sentinel_password", OptionValue::Secret, "none", "the password at the Sentinels"),
    OptionSpec::new(
        "sentinel_password_file",
        OptionValue::Text,
        "none",
        "a file with the password at the Sentinels, read again at each connection",
    ),
    PASSWORD_FILE,
    OptionSpec::new(
        "wait",
        OptionValue::Integer,
        "a majority under Sentinel, else 0",
        "how many replicas must have a heartbeat and a grant before they count; 0: none",
    ),
    OptionSpec::new("allow_eviction", OptionValue::Boolean, "false", "accept a server that may evict keys"),
    OptionSpec::new("db", OptionValue::Integer, "0", "the database number, where the path is a socket's"),
    OptionSpec::new("ca", OptionValue::Text, "the system's", "a PEM file of the authorities to trust with rediss://"),
    OptionSpec::new("cert", OptionValue::Text, "none", "PEM file of the client's own certificate (TLS; with key)"),
    OptionSpec::new("key", OptionValue::Text, "none", "PEM file of the key to that certificate (TLS; with cert)"),
];

/// Where the server is.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Server(Address),
    Socket(PathBuf),
    Sentinel(Sentinels),
}

/// A host and its port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// The Sentinels, and what they are asked for.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Sentinels {
    pub(crate) addresses: Vec<Address>,
    pub(crate) primary: String,
    pub(crate) username: Option<String>,
    pub(crate) password: SentinelPassword,
}

/// What one logs in with at the Sentinels.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum SentinelPassword {
    None,
    Given(String),
    File(PathBuf),
}

/// Everything that the URL says.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) target: Target,
    pub(crate) database: u8,
    pub(crate) encryption: Encryption,
    pub(crate) wait: Option<u64>,
    pub(crate) eviction: Eviction,
}

/// What must have a heartbeat, a grant or a join before it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Confirmation {
    /// The primary alone.
    None,
    /// As many replicas.
    Replicas(u64),
    /// A majority of all instances that there are just then.
    Majority,
}

/// Whether the connection is encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Encryption {
    None,
    Tls(CertificateFiles),
}

/// What to do about a server that may evict keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Eviction {
    Refused,
    Allowed,
}

/// The longest session timeout.
const LONGEST_TIMEOUT: Duration = Duration::from_hours(24);

pub(crate) const NO_PASSWORD: &str =
    "a user without a password can't log in: write redis://user:password@host, or name a password_file";

const FORMS: &str = "the URL is redis://user:password@host:port/0, rediss:// for TLS, redis+unix:///path/of/socket?db=0, or \
                     redis://sentinel1:port,sentinel2:port/0?sentinel=NAME";

impl Settings {
    pub(crate) fn read(args: &ConnectArgs) -> Result<Self> {
        // More than this would need keys that are kept for longer than `common.lua` keeps them.
        if args.session_timeout > LONGEST_TIMEOUT {
            return Err(Error::config(format!(
                "session_timeout is at most {} hours here",
                LONGEST_TIMEOUT.as_secs() / 3600
            )));
        }
        let settings = Self::of(&args.url, &args.options)?;
        if args.url.username().is_some() && args.url.password().is_none() && !args.credentials.may_change() {
            return Err(wrong(NO_PASSWORD));
        }
        Ok(settings)
    }

    fn of(url: &BackendUrl, options: &Options) -> Result<Self> {
        let encryption = encryption(url, options)?;
        let target = target(url, options)?;
        let database = database(url, options)?;
        let wait = options.integer("wait")?;
        let eviction = match options.boolean("allow_eviction")? {
            Some(true) => Eviction::Allowed,
            Some(false) | None => Eviction::Refused,
        };
        Ok(Settings { target, database, encryption, wait, eviction })
    }

    /// How many replicas have to have what counts.
    pub(crate) fn confirmation(&self) -> Confirmation {
        match self.wait {
            Some(0) => Confirmation::None,
            Some(replicas) => Confirmation::Replicas(replicas),
            None if self.is_watched_by_sentinels() => Confirmation::Majority,
            None => Confirmation::None,
        }
    }

    /// Whether grants and beats have to be confirmed by replicas, if there are any.
    pub(crate) fn confirms(&self) -> bool {
        self.confirmation() != Confirmation::None
    }

    pub(crate) fn is_watched_by_sentinels(&self) -> bool {
        matches!(self.target, Target::Sentinel(_))
    }
}

fn wrong(why: impl fmt::Display) -> Error {
    Error::config(format!("{why}; {FORMS}"))
}

fn encryption(url: &BackendUrl, options: &Options) -> Result<Encryption> {
    if url.scheme() != "rediss" {
        return match ["ca", "cert", "key"].iter().find(|name| options.text(name).is_some()) {
            Some(name) => Err(wrong(format_args!("{name} is for rediss:// alone"))),
            None => Ok(Encryption::None),
        };
    }
    if !cfg!(feature = "tls") {
        return Err(Error::config(
            "rediss:// needs TLS, which this program was built without: enable feature \"tls\" of tooz or tooz-redis",
        ));
    }
    CertificateFiles::named(options).map(Encryption::Tls)
}

fn target(url: &BackendUrl, options: &Options) -> Result<Target> {
    let sentinel_only = ["sentinel_user", "sentinel_password", "sentinel_password_file"]
        .iter()
        .find(|name| options.text(name).is_some());
    if let (Some(option), None) = (sentinel_only, options.text("sentinel")) {
        return Err(wrong(format_args!("{option} needs sentinel=NAME beside it")));
    }
    if url.scheme() == "redis+unix" {
        if options.text("sentinel").is_some() {
            return Err(wrong("Sentinels have no Unix sockets"));
        }
        return match (url.hosts(), url.path()) {
            ([], path) if path.len() > 1 => Ok(Target::Socket(path.into())),
            ([], _) => Err(wrong("redis+unix: needs the path of the socket")),
            _ => Err(wrong("a socket has no host: write three slashes, redis+unix:///path")),
        };
    }
    match (options.text("sentinel"), url.hosts()) {
        (Some(""), _) => Err(wrong("sentinel= needs the name under which the Sentinels know the primary")),
        (Some(primary), hosts) => {
            let hosts = hosts.iter().map(|host| address(host, 26379));
            let mut addresses: Vec<_> = hosts.collect();
            if addresses.is_empty() {
                addresses.push(Address { host: "127.0.0.1".to_owned(), port: 26379 });
            }
            let username = options.text("sentinel_user").map(str::to_owned);
            let password = match (options.text("sentinel_password"), options.text("sentinel_password_file")) {
                (Some(_), Some(_)) => {
                    return Err(wrong("sentinel_password and sentinel_password_file at once: give one of them"));
                }
                (None, Some("")) => return Err(wrong("sentinel_password_file is empty: it names a file")),
                (None, Some(path)) => SentinelPassword::File(path.into()),
                (Some(password), None) => SentinelPassword::Given(password.to_owned()),
                (None, None) if username.is_some() => {
                    return Err(wrong("sentinel_user without a password can't log in: add sentinel_password"));
                }
                (None, None) => SentinelPassword::None,
            };
            Ok(Target::Sentinel(Sentinels { addresses, primary: primary.to_owned(), username, password }))
        }
        (None, []) => Ok(Target::Server(Address { host: "127.0.0.1".to_owned(), port: 6379 })),
        (None, [host]) => Ok(Target::Server(address(host, 6379))),
        (None, _) => Err(wrong(
            "several hosts are Sentinels, and need sentinel=NAME; Redis Cluster and client-side fail-over are not supported",
        )),
    }
}

fn address(host: &Host, port: u16) -> Address {
    Address { host: host.name.clone(), port: host.port.unwrap_or(port) }
}

fn database(url: &BackendUrl, options: &Options) -> Result<u8> {
    let from_path = match url.path().trim_start_matches('/') {
        _ if url.scheme() == "redis+unix" => None,
        "" => None,
        path => Some(
            path.parse::<u8>()
                .map_err(|_| wrong(format_args!("the path is a database number from 0 to 255, and not {path:?}")))?,
        ),
    };
    let from_option = match options.integer("db")? {
        Some(number) => Some(
            u8::try_from(number).map_err(|_| wrong(format_args!("db is a number from 0 to 255, and not {number}")))?,
        ),
        None => None,
    };
    match (from_path, from_option) {
        (Some(path), Some(option)) if path != option => Err(wrong("the path and db= name two databases")),
        (path, option) => Ok(path.or(option).unwrap_or(0)),
    }
}

/// `host:port`, with brackets around an IPv6 address.
impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        Host { name: self.host.clone(), port: Some(self.port) }.fmt(formatter)
    }
}

/// Where it is, without any credentials.
impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Server(address) => address.fmt(formatter),
            Target::Socket(path) => path.display().fmt(formatter),
            Target::Sentinel(sentinels) => {
                write!(formatter, "{:?} of the Sentinels", sentinels.primary)?;
                sentinels.addresses.iter().try_for_each(|address| write!(formatter, " {address}"))
            }
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

    /// Reads the options as the driver does, and goes no further: the error of kind `Backend` says where it would connect.
    static CARD: Driver = Driver::new("redis", &["redis", "rediss", "redis+unix"], read_only).options(OPTIONS);

    fn read_only(args: ConnectArgs) -> ConnectFuture {
        Box::pin(async move {
            let settings = Settings::read(&args)?;
            Err::<Arc<dyn Session>, _>(Error::new(ErrorKind::Backend, format!("read: {}", settings.target)))
        })
    }

    fn read(url: &str) -> Option<Error> {
        let connect = ConnectOptions::new(url).ok()?.driver(&CARD).member("m").ok()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Some(runtime.block_on(connect.connect()).unwrap_err())
    }

    #[test]
    fn sentinels_are_asked_where_the_primary_has_a_name() {
        let error = read("redis://h1,h2:1/3?sentinel=main").unwrap().to_string();
        assert!(error.contains("\"main\" of the Sentinels h1:26379 h2:1"), "{error}");
        let error = read("redis://h1,h2").unwrap();
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains("sentinel=NAME"), "{error}");
    }

    proptest! {
        #[test]
        fn each_url_is_read_or_refused(
            text: String,
            hosts in "[a-z0-9.:,\\[\\]%@-]{0,40}",
            rest in "(/[a-z0-9/%.]{0,8})?(\\?(db|sentinel|sentinel_user|replicas|ca)=[a-z0-9%]{0,4})?",
        ) {
            for url in [text, format!("redis://{hosts}{rest}"), format!("rediss://{hosts}{rest}"), format!("redis+unix://{rest}")] {
                let Some(error) = read(&url) else { continue };
                prop_assert!(matches!(error.kind(), ErrorKind::Backend | ErrorKind::Config), "{url}: {error}");
            }
        }
    }
}
