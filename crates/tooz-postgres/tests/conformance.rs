//! What every driver must show, on a real server that all cases share, each in a namespace of its own.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::{Mutex, OnceLock, PoisonError};

use libtest_mimic::{Arguments, Completion, Trial};
use tooz_conformance::Rig;
use tooz_core::Driver;
use tooz_testbed::{Kind, Provided, Proxy, Server, for_tests};

/// Named, so that listing the cases does not have to make a URL, and with it a server.
static CARD: Driver = tooz_postgres::DRIVER;

/// Ends the sessions of the member that is named, in the namespace that is named.
const END_SESSION: &str =
    "SELECT count(pg_terminate_backend(pid)) FROM tooz.sessions WHERE namespace = :'namespace' AND member = :'member'";

fn main() -> ExitCode {
    tooz_conformance::serve_worker();
    match for_tests(Kind::Postgres) {
        Provided::MayStart => tooz_conformance::main(|| {
            let bed: &'static Bed = Box::leak(Box::default());
            rig(|tag| format!("{}?namespace={tag}", bed.shared().url()))
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
    Rig::new("postgres", url).driver(&CARD).across_processes()
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
        self.shared.get_or_init(|| Server::start(Kind::Postgres).expect("a PostgreSQL server can be started"))
    }

    /// A server for the case with that tag alone.
    fn own(&self, tag: &str) -> String {
        let server = Server::start(Kind::Postgres).expect("a PostgreSQL server can be started");
        let url = format!("{}?namespace={tag}", server.url());
        self.own.lock().unwrap_or_else(PoisonError::into_inner).insert(url.clone(), server);
        url
    }

    fn restart(&self, url: &str) {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.get(url).expect("a server of its own").restart().expect("the server can be restarted");
    }

    fn proxy(&self, url: &str, member: &str) -> Proxy {
        let mut proxies = self.proxies.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (url.to_owned(), member.to_owned());
        let start = || Proxy::start(self.shared().address()).expect("a proxy can be started");
        proxies.entry(place).or_insert_with(start).clone()
    }

    fn path(&self, url: &str, member: &str) -> String {
        let proxy = self.proxy(url, member).address();
        format!("postgres://postgres@{proxy}/postgres?namespace={}", namespace(url))
    }

    fn end_session(&self, url: &str, member: &str) {
        let mut command = self.shared().tool("psql").expect("psql is there");
        let names = [format!("namespace={}", namespace(url)), format!("member={member}")];
        command.args(["-q", "-d", "postgres", "-v", "ON_ERROR_STOP=1", "-v", &names[0], "-v", &names[1], "-f", "-"]);
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
        let mut psql = command.spawn().expect("psql runs");
        let mut input = psql.stdin.take().expect("its input is piped");
        std::io::Write::write_all(&mut input, END_SESSION.as_bytes()).expect("psql reads");
        drop(input);
        assert!(psql.wait().expect("psql ends").success());
    }
}
