//! Consul: where it comes from.

use crate::provision::package::{Card, Package};

pub(crate) struct Consul;

static CARD: Card = Card {
    programs: &["consul"],
    packages: &["consul"],
    // The last one that Debian has.
    suites: &[("1.8", "bullseye")],
    image: "hashicorp/consul:1.8.7",
};

impl Package for Consul {
    fn card(&self) -> &'static Card {
        &CARD
    }
}
