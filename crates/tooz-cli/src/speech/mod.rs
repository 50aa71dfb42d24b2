//! What is said while something goes on: one line each on stderr, with the local time, and the same as JSON lines on a descriptor of the
//! caller's choice. Each file has the words of one subject; `event` is what they all are, `voice` says them.

pub(crate) mod command;
mod descriptor;
mod event;
pub(crate) mod groups;
pub(crate) mod held;
pub(crate) mod locks;
mod manner;
pub(crate) mod session;
mod sink;
mod stamp;
pub(crate) mod trace;
mod voice;
pub(crate) mod waiting;
pub(crate) mod words;

pub(crate) use event::{Event, Loudness};
pub(crate) use manner::Manner;
pub(crate) use stamp::{local, short, utc};
pub(crate) use voice::{begin, finish, keep_aside, manner, said_aside, tell};

/// Something that went otherwise than it should, and does not end the command.
pub(crate) fn warn(message: impl std::fmt::Display) {
    let message = message.to_string();
    tell(&Event::new("warning", message.clone()).with("message", message));
}
