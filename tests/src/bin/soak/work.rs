//! What a soak does all the time: every primitive, again and again, with names that are new and names that all tasks share; waits that
//! are given up, and coordinators that are closed and opened anew.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use tooz::{ConnectOptions, Coordinator, ErrorKind, Group, Lock};

/// How many operations a coordinator does before the next one takes its place: sessions must not pile up either.
const LIFE: u64 = 500;
/// How long a wait may take before it is given up.
const IMPATIENCE: Duration = Duration::from_millis(3);
/// Until the next attempt when something failed.
const REST: Duration = Duration::from_millis(100);
/// The lock that all tasks want, and the group in which they are watched.
const SHARED: &str = "soak";
/// How many kinds of operations there are.
const KINDS: u64 = 8;

/// What all tasks share.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) operations: AtomicU64,
    pub(crate) is_over: AtomicBool,
    errors: Mutex<BTreeMap<String, u64>>,
}

impl Tally {
    fn fail(&self, error: &tooz::Error) {
        let mut errors = self.errors.lock().expect("no thread panics with it");
        // Different words of one kind would be without number.
        *errors.entry(format!("{:?}", error.kind())).or_default() += 1;
    }

    /// How often each kind of error came.
    pub(crate) fn errors(&self) -> BTreeMap<String, u64> {
        self.errors.lock().expect("no thread panics with it").clone()
    }
}

/// Who does it, and where.
#[derive(Clone)]
pub(crate) struct Task {
    pub(crate) url: String,
    pub(crate) number: u64,
    pub(crate) session_timeout: Duration,
    /// After so many locks the names begin again.
    pub(crate) names: u64,
    /// So many bytes are forgotten at each operation, to see that a leak is noticed.
    pub(crate) leak: usize,
}

impl Task {
    /// Works until it is over.
    pub(crate) async fn work(self, tally: Arc<Tally>) {
        let mut count = 0;
        while !tally.is_over.load(Ordering::Relaxed) {
            if let Err(error) = self.live(&tally, &mut count).await {
                tally.fail(&error);
                tokio::time::sleep(REST).await;
            }
        }
    }

    pub(crate) async fn connect(&self) -> tooz::Result<Coordinator> {
        let options = ConnectOptions::new(&self.url)?.member(format!("soak-{}", self.number))?;
        options.session_timeout(self.session_timeout).connect().await
    }

    /// The life of one coordinator. What fails ends it: it is dropped with all that it has.
    async fn live(&self, tally: &Tally, count: &mut u64) -> tooz::Result<()> {
        let coordinator = self.connect().await?;
        for _ in 0..LIFE {
            if tally.is_over.load(Ordering::Relaxed) {
                break;
            }
            *count += 1;
            self.step(&coordinator, *count).await?;
            tally.operations.fetch_add(1, Ordering::Relaxed);
            std::mem::forget(vec![1_u8; self.leak]);
        }
        self.end(&coordinator).await
    }

    async fn step(&self, coordinator: &Coordinator, count: u64) -> tooz::Result<()> {
        let shared = coordinator.lock(SHARED)?;
        // A new name each time: what is kept for a name would be seen.
        let fresh = format!("soak-{}-{}", self.number, count % self.names);
        match count % KINDS {
            0 => take(&coordinator.lock(fresh)?).await,
            1 => coordinator.lock(fresh)?.shared().acquire().await?.release().await,
            2 => take(&shared).await,
            3 => ask_in_vain(&shared).await,
            4 => change(&self.own_group(coordinator)?, count).await,
            5 => lead(&self.own_group(coordinator)?, count).await,
            6 => watch(&coordinator.group(SHARED)?, count).await,
            _ => look(coordinator, &shared).await,
        }
    }

    fn own_group(&self, coordinator: &Coordinator) -> tooz::Result<Group> {
        coordinator.group(format!("soak-{}", self.number))
    }

    async fn end(&self, coordinator: &Coordinator) -> tooz::Result<()> {
        for group in [self.own_group(coordinator)?, coordinator.group(SHARED)?] {
            match group.delete().await {
                // Others may be in it, or have deleted it.
                Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotEmpty) => return Err(error),
                _ => {}
            }
        }
        coordinator.close().await
    }
}

async fn take(lock: &Lock) -> tooz::Result<()> {
    lock.acquire().await?.release().await
}

/// Tries, waits for a moment, and drops a wait.
async fn ask_in_vain(lock: &Lock) -> tooz::Result<()> {
    if let Some(guard) = lock.try_acquire().await? {
        guard.release().await?;
    }
    match lock.acquire_within(IMPATIENCE).await {
        Ok(Some(guard)) => guard.release().await?,
        // A backend that has not answered by then has said nothing.
        Err(error) if error.kind() != ErrorKind::TimedOut => return Err(error),
        _ => {}
    }
    if let Ok(guard) = tokio::time::timeout(IMPATIENCE, lock.acquire()).await {
        guard?.release().await?;
    }
    Ok(())
}

async fn change(group: &Group, count: u64) -> tooz::Result<()> {
    let membership = group.join_or_create(&count).await?;
    membership.update(&(count + 1)).await?;
    membership.leave().await
}

async fn lead(group: &Group, count: u64) -> tooz::Result<()> {
    let membership = group.join_or_create(&count).await?;
    membership.campaign().await?.resign().await?;
    membership.leave().await
}

/// In a group that others watch, join and delete meanwhile.
async fn watch(group: &Group, count: u64) -> tooz::Result<()> {
    let membership = group.join_or_create(&count).await?;
    let mut members = group.watch().await?;
    let mut leader = group.watch_leader().await?;
    let partitioner = membership.partitioner().await?;
    let _ = (members.next().await, leader.next().await, partitioner.members_for("key", 1));
    membership.leave().await
}

async fn look(coordinator: &Coordinator, lock: &Lock) -> tooz::Result<()> {
    lock.holders().await?;
    coordinator.groups().await.map(drop)
}

/// Deletes the groups of tasks that ended with an error.
pub(crate) async fn clear(task: &Task) -> Result<()> {
    let coordinator = task.connect().await?;
    for group in coordinator.groups().await? {
        coordinator.group(group.as_str())?.delete().await?;
    }
    Ok(coordinator.close().await?)
}

/// What a backend keeps of its own once it was used: everything is done once, and ended.
pub(crate) async fn once(task: &Task) -> Result<()> {
    let coordinator = task.connect().await?;
    for count in 0..KINDS {
        task.step(&coordinator, count).await?;
    }
    task.end(&coordinator).await?;
    Ok(())
}
