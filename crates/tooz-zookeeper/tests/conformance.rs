//! What every driver must show, on a real server that all cases share, each in a namespace of its own.

mod raw;

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use libtest_mimic::{Arguments, Completion, Trial};
use tooz_conformance::Rig;
use tooz_core::Driver;
use tooz_testbed::{Kind, Provided, Proxy, Server, for_tests};

/// Named, so that listing the cases does not have to make a URL, and with it a server.
static CARD: Driver = tooz_zookeeper::DRIVER;

/// What the testbed's servers tick.
const TICK: &str = "tick_time=250ms";

fn main() -> ExitCode {
    tooz_conformance::serve_worker();
    match for_tests(Kind::ZooKeeper) {
        Provided::MayStart => tooz_conformance::main(|| {
            let bed: &'static Bed = Box::leak(Box::default());
            rig(|tag| format!("{}?namespace={tag}&{TICK}", bed.shared().url()))
                .path(|url, member| bed.path(url, member))
                .cut(|url, member| bed.proxy(url, member).stall())
                .heal(|url, member| bed.proxy(url, member).heal())
                .end_session(|url, member| bed.end_session(url, member))
                .own_server(|tag| bed.own(tag))
                .restart(|url| bed.restart(url))
        }),
        Provided::Own(url) => tooz_conformance::main(|| {
            let mark = if url.contains('?') { '&' } else { '?' };
            rig(move |tag| format!("{url}{mark}namespace={tag}"))
        }),
        Provided::Missing(reason) => {
            let ignored = |name| {
                let reason = reason.clone();
                Trial::ignorable_test(name, move || Ok(Completion::ignored_with(reason))).with_ignored_flag(true)
            };
            let kind = |trial: Trial| trial.with_kind(reason.clone());
            let trials = tooz_conformance::case_names().into_iter().map(ignored).map(kind).collect();
            libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
        }
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

/// The servers and proxies of the suite. They end with the process.
#[derive(Default)]
struct Bed {
    shared: OnceLock<Server>,
    own: Mutex<HashMap<String, Server>>,
    proxies: Mutex<HashMap<(String, String), Proxy>>,
}

fn namespace(url: &str) -> &str {
    url.split_once("namespace=").map_or("", |(_, rest)| rest.split('&').next().unwrap_or(rest))
}

impl Bed {
    fn shared(&self) -> &Server {
        self.shared.get_or_init(|| Server::start(Kind::ZooKeeper).expect("a ZooKeeper server can be started"))
    }

    /// A server for the case with that tag alone.
    fn own(&self, tag: &str) -> String {
        let server = Server::start(Kind::ZooKeeper).expect("a ZooKeeper server can be started");
        let url = format!("{}?namespace={tag}&{TICK}", server.url());
        locked(&self.own).insert(url.clone(), server);
        url
    }

    fn restart(&self, url: &str) {
        let own = locked(&self.own);
        own.get(url).expect("a server of its own").restart().expect("the server can be restarted");
    }

    fn proxy(&self, url: &str, member: &str) -> Proxy {
        let place = (url.to_owned(), member.to_owned());
        let start = || Proxy::start(self.shared().address()).expect("a proxy can be started");
        locked(&self.proxies).entry(place).or_insert_with(start).clone()
    }

    fn path(&self, url: &str, member: &str) -> String {
        format!("{}?namespace={}&{TICK}", self.proxy(url, member).url("zookeeper"), namespace(url))
    }

    fn end_session(&self, url: &str, member: &str) {
        raw::end_session(self.shared().address(), namespace(url), member).expect("the session can be ended");
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
