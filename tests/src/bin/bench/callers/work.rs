//! Pairs by tooz and by other clients, each from every kind of caller.

use std::fmt;

use anyhow::{Context as _, Result};
use nix::fcntl::{Flock, FlockArg};
use redis::AsyncCommands as _;
use tooz::{Coordinator, Lock};

use crate::backend::Backend;
use crate::bare::Bare;
use crate::callers::floor::Floor;

/// From where a pair is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A thread without a runtime.
    Blocking,
    /// A task on a worker of a runtime.
    Worker,
    /// A runtime of one thread.
    CurrentThread,
    /// The body of `#[tokio::main]`: the thread that started a runtime of several.
    Main,
}

impl Caller {
    pub(crate) const ASYNC: [Caller; 3] = [Caller::Worker, Caller::CurrentThread, Caller::Main];

    pub(crate) fn is_main(self) -> bool {
        self == Caller::Main
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Caller::Blocking => "a thread",
            Caller::Worker => "a task on a worker",
            Caller::CurrentThread => "a runtime of one thread",
            Caller::Main => "the body of main",
        })
    }
}

/// What takes a lock and gives it back.
pub(crate) enum Work {
    Floor(Floor),
    /// The coordinator is kept as long as its lock is used.
    Ours(Lock, #[expect(dead_code, reason = "its drop ends the session")] Coordinator),
    /// A database's own statements.
    Bare(Bare),
    /// The plain way to a lock on Redis, by the crate `redis`: set if it is not there, deleted by a script if it is one's own.
    Redis(redis::aio::MultiplexedConnection, redis::Script),
    /// The kernel's `flock` on an open file.
    Flock(Option<std::fs::File>),
}

impl Work {
    /// Ours, by a coordinator of its own.
    pub(crate) async fn ours(backend: &Backend, caller: Caller) -> Result<Self> {
        let coordinator = backend.connect("callers", &format!("{caller:?}").to_lowercase()).await?;
        Ok(Work::Ours(coordinator.lock(format!("{caller:?}"))?, coordinator))
    }

    /// Another client of the same server, where there is one to compare with.
    pub(crate) async fn peer_of(backend: &Backend) -> Result<Option<(&'static str, Self)>> {
        Ok(match backend.name {
            "redis" => {
                let client = redis::Client::open(backend.plain_url())?;
                let connection = client.get_multiplexed_async_connection().await?;
                let script =
                    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end";
                Some((
                    "redis-rs: SET NX and a script that deletes",
                    Work::Redis(connection, redis::Script::new(script)),
                ))
            }
            "file" => Some(("flock", Work::Flock(Some(tempfile::tempfile()?)))),
            _ => Bare::connect(backend).await?.map(|bare| ("sqlx: the bare statements", Work::Bare(bare))),
        })
    }

    /// Takes the lock and gives it back.
    pub(crate) async fn pair(&mut self) -> Result<()> {
        match self {
            Work::Floor(floor) => floor.pair(),
            Work::Ours(lock, _) => Ok(lock.acquire().await?.release().await?),
            Work::Bare(bare) => bare.pair().await,
            Work::Redis(connection, script) => {
                let options = redis::SetOptions::default()
                    .conditional_set(redis::ExistenceCheck::NX)
                    .with_expiration(redis::SetExpiry::PX(10_000));
                let set: Option<String> = connection.set_options("bare", "me", options).await?;
                set.context("the plain lock is another's")?;
                let deleted: i64 = script.key("bare").arg("me").invoke_async(connection).await?;
                anyhow::ensure!(deleted == 1, "the plain lock has gone");
                Ok(())
            }
            Work::Flock(file) => {
                let open = file.take().context("the file is open")?;
                let locked = Flock::lock(open, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error)?;
                *file = Some(locked.unlock().map_err(|(_, error)| error)?);
                Ok(())
            }
        }
    }
}
