//! A rolling restart: the workers of a group are restarted one at a time, each only when the one before is back.
//!
//!     cargo run --package tooz --example rolling_restart -- file:
//!
//! All workers here live in one process, each with a coordinator of its own as on a machine of its own. The one that restarts holds the lock
//! `examples-restart`, leaves the group, comes back, and gives the lock back when it is listed again. So at most one of them is away at any moment.

use tooz::{Coordinator, GroupEvent, Membership};

const WORKERS: usize = 3;

type Worker = (Coordinator, Membership);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "file:".to_owned());
    let observer = tooz::connect(&url, "observer").await?;
    let group = format!("examples-restarting-{}", std::process::id());
    let mut workers = Vec::new();
    for number in 1..=WORKERS {
        let coordinator = tooz::connect(&url, format!("worker-{number}")).await?;
        let membership = coordinator.group(group.as_str())?.join_or_create("version 1").await?;
        workers.push((coordinator, membership));
    }
    let mut watch = observer.group(group.as_str())?.watch().await?;
    let restarts: Vec<_> = workers.into_iter().map(|worker| tokio::spawn(restart(group.clone(), worker))).collect();
    let mut present = 0;
    let mut updated = 0;
    while updated < WORKERS {
        match watch.next().await {
            Some(GroupEvent::Snapshot(members)) => present = members.len(),
            Some(GroupEvent::Left(member)) => {
                present -= 1;
                println!("{member} restarts");
                assert!(present >= WORKERS - 1, "more than one is away");
            }
            Some(GroupEvent::Joined(entry)) => {
                present += 1;
                updated += 1;
                println!("{} is back with {}", entry.member, entry.capabilities.as_json());
            }
            other => return Err(format!("unexpected: {other:?}").into()),
        }
    }
    for restart in restarts {
        let (coordinator, membership) = restart.await??;
        membership.leave().await?;
        coordinator.close().await?;
    }
    observer.group(group.as_str())?.delete().await?;
    observer.close().await?;
    println!("all are restarted");
    Ok(())
}

async fn restart(group: String, (coordinator, membership): Worker) -> tooz::Result<Worker> {
    let guard = coordinator.lock("examples-restart")?.acquire().await?;
    membership.leave().await?;
    // Here the new version is installed and started.
    let membership = coordinator.group(group.as_str())?.join("version 2").await?;
    guard.release().await?;
    Ok((coordinator, membership))
}
