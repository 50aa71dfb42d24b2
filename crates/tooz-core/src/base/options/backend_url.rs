//! A backend's URL, taken apart without ever guessing: what could be read in two ways might send a password to a stranger, so it is
//! refused, and no error repeats a piece of it.

use std::collections::BTreeMap;
use std::fmt;

use fluent_uri::Uri;
use fluent_uri::component::Host as UriHost;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use super::{OptionSpec, Options};
use crate::base::error::{Error, Result};

/// How every URL looks, for those whose URL does not.
const FORM: &str = "scheme://user:password@host1:port,host2:port/path?option=value";

/// What is said of an `@` that does not end the user and the password.
const STRAY_AT: &str = "an @ stands in it where it could belong to a password: @ separates user and password from the hosts, once; in a \
    user, password, path or option encode it as %40 (and / as %2F, ? as %3F, # as %23)";

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
/// Its `Debug` and `Display` never show the password or an option. In a user, password, path or option an `@` is written `%40`; in a user or
/// password also `,` as `%2C`, `/` as `%2F`, `?` as `%3F` and `#` as `%23`. A URL that does not keep to that is refused, and so is one with control
/// characters in any part, encoded ones included.
#[derive(Clone, PartialEq, Eq)]
pub struct BackendUrl {
    scheme: String,
    username: Option<String>,
    password: Option<String>,
    hosts: Vec<Host>,
    path: String,
    pub(super) options: BTreeMap<String, String>,
}

impl BackendUrl {
    /// Takes a URL apart.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config): it is no such URL. Errors repeat nothing of it but the scheme: anything else might be a part of a
    /// password.
    pub fn parse(text: &str) -> Result<Self> {
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(wrong(None, "it has no scheme"));
        };
        if scheme.is_empty() || !scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)) {
            return Err(wrong(None, "it has no scheme, or one with letters that a scheme can't have"));
        }
        // Without a slash what stands there may as well be `user:password`.
        if !rest.is_empty() && !rest.starts_with(['/', '?']) {
            return Err(wrong(None, "after the scheme and its colon comes // or / (a path is absolute)"));
        }
        let scheme = scheme.to_ascii_lowercase();
        Self::parse_rest(&scheme, rest).map_err(|why| wrong(Some(&scheme), &why))
    }

    fn parse_rest(scheme: &str, rest: &str) -> Result<Self, String> {
        if rest.trim() != rest || rest.chars().any(char::is_control) {
            return Err("it has white space or control characters around or in it".to_owned());
        }
        // Several hosts are no URL in the eyes of the standard: each is parsed with a URL of its own.
        let (authority, tail) = match rest.strip_prefix("//") {
            Some(after) => after.split_at(after.find(['/', '?', '#']).unwrap_or(after.len())),
            None => ("", rest),
        };
        if tail.contains('@') || authority.matches('@').count() > 1 {
            return Err(STRAY_AT.to_owned());
        }
        if tail.contains('#') {
            return Err("a # begins a fragment, which means nothing here; write it as %23".to_owned());
        }
        let (userinfo, host_list) = match authority.split_once('@') {
            Some((userinfo, hosts)) => (userinfo, hosts),
            None => ("", authority),
        };
        // A host that stands before the @ would be forgotten.
        if userinfo.contains(',') {
            return Err("a comma stands before the @: user and password are given once, before the first host, and in them a comma \
                is written as %2C"
                .to_owned());
        }
        let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
        let username = Some(decode(user, "the user")?).filter(|user| !user.is_empty());
        let password = Some(decode(password, "the password")?).filter(|password| !password.is_empty());
        let mut hosts = Vec::new();
        for (index, host) in host_list.split(',').filter(|_| !host_list.is_empty()).enumerate() {
            hosts.push(parse_host(host, index + 1)?);
        }
        let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
        Ok(BackendUrl {
            scheme: scheme.to_owned(),
            username,
            password,
            hosts,
            path: parse_path(path)?,
            options: parse_query(query)?,
        })
    }

    /// The scheme, in lower case.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The user, decoded.
    pub fn username(&self) -> Option<&str> {
        self.username.as_deref()
    }

    /// The password, decoded. Show it to the server alone.
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
        Options::check_all(self.options.clone(), specs, driver)
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

/// The scheme is shown only where something follows it that makes it one.
fn wrong(scheme: Option<&str>, why: &str) -> Error {
    let url = scheme.map_or_else(|| "the URL".to_owned(), |scheme| format!("the URL \"{scheme}:…\""));
    Error::config(format!("{url} can't be read: {why}; it looks like {FORM}"))
}

fn parse_host(text: &str, number: usize) -> Result<Host, String> {
    let wrong = |why: &str| format!("host {number} of its list {why}");
    if text.is_empty() {
        return Err(wrong("is empty"));
    }
    // A password may begin with what ends a host.
    if text.ends_with(':') {
        return Err(wrong("has a colon without a port; if a password stands behind it, @ and the host are missing"));
    }
    let url = format!("tooz://{text}");
    // What is wrong is not repeated: it may be a password whose host was forgotten.
    let parsed = Uri::parse(url.as_str()).map_err(|_| match text.rsplit_once(':') {
        Some((_, port)) if !port.contains(']') && !port.bytes().all(|byte| byte.is_ascii_digit()) => wrong(WRONG_PORT),
        _ => wrong("has letters in it that no host has"),
    })?;
    let authority = parsed.authority().ok_or_else(|| wrong("has no name"))?;
    let port = authority.port_to_u16().map_err(|_| wrong(WRONG_PORT))?;
    let name = match authority.host_parsed() {
        UriHost::Ipv4(address) => address.to_string(),
        UriHost::Ipv6(address) => address.to_string(),
        UriHost::RegName(name) => {
            let name = decode(name.as_str(), &format!("host {number}"))?;
            if name.contains(['@', ':', '?', '#', ' ']) {
                return Err(wrong(
                    "has encoded letters in it that no host can have; those of a password stand before an @",
                ));
            }
            name
        }
        UriHost::IpvFuture { .. } => return Err(wrong("is an address of a version that is not known")),
    };
    if name.is_empty() {
        return Err(wrong("has no name"));
    }
    Ok(Host { name, port })
}

const WRONG_PORT: &str =
    "has no number from 0 to 65535 for its port; if that is a password, @ and the host are missing behind it";

/// What may stand in a path as it is, though the standard wants it encoded: a folder's name is often written like that.
const LENIENT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'`')
    .add(b'{')
    .add(b'}')
    .add(b'|')
    .add(b'^')
    .add(b'[')
    .add(b']')
    .add(b'\\');

/// Decodes a path, and takes its `.` and `..` out.
fn parse_path(path: &str) -> Result<String, String> {
    if path.is_empty() {
        return Ok(String::new());
    }
    // A host of our own keeps a path of `//x` from being taken for one.
    let url = format!("tooz://host{}", utf8_percent_encode(path, LENIENT));
    let parsed = Uri::parse(url.as_str()).map_err(|_| "its path has a % that begins no escape; write it as %25")?;
    decode(parsed.normalize().path().as_str(), "the path")
}

fn parse_query(query: &str) -> Result<BTreeMap<String, String>, String> {
    let mut options = BTreeMap::new();
    for (index, pair) in query.split('&').filter(|pair| !pair.is_empty()).enumerate() {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        // As in a form: a plus is a blank there.
        let text = |text: &str| decode(&text.replace('+', " "), &format!("option {} of its query", index + 1));
        if options.insert(text(name)?, text(value)?).is_some() {
            return Err(format!("option {} of its query is given twice", index + 1));
        }
    }
    Ok(options)
}

/// Decodes a part of the URL. Control characters are refused: some protocols take them for the end of a word or of a command.
fn decode(text: &str, part: &str) -> Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| format!("a %-escape in {part} is no UTF-8"))?;
    if decoded.chars().any(char::is_control) {
        return Err(format!("{part} has a control character in it"));
    }
    Ok(decoded.into_owned())
}
