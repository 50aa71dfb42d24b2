//! What `tooz doctor` is told about the server.

use sqlx::Row as _;
use tooz_core::{Checkup, Result};

use crate::client::{Client, Repeat};
use crate::ddl::quoted;
use crate::layout::{LAYOUT, REVISION};
use crate::schema::Todo;
use crate::{error, setup};

/// Looks at the server and at those of its settings on which the driver depends.
pub(crate) async fn check_up(client: &Client) -> Result<Checkup> {
    const DOING: &str = "look at the server's settings";
    let settings = &client.settings;
    let schema = settings.schema.clone();
    let question = || sqlx::query(include_str!("sql/checkup.sql")).bind(schema.clone());
    let rows = client.ask(DOING, Repeat::Allowed, question).await?.unwrap_or_default();
    let Some(row) = rows.first() else { return Ok(Checkup::default()) };
    let text = |column: &str| row.try_get::<String, _>(column).map_err(|error| error::of(error, DOING));
    let number = |column: &str| row.try_get::<i64, _>(column).map_err(|error| error::of(error, DOING));

    let mut checkup = Checkup::new(format!("PostgreSQL {} at {}", text("version")?, setup::place(settings))).good(
        "it is a primary, and two statements of a connection reach the same process: there is no pooler in between",
    );
    checkup = checkup.good("the database is UTF-8, as names and capabilities are");
    let schema = &settings.schema;
    let found = client.schema().await?;
    checkup = match found.todo(settings) {
        Ok(Todo::Nothing) => checkup.good(format!(
            "the tables are in schema {schema:?} (layout {LAYOUT}, revision {}), and this user has all privileges",
            found.revision()
        )),
        Ok(Todo::Create) if found.has_tables => checkup.good(format!(
            "the tables in schema {schema:?} are of an older version (revision {}); the first member brings them to revision {REVISION}",
            found.revision()
        )),
        Ok(Todo::Create) => {
            checkup.good(format!("the tables are not there yet; the first member creates them in schema {schema:?}"))
        }
        Err(error) => checkup.wrong(error.to_string(), found.mend(settings)),
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
    checkup = checkup.good(match text("standbys")?.as_str() {
        "" => "what locks and members write waits for no disk; a group that was created is on the server's own disk".to_owned(),
        standbys => format!(
            "commits of others wait for the standbys {standbys:?}: those of tooz don't, so a standby that is lost takes no lock, and a group \
             that was just created may be missing after a failover"
        ),
    });
    if let Some(cache) = row.try_get::<Option<i64>, _>("cache").map_err(|error| error::of(error, DOING))? {
        checkup = if cache == 1 {
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
