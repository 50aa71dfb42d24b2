//! What the cases stand on: a server and a namespace, and other processes.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tooz_core::{ConnectOptions, Coordinator, MemberId};
use tooz_testbed::{Kind, Server, Setup};

/// What the processes do that the cases start of this program: `[url, member, what, name]`.
pub(crate) async fn role(arguments: &[&str]) {
    let [url, member, what, name] = arguments else { panic!("{arguments:?}") };
    let ours = ConnectOptions::new(url).unwrap().member(*member).unwrap().connect().await.unwrap();
    match *what {
        "hold" => {
            let guard = ours.lock(*name).unwrap().acquire().await.unwrap();
            say(guard.fencing_token());
            forever().await;
        }
        "join" => {
            let _membership = ours.group(*name).unwrap().join(&()).await.unwrap();
            say("joined");
            forever().await;
        }
        "lead" => {
            let membership = ours.group(*name).unwrap().join(&()).await.unwrap();
            let _leadership = membership.campaign().await.unwrap();
            say("leading");
            forever().await;
        }
        "join-and-hold" => {
            let group = ours.group(*name).unwrap();
            let _membership = group.join_or_create(&()).await.unwrap();
            let _guard = ours.lock(*name).unwrap().acquire().await.unwrap();
            say("joined");
            forever().await;
        }
        "read" => {
            let guard = ours.lock(*name).unwrap().shared().acquire().await.unwrap();
            say(guard.fencing_token());
            forever().await;
        }
        "watch" => {
            let group = ours.group(*name).unwrap();
            let mut watch = group.watch().await.unwrap();
            watch.next().await.unwrap();
            say("watching");
            while watch.next().await.is_some() {}
        }
        other => panic!("no role {other}"),
    }
}

async fn forever() {
    std::future::pending::<()>().await;
}

fn say(what: impl std::fmt::Display) {
    println!("{what}");
    std::io::stdout().flush().unwrap();
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it takes too long")
}

/// Waits until the server answers that.
pub(crate) async fn until(store: &Store, sql: &str, answer: &str) {
    let begun = Instant::now();
    while store.sql(sql) != answer {
        assert!(begun.elapsed() < LATE * 20, "{sql}: {}", store.sql(sql));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) fn run(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future);
}

/// By how much a promise in time may be late, because all of this and more runs on few processors at once.
pub(crate) const LATE: Duration = Duration::from_secs(1);

/// A server, and in it a namespace of the case's own.
pub(crate) struct Store {
    pub(crate) server: Arc<Server>,
    pub(crate) namespace: String,
}

impl Store {
    /// In the server that most cases share.
    pub(crate) fn shared(namespace: &str) -> Result<Self, String> {
        static SHARED: OnceLock<Result<Arc<Server>, String>> = OnceLock::new();
        let start = || Server::start(Kind::MySql).map(Arc::new).map_err(|error| format!("{error:#}"));
        Ok(Store { server: SHARED.get_or_init(start).clone()?, namespace: namespace.to_owned() })
    }

    /// In a server of its own.
    pub(crate) fn own(setup: Setup) -> Self {
        Store { server: Arc::new(setup.start().unwrap()), namespace: "own".to_owned() }
    }

    pub(crate) fn url(&self) -> String {
        format!("{}?session_timeout=2s&namespace={}", self.server.url(), self.namespace)
    }

    pub(crate) async fn connect(&self, member: &str) -> Coordinator {
        self.connect_with(member, "").await
    }

    pub(crate) async fn connect_with(&self, member: &str, more: &str) -> Coordinator {
        let options = ConnectOptions::new(&format!("{}{more}", self.url())).unwrap();
        within(options.member(member.parse::<MemberId>().unwrap()).unwrap().connect()).await.unwrap()
    }

    /// The same for another user than the one that may do everything.
    pub(crate) fn url_as(&self, login: &str) -> String {
        self.url().replace("root@", &format!("{login}@"))
    }

    /// Asks the server itself; columns are separated by tabs.
    pub(crate) fn sql(&self, sql: &str) -> String {
        let mut client = self.server.tool("mariadb").unwrap();
        let output = client.args(["-N", "-B", "-e", sql]).output().unwrap();
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Whether it is the other family.
    pub(crate) fn is_mariadb(&self) -> bool {
        self.sql("SELECT VERSION()").contains("MariaDB")
    }

    /// MySQL has none where it is free of charge, and does not start with the option.
    pub(crate) fn has_no_pool_of_threads(&self) -> bool {
        if self.is_mariadb() {
            return false;
        }
        let started = Setup::new(Kind::MySql).argument("--thread-handling=pool-of-threads").start();
        assert!(started.is_err(), "this server has a pool of threads");
        true
    }

    /// Lets each commit take so long, as a replica does that is waited for and is not there.
    pub(crate) fn slow_commits(&self, milliseconds: u32) {
        let (role, load) = self.semi_sync();
        self.sql(&format!("{load}SET GLOBAL rpl_semi_sync_{role}_timeout = {milliseconds}; SET GLOBAL rpl_semi_sync_{role}_enabled = ON"));
    }

    pub(crate) fn quick_commits(&self) {
        let (role, _) = self.semi_sync();
        self.sql(&format!("SET GLOBAL rpl_semi_sync_{role}_enabled = OFF"));
    }

    /// How the server that waits is called, and what loads that.
    fn semi_sync(&self) -> (&'static str, &'static str) {
        if self.is_mariadb() {
            return ("master", "");
        }
        ("source", "INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'; ")
    }

    /// How many transactions that write were committed since this was asked first.
    pub(crate) fn commits(&self) -> u32 {
        self.sql("SET GLOBAL innodb_monitor_enable = 'trx_rw_commits'");
        self.sql("SELECT `COUNT` FROM information_schema.INNODB_METRICS WHERE NAME = 'trx_rw_commits'").parse().unwrap()
    }

    /// The number of the connection on which that member's session lives.
    pub(crate) fn session_of(&self, member: &str) -> String {
        let namespace = &self.namespace;
        self.sql(&format!(
            "SELECT conn FROM tooz.tooz_sessions WHERE namespace = '{namespace}' AND member = '{member}' AND IS_USED_LOCK(session) = conn"
        ))
    }

    pub(crate) fn start(&self, role: &[&str]) -> Process {
        self.start_as("other", role)
    }

    pub(crate) fn start_as(&self, member: &str, role: &[&str]) -> Process {
        Process::start(&self.url(), member, role)
    }
}

/// A process that was started of this program; killed at the end at the latest.
pub(crate) struct Process {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Process {
    pub(crate) fn start(url: &str, member: &str, role: &[&str]) -> Process {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--role", url, member]).args(role).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Process { child, output }
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    pub(crate) fn kill(&mut self) {
        // It may have been killed by a signal before.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    pub(crate) fn signal(&self, name: &str) {
        let _ = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
