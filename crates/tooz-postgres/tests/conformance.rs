//! What every driver must show, on a real server that all cases share, each in a namespace of its own.

use tooz_conformance::Rig;
use tooz_core::Driver;
use tooz_testbed::{Bed, Kind, namespace_of};

/// Named, so that listing the cases does not have to make a URL, and with it a server.
static CARD: Driver = tooz_postgres::DRIVER;

/// Ends the sessions of the member that is named, in the namespace that is named.
const END_SESSION: &str =
    "SELECT count(pg_terminate_backend(pid)) FROM tooz.sessions WHERE namespace = :'namespace' AND member = :'member'";

tooz_testbed::conformance!(Kind::Postgres, "", rig, end_session);

fn rig(url: impl Fn(&str) -> String + Send + Sync + 'static) -> Rig {
    Rig::new("postgres", url).driver(&CARD).across_processes()
}

fn end_session(bed: &Bed, url: &str, member: &str) {
    let mut command = bed.shared().tool("psql").expect("psql is there");
    let names = [format!("namespace={}", namespace_of(url)), format!("member={member}")];
    command.args(["-q", "-d", "postgres", "-v", "ON_ERROR_STOP=1", "-v", &names[0], "-v", &names[1], "-f", "-"]);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
    let mut psql = command.spawn().expect("psql runs");
    let mut input = psql.stdin.take().expect("its input is piped");
    std::io::Write::write_all(&mut input, END_SESSION.as_bytes()).expect("psql reads");
    drop(input);
    assert!(psql.wait().expect("psql ends").success());
}
