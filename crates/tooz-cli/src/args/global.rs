//! The options of every subcommand. Each has a variable, so that a crontab or a unit says it once.

use std::path::PathBuf;

use clap::builder::{FalseyValueParser, OsStringValueParser, TypedValueParser as _};
use clap::{ArgAction, Args};

/// They stand apart from the options of the subcommand.
const HEADING: &str = "Global options";

#[derive(Args, Clone)]
pub(crate) struct Global {
    /// The backend, e.g. file:///var/lib/tooz?namespace=billing; `tooz drivers` lists what is possible
    #[arg(long, global = true, help_heading = HEADING, env = "TOOZ_URL", hide_env_values = true, default_value = Global::DEFAULT_URL)]
    pub(crate) url: String,
    /// Read the password from this file at each connection, in place of one in the URL
    #[arg(long, global = true, help_heading = HEADING, env = "TOOZ_PASSWORD_FILE", value_name = "PATH", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub(crate) password_file: Option<PathBuf>,
    /// This member's id [default: host, pid and a random part]
    #[arg(long, global = true, help_heading = HEADING, env = "TOOZ_MEMBER", value_name = "ID")]
    pub(crate) member: Option<String>,
    /// Print JSON: one value, with watch one per line, and on stderr one per line, errors too
    #[arg(long, global = true, help_heading = HEADING, env = "TOOZ_JSON", value_parser = FalseyValueParser::new())]
    pub(crate) json: bool,
    /// Say nothing but errors
    #[arg(short, long, global = true, help_heading = HEADING, env = "TOOZ_QUIET", value_parser = FalseyValueParser::new())]
    pub(crate) quiet: bool,
    /// Say what the library does (-v), or what its clients do, too (-vv); RUST_LOG says it more exactly
    #[arg(short, long, global = true, help_heading = HEADING, env = "TOOZ_VERBOSE", action = ArgAction::Count, value_parser = super::values::count)]
    pub(crate) verbose: u8,
}

impl Global {
    pub(crate) const DEFAULT_URL: &str = "file:";

    /// An empty variable is one that is not set; an empty value on the command line is an error of its own. `is_given` says of an option by
    /// its name whether it stands on the command line.
    pub(crate) fn without_empty_variables(mut self, is_given: impl Fn(&str) -> bool) -> Self {
        if self.url.is_empty() && !is_given("url") {
            Self::DEFAULT_URL.clone_into(&mut self.url);
        }
        if self.member.as_deref() == Some("") && !is_given("member") {
            self.member = None;
        }
        if self.password_file.as_ref().is_some_and(|path| path.as_os_str().is_empty()) && !is_given("password_file") {
            self.password_file = None;
        }
        self
    }
}
