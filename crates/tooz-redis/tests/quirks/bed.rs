//! What the trials share: servers, coordinators, and limits to every wait.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tooz_core::{ConnectOptions, Coordinator, LockGuard, Result};
use tooz_testbed::{Kind, Server};

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
    Server::start(Kind::Redis).expect("a Redis server can be started")
}

/// What redis-cli answers.
pub(crate) fn cli(server: &Server, arguments: &[&str]) -> String {
    let mut command = server.tool("redis-cli").expect("redis-cli is there");
    let output = command.args(arguments).output().expect("redis-cli runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Cuts every client's connection.
pub(crate) fn hang_up(server: &Server) {
    for kind in ["normal", "pubsub"] {
        cli(server, &["CLIENT", "KILL", "TYPE", kind]);
    }
}

/// Lets the session of a member be over, as if it had sent no heartbeat.
pub(crate) fn let_die(server: &Server, member: &str) {
    let script = "for _, id in ipairs(redis.call('ZRANGE', 'tooz:{tooz}:sessions', 0, -1)) do \
        if redis.call('HGET', 'tooz:{tooz}:s:' .. id, 'member') == ARGV[1] then \
        redis.call('DEL', 'tooz:{tooz}:s:' .. id) redis.call('ZADD', 'tooz:{tooz}:sessions', 1, id) end end";
    cli(server, &["EVAL", script, "0", member]);
}

/// The keys of the database, sorted.
pub(crate) fn keys(server: &Server) -> Vec<String> {
    let listed = cli(server, &["KEYS", "*"]);
    let mut keys: Vec<_> = listed.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
    keys.sort();
    keys
}

/// A coordinator with a session timeout of two seconds.
pub(crate) async fn connect(url: &str, member: &str) -> Coordinator {
    try_connect(url, member).await.expect("the server is there")
}

pub(crate) async fn try_connect(url: &str, member: &str) -> Result<Coordinator> {
    let options = ConnectOptions::new(url)?.driver(&CARD).member(member)?;
    let options =
        if url.contains("session_timeout") { options } else { options.session_timeout(Duration::from_secs(2)) };
    soon(options.connect()).await
}

/// Waits for a lock in a task of its own.
pub(crate) fn wait_in_background(coordinator: &Coordinator, lock: &str) -> JoinHandle<Result<LockGuard>> {
    let lock = coordinator.lock(lock).unwrap();
    tokio::spawn(async move { lock.acquire().await })
}

pub(crate) static CARD: tooz_core::Driver = tooz_redis::DRIVER;

/// Ends the trial when something takes longer than it ever may.
#[track_caller]
pub(crate) fn soon<T>(future: impl Future<Output = T>) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move {
        let ended = tokio::time::timeout(Duration::from_secs(15), future).await;
        ended.unwrap_or_else(|_| panic!("it takes too long at {place}"))
    }
}
