//! From a URL to typed options: everything is read here, what is left over is an error that lists what would be right.

pub(crate) mod backend_url;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::base::error::{Error, Result};

/// The option of every driver that logs in: the password stands in this file. Put it into the driver's own list of options.
pub const PASSWORD_FILE: OptionSpec = OptionSpec::new(
    "password_file",
    OptionValue::Text,
    "none",
    "a file with the password, read again at each connection; in place of a password in the URL",
);

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

/// The options of a URL, checked against the driver's card, read by type.
#[derive(Clone)]
pub struct Options {
    given: BTreeMap<String, String>,
    specs: &'static [OptionSpec],
    driver: &'static str,
}

impl Options {
    pub(crate) fn check_all(
        given: BTreeMap<String, String>,
        specs: &'static [OptionSpec],
        driver: &'static str,
    ) -> Result<Self> {
        let options = Options { given, specs, driver };
        for (name, value) in &options.given {
            options.check(name)?;
            // Those of the URL have none; the builder takes any.
            if value.chars().any(char::is_control) {
                return Err(Error::config(format!("option {name} has a control character in it")).in_driver(driver));
            }
        }
        Ok(options)
    }

    /// A duration, where one was given.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config): it is no duration such as `500ms`, `10s` or `2m`.
    pub fn duration(&self, name: &str) -> Result<Option<Duration>> {
        self.read(name, "a duration such as 500ms, 10s or 2m", |text| humantime::parse_duration(text).ok())
    }

    /// A text, where one was given.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.given.get(name).map(String::as_str)
    }

    /// `true` or `false`, where one was given.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config): it is neither.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>> {
        self.read(name, "true or false", |text| text.parse().ok())
    }

    /// A whole number, where one was given.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config): it is no whole number from 0 on.
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
                let value = if self.has_secrets() { String::new() } else { format!("={text:?}") };
                Error::config(format!("option {name}{value} is wrong: it takes {wanted}")).in_driver(self.driver)
            }),
        }
    }

    /// Whether one of them is a secret, or is meant for one. A raw `&` in it ends it, and what follows, names and values, may be the rest
    /// of it: then none of them is shown.
    fn has_secrets(&self) -> bool {
        let is_secret =
            |name: &str| self.specs.iter().any(|spec| spec.name == name && spec.value == OptionValue::Secret);
        let sounds_so = |name: &str| ["pass", "token", "secret", "auth"].iter().any(|word| name.contains(word));
        self.given.iter().any(|(name, value)| {
            if name == PASSWORD_FILE.name { !value.starts_with('/') } else { is_secret(name) || sounds_so(name) }
        })
    }

    fn check(&self, name: &str) -> Result<()> {
        let all = || COMMON_OPTIONS.iter().chain(self.specs);
        let Some(spec) = all().find(|spec| spec.name == name) else {
            let valid: Vec<_> = all().map(|spec| spec.name).collect();
            let valid = format!("the valid ones are {}", valid.join(", "));
            let why = if name == PASSWORD_FILE.name {
                format!("this driver logs in nowhere: it takes no credentials, so it has no option {name}; {valid}")
            } else if self.has_secrets() {
                format!("an option is unknown (in a value & is written as %26); {valid}")
            } else {
                format!("option {name:?} is unknown; {valid}")
            };
            return Err(Error::config(why).in_driver(self.driver));
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

#[cfg(test)]
mod tests;
