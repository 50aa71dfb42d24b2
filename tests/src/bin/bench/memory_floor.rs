//! What a driver between processes of one host is compared with: the memory driver under the same load, where only core is in the way, and the
//! kernel's own semaphores.

use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::libc;
use tooz::{Coordinator, Lock};
use tooz_conformance::history::now;

use crate::stats::{SILENCE, Sample};

/// The medians of the memory driver.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemoryFloor {
    /// From a release to a waiter on another thread, which has a runtime of its own.
    pub(crate) wake_up: Duration,
    pub(crate) join: Duration,
}

impl MemoryFloor {
    pub(crate) async fn measure(rounds: usize) -> Result<Self> {
        Ok(MemoryFloor { wake_up: wake_up(rounds).await?, join: join(rounds).await? })
    }
}

/// A lock of the memory driver: the same way through core, and nothing behind it.
pub(crate) struct MemoryPair(Lock);

impl MemoryPair {
    pub(crate) async fn new() -> Result<Self> {
        Ok(MemoryPair(connect("pairs").await?.lock("pair")?))
    }

    /// Takes the lock and gives it back.
    pub(crate) async fn pair(&self) -> tooz::Result<()> {
        self.0.acquire().await?.release().await
    }
}

async fn connect(member: &str) -> Result<Coordinator> {
    Ok(tooz::connect("memory://bench-floor", member).await?)
}

/// In the same steps as between two processes, and as rarely.
async fn wake_up(rounds: usize) -> Result<Duration> {
    let coordinator = connect("holder").await?;
    let lock = coordinator.lock("wake")?;
    let (ask, asked) = mpsc::channel::<()>();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let waiter = thread::spawn(move || -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let coordinator = runtime.block_on(connect("waiter"))?;
        let lock = coordinator.lock("wake")?;
        while asked.recv().is_ok() {
            let guard = runtime.block_on(lock.acquire())?;
            let granted = now();
            runtime.block_on(guard.release())?;
            // Who asked may have failed.
            let _ = tell.send(granted);
        }
        runtime.block_on(coordinator.close())?;
        Ok(())
    });
    let mut sample = Sample::new();
    for _ in 0..rounds {
        let guard = lock.acquire().await?;
        ask.send(()).context("the waiter has ended")?;
        tokio::time::sleep(SILENCE).await;
        let released = now();
        guard.release().await?;
        let granted = told.recv().await.context("the waiter has ended")?;
        sample.add(Duration::from_nanos(granted.saturating_sub(released)));
    }
    drop(ask);
    waiter.join().expect("the waiter does not panic")?;
    coordinator.close().await?;
    Ok(sample.median())
}

async fn join(rounds: usize) -> Result<Duration> {
    let coordinator = connect("joiner").await?;
    let group = coordinator.group("joined")?;
    group.create().await?;
    let mut sample = Sample::new();
    for _ in 0..rounds {
        let membership = sample.time(group.join(&1)).await?;
        membership.leave().await?;
    }
    coordinator.close().await?;
    Ok(sample.median())
}

/// One semaphore of System V, taken and given back; it goes with this.
pub(crate) struct Semaphore(libc::c_int);

impl Semaphore {
    #[expect(unsafe_code, reason = "no crate in use has semaphores of System V")]
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: only numbers are handed over.
        let id = unsafe { libc::semget(libc::IPC_PRIVATE, 1, 0o600) };
        anyhow::ensure!(id >= 0, "semget: {}", io::Error::last_os_error());
        let semaphore = Semaphore(id);
        semaphore.change(1)?;
        Ok(semaphore)
    }

    pub(crate) fn pair(&self) -> Result<()> {
        self.change(-1)?;
        self.change(1)
    }

    #[expect(unsafe_code, reason = "no crate in use has semaphores of System V")]
    fn change(&self, by: libc::c_short) -> Result<()> {
        let sem_flg = libc::c_short::try_from(libc::SEM_UNDO)?;
        let mut change = libc::sembuf { sem_num: 0, sem_op: by, sem_flg };
        // SAFETY: the call reads one `sembuf`, which lives longer than it.
        let answer = unsafe { libc::semop(self.0, &raw mut change, 1) };
        anyhow::ensure!(answer == 0, "semop: {}", io::Error::last_os_error());
        Ok(())
    }
}

impl Drop for Semaphore {
    #[expect(unsafe_code, reason = "no crate in use has semaphores of System V")]
    fn drop(&mut self) {
        // SAFETY: only numbers are handed over. What fails leaves one semaphore until the next start of the machine.
        unsafe { libc::semctl(self.0, 0, libc::IPC_RMID) };
    }
}
