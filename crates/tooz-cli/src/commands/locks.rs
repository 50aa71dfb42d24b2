//! `tooz locks`, `holders` and `break`.

use serde_json::json;
use tooz::{Coordinator, ErrorKind, Holder, LockName};

use super::{election_locks, with_coordinator};
use crate::args::{BreakArguments, Global};
use crate::exit;
use crate::failure::CommandFailure;
use crate::output;
use crate::speech::local;
use crate::speech::locks::{Queue, holder, waiter};

pub(super) async fn list(global: &Global) -> Result<u8, CommandFailure> {
    let locks = with_coordinator(global, async |coordinator| Ok(in_use(coordinator).await?)).await?;
    if global.json {
        let one = |(name, queue): &(LockName, Queue)| {
            let waiters = queue.waiters.as_ref().map(|waiters| waiters.iter().map(waiter).collect::<Vec<_>>());
            let holders: Vec<_> = queue.holders.iter().map(holder).collect();
            json!({ "lock": name.as_str(), "holders": holders, "waiters": waiters })
        };
        output::json(&locks.iter().map(one).collect::<Vec<_>>().into())?;
    } else {
        let rows = locks.iter().map(|(name, queue)| {
            let mode = queue.holders.first().map_or("-", |holder| holder.mode.name());
            let members: Vec<_> = queue.holders.iter().map(|holder| holder.member.to_string()).collect();
            let waiters = queue.waiters.as_ref().map_or_else(|| "?".to_owned(), |waiters| waiters.len().to_string());
            vec![name.to_string(), mode.to_owned(), members.join(","), waiters]
        });
        output::rows(&["lock", "mode", "holders", "waiters"], rows.collect())?;
    }
    Ok(exit::SUCCESS)
}

/// Each lock that is in use, with its holders and its waiters.
pub(super) async fn in_use(coordinator: &Coordinator) -> tooz::Result<Vec<(LockName, Queue)>> {
    let mut locks = Vec::new();
    for name in coordinator.locks().await? {
        let lock = coordinator.lock(&name)?;
        let holders = lock.holders().await?;
        let waiters = match lock.waiters().await {
            Err(error) if error.kind() == ErrorKind::Unsupported => None,
            waiters => Some(waiters?),
        };
        locks.push((name, Queue { holders, waiters }));
    }
    Ok(locks)
}

pub(super) async fn holders(global: &Global, lock: &str) -> Result<u8, CommandFailure> {
    let holders = with_coordinator(global, async |coordinator| Ok(coordinator.lock(lock)?.holders().await?)).await?;
    if global.json {
        output::json(&holders.iter().map(holder).collect::<Vec<_>>().into())?;
    } else {
        let rows = holders.iter().map(|holder| {
            vec![
                holder.member.to_string(),
                holder.mode.name().to_owned(),
                holder.token.to_string(),
                holder.since.map_or_else(|| "-".to_owned(), local),
                holder.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            ]
        });
        output::rows(&["member", "mode", "token", "since", "pid"], rows.collect())?;
    }
    Ok(exit::SUCCESS)
}

pub(super) async fn break_lock(global: &Global, arguments: &BreakArguments) -> Result<u8, CommandFailure> {
    let work = async |coordinator: &Coordinator| take_away(coordinator, arguments).await;
    let broken = if arguments.leader {
        election_locks::with_coordinator(global, work).await?
    } else {
        with_coordinator(global, work).await?
    };
    if global.json {
        output::json(&broken.iter().map(holder).collect::<Vec<_>>().into())?;
    } else {
        for holder in broken {
            output::line(format_args!("taken from {} (token {})", holder.member, holder.token))?;
        }
    }
    Ok(exit::SUCCESS)
}

async fn take_away(coordinator: &Coordinator, arguments: &BreakArguments) -> Result<Vec<Holder>, CommandFailure> {
    let name = arguments.lock.name();
    let lock = coordinator.lock(name)?;
    let (held, what) =
        if arguments.leader { ("no member leads group", "epoch") } else { ("no member holds lock", "token") };
    let mut holders = lock.holders().await?;
    if holders.is_empty() {
        return Err(CommandFailure::missing(format!("{held} {name:?}, so there is nothing to break")));
    }
    if let Some(token) = arguments.token {
        holders.retain(|holder| holder.token.0 == token);
        if holders.is_empty() {
            return Err(CommandFailure::missing(format!("{held} {name:?} with {what} {token} (any more)")));
        }
    }
    for holder in &holders {
        lock.break_lock(holder).await?;
    }
    Ok(holders)
}
