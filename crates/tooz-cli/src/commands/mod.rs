//! One file for each subcommand, or for a few alike; what they share is here.

mod doctor;
mod drivers;
mod elect;
mod election_locks;
mod environment;
mod groups;
mod join;
mod lock;
mod locks;
mod manual;
mod membership;
mod missing_group;
mod owners;
mod schema;
mod status;
mod waiting;
mod watch;

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use clap::CommandFactory;
use tooz::driver::PASSWORD_FILE;
use tooz::{Characteristic, ConnectOptions, Coordinator, MemberId, SessionEvent};

use crate::args::{Arguments, Command, Global, GroupCommand, Running};
use crate::exit;
use crate::failure::{self, CommandFailure};
use crate::run::Signals;
use crate::speech::words::in_words;
use crate::{schemes, speech};

pub(crate) use status::restore_terminal;

/// Runs what was typed; answers the exit code.
pub(crate) async fn dispatch(arguments: Arguments) -> Result<u8, CommandFailure> {
    let global = arguments.global;
    match arguments.command {
        Command::Lock(arguments) => lock::run(&global, arguments).await,
        Command::Elect(arguments) => elect::run(&global, arguments).await,
        Command::Join(arguments) => join::run(&global, arguments).await,
        Command::Status(arguments) => status::run(&global, &arguments).await,
        Command::Members(arguments) => groups::members(&global, &arguments).await,
        Command::Groups => groups::list(&global).await,
        Command::Leader(arguments) => groups::leader(&global, &arguments).await,
        Command::Locks => locks::list(&global).await,
        Command::Group(GroupCommand::Create(group)) => groups::create(&global, group.name()).await,
        Command::Group(GroupCommand::Delete(group)) => groups::delete(&global, group.name()).await,
        Command::Holders(lock) => locks::holders(&global, lock.name()).await,
        Command::Break(arguments) => locks::break_lock(&global, &arguments).await,
        Command::Watch(arguments) => watch::run(&global, &arguments).await,
        Command::Partition(arguments) => owners::partition(&global, &arguments).await,
        Command::Ring(arguments) => owners::ring(&global, &arguments),
        Command::Doctor(arguments) => doctor::run(&global, &arguments).await,
        Command::Schema(arguments) => schema::run(&arguments),
        Command::Drivers => drivers::run(&global),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "tooz", &mut script);
            std::io::Write::write_all(&mut std::io::stdout(), &script)?;
            Ok(exit::SUCCESS)
        }
        Command::Manual { folder } => manual::write(&folder),
    }
}

async fn connect(global: &Global) -> Result<Coordinator, CommandFailure> {
    let coordinator = options(global)?.connect().await?;
    let reaches_others = coordinator.driver().can(Characteristic::DistributedAcrossProcesses);
    if !reaches_others {
        speech::warn(format_args!(
            "{} lives in this process alone: it excludes no other process, and none sees what is in it; give a --url that others share, such as file:",
            coordinator.driver().name()
        ));
    }
    Ok(coordinator)
}

/// What the global options say of the connection.
fn options(global: &Global) -> Result<ConnectOptions, CommandFailure> {
    let member = match &global.member {
        Some(id) => MemberId::new(id)?,
        None => MemberId::new(default_member())?,
    };
    schemes::check(&global.url)?;
    let options = ConnectOptions::new(&global.url)?.member(member)?;
    Ok(match password_file(global)? {
        Some(path) => options.option(PASSWORD_FILE.name, path),
        None => options,
    })
}

/// Absolute, so that errors name the file wherever they are read, and CMD finds it wherever it runs.
fn password_file(global: &Global) -> Result<Option<String>, CommandFailure> {
    let Some(path) = &global.password_file else { return Ok(None) };
    let absolute = std::path::absolute(Path::new(path)).map_err(|error| {
        CommandFailure::usage(format!("--password-file: {}", speech::words::plain(&error.to_string())))
    })?;
    let text = absolute.into_os_string().into_string();
    text.map(Some).map_err(|_| CommandFailure::usage("--password-file: the path is no UTF-8"))
}

/// Host, pid and a random part: no other process has it, and a person who reads it knows where to look.
fn default_member() -> String {
    let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let host = if host.is_empty() { "localhost" } else { host.trim() };
    format!("{host}-{}-{:08x}", std::process::id(), fastrand::u32(..))
}

/// How long a close may take that is only a courtesy.
const HURRIED: Duration = Duration::from_secs(1);

/// Connects, does one thing, and closes, whatever became of it: nothing is left behind at the backend.
async fn with_coordinator<T>(
    global: &Global,
    work: impl AsyncFnOnce(&Coordinator) -> Result<T, CommandFailure>,
) -> Result<T, CommandFailure> {
    let coordinator = connect(global).await?;
    run_and_close(&coordinator, work).await
}

async fn run_and_close<T>(
    coordinator: &Coordinator,
    work: impl AsyncFnOnce(&Coordinator) -> Result<T, CommandFailure>,
) -> Result<T, CommandFailure> {
    let result = tokio::select! {
        result = work(coordinator) => result,
        () = tell_of_session(coordinator) => unreachable!("it goes on telling"),
    };
    let told = async {
        match Signals::listen_on() {
            Some(mut signals) => signals.end_tidying_up().await,
            None => std::future::pending().await,
        }
    };
    // Where it has not gone well, or something could not be given back, a healthy backend still closes within milliseconds, and another is
    // not waited for once more.
    let patience = if result.is_err() || failure::is_hurried() { HURRIED } else { Duration::MAX };
    let closed = tokio::select! {
        () = tokio::time::sleep(patience) => Err(format!("closing was given up: no answer for {HURRIED:?}")),
        closed = coordinator.close() => closed.map_err(|error| in_words(&error)),
        signal = told => Err(format!("closing was given up: signal {signal} came")),
    };
    if let Err(why) = closed {
        // Where the kernel says who lives, there is no session timeout.
        let until = if coordinator.characteristics().has(Characteristic::NonTimeoutBased) {
            "this process has ended"
        } else {
            "the session timeout"
        };
        speech::warn(format_args!("{why}; what was held stays so until {until}"));
    }
    result
}

/// Tells what happens to the session, and what keeps from standing again what stood before, so that a person can mend it; it is tried again
/// until then. Never ends.
async fn tell_of_session(coordinator: &Coordinator) {
    let mut events = coordinator.events();
    while let Some(event) = events.next().await {
        let told = match event {
            SessionEvent::Suspended(error) => speech::session::suspended(&in_words(&error)),
            SessionEvent::Resumed => speech::session::resumed(),
            SessionEvent::Lost(reason) => speech::session::lost(reason),
            SessionEvent::Reopened => speech::session::reopened(),
            SessionEvent::Troubled(error) => speech::session::troubled(&error),
            SessionEvent::Recovered => speech::session::recovered(),
            // One that this version does not know is told rather than swallowed.
            other => speech::Event::new("other", format!("{other:?}")),
        };
        speech::tell(&told);
    }
    std::future::pending::<()>().await;
}

/// Waits for a future, unless a signal comes first: then whatever it was is withdrawn, and the code says which signal.
async fn unless_signalled<T, E>(
    signals: &mut Signals,
    future: impl Future<Output = Result<T, E>>,
) -> Result<T, CommandFailure>
where
    CommandFailure: From<E>,
{
    tokio::select! {
        result = future => Ok(result?),
        signal = signals.next_to_end() => Err(CommandFailure::quiet(exit::by_signal(signal))),
    }
}

/// What to run, where there has to be something.
fn required_command(run: &Running) -> Result<Vec<OsString>, CommandFailure> {
    run.command()
        .ok_or_else(|| CommandFailure::usage("there is no CMD to run: it comes after --, or as -c 'SHELL STRING'"))
}

/// When to send SIGTERM before the deadline. Refused is what would end CMD although every heartbeat is on time.
fn kill_after(coordinator: &Coordinator, wanted: Option<Duration>) -> Result<Duration, CommandFailure> {
    let terms = coordinator.terms();
    let timeout = terms.and_then(|terms| terms.timeout).unwrap_or_else(|| coordinator.session_timeout());
    let margin = terms.map_or(Duration::ZERO, |terms| terms.margin);
    let spare = spare(timeout, margin);
    let judged_by_kernel = coordinator.characteristics().has(Characteristic::NonTimeoutBased);
    match wanted {
        Some(wanted) if wanted > longest(timeout, spare) && !judged_by_kernel => Err(CommandFailure::usage(format!(
            "--kill-after {} is more than {}, which is what the session timeout of {} leaves for it here: CMD would be ended between two heartbeats",
            humantime::format_duration(wanted),
            humantime::format_duration(longest(timeout, spare)),
            humantime::format_duration(timeout),
        ))),
        Some(wanted) => Ok(wanted),
        None => Ok((timeout / 4).min(spare / 2)),
    }
}

/// How far away the deadline still is when a heartbeat goes out on time: the margin is at least a tenth, and a heartbeat is due in each third.
fn spare(timeout: Duration, margin: Duration) -> Duration {
    timeout.saturating_sub(timeout / 3).saturating_sub(margin.max(timeout / 10))
}

fn longest(timeout: Duration, spare: Duration) -> Duration {
    let millis = (timeout / 2).min(spare * 9 / 10).as_millis();
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cmd_is_ended_between_no_two_heartbeats_that_are_on_time() {
        let seconds = Duration::from_secs;
        // With a margin of a tenth.
        assert_eq!(longest(seconds(10), spare(seconds(10), seconds(1))), seconds(5));
        assert!(seconds(10) / 4 < spare(seconds(10), seconds(1)) / 2);
        // ZooKeeper with a tick of 6 s makes a session of 10 s one of 12.
        let spare = spare(seconds(12), Duration::from_millis(5100));
        assert_eq!(spare, Duration::from_millis(2900));
        assert!(spare / 2 < seconds(12) / 4 && longest(seconds(12), spare) < spare);
    }
}
