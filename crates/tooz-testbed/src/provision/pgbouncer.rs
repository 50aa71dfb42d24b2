//! The pooler for PostgreSQL: where it comes from.

use crate::provision::package::Companion;

pub(crate) const PROGRAM: Companion = Companion { program: "pgbouncer", packages: &["pgbouncer"], suite: "trixie" };
