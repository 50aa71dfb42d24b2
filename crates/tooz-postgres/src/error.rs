//! From an error of the client library or the server to a kind and to words that say what to do. The only place where that is
//! decided.

use std::fmt;
use std::time::Duration;

use sqlx::postgres::{PgDatabaseError, PgSeverity};
use tooz_core::{Error, ErrorKind, Outcome};

/// What to do where the connection is not the server's own.
const POOLED: &str = "between here and the server is a pooler that hands one connection to several clients, and with it their locks: \
     name the server itself in the URL, or a pooler in session mode that resets its connections";

/// What to do where a pooler does not even let the client in.
const STARTUP: &str = "this is a pooler, which refuses what this client sends: name the server itself in the URL, or set pool_mode = session \
     and ignore_startup_parameters = extra_float_digits in the pooler's settings";

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
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(database) => database
            .try_downcast_ref::<PgDatabaseError>()
            .is_some_and(|error| matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic)),
        _ => false,
    }
}

/// A wait that reached the end of its slice.
pub(crate) fn is_end_of_slice(error: &sqlx::Error) -> bool {
    code(error).as_deref() == Some("55P03")
}

/// A statement that was cancelled.
pub(crate) fn is_cancelled(error: &sqlx::Error) -> bool {
    code(error).as_deref() == Some("57014")
}

/// A table or function that is not there, or not for this user: one that may not use a schema does not see what is in it.
pub(crate) fn is_missing(error: &sqlx::Error) -> bool {
    matches!(code(error).as_deref(), Some("42P01" | "42883" | "3F000" | "42501"))
}

fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(std::borrow::Cow::into_owned)
}

struct Classification {
    kind: ErrorKind,
    outcome: Outcome,
    advice: &'static str,
}

fn judge(error: &sqlx::Error) -> Classification {
    let not_applied = |kind, advice| Classification { kind, outcome: Outcome::NotApplied, advice };
    let unknown = |kind, advice| Classification { kind, outcome: Outcome::Unknown, advice };
    let Some(code) = code(error) else {
        return match error {
            sqlx::Error::Configuration(_) => not_applied(ErrorKind::Config, "see to the URL"),
            sqlx::Error::Tls(_) => not_applied(ErrorKind::Config, "see to sslmode and sslrootcert"),
            // What rustls refuses comes as data that makes no sense.
            sqlx::Error::Io(io) if io.kind() == std::io::ErrorKind::InvalidData => {
                not_applied(ErrorKind::Config, "see to sslmode and sslrootcert")
            }
            sqlx::Error::Io(io) if io.kind() == std::io::ErrorKind::ConnectionRefused => {
                not_applied(ErrorKind::Unavailable, "is the server running, and is this its address?")
            }
            sqlx::Error::Io(_) => unknown(ErrorKind::Unavailable, ""),
            sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => not_applied(ErrorKind::Unavailable, ""),
            sqlx::Error::Protocol(_) => unknown(ErrorKind::Backend, "is this a PostgreSQL server?"),
            _ => unknown(ErrorKind::Backend, ""),
        };
    };
    match code.as_str() {
        "28P01" => not_applied(ErrorKind::Unauthorized, "see to user and password"),
        "28000" => not_applied(
            ErrorKind::Unauthorized,
            "see to pg_hba.conf of the server, and to the user: is it there, and may it log in?",
        ),
        "42501" => not_applied(
            ErrorKind::Unauthorized,
            "the user lacks a privilege: let the owner run what `tooz schema postgres --role USER` prints",
        ),
        "3D000" => not_applied(ErrorKind::Config, "create the database, or name another one in the URL"),
        "42P01" | "42883" | "3F000" => not_applied(
            ErrorKind::Config,
            "the tables of tooz are not (any more) in this schema: run what `tooz schema postgres` prints",
        ),
        // Each connection prepares its own; only a pooler mixes them up.
        "42P05" | "26000" => not_applied(ErrorKind::Config, POOLED),
        // PgBouncer, unless it was told to bear what many clients send.
        "08P01" if words(error).contains("startup parameter") => not_applied(ErrorKind::Config, STARTUP),
        "53200" if names_lock_table(error) => not_applied(
            ErrorKind::Config,
            "each held lock takes a place in the server's lock table: raise max_locks_per_transaction in postgresql.conf",
        ),
        "53300" => not_applied(
            ErrorKind::Unavailable,
            "raise what it names, max_connections of the server or the CONNECTION LIMIT of the role or the database, or lower the option waiters",
        ),
        "25006" => not_applied(ErrorKind::Unavailable, "the server is read-only: a standby? name the primary"),
        "57P03" => not_applied(ErrorKind::Unavailable, "the server is starting or shutting down"),
        "57014" | "55P03" => not_applied(ErrorKind::TimedOut, "the server gave it up"),
        code if code.starts_with("57P") || code.starts_with("08") => unknown(ErrorKind::Unavailable, ""),
        code if code.starts_with("53") || code.starts_with("40") => not_applied(ErrorKind::Unavailable, ""),
        _ => not_applied(ErrorKind::Backend, ""),
    }
}

/// Whether it is the table of locks that is full, and not the memory: the advice of the server names the setting in every language.
fn names_lock_table(error: &sqlx::Error) -> bool {
    let error = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
    error.and_then(PgDatabaseError::hint).is_some_and(|hint| hint.contains("max_locks_per_transaction"))
}

/// What happened, without the library's decoration.
fn words(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(database) => database.message().to_owned(),
        sqlx::Error::Io(io) => io.to_string(),
        sqlx::Error::PoolTimedOut => "no connection could be made in time".to_owned(),
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
        let error = of(refused, "connect to db:5432");
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::NotApplied));
        assert!(error.to_string().contains("db:5432") && error.to_string().contains("address"), "{error}");
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
