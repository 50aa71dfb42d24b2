//! Which addresses a name has. A lock and the session that vouches for it have to be at one server, whichever address a member comes by.

use std::net::{IpAddr, SocketAddr};

use tokio::net::lookup_host;
use tooz_core::{Error, ErrorKind, Outcome, Result};

use crate::error::unreached;
use crate::options::Target;

/// The addresses of a name, in the order in which they are tried, each once. Several of one kind are several servers, as far as can be known before
/// anything is asked.
pub(crate) async fn addresses_of(name: &str, port: u16) -> Result<Vec<SocketAddr>> {
    let mut all = Vec::new();
    for address in lookup_host((name, port)).await.map_err(unreached)? {
        if !all.contains(&address) {
            all.push(address);
        }
    }
    if are_several(&all) { Err(several(name, &all)) } else { Ok(all) }
}

/// Whether there are two of one kind. What leads to this host may be several ways to one server, and so may an address of either kind.
fn are_several(all: &[SocketAddr]) -> bool {
    let count = |is_of_kind: fn(&IpAddr) -> bool| {
        all.iter().map(SocketAddr::ip).filter(|ip| !ip.is_loopback() && is_of_kind(ip)).count()
    };
    count(IpAddr::is_ipv4) > 1 || count(IpAddr::is_ipv6) > 1
}

/// One address leads to more than one server.
pub(crate) fn several_behind(target: &Target) -> Error {
    Error::config(format!(
        "behind {target} are several servers, and connections are spread over them (by a balancer, or a service of several pods): members that come to \
         different ones would hold one lock at once; name one server itself"
    ))
}

/// Whether that address leads to the same server can't be known just now.
pub(crate) fn unanswered(name: &str, address: SocketAddr) -> Error {
    let message = format!(
        "{address}, an address of {name}, takes connections and answers nothing: it may be another server, at which others hold locks; name one of the \
         addresses, or a name of one server"
    );
    Error::new(ErrorKind::Unavailable, message).with_outcome(Outcome::NotApplied)
}

/// The name leads to more than one server.
pub(crate) fn several(name: &str, all: &[SocketAddr]) -> Error {
    let all: Vec<_> = all.iter().map(ToString::to_string).collect();
    Error::config(format!(
        "{name} is the name of several servers ({}): members that come by different ones would hold one lock at once; name one of these addresses, or a \
         name of one server",
        all.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_several_servers_is_told_from_several_ways_to_one() {
        let are = |all: &[&str]| are_several(&all.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>());
        assert!(are(&["10.0.0.1:1", "10.0.0.2:1"]));
        assert!(are(&["[fd00::1]:1", "[fd00::2]:1"]));
        assert!(are(&["10.0.0.1:1", "[fd00::1]:1", "10.0.0.2:1"]));
        assert!(!are(&["10.0.0.1:1", "[fd00::1]:1"]));
        assert!(!are(&["[::1]:1", "127.0.0.1:1", "127.0.0.2:1", "10.0.0.1:1"]));
        assert!(!are(&[]));
    }

    #[test]
    fn the_error_names_the_addresses() {
        let all = ["10.0.0.1:1", "10.0.0.2:1"].map(|text| text.parse().unwrap());
        let said = several("cache", &all).to_string();
        assert!(said.contains("10.0.0.1:1, 10.0.0.2:1") && said.contains("name one"), "{said}");
    }
}
