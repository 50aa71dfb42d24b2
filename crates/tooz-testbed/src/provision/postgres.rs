//! PostgreSQL: where it comes from.

use crate::provision::package::{Card, Companion, Package};
use crate::provision::pgbouncer;

pub(crate) struct Postgres;

static CARD: Card = Card {
    programs: &["postgres", "initdb", "psql"],
    packages: &["postgresql-15", "postgresql-client-15"],
    suites: &[("15", "bookworm")],
    image: "postgres:15-bookworm",
};

impl Package for Postgres {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn companions(&self) -> &'static [Companion] {
        &[pgbouncer::PROGRAM]
    }
}
