//! `tooz schema`: what to run in a database where tooz may not create its tables itself.

use std::io::Write as _;

use crate::args::{Database, SchemaArguments};
use crate::exit;
use crate::failure::CommandFailure;

/// What a driver says of its tables.
struct Tables {
    ddl: fn(&str) -> String,
    privileges: fn(&str, &str) -> String,
}

pub(crate) fn run(arguments: &SchemaArguments) -> Result<u8, CommandFailure> {
    let tables = tables(arguments.database)?;
    let schema = &arguments.schema;
    let mut statements = (tables.ddl)(schema);
    if arguments.role.is_empty() {
        statements +=
            "\n-- Members that do not own the schema need privileges: --role NAME prints the GRANTs for their role.\n";
    }
    for role in &arguments.role {
        statements += "\n-- What members need that log in as this role.\n";
        statements += &(tables.privileges)(schema, role);
    }
    write!(std::io::stdout(), "{statements}")?;
    Ok(exit::SUCCESS)
}

#[cfg_attr(
    all(feature = "postgres", feature = "mysql"),
    allow(clippy::unnecessary_wraps, reason = "without one of the drivers it fails")
)]
fn tables(database: Database) -> Result<Tables, CommandFailure> {
    match database {
        #[cfg(feature = "postgres")]
        Database::Postgres => Ok(Tables { ddl: tooz::postgres::ddl, privileges: tooz::postgres::privileges }),
        #[cfg(feature = "mysql")]
        Database::Mysql => Ok(Tables { ddl: tooz::mysql::ddl, privileges: tooz::mysql::privileges }),
        #[cfg(not(all(feature = "postgres", feature = "mysql")))]
        missing => Err(crate::schemes::not_built(match missing {
            Database::Postgres => "postgres",
            Database::Mysql => "mysql",
        })),
    }
}
