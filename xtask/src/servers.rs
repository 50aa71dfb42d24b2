//! The servers that tests need: where each would come from, and getting hold of it before anything is timed.

use std::cell::Cell;
use std::env;

use anyhow::{Context, Result, bail};
use tooz_testbed::{Installation, Kind, Origin};

use crate::progress::Progress;

/// What allows a test program to start servers of its own.
const MAY_START: (&str, &str) = ("TOOZ_TESTBED", "1");

/// The backends that are parts of the machine itself.
pub(crate) const EMBEDDED: [&str; 3] = ["file", "ipc", "memory"];

/// The server of a backend; `None` for one that needs none.
pub(crate) fn server_of(backend: &str) -> Option<Kind> {
    backend.parse().ok()
}

/// What the tests of a backend have to find in their environment. A server of the user's own is named there already, and
/// comes before any that could be started.
pub(crate) fn environment(backend: &str) -> Option<(&'static str, &'static str)> {
    server_of(backend).map(|_| MAY_START)
}

/// The same for a version of the server.
pub(crate) fn setting_for(backend: &str, version: &str) -> Result<(&'static str, &'static str)> {
    let kind =
        server_of(backend).with_context(|| format!("{backend} needs no server, and so has no --server VERSION"))?;
    if is_users_own(kind) {
        bail!(
            "{} names a server of yours, which is of the version that it is: --server VERSION needs that unset",
            kind.env_var()
        );
    }
    tooz_testbed::setting_for(kind, version)
}

/// Fetches the server's programs where nothing has them yet: here, where it can be seen, and not silently in a test.
pub(crate) fn provide(kind: Kind, version: Option<&str>, progress: &Progress) -> Result<Installation> {
    let told = Cell::new(false);
    let tell = |text: &str| {
        // Once, so that the reader of a log knows what took so long.
        if told.replace(true) {
            progress.glimpse(text);
        } else {
            progress.announce(&format!("{kind} is not on this machine yet: it is fetched once, for all runs to come"));
        }
    };
    match version {
        Some(_) => tooz_testbed::provision_version(kind, version, &tell),
        None => tooz_testbed::provision(kind, &tell),
    }
}

/// The same for a backend, unless it needs no server or uses the user's own.
pub(crate) fn provide_for(backend: &str, version: Option<&str>, progress: &Progress) -> Result<()> {
    match server_of(backend) {
        Some(kind) if !is_users_own(kind) => provide(kind, version, progress).map(drop),
        _ => Ok(()),
    }
}

/// Fetches what these backends need, while something else is at work. What fails is tried again, and told, where the server is used.
pub(crate) fn provide_ahead<'a>(backends: impl Iterator<Item = &'a str>) {
    let kinds = backends.filter_map(server_of).filter(|kind| !is_users_own(*kind));
    for kind in kinds {
        let _ = tooz_testbed::provision(kind, &|_| {});
    }
}

/// In a few words: where the server of a backend would come from.
pub(crate) fn origin(backend: &str) -> String {
    if EMBEDDED.contains(&backend) {
        return "needs no server".to_owned();
    }
    let Some(kind) = server_of(backend) else {
        return "the testbed has no such server yet".to_owned();
    };
    if is_users_own(kind) {
        return format!("your own server, from {}", kind.env_var());
    }
    match tooz_testbed::at_hand(kind) {
        Ok(Some(installation)) => match installation.source() {
            Origin::Path => "this machine (PATH)".to_owned(),
            fetched => format!("target/testbed ({fetched})"),
        },
        Ok(None) => "would be fetched into target/testbed".to_owned(),
        Err(error) => format!("cannot be said: {error:#}"),
    }
}

fn is_users_own(kind: Kind) -> bool {
    env::var_os(kind.env_var()).is_some_and(|url| !url.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_needs_a_server_gets_one() {
        assert_eq!(server_of("memory"), None);
        assert_eq!(environment("memory"), None);
        assert_eq!(server_of("redis"), Some(Kind::Redis));
        assert_eq!(environment("redis"), Some(("TOOZ_TESTBED", "1")));
        assert_eq!(origin("memory"), "needs no server");
        assert!(EMBEDDED.iter().all(|backend| server_of(backend).is_none()));
    }
}
