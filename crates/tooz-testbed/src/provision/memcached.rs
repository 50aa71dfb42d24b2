//! memcached: where it comes from.

use crate::provision::faketime;
use crate::provision::package::{Card, Companion, Package};

pub(crate) struct Memcached;

static CARD: Card = Card {
    programs: &["memcached"],
    packages: &["memcached"],
    suites: &[("1.6.18", "bookworm"), ("1.6.38", "trixie")],
    image: "memcached:1.6-bookworm",
};

impl Package for Memcached {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn companions(&self) -> &'static [Companion] {
        &[faketime::PROGRAM]
    }
}
