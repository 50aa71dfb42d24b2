//! What `tooz doctor` is told about the server.

use sqlx::Row as _;
use sqlx::postgres::PgRow;
use tooz_core::{Checkup, Result};

use crate::client::{Client, Repeat};
use crate::ddl::quoted;
use crate::layout::{LAYOUT, REVISION};
use crate::schema::Todo;
use crate::sweep::STEP;
use crate::{error, setup};

const DOING: &str = "look at the server's settings";

/// Looks at the server and at those of its settings on which the driver depends.
pub(crate) async fn check_up(client: &Client) -> Result<Checkup> {
    let settings = &client.settings;
    let schema = settings.schema.clone();
    let question = || sqlx::query(include_str!("sql/checkup.sql")).bind(schema.clone());
    let rows = client.ask(DOING, Repeat::Allowed, question).await?.unwrap_or_default();
    let Some(row) = rows.first() else { return Ok(Checkup::default()) };
    let text = |column: &str| row.try_get::<String, _>(column).map_err(|error| error::of(error, DOING));
    let number = |column: &str| row.try_get::<i64, _>(column).map_err(|error| error::of(error, DOING));

    let mut checkup = Checkup::new(format!("PostgreSQL {} at {}", text("version")?, setup::place(settings))).good(
        "it is a primary, and two statements of a connection reach the same process: no pooler in between hands out one connection to several clients",
    );
    checkup = checkup.good("the database is UTF-8, as names and capabilities are");
    let schema = &settings.schema;
    let found = client.schema().await?;
    checkup = match found.todo(settings) {
        Ok(Todo::Nothing) => checkup.good(format!(
            "the tables are in schema {schema:?} (layout {LAYOUT}, revision {}), and this user has all privileges",
            found.revision()
        )),
        Ok(Todo::Create) if found.has_tables && !found.is_old() => checkup.warning(
            format!("tables or functions in schema {schema:?} were dropped; the next member that opens a session makes them again"),
            found.printed(settings),
        ),
        Ok(Todo::Create) if found.has_tables => checkup.good(format!(
            "the tables in schema {schema:?} are of an older version (revision {}); the first member brings them to revision {REVISION}",
            found.revision()
        )),
        Ok(Todo::Create) => {
            checkup.good(format!("the tables are not there yet; the first member creates them in schema {schema:?}"))
        }
        Err(error) => checkup.wrong(error.to_string(), found.mend(settings)),
    };
    // Members that live do not tell when it fails, and go on without it.
    let step = || sqlx::query(STEP).bind(0_i64).bind(0.25);
    if found.can_clear_up()
        && let Err(error) = client.ask("take away what the dead left", Repeat::Allowed, step).await
    {
        checkup = checkup.wrong(
            format!("what dead members left can't be taken away now: {error}"),
            "do as the message says; until then the dead stay listed, and members that watch look again every session timeout",
        );
    }
    checkup = connections(checkup, row, settings.waiters)?;
    let places = number("lock_places")?;
    checkup = if places < 5000 {
        checkup.warning(
            format!("the server's lock table is made for about {places} locks, those of ordinary tables included"),
            "raise max_locks_per_transaction if members hold thousands of locks",
        )
    } else {
        checkup.good(format!("the server's lock table is made for about {places} locks"))
    };
    checkup = checkup.good(match text("standbys")?.as_str() {
        "" => "what locks and members write waits for no disk; a group that was created is on the server's own disk".to_owned(),
        standbys => format!(
            "commits of others wait for the standbys {standbys:?}: those of tooz don't, so a standby that is lost takes no lock, and a group \
             that was just created may be missing after a failover"
        ),
    });
    if let Some(cache) = row.try_get::<Option<i64>, _>("cache").map_err(|error| error::of(error, DOING))? {
        let turns = row.try_get::<Option<bool>, _>("fence_turns").map_err(|error| error::of(error, DOING))?;
        checkup = if turns == Some(true) {
            checkup.wrong(
                "the counter of the fencing tokens does not grow for ever, as it was made",
                format!("ALTER SEQUENCE {}.fence INCREMENT 1 NO MAXVALUE NO CYCLE", quoted(schema)),
            )
        } else if cache == 1 {
            checkup.good("the counter of the fencing tokens has CACHE 1: tokens grow in the order of the grants")
        } else {
            checkup.wrong(
                "the counter of the fencing tokens hands out numbers in advance: tokens do not grow in the order of the grants",
                format!("ALTER SEQUENCE {}.fence CACHE 1", quoted(schema)),
            )
        };
    }
    Ok(checkup.good(format!(
        "a session that is silent for {:?} is ended by the server (idle_session_timeout)",
        settings.session_timeout
    )))
}

/// How many connections there is room for: at the server, for the role and for the database.
fn connections(mut checkup: Checkup, row: &PgRow, waiters: usize) -> Result<Checkup> {
    let failed = |error| error::of(error, DOING);
    let number = |column: &str| row.try_get::<i64, _>(column).map_err(failed);
    let name = |column: &str| row.try_get::<&str, _>(column).map(quoted).map_err(failed);
    let limit = |column: &str| row.try_get::<Option<i64>, _>(column).map_err(failed);
    let ours = i64::try_from(waiters).unwrap_or(i64::MAX).saturating_add(2);
    let (role, database) = (name("role")?, name("database")?);
    let unreserved = number("max_connections")? - number("reserved_connections")?;
    let limits = [
        (
            Some(unreserved),
            "used_connections",
            "the connections that this user may have".to_owned(),
            "raise max_connections".to_owned(),
        ),
        (
            limit("role_limit")?,
            "role_connections",
            format!("the connections of role {role}"),
            format!("ALTER ROLE {role} CONNECTION LIMIT -1 (or a higher one)"),
        ),
        (
            limit("database_limit")?,
            "database_connections",
            format!("the connections of database {database}"),
            format!("ALTER DATABASE {database} CONNECTION LIMIT -1 (or a higher one)"),
        ),
    ];
    for (limit, used, what, mend) in limits {
        let Some(limit) = limit else { continue };
        let used = number(used)?;
        let found = format!("{used} of {limit} of {what} are in use, and a member takes up to {ours}");
        checkup = if limit - used < ours {
            checkup.warning(found, format!("{mend}, or lower the option waiters"))
        } else {
            checkup.good(found)
        };
    }
    Ok(checkup)
}
