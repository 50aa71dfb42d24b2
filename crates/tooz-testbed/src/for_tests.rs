//! How the tests of a driver come by a server, or by the words that say why they have none.

use std::env;

use crate::provision::kind::Kind;

/// The variable by which tests may start servers of their own.
const MAY_START: &str = "TOOZ_TESTBED";

/// What the tests of a driver may use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Provided {
    /// The user's own server, at the URL in [`Kind::env_var`]. It cannot be broken.
    Own(String),
    /// `TOOZ_TESTBED` is set: [`Server::start`](crate::Server::start) whatever is needed.
    MayStart,
    /// Nothing. The text says what to do, and fits the name of an ignored test.
    Missing(String),
}

impl Provided {
    /// Why trials that break servers can't run here; `None`: they can. A server that is in use is not stopped, filled or flushed.
    pub fn why_none_to_break(self, kind: Kind) -> Option<String> {
        match self {
            Provided::MayStart => None,
            Provided::Own(_) => {
                Some(format!("needs servers to break: cargo xtask itest {kind} without {}", kind.env_var()))
            }
            Provided::Missing(reason) => Some(reason),
        }
    }
}

/// Says what the tests of a driver may use. Starts nothing, so that `--list` can ask too.
///
/// In this order: the user's own server (`TOOZ_REDIS_URL`, …), servers of the testbed (`TOOZ_TESTBED=1`, as
/// `cargo xtask itest` sets it), nothing. An empty variable counts as none, and `TOOZ_TESTBED=0` as no.
pub fn for_tests(kind: Kind) -> Provided {
    let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    decide(kind, set(kind.env_var()), set(MAY_START).is_some_and(|value| value != "0"))
}

fn decide(kind: Kind, own: Option<String>, may_start: bool) -> Provided {
    match own {
        Some(url) => Provided::Own(url),
        None if may_start => Provided::MayStart,
        None => Provided::Missing(format!("needs a server of kind {kind}: cargo xtask itest {kind}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_own_server_comes_first() {
        let url = "redis://10.0.0.7:6379".to_owned();
        assert_eq!(decide(Kind::Redis, Some(url.clone()), true), Provided::Own(url));
        assert_eq!(decide(Kind::Redis, None, true), Provided::MayStart);
        let Provided::Missing(reason) = decide(Kind::Etcd, None, false) else { panic!("there is none") };
        assert!(reason.contains("cargo xtask itest etcd"), "{reason}");
        assert_eq!(Provided::MayStart.why_none_to_break(Kind::Redis), None);
        let why = Provided::Own(String::new()).why_none_to_break(Kind::Redis).unwrap();
        assert!(why.contains("TOOZ_REDIS_URL"), "{why}");
    }
}
