//! From an error of the client library or the server to a kind and to words that say what to do. The only place where that is
//! decided.

use std::fmt;
use std::time::Duration;

use sqlx::mysql::MySqlDatabaseError;
use tooz_core::{Error, ErrorKind, Outcome};

/// What to do where the connection is not the server's own.
const POOLED: &str = "between here and the server is a pooler or proxy that hands one connection to several clients, and with it their locks: \
     name the server itself in the URL, or see to it that each client keeps its connection";

/// What an administrator can mend with a command, whose words the settings say: [`advised`] adds it.
const LACKS: &str = "the user lacks a privilege";
const GONE: &str = "the tables of tooz are not (any more) in this database";

/// What to do where the server takes no packet of that length.
const LONG: &str = "raise max_allowed_packet of the server";

/// A packet that the server would not take, and for which it would end the connection: it is not sent.
pub(crate) fn too_long(length: usize, longest: usize) -> sqlx::Error {
    sqlx::Error::InvalidArgument(format!("a packet of {length} bytes, and the server takes {longest}"))
}

/// Adds the command that mends it, if there is one.
pub(crate) fn advised(error: Error, command: &str) -> Error {
    let said = error.to_string();
    if !said.ends_with(LACKS) && !said.ends_with(GONE) {
        return error;
    }
    let (kind, outcome) = (error.kind(), error.outcome());
    let first = if said.ends_with(GONE) { "connect anew, which makes them where the user may, or " } else { "" };
    Error::new(kind, format!("{said}: {first}let an administrator run {command}")).with_outcome(outcome)
}

/// The connection was found to be shared with others.
pub(crate) fn behind_pooler() -> Error {
    Error::config(POOLED)
}

/// The server was asked for this and something went wrong, on a connection that owns nothing.
#[expect(clippy::needless_pass_by_value, reason = "as `map_err` hands it over")]
pub(crate) fn of(error: sqlx::Error, doing: impl fmt::Display) -> Error {
    let Classification { kind, outcome, advice } = judge(&error);
    let word = words(&error);
    let message = if advice.is_empty() { format!("{doing}: {word}") } else { format!("{doing}: {word}; {advice}") };
    // All that the library's error says stands in the message: as a source it would be told twice.
    Error::new(kind, message).with_outcome(outcome)
}

/// The server was asked for this and something went wrong, on the session's connection: when that is dead, so is the session.
pub(crate) fn on_session(error: sqlx::Error, doing: impl fmt::Display) -> Error {
    if is_dead(&error) {
        // It may have been done before that.
        return Error::new(ErrorKind::Lost, format!("{doing}: the session's connection has ended: {}", words(&error)))
            .with_outcome(Outcome::Unknown);
    }
    of(error, doing)
}

/// The session's connection has gone before this could be asked.
pub(crate) fn lost(doing: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Lost, format!("{doing}: the session's connection has ended"))
}

/// The session's connection has gone while this was asked, or before.
pub(crate) fn cut_short(doing: impl fmt::Display) -> Error {
    lost(doing).with_outcome(Outcome::Unknown)
}

/// An error of a connection that is not the session's: its end takes nothing away.
pub(crate) fn outside(error: Error) -> Error {
    if error.kind() == ErrorKind::Lost {
        return Error::new(ErrorKind::Unavailable, "the connection has ended").with_source(error);
    }
    error
}

/// No answer in time. The statement is on its way and may still be carried out.
pub(crate) fn timed_out(limit: Duration, doing: impl fmt::Display) -> Error {
    Error::new(ErrorKind::TimedOut, format!("{doing}: no answer within {limit:?}"))
}

/// Nothing comes after this error on that connection.
pub(crate) fn is_dead(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => true,
        // The server shuts down; the packet was too big or broken, or did not come or go in time; the connection was killed; silent for too long.
        sqlx::Error::Database(_) => {
            matches!(number(error), Some(1053 | 1080 | 1152 | 1153 | 1156..=1161 | 1184 | 1927 | 3169 | 4031))
        }
        _ => false,
    }
}

/// A statement that was ended by `KILL QUERY`, or by a limit of its time.
pub(crate) fn is_cancelled(error: &sqlx::Error) -> bool {
    matches!(number(error), Some(1317 | 1969 | 3024))
}

/// A wait that the server takes for one in a circle: it says so also where thirty-two wait for one another in a row.
pub(crate) fn is_deadlock(error: &sqlx::Error) -> bool {
    matches!(number(error), Some(1213 | 3058))
}

/// There is no such thread any more.
pub(crate) fn is_no_thread(error: &sqlx::Error) -> bool {
    number(error) == Some(1094)
}

/// A database or a table that is not there.
pub(crate) fn is_missing(error: &sqlx::Error) -> bool {
    matches!(number(error), Some(1049 | 1146))
}

/// A right that this user does not have.
pub(crate) fn is_denied(error: &sqlx::Error) -> bool {
    matches!(number(error), Some(1044 | 1142 | 1143 | 1227 | 1370))
}

fn number(error: &sqlx::Error) -> Option<u16> {
    error.as_database_error()?.try_downcast_ref::<MySqlDatabaseError>().map(MySqlDatabaseError::number)
}

struct Classification {
    kind: ErrorKind,
    outcome: Outcome,
    advice: &'static str,
}

fn judge(error: &sqlx::Error) -> Classification {
    let not_applied = |kind, advice| Classification { kind, outcome: Outcome::NotApplied, advice };
    let unknown = |kind, advice| Classification { kind, outcome: Outcome::Unknown, advice };
    let Some(number) = number(error) else {
        return match error {
            sqlx::Error::Configuration(_) => not_applied(ErrorKind::Config, "see to the URL"),
            sqlx::Error::InvalidArgument(_) => not_applied(ErrorKind::Config, LONG),
            sqlx::Error::Tls(_) => not_applied(ErrorKind::Config, "see to sslmode and ca"),
            // What rustls refuses comes as data that makes no sense.
            sqlx::Error::Io(io) if io.kind() == std::io::ErrorKind::InvalidData => {
                not_applied(ErrorKind::Config, "see to sslmode and ca")
            }
            sqlx::Error::Io(io)
                if matches!(io.kind(), std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::NotFound) =>
            {
                not_applied(ErrorKind::Unavailable, "is the server running, and is this its address?")
            }
            sqlx::Error::Io(_) => unknown(ErrorKind::Unavailable, ""),
            sqlx::Error::Protocol(_) => unknown(ErrorKind::Backend, "is this a server of MySQL or MariaDB?"),
            _ => unknown(ErrorKind::Backend, ""),
        };
    };
    match number {
        1045 | 1698 => not_applied(ErrorKind::Unauthorized, "see to user and password"),
        1130 | 1129 => not_applied(ErrorKind::Unauthorized, "the server does not let this host in"),
        1044 | 1142 | 1143 | 1227 | 1370 => not_applied(ErrorKind::Unauthorized, LACKS),
        1062 => not_applied(ErrorKind::AlreadyExists, ""),
        3118 | 4151 => {
            not_applied(ErrorKind::Unauthorized, "an administrator has locked this account: let it be unlocked")
        }
        1820 | 1862 => not_applied(ErrorKind::Unauthorized, "the password has expired"),
        1049 | 1146 => not_applied(ErrorKind::Config, GONE),
        1054 | 1136 => not_applied(ErrorKind::Config, "a table of that name is not of this driver's making"),
        1235 => not_applied(ErrorKind::Config, "this server does not let clients lock by name: a node of a cluster?"),
        1665 => not_applied(ErrorKind::Config, "set binlog_format to ROW or MIXED"),
        1040 | 1203 | 1226 => not_applied(
            ErrorKind::Unavailable,
            "raise what it names, max_connections of the server or the limit of the user, or lower the option waiters",
        ),
        1290 | 1792 | 1836 | 3100 => {
            not_applied(ErrorKind::Unavailable, "the server is read-only: a replica? name the primary")
        }
        1205 | 1317 | 1969 | 3024 => not_applied(ErrorKind::TimedOut, "the server gave it up"),
        1213 | 3058 | 1021 | 1041 | 1114 => not_applied(ErrorKind::Unavailable, ""),
        1153 => unknown(ErrorKind::Config, LONG),
        1053 | 1080 | 1152 | 1156..=1161 | 1184 | 1927 | 3169 | 4031 => unknown(ErrorKind::Unavailable, ""),
        _ => not_applied(ErrorKind::Backend, ""),
    }
}

/// What happened, without the library's decoration.
fn words(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(database) => database.message().to_owned(),
        sqlx::Error::Io(io) => io.to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_connection_has_changed_nothing_and_says_what_to_look_at() {
        let refused = sqlx::Error::Io(std::io::ErrorKind::ConnectionRefused.into());
        assert!(is_dead(&refused));
        let error = of(refused, "connect to db:3306");
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::NotApplied));
        assert!(error.to_string().contains("db:3306") && error.to_string().contains("address"), "{error}");
    }

    #[test]
    fn a_dead_connection_is_the_end_of_the_session_that_lives_on_it() {
        let reset = || sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into());
        let error = on_session(reset(), "beat");
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Lost, Outcome::Unknown));
        assert_eq!(of(reset(), "look").outcome(), Outcome::Unknown);
        assert_eq!(on_session(sqlx::Error::RowNotFound, "beat").kind(), ErrorKind::Backend);
    }
}
