//! A worker: one coordinator, and tasks that contend for locks, join and lead, look and watch, until they are told to stop.

mod grants;
mod group;
mod locks;
mod looks;
mod own;
mod stalls;
mod watches;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::sync::watch;
use tooz::{ConnectOptions, Coordinator};
use tooz_tests::process::{orders, say};

use crate::record::{Record, Role, Say};

/// What the tasks of a worker share.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) role: Arc<Role>,
    pub(crate) coordinator: Coordinator,
    say: Say,
    numbers: Arc<AtomicU64>,
    ending: watch::Receiver<bool>,
}

impl Desk {
    pub(crate) fn say(&self, record: &Record) {
        (self.say)(record);
    }

    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn is_ending(&self) -> bool {
        *self.ending.borrow()
    }

    /// Returns when the work is to end.
    pub(crate) async fn end(&self) {
        let mut ending = self.ending.clone();
        // One that has no director any more is to end too.
        let _ = ending.wait_for(|ending| *ending).await;
    }

    /// Rests, but not beyond the end.
    pub(crate) async fn rest(&self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.end() => {}
        }
    }

    pub(crate) fn random(&self, task: u64) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.role.seed ^ (task << 40))
    }

    pub(crate) fn pause(&self, random: &mut fastrand::Rng) -> Duration {
        let most = u64::try_from(self.role.rest.as_micros()).unwrap_or(u64::MAX).max(1);
        Duration::from_micros(random.u64(..most))
    }
}

/// Serves as a worker in a process of its own: until the end of its input.
pub(crate) fn serve(role: Role) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let (sender, ending) = watch::channel(false);
        std::thread::spawn(move || {
            orders::<()>().for_each(drop);
            let _ = sender.send(true);
        });
        work(role, Arc::new(|record: &Record| say(record)), ending).await
    })
}

/// Works until it is to end, and closes.
pub(crate) async fn work(role: Role, say: Say, ending: watch::Receiver<bool>) -> Result<()> {
    let options = ConnectOptions::new(&role.url)?.member(role.member.as_str())?;
    let options = options.session_timeout(role.session_timeout).operation_timeout(role.operation_timeout);
    let coordinator = connect(options, &ending).await?;
    let desk = Desk { role: Arc::new(role), coordinator, say, numbers: Arc::default(), ending };
    desk.say(&Record::Ready);
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..desk.role.tasks {
        tasks.spawn(locks::contend(desk.clone(), task));
    }
    tasks.spawn(group::belong(desk.clone()));
    tasks.spawn(looks::look(desk.clone()));
    tasks.spawn(watches::watch_members(desk.clone()));
    tasks.spawn(watches::watch_leader(desk.clone()));
    tasks.spawn(stalls::notice(desk.clone()));
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    // It says so by itself where the backend has not confirmed it; what is left there is looked for by others.
    let _ = desk.coordinator.close().await;
    Ok(())
}

/// A worker may be started while the server is down.
async fn connect(options: ConnectOptions, ending: &watch::Receiver<bool>) -> Result<Coordinator> {
    loop {
        match options.clone().connect().await {
            Ok(coordinator) => return Ok(coordinator),
            Err(error) if error.is_retryable() && !*ending.borrow() => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}
