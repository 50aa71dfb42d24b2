//! What `tooz doctor` is told about the server.

use sqlx::Row as _;
use tooz_core::{Checkup, Result};

use crate::look::{Look, Repeat};
use crate::options::Settings;
use crate::{error, setup};

/// Looks at the server and at those of its settings on which the driver depends.
pub(crate) async fn check_up(look: &Look, settings: &Settings) -> Result<Checkup> {
    const DOING: &str = "look at the server's settings";
    let schema = settings.schema.clone();
    let question = || sqlx::query(include_str!("sql/checkup.sql")).bind(schema.clone());
    let rows = look.ask(DOING, Repeat::Allowed, question).await?.unwrap_or_default();
    let Some(row) = rows.first() else { return Ok(Checkup::default()) };
    let text = |column: &str| row.try_get::<String, _>(column).map_err(|error| error::of(error, DOING));
    let number = |column: &str| row.try_get::<i64, _>(column).map_err(|error| error::of(error, DOING));
    let is = |column: &str| row.try_get::<bool, _>(column).map_err(|error| error::of(error, DOING));

    let mut checkup = Checkup::new(format!("PostgreSQL {} at {}", text("version")?, setup::place(settings))).good(
        "it is a primary, and two statements of a connection reach the same process: there is no pooler in between",
    );
    let schema = &settings.schema;
    checkup = if is("has_tables")? {
        checkup.good(format!("the tables are in schema {schema:?}"))
    } else if is("may_create")? {
        checkup.good(format!("the tables are not there yet; the first member creates them in schema {schema:?}"))
    } else {
        checkup.wrong(
            format!("the tables are not in schema {schema:?}, and this user may not create them"),
            "let the database's owner run what `tooz schema postgres` prints",
        )
    };
    let (connections, used) = (number("max_connections")?, number("used_connections")?);
    let ours = i64::try_from(settings.waiters).unwrap_or(i64::MAX).saturating_add(2);
    checkup = if (connections - used) < ours {
        checkup.warning(
            format!("{used} of {connections} connections are in use, and a member takes up to {ours}"),
            "raise max_connections, or lower the option waiters",
        )
    } else {
        checkup.good(format!("{used} of {connections} connections are in use; a member takes up to {ours}"))
    };
    let places = number("lock_places")?;
    checkup = if places < 5000 {
        checkup.warning(
            format!("the server's lock table is made for about {places} locks, those of ordinary tables included"),
            "raise max_locks_per_transaction if members hold thousands of locks",
        )
    } else {
        checkup.good(format!("the server's lock table is made for about {places} locks"))
    };
    checkup = match text("synchronous_commit")?.as_str() {
        "off" => checkup.warning(
            "synchronous_commit is off: a group that was just created may be gone after a crash",
            "set synchronous_commit to on, at least for this user",
        ),
        other => checkup.good(format!("synchronous_commit is {other}: a group that was created stays")),
    };
    if is("has_tables")? {
        checkup = if number("cache")? == 1 {
            checkup.good("the counter of the fencing tokens has CACHE 1: tokens grow in the order of the grants")
        } else {
            checkup.wrong(
                "the counter of the fencing tokens hands out numbers in advance: tokens do not grow in the order of the grants",
                format!("ALTER SEQUENCE {schema}.fence CACHE 1"),
            )
        };
    }
    Ok(checkup.good(format!(
        "a session that is silent for {:?} is ended by the server (idle_session_timeout)",
        settings.session_timeout
    )))
}
