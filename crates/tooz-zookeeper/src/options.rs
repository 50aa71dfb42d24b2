//! From the URL and its options to what the driver connects to.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use tooz_core::driver::{BackendUrl, ConnectArgs, OptionSpec, OptionValue, Options, PASSWORD_FILE};
use tooz_core::{Error, Result};

use crate::tls::Certificates;

/// The options beside the common ones.
pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(
        "acl",
        OptionValue::Text,
        "creator with a user and password, else open",
        "who may touch the nodes that are made: creator (the same user) or open (every user)",
    ),
    OptionSpec::new(
        "ca",
        OptionValue::Text,
        "the system's authorities",
        "PEM file of the authorities that may vouch for the servers (TLS); read again at each connection",
    ),
    OptionSpec::new(
        "cert",
        OptionValue::Text,
        "none",
        "PEM file of the client's own certificate (TLS; with key); read again at each connection",
    ),
    OptionSpec::new("key", OptionValue::Text, "none", "PEM file of the key to that certificate (TLS; with cert)"),
    OptionSpec::new(
        "jute_maxbuffer",
        OptionValue::Integer,
        "1048575",
        "the servers' jute.maxbuffer in bytes, where it is not ZooKeeper's usual one: how much a session may hold depends on it",
    ),
    PASSWORD_FILE,
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
/// The longest packet that a server takes, unless told so.
const USUAL_BUFFER: u64 = 1_048_575;
/// Below the first even the driver's own small requests would not fit; a server counts up to the second.
const BUFFERS: RangeInclusive<u64> = 16 * 1024..=0x7fff_ffff;

/// Everything that the URL says.
#[derive(Clone)]
pub(crate) struct Settings {
    /// `name:port`, an IPv6 address in brackets.
    pub(crate) hosts: Vec<String>,
    /// Empty, or an absolute path without a slash at its end.
    pub(crate) chroot: String,
    pub(crate) access: Access,
    pub(crate) certificates: Option<Certificates>,
    tick: Option<Duration>,
    buffer: usize,
}

/// Who may touch the nodes that are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Open,
    Creator,
}

impl Settings {
    /// `identity` is what the first connection logs in with.
    pub(crate) fn read(args: &ConnectArgs, identity: Option<&String>) -> Result<Self> {
        Self::of(&args.url, &args.options, identity)
    }

    fn of(url: &BackendUrl, options: &Options, identity: Option<&String>) -> Result<Self> {
        let access = match (options.text("acl"), identity) {
            (None | Some("creator"), Some(_)) => Access::Creator,
            (None, None) | (Some("open"), _) => Access::Open,
            (Some("creator"), None) => {
                return Err(wrong("acl=creator needs to know the creator: give user:password@ before the host"));
            }
            (Some(other), _) => return Err(wrong(format!("acl={other:?} is neither creator nor open"))),
        };
        let buffer = options.integer("jute_maxbuffer")?.unwrap_or(USUAL_BUFFER);
        if !BUFFERS.contains(&buffer) {
            return Err(Error::config(format!(
                "option jute_maxbuffer={buffer} can't be that of a server: it is in bytes, from {} to {}",
                BUFFERS.start(),
                BUFFERS.end()
            )));
        }
        let tick = options.duration("tick_time")?;
        if tick.is_some_and(|tick| tick.is_zero()) {
            return Err(wrong("tick_time must be longer than zero"));
        }
        let with_tls = url.scheme().ends_with("+tls");
        let certificates = if with_tls { Some(Certificates::named(options)?) } else { None };
        if let Some(name) = ["ca", "cert", "key"].iter().find(|name| !with_tls && options.text(name).is_some()) {
            return Err(Error::config(format!(
                "option {name} is about TLS, but the URL is without: write zookeeper+tls://…, or leave it out"
            )));
        }
        let port = if with_tls { SECURE_PORT } else { PORT };
        Ok(Settings {
            hosts: hosts(url, port)?,
            chroot: chroot(url.path())?,
            access,
            certificates,
            tick,
            buffer: usize::try_from(buffer).unwrap_or(usize::MAX),
        })
    }

    /// The servers' tick, as well as it can be known: no session is shorter than two ticks unless the server is told so. A server that
    /// makes the timeout longer than was asked for makes it the shortest that it allows, so that its tick may be half of that.
    pub(crate) fn tick(&self, asked: Duration, negotiated: Duration) -> Duration {
        let longest = negotiated / 2;
        self.tick.unwrap_or(if negotiated > asked { longest } else { USUAL_TICK.min(longest) })
    }

    /// The most that the paths of all nodes of a session may take: three quarters of what the servers can read (`jute.maxbuffer`, and as
    /// much again for what goes from server to server).
    pub(crate) fn heaviest_session(&self) -> usize {
        self.buffer.saturating_add(self.buffer / 2)
    }

    /// The most that is put into one node, with room for the request around it: what is larger, the server answers by hanging up.
    pub(crate) fn largest_node(&self) -> usize {
        self.buffer - self.buffer / 20
    }

    pub(crate) fn buffer(&self) -> usize {
        self.buffer
    }
}

pub(crate) fn wrong(why: impl fmt::Display) -> Error {
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
            return Err(wrong(format!("{} has no port that a server listens on", host.name)));
        }
        hosts.push(host.to_string());
    }
    Ok(hosts)
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
    use proptest::prelude::*;

    use super::*;

    fn hosts_of(text: &str) -> Result<Vec<String>> {
        hosts(&BackendUrl::parse(text)?, PORT)
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

    proptest! {
        #[test]
        fn a_path_is_refused_or_names_nodes(path: String) {
            if let Ok(chroot) = chroot(&path) {
                prop_assert!(chroot.is_empty() || !chroot.ends_with('/') && !chroot.contains("//"));
                prop_assert_eq!(super::chroot(&chroot).unwrap(), chroot);
            }
        }

        #[test]
        fn a_url_is_refused_or_names_hosts_with_ports(rest in ".{0,40}") {
            if let Ok(hosts) = hosts_of(&format!("zookeeper://{rest}")) {
                for host in hosts {
                    let port = host.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
                    prop_assert!(port.is_some_and(|port| port > 0), "{}", host);
                }
            }
        }
    }
}
