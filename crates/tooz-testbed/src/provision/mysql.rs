//! MariaDB, the one of the two families that Debian's stable suites have, and MySQL: where they come from.

use crate::provision::faketime;
use crate::provision::package::{Card, Companion, Package};

pub(crate) struct MySql;

static CARD: Card = Card {
    programs: &["mariadbd", "mariadb"],
    packages: &["mariadb-server-core", "mariadb-client-core", "zlib1g"],
    suites: &[("10.11", "bookworm"), ("11.8", "trixie"), ("9.7", "sid")],
    image: "mariadb:10.11",
};

impl Package for MySql {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn packages(&self, suite: &str) -> Vec<&'static str> {
        if suite == "sid" { vec!["mysql-server-core", "mysql-client-core", "zlib1g"] } else { CARD.packages.to_vec() }
    }

    fn programs(&self, suite: &str) -> &'static [&'static str] {
        if suite == "sid" { &["mysqld", "mysql"] } else { CARD.programs }
    }

    fn companions(&self) -> &'static [Companion] {
        &[faketime::PROGRAM]
    }
}
