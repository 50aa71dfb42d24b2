//! PostgreSQL: where it comes from.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Result;

use crate::provision::faketime;
use crate::provision::installation::{C_LIBRARY, versioned_folders};
use crate::provision::package::{Card, Companion, Package};
use crate::provision::pgbouncer;

/// What stands in the place of the server where this machine's C library is too old for it.
const SCRIPT: &str = include_str!("postgres.sh");

pub(crate) struct Postgres;

static CARD: Card = Card {
    programs: &["postgres", "initdb", "psql"],
    packages: &["postgresql-15", "postgresql-client-15"],
    suites: &[("15", "bookworm"), ("17", "trixie"), ("18", "sid")],
    image: "postgres:15-bookworm",
};

impl Package for Postgres {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn packages(&self, suite: &str) -> Vec<&'static str> {
        match suite {
            "trixie" => vec!["postgresql-17", "postgresql-client-17"],
            "sid" => vec!["postgresql-18", "postgresql-client-18"],
            _ => CARD.packages.to_vec(),
        }
    }

    fn finish(&self, root: &Path) -> Result<()> {
        if !root.join(C_LIBRARY).exists() {
            return Ok(());
        }
        for folder in versioned_folders(root) {
            let (server, program) = (folder.join("postgres"), folder.join("postgres.program"));
            if !program.exists() {
                fs::rename(&server, program)?;
            }
            // A process that runs the old one goes on with it.
            let aside = folder.join(".postgres.part");
            fs::write(&aside, SCRIPT)?;
            fs::set_permissions(&aside, fs::Permissions::from_mode(0o755))?;
            fs::rename(aside, server)?;
        }
        Ok(())
    }

    fn edition(&self) -> &'static str {
        "2"
    }

    fn companions(&self) -> &'static [Companion] {
        &[pgbouncer::PROGRAM, faketime::PROGRAM]
    }
}
