//! The text of the DDL: the tables, and the privileges that members need. It asks no server.

use crate::layout::{LAYOUT, REVISION, TABLES, quoted};

const TEMPLATE: &str = include_str!("sql/schema.sql");

/// The statements that make the tables in the database of that name (the path of the URL, by default `tooz`).
///
/// The driver runs them by itself where it may. They can be run again: they add what is missing and touch no rows.
pub fn ddl(database: &str) -> String {
    // The name last, since it may look like a place to put something in.
    TEMPLATE
        .replace("{layout}", &LAYOUT.to_string())
        .replace("{revision}", &REVISION.to_string())
        .replace("{database}", &quoted(database))
}

/// The `GRANT`s for members that log in as `role`, an account written as `NAME` or `NAME@HOST`, and may not create.
pub fn privileges(database: &str, role: &str) -> String {
    let (user, host) = role.rsplit_once('@').unwrap_or((role, "%"));
    let account = format!("{}@{}", quoted(user), quoted(host));
    let grant = |table: &str| {
        let rights = if table == "layout" { "SELECT" } else { "SELECT, INSERT, UPDATE, DELETE" };
        format!("GRANT {rights} ON {}.`tooz_{table}` TO {account};\n", quoted(database))
    };
    TABLES.map(grant).concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ddl_names_the_database_everywhere_and_quotes_it() {
        let ddl = ddl("it's `x` {layout}");
        assert!(ddl.contains("CREATE DATABASE IF NOT EXISTS `it's ``x`` {layout}`;"), "{ddl}");
        for table in TABLES {
            assert!(ddl.contains(&format!("`.`tooz_{table}` (\n")), "{table}");
        }
    }

    #[test]
    fn privileges_name_the_account_and_quote_it() {
        let all = privileges("tooz", "my `role`@10.%");
        assert_eq!(all.matches("TO `my ``role```@`10.%`;").count(), TABLES.len(), "{all}");
        assert!(privileges("tooz", "app").contains("GRANT SELECT ON `tooz`.`tooz_layout` TO `app`@`%`;"));
    }
}
