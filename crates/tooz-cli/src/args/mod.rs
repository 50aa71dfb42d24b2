//! What may be typed: the subcommands. The options of each stand in the file of their subject, the examples of `--help` in `examples`.

#![allow(clippy::doc_markdown, reason = "these comments are the words of `--help`, where backticks are noise")]

mod examples;
mod global;
mod keys;
mod looking;
mod names;
mod running;
mod values;

use clap::{Parser, Subcommand};

pub(crate) use global::Global;
pub(crate) use keys::{PartitionArguments, RingArguments};
pub(crate) use looking::{
    BreakArguments, Database, DoctorArguments, LeaderArguments, MembersArguments, SchemaArguments, StatusArguments,
    WaitForGroup, WatchArguments,
};
pub(crate) use names::{GroupArgument, LockArgument};
pub(crate) use running::{ElectArguments, JoinArguments, LockArguments, MemberArguments, Running};

/// Distributed locks, groups, leader election and partitioning, for scripts and operators.
#[derive(Parser)]
#[command(name = "tooz", version, about, max_term_width = 100, after_help = examples::EXIT_CODES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run CMD while holding a lock
    ///
    /// CMD runs in a process group of its own, with TOOZ_FENCING_TOKEN, TOOZ_LOCK, TOOZ_MEMBER and TOOZ_URL in its environment. Signals
    /// to tooz are forwarded to it. If the lock is about to be lost, or tooz dies, CMD and all that it started is killed
    /// before another can have the lock. Processes that CMD leaves behind when it ends by itself run on without the lock.
    #[command(after_help = examples::LOCK)]
    Lock(LockArguments),
    /// Run CMD only while leader of a group; after a loss stop it and campaign again
    ///
    /// The group is made if it is missing, and joined. CMD has TOOZ_EPOCH, TOOZ_FENCING_TOKEN (the same), TOOZ_GROUP, TOOZ_MEMBER and
    /// TOOZ_URL in its environment. When CMD ends by itself, tooz resigns, leaves and ends with CMD's exit code, with
    /// or without --once.
    #[command(after_help = examples::ELECT)]
    Elect(ElectArguments),
    /// Be a member of a group, while CMD runs or until a signal; makes the group if it is missing
    ///
    /// Without CMD, SIGINT, SIGTERM and SIGHUP leave the group properly and end with 0. If the membership is taken
    /// over or the group is deleted, CMD is stopped and the exit code is 76.
    #[command(after_help = examples::JOIN)]
    Join(JoinArguments),
    /// Show groups, members, leaders and locks as they are, on a screen that is kept up to date
    ///
    /// Keys: arrows, page up, page down, home, end scroll; / filters; p pauses; s opens a session, to see its heartbeats; h
    /// helps; q quits. Where it is no terminal, the table of --once is printed.
    #[command(after_help = examples::STATUS)]
    Status(StatusArguments),
    /// List the members of a group with their capabilities
    #[command(after_help = examples::MEMBERS)]
    Members(MembersArguments),
    /// List the groups
    #[command(after_help = examples::GROUPS)]
    Groups,
    /// Print the leader of a group and its epoch, or of each group; nothing (JSON: null) while there is none
    #[command(after_help = examples::LEADER)]
    Leader(LeaderArguments),
    /// List the locks in use, with how many hold them and wait for them
    #[command(after_help = examples::LOCKS)]
    Locks,
    /// List the holders of a lock
    #[command(after_help = examples::HOLDERS)]
    Holders(LockArgument),
    /// Create or delete a group
    #[command(subcommand, after_help = examples::GROUP)]
    Group(GroupCommand),
    /// Take a lock from its present holders by force, or the leadership from a group's leader
    #[command(after_help = examples::BREAK)]
    Break(BreakArguments),
    /// Print what happens in a group as it comes, until a signal or until the group is deleted
    #[command(after_help = examples::WATCH)]
    Watch(WatchArguments),
    /// Print which members of a group own each key
    ///
    /// One line per key: the key, a tab, its owners in ring order, with commas between them. A first key that begins with a dash comes after --.
    #[command(after_help = examples::PARTITION)]
    Partition(PartitionArguments),
    /// Print which of the nodes given here own each key, computed without a backend
    #[command(after_help = examples::RING)]
    Ring(RingArguments),
    /// List the drivers of this command: URLs, options, characteristics
    #[command(after_help = examples::DRIVERS)]
    Drivers,
    /// Connect, measure the round trip, try every primitive, and say what is wrong and how to mend it
    ///
    /// Two members try locks, groups, elections and partitions under names that begin with tooz-doctor, in the URL's namespace, and
    /// take away what they made. Exit code 0: all is good; 1: something is wrong; 69, 77 and the like: there is no connection.
    #[command(after_help = examples::DOCTOR)]
    Doctor(DoctorArguments),
    /// Print the statements that make the tables of a database, for a user with the right to run them
    #[command(after_help = examples::SCHEMA)]
    Schema(SchemaArguments),
    /// Print a completion script for a shell
    #[command(after_help = examples::COMPLETIONS)]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages and completion scripts for all shells into a folder
    #[command(after_help = examples::MANUAL)]
    Manual {
        /// The folder, which is made if it is missing
        folder: std::path::PathBuf,
    },
}

impl Command {
    /// The descriptor that events are to be written to.
    pub(crate) fn events_descriptor(&self) -> Option<std::os::fd::RawFd> {
        match self {
            Command::Lock(arguments) => arguments.run.events_fd,
            Command::Elect(arguments) => arguments.run.events_fd,
            Command::Join(arguments) => arguments.run.events_fd,
            _ => None,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// Create a group
    #[command(after_help = examples::GROUP)]
    Create(GroupArgument),
    /// Delete a group that has no members
    #[command(after_help = examples::GROUP)]
    Delete(GroupArgument),
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
    fn each_subcommand_has_examples() {
        for command in Arguments::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("EXAMPLES\n"), "{}", command.get_name());
            assert!(help.contains(&format!("tooz {}", command.get_name())), "{}", command.get_name());
            // Lines that are wrapped can't be copied.
            assert!(help.lines().all(|line| line.len() < 80), "{help}");
        }
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

    #[test]
    fn the_short_options_of_flock_are_known() {
        let words = ["tooz", "lock", "x", "-s", "-w", "1.5", "-E", "0", "-q", "-c", "echo a; echo b"];
        let Command::Lock(lock) = Arguments::try_parse_from(words).unwrap().command else {
            panic!("another subcommand");
        };
        assert_eq!(lock.wait, Some(std::time::Duration::from_millis(1500)));
        assert_eq!((lock.shared, lock.conflict_exit_code), (true, 0));
        assert_eq!(lock.run.command().unwrap(), ["sh", "-c", "echo a; echo b"]);
    }
}
