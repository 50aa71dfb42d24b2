//! What the trials share: servers, coordinators, what stands at the server, and limits to every wait.

use std::future::Future;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use tokio::task::JoinHandle;
use tooz_core::{ConnectOptions, Coordinator, ErrorKind, LockGuard, Result};
use tooz_testbed::{Kind, Server, Setup};

/// A trial by its name.
pub(crate) type NamedTrial = (&'static str, fn());

/// Makes the list of a module: the name of each function is the name of its trial.
macro_rules! trials {
    ($($name:ident)*) => {
        pub(crate) const TRIALS: &[crate::bed::NamedTrial] = &[$((stringify!($name), || crate::bed::run($name()))),*];
    };
}
pub(crate) use trials;

/// Runs a trial on a runtime of its own.
pub(crate) fn run(trial: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime of two threads can be made");
    runtime.block_on(async { tokio::time::timeout(Duration::from_mins(2), trial).await.expect("it takes for ever") });
    runtime.shutdown_background();
}

pub(crate) fn start() -> Server {
    start_as("")
}

/// A server with more on its command line.
pub(crate) fn start_as(arguments: &str) -> Server {
    Setup::new(Kind::Memcached).argument(arguments).start().expect("a memcached server can be started")
}

pub(crate) static CARD: tooz_core::Driver = tooz_memcached::DRIVER;

/// A coordinator with a session timeout of two seconds.
pub(crate) async fn connect(url: &str, member: &str) -> Coordinator {
    connect_with(url, member, Duration::from_secs(2)).await
}

pub(crate) async fn connect_with(url: &str, member: &str, timeout: Duration) -> Coordinator {
    soon(options(url, member).unwrap().session_timeout(timeout).connect()).await.expect("the server is there")
}

pub(crate) fn options(url: &str, member: &str) -> Result<ConnectOptions> {
    ConnectOptions::new(url)?.driver(&CARD).member(member)
}

/// Why that is refused.
pub(crate) async fn refusal(url: &str) -> (ErrorKind, String) {
    let error = match options(url, "a") {
        Ok(options) => soon(options.connect()).await.expect_err("it is refused"),
        Err(error) => error,
    };
    (error.kind(), error.to_string())
}

/// Waits for a lock in a task of its own.
pub(crate) fn wait_in_background(coordinator: &Coordinator, lock: &str) -> JoinHandle<Result<LockGuard>> {
    let lock = coordinator.lock(lock).unwrap();
    tokio::spawn(async move { lock.acquire().await })
}

/// Ends the trial when something takes longer than it ever may.
#[track_caller]
pub(crate) fn soon<T>(future: impl Future<Output = T>) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move {
        let ended = tokio::time::timeout(Duration::from_secs(15), future).await;
        ended.unwrap_or_else(|_| panic!("it takes too long at {place}"))
    }
}

/// Where a lock of the default namespace stands.
pub(crate) fn lock_key(name: &str) -> String {
    format!("tooz:tooz:l:{name}")
}

/// A connection of the trial's own.
pub(crate) struct Raw(BufReader<TcpStream>);

impl Raw {
    pub(crate) fn to(server: &Server) -> Self {
        let stream = TcpStream::connect(server.address()).expect("the server takes one more connection");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a limit can be set");
        Raw(BufReader::new(stream))
    }

    /// Asks, and answers the first line.
    pub(crate) fn ask(&mut self, question: &str) -> String {
        self.0.get_mut().write_all(format!("{question}\r\n").as_bytes()).expect("it can be asked");
        self.line()
    }

    /// Asks a server that may close the connection; `None`: it has.
    pub(crate) fn try_ask(&mut self, question: &str) -> Option<String> {
        self.0.get_mut().write_all(format!("{question}\r\n").as_bytes()).ok()?;
        let mut line = String::new();
        self.0.read_line(&mut line).ok().filter(|length| *length > 0).map(|_| line.trim_end().to_owned())
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("it answers");
        line.trim_end().to_owned()
    }

    /// Writes a value, with these flags.
    pub(crate) fn write(&mut self, key: &str, flags: &str, value: &str) -> String {
        self.ask(&format!("ms {key} {} {flags}\r\n{value}", value.len()))
    }

    /// What stands there; `None`: nothing.
    pub(crate) fn read(&mut self, key: &str) -> Option<String> {
        let line = self.ask(&format!("mg {key} v"));
        let length = line.strip_prefix("VA ")?.parse::<usize>().expect("a length");
        let mut text = vec![0; length + 2];
        self.0.read_exact(&mut text).expect("as much as it says");
        text.truncate(length);
        Some(String::from_utf8(text).expect("journals are text"))
    }

    /// A number that it tells of a key: `c` its version, `t` what is left of its time.
    pub(crate) fn number(&mut self, key: &str, flag: char) -> Option<i64> {
        let line = self.ask(&format!("mg {key} {flag}"));
        line.strip_prefix("HD ")?.strip_prefix(flag)?.parse().ok()
    }

    /// A number of `stats`.
    pub(crate) fn stat(&mut self, name: &str) -> u64 {
        let mut line = self.ask("stats");
        let mut found = 0;
        while line != "END" {
            if let Some(value) = line.strip_prefix("STAT ").and_then(|line| line.strip_prefix(name)) {
                found = value.trim().parse().unwrap_or(found);
            }
            line = self.line();
        }
        found
    }

    /// The session of the first that stands in a lock's journal.
    pub(crate) fn session_of_holder(&mut self, lock: &str) -> String {
        let text = self.read(&lock_key(lock)).expect("the lock is held");
        let line = text.lines().find(|line| line.starts_with('A')).expect("somebody wants it").to_owned();
        format!("tooz:tooz:s:{}", line.split('\t').nth(2).expect("its session"))
    }
}
