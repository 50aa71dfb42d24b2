//! The subcommands that run CMD: `lock`, `elect`, `join`.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::time::Duration;

use clap::Args;

use super::names::{GroupArgument, LockArgument};
use super::values::{duration, duration_or_seconds};

/// What is run, and how.
#[derive(Args, Debug)]
pub(crate) struct Running {
    /// Run this by sh -c, in place of CMD
    #[arg(short = 'c', long = "command", value_name = "SHELL STRING", conflicts_with = "command")]
    shell: Option<OsString>,
    /// Send CMD SIGTERM when what it runs under holds only so much longer, and SIGKILL at the end [default: a quarter
    /// of the session timeout]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) kill_after: Option<Duration>,
    /// Write what happens as JSON lines to this descriptor, e.g. --events-fd 3 3>events.jsonl
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) events_fd: Option<RawFd>,
    /// What to run
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

impl Running {
    /// The words to run; `None` where there are none.
    pub(crate) fn command(&self) -> Option<Vec<OsString>> {
        match &self.shell {
            Some(text) => Some(vec!["sh".into(), "-c".into(), text.clone()]),
            None => Some(self.command.clone()).filter(|words| !words.is_empty()),
        }
    }
}

#[derive(Args, Debug)]
#[command(override_usage = "tooz lock [OPTIONS] NAME -- CMD...\n       tooz lock [OPTIONS] NAME -c 'SHELL STRING'")]
pub(crate) struct LockArguments {
    #[command(flatten)]
    pub(crate) lock: LockArgument,
    /// Share the lock with other shared holders
    #[arg(short, long)]
    pub(crate) shared: bool,
    /// Wait at most so long; a number without a unit is seconds [default: for ever]
    #[arg(short, long, alias = "timeout", value_name = "DURATION", value_parser = duration_or_seconds, conflicts_with = "no_wait")]
    pub(crate) wait: Option<Duration>,
    /// Do not wait
    #[arg(short, long, aliases = ["nonblock", "nb"])]
    pub(crate) no_wait: bool,
    /// Exit with N instead of 75 when the lock was not to be had; with 0 and --no-wait nothing is said of that, nor of having it
    #[arg(short = 'E', long, value_name = "N", default_value_t = crate::exit::NOT_ACQUIRED, hide_default_value = true)]
    pub(crate) conflict_exit_code: u8,
    #[command(flatten)]
    pub(crate) run: Running,
}

impl LockArguments {
    /// For cron: that it runs somewhere else already is no news.
    pub(crate) fn is_conflict_no_news(&self) -> bool {
        self.conflict_exit_code == 0 && (self.no_wait || self.wait == Some(Duration::ZERO))
    }
}

/// How `join` and `elect` become a member.
#[derive(Args, Debug)]
pub(crate) struct MemberArguments {
    /// What this member says of itself; a "weight" in it is its share of partitions, a whole number from 0 on
    #[arg(long, value_name = "JSON")]
    pub(crate) capabilities: Option<String>,
    /// Take the place of a living member of the same id at once; without it, one that may be dead is waited for until its session has ended
    #[arg(long)]
    pub(crate) take_over: bool,
}

#[derive(Args, Debug)]
#[command(override_usage = "tooz elect [OPTIONS] GROUP -- CMD...\n       tooz elect [OPTIONS] GROUP -c 'SHELL STRING'")]
pub(crate) struct ElectArguments {
    #[command(flatten)]
    pub(crate) group: GroupArgument,
    /// Do not campaign again after a loss: exit with 76
    #[arg(long)]
    pub(crate) once: bool,
    #[command(flatten)]
    pub(crate) member: MemberArguments,
    #[command(flatten)]
    pub(crate) run: Running,
}

#[derive(Args, Debug)]
#[command(override_usage = "tooz join [OPTIONS] GROUP [-- CMD...]\n       tooz join [OPTIONS] GROUP -c 'SHELL STRING'")]
pub(crate) struct JoinArguments {
    #[command(flatten)]
    pub(crate) group: GroupArgument,
    #[command(flatten)]
    pub(crate) member: MemberArguments,
    #[command(flatten)]
    pub(crate) run: Running,
}
