//! The setup of a fresh connection: how it is to behave by what it is for, and which servers are refused.

use std::time::Duration;

use sqlx::Connection as _;
use sqlx::mysql::MySqlConnection;
use tooz_core::{Error, Result};

use crate::answer::text;
use crate::error;
use crate::options::Settings;
use crate::packet::{Packets, seconds};
use crate::server::{self, Server, VARIABLES};

/// The longest that one statement waits for a lock.
pub(crate) const SLICE: Duration = Duration::from_mins(1);

/// How long a connection that owns nothing may be silent, at least. One that was cut without a word is there until then, and counts as one of the server's, and a
/// reader's wish to know holders stands as long.
const QUIET: Duration = Duration::from_mins(1);

/// What our statements mean, whatever the server gives to its clients by default. A `COMMIT` that begins the next transaction (`completion_type`) would hide from
/// others what was written, shares among it; one that ends the connection would end the session. A limit of rows (`sql_select_limit`) would hide shares too.
/// What the server does for each new connection (`init_connect`) may have begun a transaction, so one is rolled back behind this.
const MEANING: &str = "completion_type = 'NO_CHAIN', sql_mode = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION', time_zone = '+00:00', \
    sql_select_limit = 18446744073709551615, sql_safe_updates = 0, sql_big_selects = 1";

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The session lives on it: it ends when nothing was asked for the session timeout.
    Session,
    /// It reads, and changes what belongs to no session.
    Client,
    /// It waits for locks. What it holds meanwhile has to end with a client that hangs, too.
    Wait,
}

/// What is at the other end of a connection.
pub(crate) struct Handshake {
    /// The number by which the server knows the connection.
    pub(crate) number: i64,
    pub(crate) server: Server,
}

/// How long a connection that owns nothing may be silent. Who watches looks once in a session timeout, so its connection stays.
pub(crate) fn quiet(session_timeout: Duration) -> Duration {
    (session_timeout * 3).max(QUIET)
}

/// Makes a connection that is ready for its role.
pub(crate) async fn connect(settings: &Settings, role: Role) -> Result<(Packets, Handshake)> {
    let doing = || format!("connect to {}", settings.place());
    let connecting = async {
        let options = settings.connect_options().await?;
        let connection = MySqlConnection::connect_with(&options).await.map_err(|error| error::of(error, doing()))?;
        let mut packets = Packets::new(connection);
        let begun = begin(&mut packets, settings, role).await?;
        Ok((packets, begun))
    };
    tokio::time::timeout(settings.connect_timeout, connecting)
        .await
        .unwrap_or_else(|_| Err(error::timed_out(settings.connect_timeout, doing())))
}

/// The statement that sets the limit of those that come after it; zero is none. Each family knows a variable of its own, in a comment that the other one
/// does not read. A wait for a named lock is a statement like others.
pub(crate) fn statement_limit(limit: Duration) -> String {
    format!(
        "SET SESSION autocommit = 1 /*M!100101 , max_statement_time = {} */ /*!50708 , max_execution_time = {} */",
        limit.as_secs_f64(),
        limit.as_millis()
    )
}

/// Tells a connection how to behave. The error says why the server will not do.
pub(crate) async fn begin(packets: &mut Packets, settings: &Settings, role: Role) -> Result<Handshake> {
    const DOING: &str = "set the connection up";
    const SELF: usize = 6;
    const SHOWN: usize = 7;
    let failed = |error| error::of(error, DOING);
    let timeout = settings.session_timeout;
    let (silent, limit) = match role {
        Role::Session => (timeout, settings.statement_timeout),
        Role::Client => (quiet(timeout), settings.statement_timeout),
        Role::Wait => (timeout, Duration::ZERO),
    };
    let locking = seconds(settings.statement_timeout);
    // A client that hangs in the middle of a packet, or does not read an answer, is silent too. An `ALTER` behind some reader would keep
    // all statements waiting, by default for a day or a year.
    let statements = format!(
        "SET SESSION wait_timeout = {silent}, net_read_timeout = {hung}, net_write_timeout = {hung}, innodb_lock_wait_timeout = {locking}, \
         lock_wait_timeout = {locking}, {MEANING}; ROLLBACK; {limited}; SET NAMES utf8mb4 COLLATE utf8mb4_bin; \
         SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; SET SESSION TRANSACTION READ WRITE; \
         SELECT CONNECTION_ID(), VERSION(), @@version_comment; {VARIABLES}",
        silent = seconds(silent),
        hung = seconds(timeout),
        limited = statement_limit(limit),
    );
    let answer = packets.ask(&statements).await.map_err(failed)?;
    let number = answer.number(SELF, 0).map_err(failed)?.unwrap_or_default();
    let word = |column| answer.text(SELF, column).map(Option::unwrap_or_default).map_err(failed);
    let variables: Result<_, sqlx::Error> = answer
        .rows(SHOWN)
        .iter()
        .map(|row| Ok((text(row, 0)?.unwrap_or_default().to_lowercase(), text(row, 1)?.unwrap_or_default())))
        .collect();
    let server = Server::judge(&word(1)?, &word(2)?, variables.map_err(failed)?)?;
    if settings.cases.is_some_and(|before| before != server.cases()) {
        return Err(server::other_cases());
    }
    packets.longest = usize::try_from(server.number("max_allowed_packet").unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    if number == 0 || answer.count() != SHOWN + 1 {
        return Err(Error::config("what answers is no server of MySQL or MariaDB"));
    }
    Ok(Handshake { number, server })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_owns_nothing_outlasts_the_looks_of_a_watch_and_no_more() {
        for (timeout, silent) in [(1, 60), (10, 60), (30, 90), (600, 1800)] {
            assert_eq!(quiet(Duration::from_secs(timeout)), Duration::from_secs(silent));
        }
    }
}
