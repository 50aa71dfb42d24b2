//! The subcommands that look at what is there, and those that set it right.

use std::time::Duration;

use clap::Args;

use super::names::{AnyGroupArgument, GroupArgument, LockArgument};
use super::values::{duration, duration_or_seconds};

/// Whether a group that is missing is waited for.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct WaitForGroup {
    /// Wait until the group is created, at most so long [default: for ever]
    #[arg(
        long = "wait-for-group",
        value_name = "DURATION",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = FOR_EVER,
        value_parser = patience
    )]
    pub(crate) patience: Option<Duration>,
}

/// How an option without its value is read.
const FOR_EVER: &str = "for-ever";

fn patience(text: &str) -> Result<Duration, String> {
    if text == FOR_EVER { Ok(Duration::MAX) } else { duration_or_seconds(text) }
}

#[derive(Args, Debug)]
pub(crate) struct MembersArguments {
    #[command(flatten)]
    pub(crate) group: GroupArgument,
    #[command(flatten)]
    pub(crate) wait: WaitForGroup,
}

#[derive(Args, Debug)]
pub(crate) struct LeaderArguments {
    #[command(flatten)]
    pub(crate) group: AnyGroupArgument,
    #[command(flatten)]
    pub(crate) wait: WaitForGroup,
}

#[derive(Args, Debug)]
pub(crate) struct WatchArguments {
    #[command(flatten)]
    pub(crate) group: GroupArgument,
    /// Watch the leader instead of the members
    #[arg(long)]
    pub(crate) leader: bool,
    #[command(flatten)]
    pub(crate) wait: WaitForGroup,
}

#[derive(Args, Debug)]
pub(crate) struct BreakArguments {
    #[command(flatten)]
    pub(crate) lock: LockArgument,
    /// Only the holder with this fencing token, as `tooz holders` shows it
    #[arg(long, value_name = "N", visible_alias = "epoch")]
    pub(crate) token: Option<u64>,
    /// End the leadership of the group of that name, in place of a lock
    #[arg(long)]
    pub(crate) leader: bool,
}

#[derive(Args, Debug)]
pub(crate) struct StatusArguments {
    /// Print it once, as tables
    #[arg(long)]
    pub(crate) once: bool,
    /// Look again after so long
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    pub(crate) every: Duration,
    /// Show only groups, members, locks and holders in whose names this is
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) filter: String,
    /// Open a session, too, to see its heartbeats; it shares the lock tooz-status with others of its kind
    #[arg(long)]
    pub(crate) session: bool,
}

#[derive(Args, Debug)]
pub(crate) struct DoctorArguments {
    /// Let a warning count as something wrong
    #[arg(long)]
    pub(crate) strict: bool,
}

#[derive(Args, Debug)]
pub(crate) struct SchemaArguments {
    /// Which database
    #[arg(value_name = "BACKEND")]
    pub(crate) database: Database,
    /// The schema that the tables are to be in; the URL's option `schema` says the same, and with MySQL its path
    #[arg(long, value_name = "NAME", default_value = "tooz")]
    pub(crate) schema: String,
    /// Also grant what a member needs to this role, where members are not the owner; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) role: Vec<String>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Database {
    Postgres,
    #[value(alias = "mariadb")]
    Mysql,
}
