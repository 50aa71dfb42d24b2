//! What every driver must show, on a real etcd: one server for all cases, in a namespace for each.

use std::process::ExitCode;

use tooz_conformance::Rig;
use tooz_core::Driver;
use tooz_testbed::{Bed, Kind, Provided, for_tests, in_namespace, namespace_of};

/// Named, so that listing the cases does not have to make a URL, and with it a server.
static CARD: Driver = tooz_etcd::DRIVER;

fn main() -> ExitCode {
    tooz_conformance::serve_worker();
    match for_tests(Kind::Etcd) {
        Provided::MayStart => tooz_conformance::main(|| {
            let bed: &'static Bed = Box::leak(Box::new(Bed::new(Kind::Etcd, "")));
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
