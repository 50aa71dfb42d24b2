//! From the URL and its options to what the driver connects to.

use std::fmt;
use std::time::Duration;

use tooz_core::{BackendUrl, ConnectArgs, Error, OptionSpec, OptionValue, Options, Result};
use zookeeper_client::Acls;

use crate::tls::Tls;

/// The options beside the common ones.
pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(
        "acl",
        OptionValue::Text,
        "creator with a user and password, else open",
        "who may touch the nodes that are made: creator (the same user) or open (everybody)",
    ),
    OptionSpec::new(
        "ca",
        OptionValue::Text,
        "the system's authorities",
        "PEM file of the authorities that may vouch for the servers (TLS)",
    ),
    OptionSpec::new("cert", OptionValue::Text, "none", "PEM file of the client's own certificate (TLS; with key)"),
    OptionSpec::new("key", OptionValue::Text, "none", "PEM file of the key to that certificate (TLS; with cert)"),
    OptionSpec::new(
        "tick_time",
        OptionValue::Duration,
        "2s, or half the session timeout if that is less",
        "the servers' tickTime, where it is not ZooKeeper's usual 2 s: the margin of the session depends on it",
    ),
];

/// The ports that ZooKeeper listens on for clients: `clientPort`, and by TLS `secureClientPort`.
const PORT: u16 = 2181;
const SECURE_PORT: u16 = 2281;
/// What the samples of ZooKeeper's configuration set.
const USUAL_TICK: Duration = Duration::from_secs(2);

/// Everything that the URL says.
#[derive(Clone)]
pub(crate) struct Settings {
    /// `name:port`, an IPv6 address in brackets.
    pub(crate) hosts: Vec<String>,
    /// Empty, or an absolute path without a slash at its end.
    pub(crate) chroot: String,
    /// `user:password`, as the digest scheme takes it.
    pub(crate) credentials: Option<String>,
    pub(crate) access: Access,
    pub(crate) tls: Option<Tls>,
    tick: Option<Duration>,
}

/// Who may touch what is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Open,
    Creator,
}

impl Access {
    pub(crate) fn acls(self) -> Acls<'static> {
        match self {
            Access::Open => Acls::anyone_all(),
            Access::Creator => Acls::creator_all(),
        }
    }
}

impl Settings {
    pub(crate) fn read(args: &ConnectArgs) -> Result<Self> {
        Self::of(&args.url, &args.options)
    }

    fn of(url: &BackendUrl, options: &Options) -> Result<Self> {
        let credentials = credentials(url)?;
        let access = match (options.text("acl"), &credentials) {
            (None | Some("creator"), Some(_)) => Access::Creator,
            (None, None) | (Some("open"), _) => Access::Open,
            (Some("creator"), None) => {
                return Err(wrong("acl=creator needs to know the creator: give user:password@ before the host"));
            }
            (Some(other), _) => return Err(wrong(format!("acl={other:?} is neither creator nor open"))),
        };
        let tick = options.duration("tick_time")?;
        if tick.is_some_and(|tick| tick.is_zero()) {
            return Err(wrong("tick_time must be longer than zero"));
        }
        let with_tls = url.scheme().ends_with("+tls");
        let tls = if with_tls { Some(Tls::read(options)?) } else { None };
        if let Some(name) = ["ca", "cert", "key"].iter().find(|name| !with_tls && options.text(name).is_some()) {
            return Err(Error::config(format!(
                "option {name} is about TLS, but the URL is without: write zookeeper+tls://…, or leave it out"
            )));
        }
        let port = if with_tls { SECURE_PORT } else { PORT };
        Ok(Settings { hosts: hosts(url, port)?, chroot: chroot(url.path())?, credentials, access, tls, tick })
    }

    /// The servers' tick, as well as it can be known: no session is shorter than two ticks unless the server is told so.
    pub(crate) fn tick(&self, negotiated: Duration) -> Duration {
        self.tick.unwrap_or_else(|| USUAL_TICK.min(negotiated / 2))
    }
}

fn wrong(why: impl fmt::Display) -> Error {
    Error::config(format!("{why}; the URL is zookeeper://user:password@host1:2181,host2:2181/chroot"))
}

fn hosts(url: &BackendUrl, port: u16) -> Result<Vec<String>> {
    if url.hosts().is_empty() {
        return Err(wrong("it names no host"));
    }
    let mut hosts = Vec::new();
    for host in url.hosts() {
        if host.name.is_empty() {
            return Err(wrong("one of its hosts has no name"));
        }
        let mut host = host.clone();
        host.port.get_or_insert(port);
        if host.port == Some(0) {
            return Err(wrong(format!("{} has no port that anybody listens on", host.name)));
        }
        hosts.push(host.to_string());
    }
    Ok(hosts)
}

fn credentials(url: &BackendUrl) -> Result<Option<String>> {
    match (url.username(), url.password()) {
        (None, None) => Ok(None),
        (Some(user), Some(_)) if user.contains(':') => {
            Err(wrong("a user of ZooKeeper's digest scheme has no colon in its name"))
        }
        (Some(user), Some(password)) => Ok(Some(format!("{user}:{password}"))),
        _ => Err(wrong("ZooKeeper's digest scheme takes a user and a password")),
    }
}

/// Takes only what ZooKeeper takes for a path, so that a bad one fails here and not at the first node.
fn chroot(path: &str) -> Result<String> {
    let chroot = path.strip_suffix('/').unwrap_or(path);
    if chroot.is_empty() {
        return Ok(String::new());
    }
    for part in chroot.split('/').skip(1) {
        if part.is_empty() || part == "." || part == ".." || part.chars().any(char::is_control) {
            return Err(wrong(format!(
                "the chroot {path:?} has a part {part:?}, which no node of ZooKeeper can be named"
            )));
        }
    }
    if chroot == "/zookeeper" || chroot.starts_with("/zookeeper/") {
        return Err(wrong("/zookeeper is ZooKeeper's own: choose another chroot"));
    }
    Ok(chroot.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts_of(text: &str) -> Result<Vec<String>> {
        hosts(&BackendUrl::parse(text).unwrap(), PORT)
    }

    #[test]
    fn hosts_get_the_usual_port() {
        assert_eq!(hosts_of("zookeeper://a,b:1,[::1]").unwrap(), ["a:2181", "b:1", "[::1]:2181"]);
        assert!(hosts_of("zookeeper:///chroot").unwrap_err().to_string().contains("no host"));
    }

    #[test]
    fn a_chroot_is_a_path_of_nodes() {
        for (path, wanted) in [("", ""), ("/", ""), ("/a", "/a"), ("/a/b/", "/a/b")] {
            assert_eq!(chroot(path).unwrap(), wanted);
        }
        for bad in ["/a//b", "/..", "/a/./b", "/zookeeper", "/zookeeper/quota"] {
            assert!(chroot(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn credentials_come_in_pairs() {
        let of = |text: &str| credentials(&BackendUrl::parse(text).unwrap());
        assert_eq!(of("zookeeper://h").unwrap(), None);
        assert_eq!(of("zookeeper://u:p%3Aq@h").unwrap(), Some("u:p:q".to_owned()));
        assert!(of("zookeeper://u@h").is_err());
    }
}
