//! What every driver must show, on a real server that all cases share, each in a namespace of its own.

use std::time::Duration;

use tooz_conformance::Rig;
use tooz_core::Driver;
use tooz_testbed::{Bed, Kind, namespace_of};

/// Named, so that listing the cases does not have to make a URL, and with it a server.
static CARD: Driver = tooz_redis::DRIVER;

/// Ends the session of the member that is named, in the namespace that is named.
const END_SESSION: &str = "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do \
                             if redis.call('HGET', key, 'member') == ARGV[2] then redis.call('DEL', key) end \
                           end";

tooz_testbed::conformance!(Kind::Redis, "", rig, end_session);

fn rig(url: impl Fn(&str) -> String + Send + Sync + 'static) -> Rig {
    Rig::new("redis", url).driver(&CARD).across_processes().moment(Duration::from_millis(100))
}

fn end_session(bed: &Bed, url: &str, member: &str) {
    let mut command = bed.shared().tool("redis-cli").expect("redis-cli is there");
    let keys = format!("tooz:{{{}}}:s:*", namespace_of(url));
    let output = command.args(["EVAL", END_SESSION, "0", &keys, member]).output().expect("redis-cli runs");
    assert!(output.status.success(), "{output:?}");
}
