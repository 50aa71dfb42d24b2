//! Redis, and Valkey, which goes on from it under a free licence: where they come from.

use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::Result;

use crate::provision::faketime;
use crate::provision::package::{Card, Companion, Package};

pub(crate) struct Redis;

/// Behind the sign is the edition of a suite: see [`Card::suites`].
const VALKEY: &str = "trixie+valkey";

static CARD: Card = Card {
    programs: &["redis-server", "redis-cli"],
    packages: &["redis-server", "redis-sentinel", "redis-tools"],
    suites: &[("7.0", "bookworm"), ("8.0", "trixie"), ("6.0", "bullseye"), ("valkey", VALKEY)],
    image: "redis:7.2-bookworm",
};

impl Package for Redis {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn packages(&self, suite: &str) -> Vec<&'static str> {
        if suite == VALKEY { vec!["valkey-server", "valkey-sentinel", "valkey-tools"] } else { CARD.packages.to_vec() }
    }

    /// Valkey's programs do as well under the old names.
    fn finish(&self, root: &Path) -> Result<()> {
        let folder = root.join("usr/bin");
        for (theirs, ours) in [("valkey-server", "redis-server"), ("valkey-cli", "redis-cli")] {
            if folder.join(theirs).exists() && !folder.join(ours).exists() {
                symlink(theirs, folder.join(ours))?;
            }
        }
        Ok(())
    }

    fn companions(&self) -> &'static [Companion] {
        &[faketime::PROGRAM]
    }
}
