//! The only place where an error of the wire or of the server becomes one of ours.

use std::fmt;
use std::io;

use tooz_core::{Error, ErrorKind, Outcome};

/// The connection could not be made.
pub(crate) fn unreached(error: io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, format!("the server can't be reached: {error}"))
        .with_outcome(Outcome::NotApplied)
        .with_source(error)
}

/// The connection was over before anything was sent.
pub(crate) fn cut_before() -> Error {
    Error::new(ErrorKind::Unavailable, "the connection to the server was lost before this was sent")
        .with_outcome(Outcome::NotApplied)
}

/// The connection ended while something was under way.
pub(crate) fn cut() -> Error {
    Error::new(ErrorKind::Unavailable, "the connection to the server was lost while this was under way")
}

/// The connection ended.
pub(crate) fn gone() -> Error {
    Error::new(ErrorKind::Unavailable, "the connection to the server was lost")
}

/// The server has not answered in time.
pub(crate) fn silent() -> Error {
    Error::new(ErrorKind::TimedOut, "the server has not answered in time")
}

/// There is no connection at all, and why the last attempt to make one has failed.
pub(crate) fn not_connected(why: Option<&str>) -> Error {
    let message = match why {
        Some(why) => format!("there is no connection to the server: {why}"),
        None => "there is no connection to the server".to_owned(),
    };
    Error::new(ErrorKind::Unavailable, message).with_outcome(Outcome::NotApplied)
}

/// So many requests are under way that this one has not had its turn.
pub(crate) fn no_turn(most: usize) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("{most} requests are under way, and this one has not had its turn in time"),
    )
    .with_outcome(Outcome::NotApplied)
}

/// The session is over at the server.
pub(crate) fn lost() -> Error {
    Error::new(ErrorKind::Lost, "the session has ended: the server has no such session")
}

/// The server answered what it never should.
pub(crate) fn strange(what: impl fmt::Debug) -> Error {
    Error::new(ErrorKind::Backend, format!("what the server answers can't be understood: {what:?}"))
}

/// What the server says of a value that is too long.
const TOO_LARGE: &str = "too large";

/// Whether the server says that it has no room.
pub(crate) fn is_out_of_memory(said: &str) -> bool {
    said.contains("out of memory")
}

/// What a server with as many connections as it takes says to one more, before it closes it.
const CROWDED: &str = "Too many open connections";

/// What a server with `-Y` says to each command that comes without a log-in, and to one that fails.
const NO_LOG_IN: [&str; 2] = ["unauthenticated", "authentication failure"];

fn is_without_log_in(said: &str) -> bool {
    NO_LOG_IN.iter().any(|no| said.contains(no))
}

/// Whether what the server says is no answer to a command: it does not serve the connection.
pub(crate) fn is_of_connection(said: &str) -> bool {
    said.contains(CROWDED) || is_without_log_in(said)
}

/// What the server says of a command that it did not do.
pub(crate) fn of_server(said: &str) -> Error {
    let made = |kind, message: &str| Error::new(kind, format!("{message}: {said}")).with_outcome(Outcome::NotApplied);
    if is_out_of_memory(said) {
        return made(ErrorKind::Unavailable, "the server is full; raise its memory (-m)");
    }
    if said.contains(TOO_LARGE) {
        let message = "the record is full: too many want this lock or belong to this group, or say too much; raise the server's item size (-I)";
        return made(ErrorKind::Unavailable, message);
    }
    if is_without_log_in(said) {
        let message = "the server wants a log-in (it was started with -Y), which this driver does not have: leave out -Y, and let only those reach it that may";
        return made(ErrorKind::Unauthorized, message);
    }
    if said.contains(CROWDED) {
        let message = "the server has as many connections as it takes, and each coordinator needs two; raise their number (-c of memcached)";
        return made(ErrorKind::Unavailable, message);
    }
    made(ErrorKind::Backend, "the server answers")
}

/// An error of the list of groups: where that is full, it is not a group that is.
pub(crate) fn of_list(error: Error) -> Error {
    if !error.to_string().contains(TOO_LARGE) {
        return error;
    }
    let message = "too many groups are in this namespace, or have long names: the names of all stand in one record, which is full; delete some, or raise \
                   the server's item size (-I)";
    Error::new(ErrorKind::Unavailable, message).with_outcome(error.outcome()).with_source(error)
}

/// A touch of the session that may have been counted from a clock that stood still.
pub(crate) fn stood_still() -> Error {
    let message = "the server has stood still, and its clock may not be right yet: this heartbeat is not counted";
    Error::new(ErrorKind::Unavailable, message)
}

/// A record that many change at once.
pub(crate) fn crowded() -> Error {
    Error::new(ErrorKind::Unavailable, "others have changed the record again and again meanwhile")
        .with_outcome(Outcome::NotApplied)
}

/// A server without room, which deletes what it can't write to.
pub(crate) fn full() -> Error {
    of_server("out of memory")
}
