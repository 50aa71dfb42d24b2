//! What is left at the backend when all workers have ended: nothing but a group without members, which can be deleted. The driver is asked, and
//! then the server's own tool.

mod server;

use std::time::{Duration, Instant};

use anyhow::Result;
use tooz::{ConnectOptions, Coordinator, ErrorKind};

use crate::backend::Backend;
use crate::ground::Ground;
use crate::record::{GROUP, LOCKS};

/// Beyond the time for which the backend keeps what the dead had: it clears away by itself, and so may be late.
const LATE: Duration = Duration::from_secs(6);

/// What is left, in words; nothing where all is well.
pub(crate) async fn look_for(backend: &Backend, ground: &Ground) -> Result<Vec<String>> {
    let options = ConnectOptions::new(&ground.url(backend))?.member("looker")?.session_timeout(backend.session_timeout);
    let coordinator = options.connect().await?;
    let limit = Instant::now() + backend.recovery() + LATE;
    let mut left = all_that_is_left(&coordinator).await;
    while !left.is_empty() && Instant::now() < limit {
        tokio::time::sleep(Duration::from_millis(100)).await;
        left = all_that_is_left(&coordinator).await;
    }
    let _ = coordinator.close().await;
    if left.is_empty() {
        left = what_tools_find(backend, ground).await?;
    }
    Ok(left)
}

/// Where the driver finds nothing. The server clears away by itself too, and a tool takes its time.
async fn what_tools_find(backend: &Backend, ground: &Ground) -> Result<Vec<String>> {
    let limit = Instant::now() + backend.recovery() + LATE;
    loop {
        let left = tokio::task::block_in_place(|| server::what_is_left(ground))?;
        if left.is_empty() || Instant::now() > limit {
            return Ok(left);
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

async fn all_that_is_left(coordinator: &Coordinator) -> Vec<String> {
    let mut left = Vec::new();
    for name in (0..LOCKS).map(|number| format!("lock-{number}")) {
        let Ok(lock) = coordinator.lock(name.as_str()) else { continue };
        match lock.holders().await {
            Ok(holders) => left.extend(holders.iter().map(|holder| format!("{name} is held by {}", holder.member))),
            Err(error) => left.push(format!("holders of {name}: {error}")),
        }
        match lock.waiters().await {
            Ok(waiters) if !waiters.is_empty() => left.push(format!("{name} has {} waiters", waiters.len())),
            _ => {}
        }
    }
    match coordinator.locks().await {
        Ok(locks) => left.extend(locks.iter().map(|lock| format!("{} is in use", lock.as_str()))),
        Err(error) if error.kind() == ErrorKind::Unsupported => {}
        Err(error) => left.push(format!("locks in use: {error}")),
    }
    left.extend(what_is_left_of_groups(coordinator).await.unwrap_or_else(|error| vec![format!("groups: {error}")]));
    left
}

async fn what_is_left_of_groups(coordinator: &Coordinator) -> tooz::Result<Vec<String>> {
    let group = coordinator.group(GROUP)?;
    match group.delete().await {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Ok(vec![format!("the group can't be deleted: {error}")]),
    }
    let groups = coordinator.groups().await?;
    Ok(groups.iter().map(|group| format!("the group {} is there", group.as_str())).collect())
}
