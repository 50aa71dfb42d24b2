//! MariaDB, the one of the two families that Debian's stable suites have: where it comes from.

use crate::provision::package::{Card, Package};

pub(crate) struct MySql;

static CARD: Card = Card {
    programs: &["mariadbd", "mariadb"],
    packages: &["mariadb-server-core", "mariadb-client-core", "zlib1g"],
    suites: &[("10.11", "bookworm"), ("11.8", "trixie")],
    image: "mariadb:10.11",
};

impl Package for MySql {
    fn card(&self) -> &'static Card {
        &CARD
    }
}
