//! The text of the DDL: the tables, the counter and the functions, and the privileges that members need. It asks no server.

use crate::layout::{LAYOUT, REVISION, TABLES, creating};

const TEMPLATE: &str = include_str!("sql/schema.sql");
const CREATE_SCHEMA: &str = "CREATE SCHEMA IF NOT EXISTS {schema};";

/// The DDL for a schema of that name (the option `schema`, by default `tooz`), for a user that may create, or owns what an older version made.
///
/// The driver runs it by itself where it may. It is one transaction and can be run again: it adds what is missing, brings the functions up to
/// date, and touches no rows. What a newer version has made it refuses to change.
pub fn ddl(schema: &str) -> String {
    format!("BEGIN;\n{}COMMIT;\n", script(schema))
}

/// The `GRANT`s for members that log in as `role` and do not own the schema.
pub fn privileges(schema: &str, role: &str) -> String {
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

/// For a user that only looks.
pub(crate) fn grant_read(schema: &str, role: &str) -> String {
    format!("GRANT SELECT ON {} TO {};", tables(&quoted(schema)), quoted(role))
}

fn tables(quoted_schema: &str) -> String {
    TABLES.map(|table| format!("{quoted_schema}.{table}")).join(", ")
}

/// A schema's or a role's name as it stands in SQL and in `search_path`.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// What the DDL does, for a transaction of the caller's.
pub(crate) fn script(schema: &str) -> String {
    fill(TEMPLATE, schema)
}

/// What the DDL does where the schema is there: a user that may create in it may yet lack the right to create schemas.
pub(crate) fn script_inside(schema: &str) -> String {
    fill(&TEMPLATE.replace(CREATE_SCHEMA, ""), schema)
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
            "creating" => creating(schema).to_string(),
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
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// As PostgreSQL reads a quoted name: a doubled quote is one, and the first single one ends it.
        #[test]
        fn a_quoted_name_reads_back_the_same(name in ".{0,63}") {
            let inner = quoted(&name);
            let inner = inner.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).unwrap();
            prop_assert!(!inner.replace("\"\"", "").contains('"'));
            prop_assert_eq!(inner.replace("\"\"", "\""), name);
        }

        #[test]
        fn no_name_ends_a_text_in_the_ddl(name in "[$a-z{}\"']{1,20}|.{0,63}") {
            let filled = fill("AS {body}\n{schema}\n{body} {fence}", &name);
            let tag = filled["AS ".len()..].lines().next().unwrap();
            prop_assert_eq!(filled.matches(tag).count(), 2, "{}", filled);
            prop_assert!(filled.contains(&quoted(&name)), "{}", filled);
        }
    }

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
    fn privileges_name_the_role_and_quote_it() {
        let grants = privileges("tooz", "my \"role\"");
        assert_eq!(grants.matches("TO \"my \"\"role\"\"\";").count(), 4, "{grants}");
        assert!(grants.contains("GRANT USAGE ON SCHEMA \"tooz\""), "{grants}");
    }
}
