//! The tables, the counter and the functions: their DDL, and how they come into the database.

use sqlx::{AssertSqlSafe, PgConnection};
use tooz_core::Result;

use crate::layout::{Found, LAYOUT, REVISION, Todo};
use crate::options::Settings;
use crate::{error, key};

const TEMPLATE: &str = include_str!("sql/schema.sql");
const CREATE_SCHEMA: &str = "CREATE SCHEMA IF NOT EXISTS {schema};";

/// The schema unless another one is named.
pub(crate) const DEFAULT: &str = "tooz";

/// The DDL for a schema of that name (the option `schema`, by default `tooz`), for whoever may create, or owns what an older version made.
///
/// The driver runs it by itself where it may. It is one transaction and can be run again: it adds what is missing, brings the functions up to
/// date, and touches no rows. What a newer version has made it refuses to change.
pub fn ddl(schema: &str) -> String {
    format!("BEGIN;\n{}COMMIT;\n", fill(TEMPLATE, schema))
}

/// The `GRANT`s for members that log in as `role` and do not own the schema.
pub fn grants(schema: &str, role: &str) -> String {
    grant_statements(schema, role).join("\n") + "\n"
}

/// To use the schema, to change rows, to take tokens, to call the functions.
pub(crate) fn grant_statements(schema: &str, role: &str) -> [String; 4] {
    let (schema, role) = (quoted(schema), quoted(role));
    [
        format!("GRANT USAGE ON SCHEMA {schema} TO {role};"),
        format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {} TO {role};", tables(&schema)),
        format!("GRANT USAGE, SELECT, UPDATE ON SEQUENCE {schema}.fence TO {role};"),
        format!("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {schema} TO {role};"),
    ]
}

/// For those who only look.
pub(crate) fn grant_read(schema: &str, role: &str) -> String {
    format!("GRANT SELECT ON {} TO {};", tables(&quoted(schema)), quoted(role))
}

fn tables(quoted_schema: &str) -> String {
    ["groups", "sessions", "members", "grants"].map(|table| format!("{quoted_schema}.{table}")).join(", ")
}

/// A schema's or a role's name as it stands in SQL and in `search_path`.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Creates what is missing and brings up to date what is older, where this user may; else says who can. In one transaction, so that the
/// record of the layout tells whether all is there.
pub(crate) async fn ensure(connection: &mut PgConnection, settings: &Settings) -> Result<()> {
    let doing = || format!("create the tables in schema {:?}", settings.schema);
    let failed = |error| error::of(error, doing());
    let found = Found::look(connection, settings).await?;
    if found.todo(settings)? == Todo::Nothing {
        return Ok(());
    }
    // Who may create in a schema that is there may yet lack the right to create schemas.
    let template = if found.has_schema { TEMPLATE.replace(CREATE_SCHEMA, "") } else { TEMPLATE.to_owned() };
    // A text without parameters is one transaction, and its locks go with it. The limit of a statement is for small ones, and whoever else is just
    // creating may take its time. Whatever this waits for after that keeps others waiting behind it, so it is not patient with those who live
    // in the tables.
    let script = format!(
        "SELECT set_config('statement_timeout', '30s', true), set_config('lock_timeout', '30s', true);\n\
         SELECT pg_advisory_xact_lock({});\nSET LOCAL lock_timeout = '1s';\n{}",
        key::creating(&settings.schema),
        fill(&template, &settings.schema)
    );
    sqlx::raw_sql(AssertSqlSafe(script)).execute(connection).await.map(drop).map_err(failed)
}

/// Puts the names in, in one pass: what is put in may look like a place to put something in.
fn fill(template: &str, schema: &str) -> String {
    let schema_quoted = quoted(schema);
    // A quoted text ends where its tag comes again, so the tag is one that the name does not have.
    let tag = |word: &str| {
        let mut tag = format!("${word}$");
        while schema_quoted.contains(tag.trim_end_matches('$')) {
            tag.insert(tag.len() - 1, 'x');
        }
        tag
    };
    let (body, literal) = (tag("tooz"), tag("name"));
    let mut filled = String::with_capacity(template.len() * 2);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        filled += before;
        let (place, after) = after.split_once('}').unwrap_or((after, ""));
        let value = match place {
            "schema" => schema_quoted.clone(),
            "body" => body.clone(),
            "fence" => format!("{literal}{schema_quoted}.fence{literal}"),
            "layout_table" => format!("{literal}{schema_quoted}.layout{literal}"),
            "creating" => key::creating(schema).to_string(),
            "layout" => LAYOUT.to_string(),
            "revision" => REVISION.to_string(),
            other => unreachable!("schema.sql has no place {other}"),
        };
        filled.push_str(&value);
        rest = after;
    }
    filled + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ddl_names_the_schema_everywhere_and_quotes_it() {
        assert!(TEMPLATE.contains(CREATE_SCHEMA), "it is left out where the schema is there");
        let ddl = ddl("it's \"x\"");
        assert!(ddl.contains("CREATE SCHEMA IF NOT EXISTS \"it's \"\"x\"\"\";"), "{ddl}");
        assert!(ddl.contains("setval($name$\"it's \"\"x\"\"\".fence$name$"), "{ddl}");
        assert!(!ddl.contains('{'), "{ddl}");
    }

    #[test]
    fn no_name_of_a_schema_ends_a_text_in_the_ddl() {
        for name in ["a$$b", "$tooz$", "x$name$", "$toozx$", "$name", "{schema}", "{body}{fence}"] {
            let filled = fill("AS {body} {schema} {body} {fence}", name);
            let tag = filled.split_whitespace().nth(1).unwrap();
            assert_eq!(filled.matches(tag).count(), 2, "{filled}");
            let literal = filled.rsplit_once(".fence").unwrap().1;
            assert_eq!(filled.matches(literal).count(), 2, "{filled}");
            assert!(filled.contains(&quoted(name)), "{filled}");
        }
    }

    #[test]
    fn grants_name_the_role_and_quote_it() {
        let grants = grants("tooz", "my \"role\"");
        assert_eq!(grants.matches("TO \"my \"\"role\"\"\";").count(), 4, "{grants}");
        assert!(grants.contains("GRANT USAGE ON SCHEMA \"tooz\""), "{grants}");
    }
}
