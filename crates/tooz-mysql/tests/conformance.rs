//! What every driver must show, on a real server that all cases share, each in a namespace of its own.

use tooz_conformance::Rig;
use tooz_core::Driver;
use tooz_testbed::{Bed, Kind, namespace_of};

/// Named, so that listing the cases does not have to make a URL, and with it a server.
static CARD: Driver = tooz_mysql::DRIVER;

tooz_testbed::conformance!(Kind::MySql, "", rig, end_session);

fn rig(url: impl Fn(&str) -> String + Send + Sync + 'static) -> Rig {
    Rig::new("mysql", url).driver(&CARD).across_processes()
}

/// Ends the sessions of the member that is named, in the namespace that is named.
fn end_session(bed: &Bed, url: &str, member: &str) {
    let ask = |sql: &str| {
        let mut command = bed.shared().tool("mariadb").expect("mariadb is there");
        let output = command.args(["-N", "-B", "-e", sql]).output().expect("mariadb runs");
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("the answer is a text")
    };
    let (namespace, member) = (hex(namespace_of(url)), hex(member));
    let living = ask(&format!(
        "SELECT conn FROM tooz.tooz_sessions WHERE namespace = X'{namespace}' AND member = X'{member}' AND IS_USED_LOCK(session) = conn"
    ));
    for number in living.lines() {
        ask(&format!("KILL CONNECTION {number}"));
    }
}

fn hex(text: &str) -> String {
    text.bytes().fold(String::new(), |digits, byte| digits + &format!("{byte:02x}"))
}
