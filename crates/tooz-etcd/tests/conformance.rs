//! What every driver must show, on a real etcd: one server for all cases, in a namespace for each.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use libtest_mimic::{Arguments, Trial};
use tooz_conformance::Rig;
use tooz_testbed::{Kind, Provided, Proxy, Server, for_tests};

// The registry finds a driver only in a program that names its crate.
use tooz_etcd as _;

static SERVER: LazyLock<Server> = LazyLock::new(|| Server::start(Kind::Etcd).expect("an etcd server starts"));
/// The servers of the cases that restart theirs, by their URL.
static RESTARTED: Mutex<Vec<Arc<Server>>> = Mutex::new(Vec::new());
/// The ways of the members that are cut off, by the case's URL and the member.
static PATHS: Mutex<Option<HashMap<(String, String), Proxy>>> = Mutex::new(None);

fn main() -> ExitCode {
    match for_tests(Kind::Etcd) {
        Provided::Own(url) => tooz_conformance::main(|| on(move |tag| in_namespace(&url, tag))),
        Provided::MayStart => tooz_conformance::main(|| breakable(on(|tag| in_namespace(&SERVER.url(), tag)))),
        Provided::Missing(reason) => {
            let ignored = |name| Trial::test(name, || Ok(())).with_kind(reason.clone()).with_ignored_flag(true);
            let trials = tooz_conformance::case_names().into_iter().map(ignored).collect();
            libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
        }
    }
}

fn in_namespace(url: &str, tag: &str) -> String {
    let mark = if url.contains('?') { '&' } else { '?' };
    format!("{url}{mark}namespace={tag}")
}

fn on(url: impl Fn(&str) -> String + Send + Sync + 'static) -> Rig {
    // By the URL of the tag `card` the suite only looks up the driver: listing the cases must not start a server.
    let url = move |tag: &str| if tag == "card" { "etcd:".to_owned() } else { url(tag) };
    Rig::new("etcd", url).across_processes()
}

fn breakable(rig: Rig) -> Rig {
    rig.end_session(|url, member| {
        let sessions = run(&["get", "--prefix", &format!("/tooz/{}/sessions/", namespace(url))]);
        for pair in sessions.lines().collect::<Vec<_>>().chunks(2) {
            let [key, value] = pair else { continue };
            if value.contains(&format!("\"member\":{member:?}")) {
                let lease = key.rsplit('/').next().expect("a key has parts");
                run(&["lease", "revoke", lease]);
            }
        }
    })
    .path(|url, member| {
        let proxy = path(url, member);
        url.replace(&SERVER.address().to_string(), &proxy.address().to_string())
    })
    .cut(|url, member| path(url, member).stall())
    .heal(|url, member| path(url, member).heal())
    .own_server(|tag| {
        let server = Arc::new(Server::start(Kind::Etcd).expect("an etcd server starts"));
        let url = in_namespace(&server.url(), tag);
        RESTARTED.lock().unwrap_or_else(PoisonError::into_inner).push(server);
        url
    })
    .restart(|url| {
        let servers = RESTARTED.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let server = servers.iter().find(|server| url.starts_with(&server.url())).expect("the case has a server");
        server.restart().expect("it starts again");
    })
}

fn namespace(url: &str) -> &str {
    url.split("namespace=").nth(1).and_then(|rest| rest.split('&').next()).expect("every URL has one")
}

fn path(url: &str, member: &str) -> Proxy {
    let mut paths = PATHS.lock().unwrap_or_else(PoisonError::into_inner);
    let paths = paths.get_or_insert_default();
    let proxy = paths
        .entry((url.to_owned(), member.to_owned()))
        .or_insert_with(|| Proxy::start(SERVER.address()).expect("a proxy starts"));
    proxy.clone()
}

/// Runs `etcdctl` on the server of all cases.
fn run(arguments: &[&str]) -> String {
    let output = SERVER.tool("etcdctl").and_then(|mut tool| Ok(tool.args(arguments).output()?));
    let output = output.expect("etcdctl runs");
    String::from_utf8(output.stdout).expect("etcdctl writes text")
}
