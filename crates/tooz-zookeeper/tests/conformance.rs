//! What every driver must show, on a real server that all cases share, each in a namespace of its own.

mod raw;

use std::time::Duration;

use tooz_conformance::Rig;
use tooz_core::Driver;
use tooz_testbed::{Bed, Kind, namespace_of};

/// Named, so that listing the cases does not have to make a URL, and with it a server.
static CARD: Driver = tooz_zookeeper::DRIVER;

/// What the testbed's servers tick.
const TICK: &str = "&tick_time=250ms";

tooz_testbed::conformance!(Kind::ZooKeeper, TICK, rig, end_session);

fn rig(url: impl Fn(&str) -> String + Send + Sync + 'static) -> Rig {
    // Long enough for a server of Java to come back within it on a busy machine.
    Rig::new("zookeeper", url)
        .driver(&CARD)
        .across_processes()
        .session_timeout(Duration::from_secs(6))
        .patience(Duration::from_secs(30))
}

fn end_session(bed: &Bed, url: &str, member: &str) {
    raw::end_session(bed.shared().address(), namespace_of(url), member).expect("the session can be ended");
}
