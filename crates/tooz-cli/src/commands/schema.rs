//! `tooz schema`: what to run in a database where tooz may not create its tables itself.

use std::io::Write as _;

use crate::args::{Database, SchemaArguments};
use crate::exit::{self, CommandFailure};

pub(crate) fn run(arguments: &SchemaArguments) -> Result<u8, CommandFailure> {
    let schema = &arguments.schema;
    let (mut statements, privileges): (_, fn(&str, &str) -> String) = match arguments.database {
        Database::Postgres => (tooz::postgres::ddl(schema), tooz::postgres::privileges),
        Database::Mysql => (tooz::mysql::ddl(schema), tooz::mysql::privileges),
    };
    if arguments.role.is_empty() {
        statements +=
            "\n-- Members that do not own the schema need privileges: --role NAME prints the GRANTs for their role.\n";
    }
    for role in &arguments.role {
        statements += "\n-- What members need that log in as this role.\n";
        statements += &privileges(schema, role);
    }
    write!(std::io::stdout(), "{statements}")?;
    Ok(exit::SUCCESS)
}
