//! The tables, the counter and the functions: their DDL, and how they come into the database.

use sqlx::{AssertSqlSafe, PgConnection, Row as _};
use tooz_core::Result;

use crate::options::Settings;
use crate::{error, key};

const TEMPLATE: &str = include_str!("sql/schema.sql");
const CREATE_SCHEMA: &str = "CREATE SCHEMA IF NOT EXISTS {schema};";

/// The DDL for a schema of that name (the option `schema`, by default `tooz`), for whoever may create.
///
/// The driver runs it by itself where it may. It can be run again: it adds what is missing and touches nothing else.
pub fn ddl(schema: &str) -> String {
    fill(TEMPLATE, schema)
}

/// A schema's name as it stands in SQL and in `search_path`.
pub(crate) fn quoted(schema: &str) -> String {
    format!("\"{}\"", schema.replace('"', "\"\""))
}

/// Creates what is missing. Everything comes in one transaction, so that the last function tells whether all is there.
pub(crate) async fn ensure(connection: &mut PgConnection, settings: &Settings) -> Result<()> {
    let doing = || format!("look for the tables in schema {:?}", settings.schema);
    let there = sqlx::query(include_str!("sql/tables.sql"))
        .bind(&settings.schema)
        .fetch_one(&mut *connection)
        .await
        .map_err(|error| error::of(error, doing()))?;
    let is = |column: &str| there.try_get::<bool, _>(column).map_err(|error| error::of(error, doing()));
    if is("all_is_there")? {
        return Ok(());
    }
    // Who may create in a schema that is there may yet lack the right to create schemas.
    let template = if is("schema_is_there")? { TEMPLATE.replace(CREATE_SCHEMA, "") } else { TEMPLATE.to_owned() };
    // A text without parameters is one transaction, and the lock goes with it. The limit of a statement is for small ones.
    let script = format!(
        "SELECT set_config('statement_timeout', '30s', true), pg_advisory_xact_lock({});\n{}",
        key::creating(&settings.schema),
        fill(&template, &settings.schema)
    );
    sqlx::raw_sql(AssertSqlSafe(script))
        .execute(connection)
        .await
        .map_err(|error| error::of(error, format_args!("create the tables in schema {:?}", settings.schema)))?;
    Ok(())
}

fn fill(template: &str, schema: &str) -> String {
    let quoted = quoted(schema);
    // Inside a literal the quotes of the literal count as well.
    template.replace("{schema_text}", &quoted.replace('\'', "''")).replace("{schema}", &quoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ddl_names_the_schema_everywhere_and_quotes_it() {
        assert!(TEMPLATE.contains(CREATE_SCHEMA), "it is left out where the schema is there");
        let ddl = ddl("it's \"x\"");
        assert!(ddl.contains("CREATE SCHEMA IF NOT EXISTS \"it's \"\"x\"\"\";"), "{ddl}");
        assert!(ddl.contains("setval('\"it''s \"\"x\"\"\".fence'"), "{ddl}");
        assert!(!ddl.contains('{'), "{ddl}");
    }
}
