//! etcd: where it comes from.

use crate::provision::package::{Card, Package};

pub(crate) struct Etcd;

static CARD: Card = Card {
    programs: &["etcd", "etcdctl"],
    packages: &["etcd-server", "etcd-client"],
    suites: &[("3.5", "trixie"), ("3.4", "bookworm")],
    image: "rancher/mirrored-coreos-etcd:v3.5.16",
};

impl Package for Etcd {
    fn card(&self) -> &'static Card {
        &CARD
    }
}
