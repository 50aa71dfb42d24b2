//! What every driver must show, on a real server that all cases share, each in a namespace of its own.

mod raw;

use std::process::ExitCode;
use std::time::Duration;

use tooz_conformance::Rig;
use tooz_core::Driver;
use tooz_testbed::{Bed, Kind, Provided, for_tests, in_namespace, namespace_of};

/// Named, so that listing the cases does not have to make a URL, and with it a server.
static CARD: Driver = tooz_zookeeper::DRIVER;

/// What the testbed's servers tick.
const TICK: &str = "&tick_time=250ms";

fn main() -> ExitCode {
    tooz_conformance::serve_worker();
    match for_tests(Kind::ZooKeeper) {
        Provided::MayStart => tooz_conformance::main(|| {
            let bed: &'static Bed = Box::leak(Box::new(Bed::new(Kind::ZooKeeper, TICK)));
            rig(|tag| bed.url(tag))
                .path(|url, member| bed.path(url, member))
                .cut(|url, member| bed.proxy(url, member).stall())
                .heal(|url, member| bed.proxy(url, member).heal())
                .end_session(|url, member| end_session(bed, url, member))
                .own_server(|tag| bed.own(tag))
                .restart(|url| bed.restart(url))
        }),
        Provided::Own(url) => tooz_conformance::main(|| rig(move |tag| in_namespace(&url, tag))),
        Provided::Missing(reason) => tooz_conformance::ignore_all(&reason),
    }
}

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
