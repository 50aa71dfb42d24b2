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
    use super::*;

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
