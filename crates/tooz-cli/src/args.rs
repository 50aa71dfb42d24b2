//! What may be typed: subcommands, options, and the words of `--help`.

// Long because every subcommand, option and word of help of the command is in this one place.

#![allow(clippy::doc_markdown, reason = "these comments are the words of `--help`, where backticks are noise")]

use std::ffi::OsString;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// Distributed locks, groups, leader election and partitioning, for scripts and operators.
#[derive(Parser)]
#[command(
    name = "tooz",
    version,
    about,
    max_term_width = 100,
    after_help = "EXIT CODES\n  \
        CMD's own; 128+n: CMD, or the waiting tooz, was ended by signal n; 1: the doctor found something wrong;\n  \
        75: not acquired; 76: lost; 125: an error of tooz itself, wrong usage included; 126: CMD can't be executed;\n  \
        127: CMD was not found.\n\
        The reason is on stderr."
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Args, Clone)]
pub(crate) struct Global {
    /// The backend, e.g. file:///var/lib/tooz?namespace=billing; `tooz drivers` lists what is possible
    #[arg(long, global = true, env = "TOOZ_URL", hide_env_values = true, default_value = "file:")]
    pub(crate) url: String,
    /// Read the password from this file at each connection, in place of one in the URL
    #[arg(long, global = true, env = "TOOZ_PASSWORD_FILE", value_name = "PATH")]
    pub(crate) password_file: Option<PathBuf>,
    /// This member's id [default: host, pid and a random part]
    #[arg(long, global = true, value_name = "ID")]
    pub(crate) member: Option<String>,
    /// Print JSON: one value, or with watch one per line
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run CMD while holding a lock
    ///
    /// CMD runs in a process group of its own, with TOOZ_FENCING_TOKEN, TOOZ_LOCK and TOOZ_MEMBER in its environment. Signals to tooz
    /// are forwarded to it. If the lock is about to be lost, or tooz dies, CMD and all that it started is killed
    /// before another can have the lock. Processes that CMD leaves behind when it ends by itself run on without the lock.
    Lock(LockArguments),
    /// Run CMD only while leader of a group; after a loss stop it and campaign again
    ///
    /// The group is made if it is missing, and joined. CMD has TOOZ_EPOCH, TOOZ_FENCING_TOKEN (the same), TOOZ_GROUP and
    /// TOOZ_MEMBER in its environment. When CMD ends by itself, tooz resigns, leaves and ends with CMD's exit code, with
    /// or without --once.
    Elect(ElectArguments),
    /// Be a member of a group, while CMD runs or until a signal; makes the group if it is missing
    ///
    /// Without CMD, SIGINT, SIGTERM and SIGHUP leave the group properly and end with 0. If the membership is taken
    /// over or the group is deleted, CMD is stopped and the exit code is 76.
    Join(JoinArguments),
    /// List the members of a group with their capabilities
    Members(GroupArgument),
    /// List the groups
    Groups,
    /// Print the leader of a group and its epoch; nothing (JSON: null) while there is none
    Leader(GroupArgument),
    /// List the holders of a lock
    Holders(LockArgument),
    /// Create or delete a group
    #[command(subcommand)]
    Group(GroupCommand),
    /// Take a lock from its present holders by force
    Break(BreakArguments),
    /// Print what happens in a group as it comes, until a signal or until the group is deleted
    Watch(WatchArguments),
    /// Print which members of a group own each key
    ///
    /// One line per key: the key, a tab, its owners in ring order, with commas between them. A first key that begins with a dash comes after --.
    Partition(PartitionArguments),
    /// Print which of the nodes given here own each key, computed without a backend
    Ring(RingArguments),
    /// List the drivers of this command: URLs, options, characteristics
    Drivers,
    /// Connect, measure the round trip, try every primitive, and say what is wrong and how to mend it
    ///
    /// Two members try locks, groups, elections and partitions under names that begin with tooz-doctor, in the URL's namespace, and
    /// take away what they made. Exit code 0: all is good; 1: something is wrong; 125: there is no connection.
    Doctor(DoctorArguments),
    /// Print the statements that make the tables of a database, for a user with the right to run them
    Schema(SchemaArguments),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// Create a group
    Create(GroupArgument),
    /// Delete a group that has no members
    Delete(GroupArgument),
}

/// A lock's name, either way. One that begins with a dash needs the long form, so that a mistyped flag is no name.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct LockArgument {
    /// The lock
    #[arg(value_name = "NAME")]
    positional: Option<String>,
    /// The lock, where its name begins with a dash: --name=-x
    #[arg(long = "name", value_name = "NAME")]
    option: Option<String>,
}

impl LockArgument {
    pub(crate) fn name(&self) -> &str {
        self.positional.as_deref().or(self.option.as_deref()).unwrap_or_default()
    }
}

/// A group's name, either way.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct GroupArgument {
    /// The group
    #[arg(value_name = "GROUP")]
    positional: Option<String>,
    /// The group, where its name begins with a dash: --group=-x
    #[arg(long = "group", value_name = "GROUP")]
    option: Option<String>,
}

impl GroupArgument {
    pub(crate) fn name(&self) -> &str {
        self.positional.as_deref().or(self.option.as_deref()).unwrap_or_default()
    }
}

#[derive(Args, Debug)]
pub(crate) struct KillAfter {
    /// Send CMD SIGTERM when what it runs under holds only so much longer, and SIGKILL at the end [default: a quarter
    /// of the session timeout]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) kill_after: Option<Duration>,
}

#[derive(Args, Debug)]
pub(crate) struct LockArguments {
    #[command(flatten)]
    pub(crate) lock: LockArgument,
    /// Share the lock with other shared holders
    #[arg(long)]
    pub(crate) shared: bool,
    /// Wait at most so long [default: for ever]
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "no_wait")]
    pub(crate) wait: Option<Duration>,
    /// Do not wait
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Exit with N instead of 75 when the lock was not to be had
    #[arg(long, value_name = "N", default_value_t = crate::exit::NOT_ACQUIRED, hide_default_value = true)]
    pub(crate) conflict_exit_code: u8,
    #[command(flatten)]
    pub(crate) kill_after: KillAfter,
    /// What to run
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

/// How `join` and `elect` become a member.
#[derive(Args, Debug)]
pub(crate) struct MemberArguments {
    /// What this member says of itself
    #[arg(long, value_name = "JSON")]
    pub(crate) capabilities: Option<String>,
    /// Take the place of a living member of the same id at once; without it, one that may be dead is waited for until its session has ended
    #[arg(long)]
    pub(crate) take_over: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ElectArguments {
    #[command(flatten)]
    pub(crate) group: GroupArgument,
    /// Do not campaign again after a loss: exit with 76
    #[arg(long)]
    pub(crate) once: bool,
    #[command(flatten)]
    pub(crate) member: MemberArguments,
    #[command(flatten)]
    pub(crate) kill_after: KillAfter,
    /// What to run
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Args, Debug)]
pub(crate) struct JoinArguments {
    #[command(flatten)]
    pub(crate) group: GroupArgument,
    #[command(flatten)]
    pub(crate) member: MemberArguments,
    #[command(flatten)]
    pub(crate) kill_after: KillAfter,
    /// What to run
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Args, Debug)]
pub(crate) struct BreakArguments {
    #[command(flatten)]
    pub(crate) lock: LockArgument,
    /// Only the holder with this fencing token, as `tooz holders` shows it
    #[arg(long, value_name = "N")]
    pub(crate) token: Option<u64>,
}

#[derive(Args, Debug)]
pub(crate) struct WatchArguments {
    #[command(flatten)]
    pub(crate) group: GroupArgument,
    /// Watch the leader instead of the members
    #[arg(long)]
    pub(crate) leader: bool,
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

#[derive(Args, Debug)]
#[command(
    override_usage = "tooz partition [OPTIONS] GROUP KEY...\n       tooz partition [OPTIONS] --group=GROUP KEY..."
)]
pub(crate) struct PartitionArguments {
    /// The group, where its name begins with a dash: --group=-x
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// How many owners each key has
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) replicas: NonZeroUsize,
    /// The group (unless --group names it), then the keys
    #[arg(required = true, value_name = "GROUP KEY")]
    words: Vec<String>,
}

impl PartitionArguments {
    /// The group and the keys; `None` where no key is left.
    pub(crate) fn group_and_keys(&self) -> Option<(&str, &[String])> {
        let (group, keys) =
            if let Some(group) = &self.group { (group, self.words.as_slice()) } else { self.words.split_first()? };
        (!keys.is_empty()).then_some((group.as_str(), keys))
    }
}

#[derive(Args, Debug)]
pub(crate) struct RingArguments {
    /// A node and its weight [default weight: 1]
    #[arg(long = "node", required = true, value_name = "NAME[=WEIGHT]", value_parser = node)]
    pub(crate) nodes: Vec<(String, u32)>,
    /// Points on the ring per unit of weight; all rings that are to agree need the same
    #[arg(long, value_name = "N", default_value = "32")]
    pub(crate) points: NonZeroU32,
    /// How many owners each key has
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) replicas: NonZeroUsize,
    /// The keys
    #[arg(required = true, value_name = "KEY")]
    pub(crate) keys: Vec<String>,
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; a duration looks like 500ms, 10s or 2m"))
}

fn node(text: &str) -> Result<(String, u32), String> {
    let (name, weight) = match text.rsplit_once('=') {
        None => (text, 1),
        Some((name, weight)) => {
            let weight = weight.parse().map_err(|_| {
                format!("the weight {weight:?} is no whole number; a node is NAME or NAME=WEIGHT (a name with = in it needs its weight)")
            })?;
            (name, weight)
        }
    };
    if name.is_empty() {
        return Err("the node has no name; a node is NAME or NAME=WEIGHT".to_owned());
    }
    Ok((name.to_owned(), weight))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_declaration_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_node_is_a_name_with_or_without_a_weight() {
        assert_eq!(node("a").unwrap(), ("a".to_owned(), 1));
        assert_eq!(node("a=b=0").unwrap(), ("a=b".to_owned(), 0));
        assert!(node("a=b").unwrap_err().contains("NAME=WEIGHT"));
        assert!(node("=2").unwrap_err().contains("no name"));
    }

    #[test]
    fn global_options_stand_before_or_after() {
        for words in [["tooz", "--json", "groups"], ["tooz", "groups", "--json"]] {
            assert!(Arguments::try_parse_from(words).unwrap().global.json);
        }
    }

    #[test]
    fn a_name_with_a_dash_needs_the_long_form() {
        let parse = |words: &[&str]| Arguments::try_parse_from(words);
        assert!(parse(&["tooz", "holders", "-x"]).is_err());
        assert!(parse(&["tooz", "holders", "x", "--name=y"]).is_err());
        assert!(parse(&["tooz", "holders"]).is_err());
        let Command::Holders(lock) = parse(&["tooz", "holders", "--name=-x"]).unwrap().command else {
            panic!("another subcommand");
        };
        assert_eq!(lock.name(), "-x");
    }
}
