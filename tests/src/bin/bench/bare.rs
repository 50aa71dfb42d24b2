//! A lock by a database's own two statements, as an application would send them without tooz: through the client that the driver uses, on a
//! connection of its own.

use std::str::FromStr as _;

use anyhow::{Context as _, Result};
use sqlx::mysql::MySqlConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, PgConnection};

use crate::backend::Backend;

/// What an application would have.
pub(crate) struct Bare {
    connection: Connection,
    take: &'static str,
    give_back: &'static str,
}

enum Connection {
    Postgres(Box<PgConnection>),
    MySql(Box<MySqlConnection>),
}

impl Bare {
    /// Where a backend has such statements; a server that the user gave is asked with the user's own URL.
    pub(crate) async fn connect(backend: &Backend) -> Result<Option<Self>> {
        let bare = match backend.name {
            "postgres" => Bare {
                connection: Connection::Postgres(Box::new(PgConnection::connect(backend.plain_url()).await?)),
                take: "SELECT pg_try_advisory_lock(7001)",
                give_back: "SELECT pg_advisory_unlock(7001)",
            },
            "mysql" => {
                // Named locks belong to the server, and the driver makes the database that the URL names only later.
                let mysql = MySqlConnectOptions::from_str(backend.plain_url())?.database("information_schema");
                Bare {
                    connection: Connection::MySql(Box::new(MySqlConnection::connect_with(&mysql).await?)),
                    take: "SELECT GET_LOCK('bare', 0), UUID_SHORT()",
                    give_back: "SELECT RELEASE_LOCK('bare')",
                }
            }
            _ => return Ok(None),
        };
        Ok(Some(bare))
    }

    /// Takes the lock and gives it back.
    pub(crate) async fn pair(&mut self) -> Result<()> {
        for statement in [self.take, self.give_back] {
            let statement = sqlx::raw_sql(AssertSqlSafe(statement));
            match &mut self.connection {
                Connection::Postgres(connection) => statement.fetch_one(&mut **connection).await.map(drop),
                Connection::MySql(connection) => statement.fetch_one(&mut **connection).await.map(drop),
            }
            .context("a bare statement")?;
        }
        Ok(())
    }
}
