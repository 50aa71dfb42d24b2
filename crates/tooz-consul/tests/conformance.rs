//! What every driver must show, on a real Consul: one server for all cases, in a namespace for each.

mod ask;

use std::time::Duration;

use tooz_conformance::Rig;
use tooz_core::Driver;
use tooz_testbed::{Bed, Kind, namespace_of};

/// Named, so that listing the cases does not have to make a URL, and with it a server.
static CARD: Driver = tooz_consul::DRIVER;

tooz_testbed::conformance!(Kind::Consul, "", rig, end_session);

/// Consul ends a session after twice its timeout, so that what a dead member had is free that much later than elsewhere. The timeout of the suite is
/// as short as for the others, and what is waited for is longer.
fn rig(url: impl Fn(&str) -> String + Send + Sync + 'static) -> Rig {
    let rig = Rig::new("consul", url).driver(&CARD).across_processes();
    rig.lingering(Duration::from_millis(2_300)).patience(Duration::from_secs(15))
}

/// Destroys the sessions of that member.
fn end_session(bed: &Bed, url: &str, member: &str) {
    let address = bed.shared().address();
    for (key, value) in ask::entries(address, &format!("tooz/{}/sessions/", namespace_of(url))) {
        if value.contains(&format!("\"member\":{member:?}")) {
            let session = key.trim_end_matches('/').rsplit('/').next().expect("a key has parts");
            ask::http(address, "PUT", &format!("/v1/session/destroy/{session}"), "");
        }
    }
}
