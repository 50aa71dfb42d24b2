//! From a URL to typed options: everything is read here, what is left over is an error that lists what would be right.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use url::Url;

use crate::{Error, Result};

/// What kind of value an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OptionValue {
    /// A duration as humans write it: `500ms`, `10s`, `2m`.
    Duration,
    /// Any text.
    Text,
    /// Text that is never shown: a token, a password.
    Secret,
    /// `true` or `false`.
    Boolean,
    /// A whole number from 0 on.
    Integer,
}

impl OptionValue {
    /// The kind in words, for help texts.
    pub const fn name(self) -> &'static str {
        match self {
            OptionValue::Duration => "duration",
            OptionValue::Text => "text",
            OptionValue::Secret => "secret",
            OptionValue::Boolean => "true|false",
            OptionValue::Integer => "number",
        }
    }
}

/// One option that a driver understands in its URL's query.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct OptionSpec {
    /// The name in the query.
    pub name: &'static str,
    /// What it takes.
    pub value: OptionValue,
    /// What holds when it is not given, in words.
    pub default: &'static str,
    /// What it does, in half a sentence.
    pub about: &'static str,
}

impl OptionSpec {
    /// Describes an option.
    pub const fn new(name: &'static str, value: OptionValue, default: &'static str, about: &'static str) -> Self {
        OptionSpec { name, value, default, about }
    }
}

/// The options that every driver understands; core reads them.
pub const COMMON_OPTIONS: &[OptionSpec] = &[
    OptionSpec::new("namespace", OptionValue::Text, "tooz", "the part of the backend to keep to"),
    OptionSpec::new(
        "session_timeout",
        OptionValue::Duration,
        "10s",
        "after this long without a heartbeat the session ends",
    ),
    OptionSpec::new("connect_timeout", OptionValue::Duration, "5s", "how long connecting may take"),
    OptionSpec::new("operation_timeout", OptionValue::Duration, "5s", "how long one request may take"),
    OptionSpec::new(
        "stall_timeout",
        OptionValue::Duration,
        "off",
        "stop beating when the application's runtime is stuck for this long",
    ),
];

/// A host of the URL's authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// A name, an IPv4 address, or an IPv6 address without its brackets.
    pub name: String,
    /// The port, where one was given.
    pub port: Option<u16>,
}

/// `name:port`, with brackets around an IPv6 address.
impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            write!(formatter, "[{}]", self.name)?;
        } else {
            formatter.write_str(&self.name)?;
        }
        match self.port {
            Some(port) => write!(formatter, ":{port}"),
            None => Ok(()),
        }
    }
}

/// A backend URL, taken apart: `scheme://user:password@host1:1,host2:2/path?option=value`.
///
/// Its `Debug` and `Display` never show the password or an option.
#[derive(Clone, PartialEq, Eq)]
pub struct BackendUrl {
    scheme: String,
    username: Option<String>,
    password: Option<String>,
    hosts: Vec<Host>,
    path: String,
    options: BTreeMap<String, String>,
}

impl BackendUrl {
    /// Takes a URL apart. Errors never repeat what might be a password.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |why: &dyn fmt::Display| {
            Error::config(format!(
                "the URL {:?} can't be read: {why}; it looks like scheme://user:password@host1:port,host2:port/path?option=value",
                redact(text)
            ))
        };
        if text.trim() != text || text.chars().any(char::is_control) {
            return Err(wrong(&"it has white space or control characters around or in it"));
        }
        let (scheme, rest) = text.split_once(':').ok_or_else(|| wrong(&"it has no scheme"))?;
        // The `url` crate takes `file:x` for `/x`; nobody who writes that means the root of the disk.
        if !rest.is_empty() && !rest.starts_with(['/', '?']) {
            return Err(wrong(&format!("after {scheme}: comes // or / (a path is absolute)")));
        }
        // Several hosts are no URL in the eyes of the standard: each is parsed with a URL of its own.
        let (authority, tail) = match rest.strip_prefix("//") {
            Some(after) => after.split_at(after.find(['/', '?', '#']).unwrap_or(after.len())),
            None => ("", rest),
        };
        let (userinfo, host_list) = match authority.rsplit_once('@') {
            Some((userinfo, hosts)) => (Some(userinfo), hosts),
            None => (None, authority),
        };
        let mut hosts = Vec::new();
        for host in host_list.split(',').filter(|_| !host_list.is_empty()) {
            hosts.push(parse_host(host).map_err(|why| {
                if tail.contains('@') {
                    // What looks like a host may be the beginning of a password: it is not shown.
                    wrong(&"in a user or password, / ? # and @ are written as %2F %3F %23 and %40")
                } else {
                    wrong(&why)
                }
            })?);
        }
        // A scheme of our own keeps the standard's special rules for `file` and `http` out of this.
        let parsed =
            Url::parse(&format!("tooz:{}", if tail.is_empty() { "/" } else { tail })).map_err(|why| wrong(&why))?;
        if parsed.fragment().is_some() {
            return Err(wrong(&"a # begins a fragment, which means nothing here; write it as %23"));
        }
        let mut options = BTreeMap::new();
        for (name, value) in parsed.query_pairs() {
            if options.insert(name.to_string(), value.to_string()).is_some() {
                return Err(wrong(&format!("option {name} is given twice")));
            }
        }
        let (username, password) = match userinfo.map(|user| user.split_once(':').unwrap_or((user, ""))) {
            None => (None, None),
            Some((user, password)) => (
                Some(decode(user).map_err(|why| wrong(&why))?).filter(|user| !user.is_empty()),
                Some(decode(password).map_err(|why| wrong(&why))?).filter(|password| !password.is_empty()),
            ),
        };
        let scheme = scheme.to_ascii_lowercase();
        if scheme.is_empty() || !scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)) {
            return Err(wrong(&"its scheme has letters that a scheme can't have"));
        }
        let path =
            if tail.starts_with('/') { decode(parsed.path()).map_err(|why| wrong(&why))? } else { String::new() };
        Ok(BackendUrl { scheme, username, password, hosts, path, options })
    }

    /// The scheme, in lower case.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The user, decoded.
    pub fn username(&self) -> Option<&str> {
        self.username.as_deref()
    }

    /// The password, decoded. Show it to nobody but the server.
    pub fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// The hosts of the authority, in the order given.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The path, decoded: empty, or with its leading slash.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn set_option(&mut self, name: &str, value: String) {
        self.options.insert(name.to_owned(), value);
    }

    /// Checks names and values against what the driver understands.
    pub(crate) fn options(&self, driver: &'static str, specs: &'static [OptionSpec]) -> Result<Options> {
        let options = Options { given: self.options.clone(), specs, driver };
        for name in self.options.keys() {
            options.check(name)?;
        }
        Ok(options)
    }
}

/// Without user, password and options.
impl fmt::Display for BackendUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:", self.scheme)?;
        if !self.hosts.is_empty() {
            formatter.write_str("//")?;
        }
        for (index, host) in self.hosts.iter().enumerate() {
            if index > 0 {
                formatter.write_str(",")?;
            }
            write!(formatter, "{host}")?;
        }
        formatter.write_str(&self.path)
    }
}

impl fmt::Debug for BackendUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "BackendUrl({self})")
    }
}

/// The options of a URL, checked against the driver's card, read by type.
#[derive(Clone)]
pub struct Options {
    given: BTreeMap<String, String>,
    specs: &'static [OptionSpec],
    driver: &'static str,
}

impl Options {
    /// A duration, where one was given.
    pub fn duration(&self, name: &str) -> Result<Option<Duration>> {
        self.read(name, "a duration such as 500ms, 10s or 2m", |text| humantime::parse_duration(text).ok())
    }

    /// A text, where one was given.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.given.get(name).map(String::as_str)
    }

    /// `true` or `false`, where one was given.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>> {
        self.read(name, "true or false", |text| text.parse().ok())
    }

    /// A whole number, where one was given.
    pub fn integer(&self, name: &str) -> Result<Option<u64>> {
        self.read(name, "a whole number from 0 on", |text| text.parse().ok())
    }

    /// Whether the driver has an option of that name.
    pub(crate) fn knows(&self, name: &str) -> bool {
        self.specs.iter().any(|spec| spec.name == name)
    }

    fn read<T>(&self, name: &str, wanted: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>> {
        match self.given.get(name) {
            None => Ok(None),
            Some(text) => parse(text).map(Some).ok_or_else(|| {
                Error::config(format!("option {name}={text:?} is wrong: it takes {wanted}")).in_driver(self.driver)
            }),
        }
    }

    fn check(&self, name: &str) -> Result<()> {
        let all = || COMMON_OPTIONS.iter().chain(self.specs);
        let Some(spec) = all().find(|spec| spec.name == name) else {
            let valid: Vec<_> = all().map(|spec| spec.name).collect();
            return Err(Error::config(format!("option {name:?} is unknown; the valid ones are {}", valid.join(", ")))
                .in_driver(self.driver));
        };
        match spec.value {
            OptionValue::Duration => self.duration(name).map(drop),
            OptionValue::Boolean => self.boolean(name).map(drop),
            OptionValue::Integer => self.integer(name).map(drop),
            OptionValue::Text | OptionValue::Secret => Ok(()),
        }
    }
}

/// Names alone: a value may be a secret.
impl fmt::Debug for Options {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.given.keys()).finish()
    }
}

/// A URL as it may be shown: nothing of what stands before the last `@`, nothing of the options.
pub(crate) fn redact(text: &str) -> String {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), text),
    };
    let shown = match rest.rsplit_once('@') {
        Some((_, after)) => format!("***@{after}"),
        None => rest.to_owned(),
    };
    match shown.split_once('?') {
        Some((before, _)) => format!("{scheme}{before}?…"),
        None => format!("{scheme}{shown}"),
    }
}

fn parse_host(text: &str) -> Result<Host, String> {
    if text.is_empty() {
        return Err("there is an empty host in its list".to_owned());
    }
    let wrong = |why: url::ParseError| format!("host {text:?} is wrong: {why}");
    let parsed = Url::parse(&format!("tooz://{text}")).map_err(wrong)?;
    let name = match parsed.host() {
        Some(url::Host::Ipv6(address)) => address.to_string(),
        Some(host) => decode(&host.to_string())?,
        None => return Err(format!("host {text:?} has no name")),
    };
    Ok(Host { name, port: parsed.port() })
}

fn decode(text: &str) -> Result<String, String> {
    percent_decode_str(text)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| "a %-escape in it is no UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_hosts_user_and_options_are_taken_apart() {
        let url = BackendUrl::parse("redis://bob:s%40cret@h1:6379,[::1]:7,h3/2?namespace=a%20b").unwrap();
        assert_eq!(url.username(), Some("bob"));
        assert_eq!(url.password(), Some("s@cret"));
        assert_eq!(url.to_string(), "redis://h1:6379,[::1]:7,h3/2");
        assert_eq!(url.options("redis", &[]).unwrap().text("namespace"), Some("a b"));
        let bare = BackendUrl::parse("file:").unwrap();
        assert_eq!((bare.hosts().len(), bare.path()), (0, ""));
        assert_eq!(BackendUrl::parse("file:///tmp/x%20y").unwrap().path(), "/tmp/x y");
        assert_eq!(BackendUrl::parse("memory://Name_1").unwrap().hosts()[0].name, "Name_1");
    }

    #[test]
    fn a_password_is_never_shown() {
        for text in
            ["redis://u:hunter2@h:99999", "redis://u:hunter2/x@h", "redis://u:hunter2@h?x=1#y", "redis//u:hunter2@h"]
        {
            let error = BackendUrl::parse(text).map_or_else(|error| error, |url| url.options("d", &[]).unwrap_err());
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        let url = BackendUrl::parse("redis://u:hunter2@h/0").unwrap();
        assert!(!format!("{url:?} {url}").contains("hunter2"));
    }

    #[test]
    fn wrong_options_are_told_with_what_would_be_right() {
        let error = |text: &str| BackendUrl::parse(text).unwrap().options("d", &[]).unwrap_err().to_string();
        assert!(error("d://h?nmespace=x").contains("namespace"));
        assert!(error("d://h?session_timeout=soon").contains("500ms"));
        assert!(BackendUrl::parse("file:relative").unwrap_err().to_string().contains("absolute"));
        assert!(BackendUrl::parse("d://h?a=1&a=2").unwrap_err().to_string().contains("twice"));
    }
}
