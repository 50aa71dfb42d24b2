//! One file for each subcommand, or for a few alike; what they share is here.

mod doctor;
mod drivers;
mod elect;
mod election_locks;
mod environment;
mod groups;
mod join;
mod kill_after;
mod lock;
mod locks;
mod manual;
mod membership;
mod missing_group;
mod owners;
mod schema;
mod session;
mod session_timeout;
mod status;
mod waiting;
mod watch;

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use clap::CommandFactory;
use tooz::driver::PASSWORD_FILE;
use tooz::{Characteristic, ConnectOptions, Coordinator, MemberId};

use crate::args::{Arguments, Command, Global, GroupCommand, Running};
use crate::exit;
use crate::failure::{self, CommandFailure};
use crate::run::Signals;
use crate::speech::words::in_words;
use crate::{schemes, speech};

use session::tell_of_session;
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
    session_timeout::check(&global.url)?;
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
        // What becomes of the session comes before what follows from it.
        biased;
        () = tell_of_session(coordinator) => unreachable!("it goes on telling"),
        result = work(coordinator) => result,
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
        signal = signals.next_to_end() => Err(crate::run::ended_by(signal)),
    }
}

/// What to run, where there has to be something.
fn required_command(run: &Running) -> Result<Vec<OsString>, CommandFailure> {
    run.command()
        .ok_or_else(|| CommandFailure::usage("there is no CMD to run: it comes after --, or as -c 'SHELL STRING'"))
}
