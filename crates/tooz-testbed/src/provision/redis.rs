//! Redis: where it comes from.

use crate::provision::package::{Card, Package};

pub(crate) struct Redis;

static CARD: Card = Card {
    programs: &["redis-server", "redis-cli"],
    packages: &["redis-server", "redis-sentinel", "redis-tools"],
    suites: &[("7.0", "bookworm"), ("8.0", "trixie"), ("6.0", "bullseye")],
    image: "redis:7.2-bookworm",
};

impl Package for Redis {
    fn card(&self) -> &'static Card {
        &CARD
    }
}
