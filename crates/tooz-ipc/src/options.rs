//! From the URL to a name, who may use it, and how much memory it has.

use nix::unistd::{Group, Uid};
use tooz_core::driver::{BackendUrl, ConnectArgs, Options};
use tooz_core::{Error, Result};

use crate::access::Users;

/// How many MiB a table has if the URL does not say. A container has 64 for all.
const SIZE: u64 = 8;
/// More would be more blocks than a table counts.
const LARGEST: u64 = 2048;

/// What a URL asks for.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) name: String,
    pub(crate) users: Users,
    /// In MiB.
    pub(crate) size: u64,
}

/// Reads what this driver's part of the connect arguments says.
pub(crate) fn read(args: &ConnectArgs) -> Result<Settings> {
    let size = args.options.integer("size")?.unwrap_or(SIZE);
    if !(1..=LARGEST).contains(&size) {
        return Err(Error::config(format!("size is a number of MiB from 1 to {LARGEST}, not {size}")));
    }
    Ok(Settings { name: name(&args.url)?, users: users(&args.options)?, size })
}

fn name(url: &BackendUrl) -> Result<String> {
    let wrong = |why: &str| Err(Error::config(format!("{why}; the URL is ipc://NAME")));
    if url.username().is_some() || url.password().is_some() {
        return wrong("shared memory takes no user and no password");
    }
    if !matches!(url.path(), "" | "/") {
        return wrong("shared memory has no paths");
    }
    match url.hosts() {
        [] => Ok("default".to_owned()),
        [host] if host.port.is_none() => Ok(host.name.clone()),
        [_] => wrong("shared memory has no ports"),
        _ => wrong("shared memory is of one host"),
    }
}

fn users(options: &Options) -> Result<Users> {
    match (options.text("mode"), options.text("group")) {
        (None | Some("600"), None) => Ok(Users::User(Uid::effective().as_raw())),
        (None | Some("660"), Some(group)) => group_id(group).map(Users::Group),
        (Some("660"), None) => Err(Error::config("mode=660 is for the members of a group: name it (group=NAME)")),
        (Some("666"), None) => Ok(Users::All),
        (Some("600" | "666"), Some(_)) => Err(Error::config("a group goes with mode=660, or with no mode")),
        (Some(other), _) => Err(Error::config(format!("mode is 600, 660 or 666, not {other:?}"))),
    }
}

fn group_id(group: &str) -> Result<u32> {
    match group.parse() {
        // To the system that number means: leave the group as it is.
        Ok(u32::MAX) => return Err(Error::config(format!("{group} is no group: the numbers of groups are below it"))),
        Ok(number) => return Ok(number),
        Err(_) => {}
    }
    match Group::from_name(group) {
        Ok(Some(found)) => Ok(found.gid.as_raw()),
        _ => Err(Error::config(format!(
            "this host has no group {group:?}: name one that `getent group` lists, or its number"
        ))),
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
    static CARD: Driver = Driver::new("ipc", &["ipc"], read_only).options(crate::OPTIONS);

    fn read_only(args: ConnectArgs) -> ConnectFuture {
        Box::pin(async move {
            read(&args)?;
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
            rest in "(/[a-z0-9/%.]{0,8})?(\\?(size|mode|group)=[a-z0-9%]{0,6})?",
        ) {
            for url in [text, format!("ipc://{hosts}{rest}"), format!("ipc:{rest}"), format!("ipc://me:pass-word@{hosts}{rest}")] {
                let Some(error) = refused(&url) else { continue };
                prop_assert!(matches!(error.kind(), ErrorKind::Backend | ErrorKind::Config), "{url}: {error}");
                prop_assert!(!error.to_string().contains("pass-word"), "{url}: {error}");
            }
        }
    }

    #[test]
    fn a_url_is_a_name_or_an_error_that_says_how_to_write_one() {
        let name = |text: &str| name(&BackendUrl::parse(text).unwrap());
        assert_eq!(name("ipc://billing").unwrap(), "billing");
        assert_eq!(name("ipc:").unwrap(), "default");
        for (text, words) in
            [("ipc://x/y", "paths"), ("ipc://x:1", "ports"), ("ipc://a,b", "one host"), ("ipc://me@x", "no user")]
        {
            let error = name(text).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("ipc://NAME"), "{error}");
        }
    }

    #[test]
    fn a_group_is_a_name_or_a_number() {
        assert_eq!(group_id("4711").unwrap(), 4711);
        assert_eq!(group_id("root").unwrap(), 0);
        assert!(group_id("4294967295").unwrap_err().to_string().contains("is no group"));
        assert!(group_id("no such group").unwrap_err().to_string().contains("getent group"));
    }
}
