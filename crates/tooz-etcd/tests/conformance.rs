//! What every driver must show, on a real etcd: one server for all cases, in a namespace for each.

use tooz_conformance::Rig;
use tooz_core::Driver;
use tooz_testbed::{Bed, Kind, namespace_of};

/// Named, so that listing the cases does not have to make a URL, and with it a server.
static CARD: Driver = tooz_etcd::DRIVER;

tooz_testbed::conformance!(Kind::Etcd, "", rig, end_session);

fn rig(url: impl Fn(&str) -> String + Send + Sync + 'static) -> Rig {
    Rig::new("etcd", url).driver(&CARD).across_processes()
}

/// Revokes the leases of the sessions of that member.
fn end_session(bed: &Bed, url: &str, member: &str) {
    let sessions = run(bed, &["get", "--prefix", &format!("/tooz/{}/sessions/", namespace_of(url))]);
    for pair in sessions.lines().collect::<Vec<_>>().chunks(2) {
        let [key, value] = pair else { continue };
        if value.contains(&format!("\"member\":{member:?}")) {
            let lease = key.rsplit('/').next().expect("a key has parts");
            run(bed, &["lease", "revoke", lease]);
        }
    }
}

/// Runs `etcdctl` on the server of all cases.
fn run(bed: &Bed, arguments: &[&str]) -> String {
    let output = bed.shared().tool("etcdctl").and_then(|mut tool| Ok(tool.args(arguments).output()?));
    let output = output.expect("etcdctl runs");
    String::from_utf8(output.stdout).expect("etcdctl writes text")
}
