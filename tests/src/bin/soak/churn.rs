//! A great many operations of one process, to see that nothing piles up: no memory, no thread, no file.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tooz::{ConnectOptions, Coordinator, ErrorKind};

use crate::Arguments;
use crate::usage::Usage;

/// How many operations a coordinator does before it is closed and the next one is opened: sessions must not pile up either.
const LIFE: u64 = 1000;
/// What memory may grow by after the first tenth, in KiB: caches and the allocator's own ways.
const TOLERANCE: u64 = 8 * 1024;

/// Comes and goes, shows how memory is, and judges.
pub(crate) async fn run(arguments: &Arguments, operations: u64) -> Result<bool> {
    let done = Arc::new(AtomicU64::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..arguments.tasks {
        let (arguments, done) = (arguments.clone(), Arc::clone(&done));
        let share = operations / arguments.tasks + u64::from(task < operations % arguments.tasks);
        tasks.spawn(async move { come_and_go(&arguments, task, share, &done).await });
    }
    let begun = Instant::now();
    let mut warm: Option<Usage> = None;
    let mut shown = Instant::now();
    println!("  operations   per second   resident KiB   threads   files");
    loop {
        let ended = tokio::select! {
            ended = tasks.join_next() => ended,
            () = tokio::time::sleep(Duration::from_millis(100)) => {
                let count = done.load(Ordering::Relaxed);
                if warm.is_none() && count >= operations / 10 {
                    warm = Some(Usage::now());
                }
                if shown.elapsed() >= Duration::from_secs(5) {
                    shown = Instant::now();
                    show(count, begun);
                }
                continue;
            }
        };
        match ended {
            Some(result) => result??,
            None => break,
        }
    }
    show(done.load(Ordering::Relaxed), begun);
    let (warm, last) = (warm.unwrap_or_else(Usage::now), Usage::now());
    let grown = last.resident.saturating_sub(warm.resident);
    println!("grown since the first tenth: {grown} KiB; all coordinators are closed");
    let flat = grown <= TOLERANCE.max(warm.resident / 5) && last.threads <= warm.threads && last.files <= warm.files;
    if !flat {
        println!("WRONG: something piles up: {warm:?} became {last:?}");
    }
    Ok(flat)
}

async fn come_and_go(arguments: &Arguments, task: u64, operations: u64, done: &AtomicU64) -> Result<()> {
    let mut coordinator = None;
    let group = format!("soak-{task}");
    for count in 0..operations {
        if count % LIFE == 0
            && let Some(old) = coordinator.take()
        {
            Coordinator::close(&old).await?;
        }
        if coordinator.is_none() {
            coordinator = Some(connect(arguments, task).await?);
        }
        let Some(coordinator) = &coordinator else { bail!("a coordinator was just made") };
        if count % 2 == 0 {
            // A new name each time: what is kept for a name would be seen.
            let lock = coordinator.lock(format!("soak-{task}-{count}"))?;
            lock.acquire().await?.release().await?;
        } else {
            coordinator.group(group.as_str())?.join_or_create(&count).await?.leave().await?;
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
    if let Some(coordinator) = coordinator {
        match coordinator.group(group.as_str())?.delete().await {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        coordinator.close().await?;
    }
    Ok(())
}

async fn connect(arguments: &Arguments, task: u64) -> Result<Coordinator> {
    let timeout = Duration::from_millis(arguments.session_timeout);
    let options = ConnectOptions::new(arguments.url()?)?.member(format!("soak-{task}"))?;
    Ok(options.session_timeout(timeout).connect().await?)
}

fn show(count: u64, begun: Instant) {
    let Usage { resident, threads, files } = Usage::now();
    let milliseconds = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = count * 1000 / milliseconds;
    println!("{count:>12}{rate:>13}{resident:>15}{threads:>10}{files:>8}");
}
