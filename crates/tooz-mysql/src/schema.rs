//! The tables as they are in the database: which layout they are kept in, and how they are made.

use tooz_core::{Error, ErrorKind, Outcome, Result};

use crate::answer::ResultSets;
use crate::ddl::ddl;
use crate::error;
use crate::layout::{LAYOUT, TABLES, quoted, table};
use crate::options::{DEFAULT_DATABASE, Settings};
use crate::packet::Packets;

/// What was found in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SchemaState {
    /// All tables, in the layout that this version speaks.
    Tables,
    /// Not all of them.
    Missing,
}

/// Looks for the tables. The error says that they are kept in another layout, or that this user may not use them.
pub(crate) async fn look(packets: &mut Packets, settings: &Settings) -> Result<SchemaState> {
    let doing = || format!("look for the tables in database {:?}", settings.database);
    let database = quoted(&settings.database);
    let each = TABLES.map(|name| format!("; SELECT 1 FROM {} LIMIT 0", table(&database, name)));
    let statements = kept(settings) + &each.concat();
    match packets.ask(&statements).await {
        Ok(answer) if is_ours(&answer, settings)? => Ok(SchemaState::Tables),
        Ok(_) => Ok(SchemaState::Missing),
        Err(error) if error::is_missing(&error) => Ok(SchemaState::Missing),
        Err(error) if error::is_denied(&error) => Err(unauthorized(settings, &error.to_string())),
        Err(error) => Err(error::on_session(error, doing())),
    }
}

/// Asks for the record of the layout.
pub(crate) fn kept(settings: &Settings) -> String {
    format!("SELECT layout, revision FROM {}", table(&quoted(&settings.database), "layout"))
}

/// Whether that record says the layout that this version speaks. The error says that it is another one; without a record nothing is said.
pub(crate) fn is_ours(answer: &ResultSets, settings: &Settings) -> Result<bool> {
    if answer.rows(0).is_empty() {
        return Ok(false);
    }
    match answer.number(0, 0).map_err(|error| error::of(error, "read in which layout the tables are kept"))? {
        Some(LAYOUT) => Ok(true),
        other => Err(foreign(&settings.database, &other.unwrap_or_default().to_string())),
    }
}

/// Creates what is missing, where this user may; else says what is to be run.
pub(crate) async fn ensure(packets: &mut Packets, settings: &Settings) -> Result<()> {
    // A user without any right to it is refused also where it is not there.
    let missing = match look(packets, settings).await {
        Ok(SchemaState::Tables) => return Ok(()),
        Ok(SchemaState::Missing) => None,
        Err(error) if error.kind() == ErrorKind::Unauthorized => Some(error),
        Err(error) => return Err(error),
    };
    let all = statements(&settings.database);
    let mut made = packets.ask(&all).await;
    if made.as_ref().is_err_and(error::is_denied)
        && let Some((_, tables)) = all.split_once(';')
    {
        // A user who may create tables in a database that is there may yet lack the right to create a database.
        made = packets.ask(tables).await;
    }
    match made {
        Ok(_) => Ok(()),
        Err(error) if error::is_denied(&error) || error::is_missing(&error) => {
            Err(missing.unwrap_or_else(|| unauthorized(settings, &error.to_string())))
        }
        Err(error) => Err(error::on_session(error, format!("create the tables in database {:?}", settings.database))),
    }
}

/// What the DDL does. The server refuses an empty statement at the end.
fn statements(database: &str) -> String {
    let all = ddl(database);
    let whole: Vec<&str> = all.lines().filter(|line| !line.starts_with("--")).collect();
    whole.join("\n").trim_end().trim_end_matches(';').to_owned()
}

/// The error for tables that are kept in another layout.
pub(crate) fn foreign(database: &str, layout: &str) -> Error {
    Error::config(format!(
        "the tables in database {database:?} are kept in layout {layout}, and this version of tooz speaks layout {LAYOUT}: members of both would \
         hold the same lock at once. Stop all that use the old one and drop its tables, or name another database in the URL"
    ))
}

fn unauthorized(settings: &Settings, why: &str) -> Error {
    let word = format!("{why}: let an administrator run {}", printed(settings));
    Error::new(ErrorKind::Unauthorized, word).with_outcome(Outcome::NotApplied)
}

/// What members do with the tables apart from reading them.
const WRITES: [(&str, &str, Option<&str>); 7] = [
    ("fence", "INSERT", Some("sub")),
    ("groups", "INSERT, DELETE", Some("version")),
    ("sessions", "INSERT, DELETE", None),
    ("members", "INSERT, DELETE", Some("capabilities")),
    ("grants", "INSERT, DELETE", None),
    ("sharers", "INSERT, DELETE", None),
    ("waits", "INSERT, DELETE", None),
];

/// Which of the privileges that members need this user lacks: each is tried on no row, which the server refuses all the same.
pub(crate) async fn lacking(packets: &mut Packets, database: &str) -> Vec<String> {
    let mut lacking = Vec::new();
    for (name, rights, column) in WRITES {
        let table = table(&quoted(database), name);
        let tried = rights.split(", ").map(|right| match right {
            "INSERT" => (right, format!("INSERT INTO {table} SELECT * FROM {table} WHERE 1 = 0")),
            _ => (right, format!("DELETE FROM {table} WHERE 1 = 0")),
        });
        let changed = column.map(|column| ("UPDATE", format!("UPDATE {table} SET {column} = {column} WHERE 1 = 0")));
        for (right, statement) in tried.chain(changed) {
            match packets.ask(&statement).await {
                Err(error) if error::is_denied(&error) => lacking.push(format!("{right} on tooz_{name}")),
                // What fails for another reason says nothing of privileges.
                Err(_) if packets.is_dead => return lacking,
                _ => {}
            }
        }
    }
    lacking
}

/// The command that prints what is to be run.
pub(crate) fn printed(settings: &Settings) -> String {
    let database = &settings.database;
    let named = if database == DEFAULT_DATABASE { String::new() } else { format!(" --schema {database:?}") };
    format!("what `tooz schema mysql{named} --role USER` prints")
}
