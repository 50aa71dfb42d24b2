//! `tooz schema`: what to run in a database where tooz may not create its tables itself.

use std::io::Write as _;

use crate::args::{Database, SchemaArguments};
use crate::exit::{self, Failure};

pub(crate) fn run(arguments: &SchemaArguments) -> Result<u8, Failure> {
    let statements = match arguments.database {
        Database::Postgres => tooz::postgres::ddl(&arguments.schema),
    };
    writeln!(std::io::stdout(), "{}", statements.trim_end())?;
    Ok(exit::SUCCESS)
}
