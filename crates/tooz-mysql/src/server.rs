//! What a server says of itself, and whether it will do: named locks are of one server alone, and it has to be the one that all write to.

use std::collections::HashMap;

use tooz_core::{Error, ErrorKind, Outcome, Result};

use crate::layout::Cases;

/// The variables that are looked at. Asked for in this way a variable that a server does not know is no error.
pub(crate) const VARIABLES: &str = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('read_only', 'super_read_only', 'innodb_read_only', \
    'wsrep_on', 'group_replication_single_primary_mode', 'group_replication_group_name', 'max_allowed_packet', 'max_connections', \
    'max_user_connections', 'lower_case_table_names', 'binlog_format', 'log_bin', 'thread_handling', 'thread_pool_max_threads')";

/// Which of the two families it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    MySql,
    MariaDb,
}

/// A server as it describes itself.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) family: Family,
    pub(crate) version: String,
    variables: HashMap<String, String>,
}

impl Server {
    /// From `VERSION()`, `@@version_comment` and the variables. The error says why it will not do.
    pub(crate) fn judge(version: &str, comment: &str, variables: HashMap<String, String>) -> Result<Self> {
        let says = |word: &str| version.contains(word) || comment.contains(word);
        if says("TiDB") {
            return Err(refused("TiDB ends its named locks after an hour and does not tell who holds one"));
        }
        if says("Vitess") || says("vitess") {
            return Err(refused("Vitess hands connections around, and named locks with them"));
        }
        let family = if says("MariaDB") { Family::MariaDb } else { Family::MySql };
        let (oldest, name) = match family {
            // `RELEASE_ALL_LOCKS` is there from 10.5.2 on.
            Family::MariaDb => ((10, 5), "MariaDB 10.5"),
            Family::MySql => ((8, 0), "MySQL 8.0"),
        };
        if numbers(version) < oldest {
            return Err(Error::config(format!("the server is of version {version}, but this needs {name} or newer")));
        }
        let server = Server { family, version: version.to_owned(), variables };
        if server.is_on("wsrep_on") {
            return Err(refused(
                "it is a node of a Galera cluster, where named locks are of each node alone: two members at two nodes would hold the same lock",
            ));
        }
        if server.value("group_replication_group_name").is_some_and(|name| !name.is_empty())
            && server.value("group_replication_single_primary_mode").is_some_and(|mode| !is_on(mode))
        {
            return Err(refused(
                "its group replication has several primaries, and named locks are of each one alone: set group_replication_single_primary_mode",
            ));
        }
        if let Some(variable) =
            ["read_only", "super_read_only", "innodb_read_only"].into_iter().find(|name| server.is_on(name))
        {
            return Err(read_only(variable));
        }
        Ok(server)
    }

    pub(crate) fn value(&self, variable: &str) -> Option<&str> {
        self.variables.get(variable).map(String::as_str)
    }

    pub(crate) fn number(&self, variable: &str) -> Option<u64> {
        self.value(variable)?.parse().ok()
    }

    /// How it knows databases. It is given when the server starts, and all clients are told the same.
    pub(crate) fn cases(&self) -> Cases {
        if self.value("lower_case_table_names") == Some("0") { Cases::Apart } else { Cases::Alike }
    }

    fn is_on(&self, variable: &str) -> bool {
        self.value(variable).is_some_and(is_on)
    }

    /// `MariaDB 10.11.14`, without what the distribution adds.
    pub(crate) fn name(&self) -> String {
        let name = if self.family == Family::MariaDb { "MariaDB" } else { "MySQL" };
        format!("{name} {}", self.version.split('-').next().unwrap_or(&self.version))
    }
}

/// The error for a server on which nothing may be written: locks could be taken there, and others would be taken at the primary.
pub(crate) fn read_only(variable: &str) -> Error {
    let word = format!("the server is read-only ({variable} is on): a replica? name the primary");
    Error::new(ErrorKind::Unavailable, word).with_outcome(Outcome::NotApplied)
}

/// The error for a server that was restarted and takes other databases for one than before: our names of locks would not be those of others.
pub(crate) fn other_cases() -> Error {
    let word = "the server was restarted with another lower_case_table_names: connect anew";
    Error::new(ErrorKind::Unavailable, word).with_outcome(Outcome::NotApplied)
}

/// What a variable has that is not off; some have more values than two.
pub(crate) fn is_on(value: &str) -> bool {
    !matches!(value.to_ascii_uppercase().as_str(), "OFF" | "0" | "")
}

fn refused(why: &str) -> Error {
    Error::config(format!("this server will not do: {why}"))
}

/// The first two numbers of a version.
fn numbers(version: &str) -> (u32, u32) {
    let mut numbers = version.split(|one: char| !one.is_ascii_digit()).filter_map(|part| part.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_a_server_says_of_itself_is_judged(
            version in "([0-9]{0,12}(\\.[0-9]{0,12}){0,3})?[a-zA-Z0-9+~ -]{0,20}",
            comment: String,
            variables in proptest::collection::hash_map("(read_only|wsrep_on|lower_case_table_names|max_allowed_packet|[a-z_]{0,8})", ".{0,24}", 0..6),
        ) {
            if let Ok(server) = Server::judge(&version, &comment, variables) {
                let _ = (server.name(), server.cases(), server.number("max_allowed_packet"));
            }
        }
    }

    fn judge(version: &str, comment: &str, variables: &[(&str, &str)]) -> Result<Server> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Server::judge(version, comment, variables)
    }

    #[test]
    fn the_servers_that_were_tried_will_do() {
        let mariadb =
            judge("10.11.14-MariaDB-0+deb12u2", "Debian 12", &[("read_only", "OFF"), ("wsrep_on", "OFF")]).unwrap();
        assert_eq!((mariadb.family, mariadb.name().as_str()), (Family::MariaDb, "MariaDB 10.11.14"));
        let newer = judge("11.8.3-MariaDB-0+deb13u1 from Debian", "-- Please help", &[("read_only", "OFF")]).unwrap();
        assert_eq!(newer.family, Family::MariaDb);
        let mysql = [("read_only", "OFF"), ("super_read_only", "OFF"), ("innodb_read_only", "OFF"), ("log_bin", "ON")];
        let mysql = judge("9.7.4", "(Debian)", &mysql).unwrap();
        assert_eq!((mysql.family, mysql.name().as_str()), (Family::MySql, "MySQL 9.7.4"));
    }

    #[test]
    fn what_locks_in_one_of_several_places_is_refused() {
        for (version, comment, variables, word) in [
            ("8.0.11-TiDB-v8.5.1", "TiDB Server (Apache License 2.0)", &[][..], "TiDB"),
            ("8.0.40-Vitess", "Version: 21.0.0", &[], "Vitess"),
            ("10.11.6-MariaDB", "", &[("wsrep_on", "ON")], "Galera"),
            (
                "8.4.0",
                "MySQL Community Server - GPL",
                &[("group_replication_group_name", "a-b"), ("group_replication_single_primary_mode", "OFF")],
                "primaries",
            ),
            ("5.7.44", "", &[], "8.0"),
            ("10.4.34-MariaDB", "", &[], "10.5"),
        ] {
            let error = judge(version, comment, variables).unwrap_err();
            assert!(error.kind() == ErrorKind::Config && error.to_string().contains(word), "{error}");
        }
        // The plugin is there, and no group.
        let loaded = [("group_replication_group_name", ""), ("group_replication_single_primary_mode", "OFF")];
        assert!(judge("8.4.0", "", &loaded).is_ok());
    }

    #[test]
    fn two_spellings_of_a_database_are_what_the_server_takes_them_for() {
        for (value, cases) in [("0", Cases::Apart), ("1", Cases::Alike), ("2", Cases::Alike)] {
            assert_eq!(judge("9.7.4", "", &[("lower_case_table_names", value)]).unwrap().cases(), cases);
        }
    }

    #[test]
    fn a_server_on_which_nothing_may_be_written_is_refused_for_now() {
        for variable in ["read_only", "super_read_only", "innodb_read_only"] {
            for value in ["ON", "1", "NO_LOCK"] {
                let error = judge("9.7.4", "", &[(variable, value)]).unwrap_err();
                assert!(error.kind() == ErrorKind::Unavailable && error.to_string().contains(variable), "{error}");
            }
        }
    }
}
