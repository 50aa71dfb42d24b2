//! What happens to CMD.

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::event::{Event, Loudness};

pub(crate) fn started(pid: Pid) -> Event {
    Event::new("started", format!("CMD runs as process {pid}")).with("pid", pid.as_raw()).for_programs()
}

/// It is told to end, or killed, at this moment and for this reason.
pub(crate) fn ending(signal: Signal, why: &str) -> Event {
    let told = if signal == Signal::SIGKILL { "CMD is killed" } else { "CMD is told to end" };
    let event = Event::new("ending", format!("{told} ({signal}): {why}"));
    event.with("signal", signal.as_str()).with("why", why)
}

/// A signal to `tooz` was handed on to CMD. Those that are no wish for its end are no news for people.
pub(crate) fn forwarded(signal: Signal) -> Event {
    let event =
        Event::new("forwarded", format!("{signal} came, and is forwarded to CMD")).with("signal", signal.as_str());
    match signal {
        Signal::SIGHUP | Signal::SIGINT | Signal::SIGQUIT | Signal::SIGTERM => event,
        _ => event.for_programs(),
    }
}

/// A signal to `tooz` has ended what it did before or without CMD.
pub(crate) fn interrupted(signal: i32, what_now: &str) -> Event {
    let name = Signal::try_from(signal).map_or_else(|_| format!("signal {signal}"), |signal| signal.to_string());
    Event::new("interrupted", format!("{name} came: {what_now}")).with("signal", name)
}

pub(crate) fn ended(code: u8) -> Event {
    Event::new("command_ended", format!("CMD ended with {code}")).with("code", code).for_programs()
}

/// The command's last word to programs.
pub(crate) fn exit(code: u8) -> Event {
    Event::new("exit", format!("exit code {code}")).with("exit_code", code).loudness(Loudness::Programs)
}
