//! What a suite of many cases needs of servers: one for all, one for a case that restarts it, and ways to it that can be cut.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::OnceLock;

use crate::faults::proxy::Proxy;
use crate::provision::kind::Kind;
use crate::server::Server;

/// The servers and proxies of one suite, in which each case has a namespace.
///
/// Nothing is started before it is asked for, so that listing the cases starts nothing. Made for tests: what can't be started
/// or restarted panics.
#[derive(Debug)]
pub struct Bed {
    kind: Kind,
    options: &'static str,
    shared: OnceLock<Server>,
    own: Mutex<HashMap<String, Server>>,
    proxies: Mutex<HashMap<(String, String), Proxy>>,
}

impl Bed {
    /// A bed for servers of that kind. `options` stand at the end of every URL: `""`, or `"&tick_time=250ms"` and the like.
    pub fn new(kind: Kind, options: &'static str) -> Self {
        Bed { kind, options, shared: OnceLock::new(), own: Mutex::default(), proxies: Mutex::default() }
    }

    /// The server of all cases.
    pub fn shared(&self) -> &Server {
        self.shared.get_or_init(|| self.start())
    }

    /// The URL of a case on the server of all cases.
    pub fn url(&self, tag: &str) -> String {
        self.url_on(self.shared(), tag)
    }

    /// The URL of a case on a server that it has for itself.
    pub fn own(&self, tag: &str) -> String {
        let server = self.start();
        let url = self.url_on(&server, tag);
        self.own.lock().insert(url.clone(), server);
        url
    }

    /// Restarts the server that the case with that URL has for itself, its data kept.
    pub fn restart(&self, url: &str) {
        self.own.lock().get(url).expect("a server of its own").restart().expect("the server can be restarted");
    }

    /// The proxy by which that member of the case with that URL reaches the server of all cases.
    pub fn proxy(&self, url: &str, member: &str) -> Proxy {
        let place = (url.to_owned(), member.to_owned());
        let start = || Proxy::start(self.shared().address()).expect("a proxy can be started");
        self.proxies.lock().entry(place).or_insert_with(start).clone()
    }

    /// The URL of the case, by way of that member's proxy.
    pub fn path(&self, url: &str, member: &str) -> String {
        url.replace(&self.shared().address().to_string(), &self.proxy(url, member).address().to_string())
    }

    fn start(&self) -> Server {
        Server::start(self.kind).unwrap_or_else(|error| panic!("a server of kind {} starts: {error:#}", self.kind))
    }

    fn url_on(&self, server: &Server, tag: &str) -> String {
        in_namespace(&server.url(), tag) + self.options
    }
}

/// The URL with a namespace of that name.
pub fn in_namespace(url: &str, namespace: &str) -> String {
    let mark = if url.contains('?') { '&' } else { '?' };
    format!("{url}{mark}namespace={namespace}")
}

/// The namespace in such a URL.
pub fn namespace_of(url: &str) -> &str {
    url.split_once("namespace=").map_or("", |(_, rest)| rest.split('&').next().unwrap_or(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_put_into_a_url_and_found_again() {
        assert_eq!(in_namespace("redis://h:1/0", "a"), "redis://h:1/0?namespace=a");
        assert_eq!(in_namespace("redis://h:1?db=1", "a"), "redis://h:1?db=1&namespace=a");
        assert_eq!(namespace_of("redis://h:1?db=1&namespace=a&x=1"), "a");
    }
}
