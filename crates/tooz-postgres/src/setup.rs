//! The setup of a fresh connection: how it is to behave by what it is for, and which servers are refused.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Row as _};
use tooz_core::{Error, ErrorKind, Outcome, Result};

use crate::ddl::quoted;
use crate::error;
use crate::options::Settings;

/// The oldest version that has all that is needed (`idle_session_timeout`).
const OLDEST: u32 = 14;

/// The longest that one statement waits: as long as it does, the server keeps old rows of every table for it.
pub(crate) const SLICE: Duration = Duration::from_mins(1);

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The session lives on it: it ends when nothing was asked for the session timeout.
    Session,
    /// It reads, listens, and changes what belongs to no session.
    Client,
    /// It waits for locks. What it holds meanwhile has to end with a client that hangs, too.
    Wait,
}

/// Makes a connection that is ready for its role.
pub(crate) async fn connect(settings: &Settings, role: Role) -> Result<(PgConnection, i32)> {
    let doing = || format!("connect to {}", place(settings));
    let connecting = async {
        let options = settings.connect_options().await?;
        let mut connection = PgConnection::connect_with(&options).await.map_err(|error| error::of(error, doing()))?;
        let pid = begin(&mut connection, settings, role).await?;
        Ok((connection, pid))
    };
    tokio::time::timeout(settings.connect_timeout, connecting)
        .await
        .unwrap_or_else(|_| Err(error::timed_out(settings.connect_timeout, doing())))
}

/// Fails if a second connection comes to the same process of the server as the first, which is open and idle. A pooler lends the one that
/// it used last, so this finds it before a lock is relied on; what slips through is found by each statement that touches one.
pub(crate) async fn refuse_pooler(settings: &Settings, pid: i32) -> Result<()> {
    match connect(settings, Role::Client).await {
        Ok((_, second)) if second == pid => Err(error::behind_pooler()),
        Err(error) if error.kind() == ErrorKind::Config => Err(error),
        // A server that has no room for one more connection has still room for this session.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Sees whether a server is at the address: a pool of the library, which makes the other connections, goes on knocking in silence.
pub(crate) async fn knock(settings: &Settings) -> Result<()> {
    // A Unix socket that is not there is told by the pool at once.
    if settings.is_local() {
        return Ok(());
    }
    let doing = || format!("connect to {}", place(settings));
    let knocking = tokio::net::TcpStream::connect(settings.address());
    match tokio::time::timeout(settings.connect_timeout, knocking).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error::of(sqlx::Error::Io(error), doing())),
        Err(_) => Err(error::timed_out(settings.connect_timeout, doing())),
    }
}

/// The server's address, for messages.
pub(crate) fn place(settings: &Settings) -> String {
    let (host, port) = settings.address();
    format!("{host}:{port}")
}

/// Tells a fresh connection how to behave, and answers the process of the server behind it.
pub(crate) async fn begin(connection: &mut PgConnection, settings: &Settings, role: Role) -> Result<i32> {
    const DOING: &str = "set the connection up";
    let failed = |error| error::of(error, DOING);
    if let Some(number) = connection.server_version_num()
        && number < OLDEST * 10_000
    {
        let major = number / 10_000;
        return Err(Error::config(format!("the server is PostgreSQL {major}, but this needs {OLDEST} or newer")));
    }
    let millis = |duration: Duration| duration.as_millis().max(1).to_string();
    let seconds = |duration: Duration| duration.as_secs_f64().ceil().max(1.0).to_string();
    let timeout = settings.session_timeout;
    let off = || "0".to_owned();
    let limit = millis(settings.statement_timeout);
    // The limit of a statement ends before its commit, in which a notification waits for those of all others: that is for the limit of locks.
    // It is the shorter one, so that the caller hears that nothing was done.
    let locking = millis(settings.statement_timeout * 4 / 5);
    let (statement, wait, idle) = match role {
        Role::Session => (limit, locking, millis(timeout)),
        Role::Client => (limit, locking, off()),
        Role::Wait => (off(), millis(SLICE), millis(timeout)),
    };
    // What a lock writes may be lost with the server, which loses the locks as well. A group that was created is to outlive that.
    let commit = match role {
        Role::Session | Role::Wait => "off",
        Role::Client => "local",
    };
    let row = sqlx::query(include_str!("sql/begin.sql"))
        .bind(quoted(&settings.schema))
        .bind(statement)
        .bind(wait)
        .bind(idle)
        .bind(millis(timeout))
        // Where the system knows no tcp_user_timeout: together not below the session timeout.
        .bind(seconds(timeout / 2))
        .bind(seconds(timeout / 4))
        .bind(commit)
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    if row.try_get::<bool, _>("standby").map_err(failed)? {
        return Err(Error::new(
            ErrorKind::Unavailable,
            "the server is a standby, on which nothing can be locked: name the primary",
        )
        .with_outcome(Outcome::NotApplied));
    }
    let encoding: &str = row.try_get("encoding").map_err(failed)?;
    if encoding != "UTF8" {
        return Err(Error::config(format!(
            "the database is kept in {encoding}, but names and capabilities are UTF-8: name a database in the URL that was created with \
             ENCODING 'UTF8'"
        )));
    }
    let pid: i32 = row.try_get("pid").map_err(failed)?;
    let again = "SELECT pg_backend_pid() AS pid, \
                 (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()) AS locks";
    let row = sqlx::query(again).fetch_one(&mut *connection).await.map_err(failed)?;
    if row.try_get::<i32, _>("pid").map_err(failed)? != pid || row.try_get::<i64, _>("locks").map_err(failed)? > 0 {
        return Err(error::behind_pooler());
    }
    if role == Role::Wait {
        // Lets the server notice a client that went away while it waits. Systems that can't do that refuse the setting.
        let check = "SELECT set_config('client_connection_check_interval', '1s', false)";
        if let Err(error) = sqlx::query(check).fetch_one(&mut *connection).await
            && error::is_dead(&error)
        {
            return Err(failed(error));
        }
    }
    Ok(pid)
}
