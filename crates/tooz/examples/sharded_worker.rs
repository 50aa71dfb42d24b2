//! Work that is shared out: each key belongs to one member, and few keys move when a member comes or goes.
//!
//!     cargo run --package tooz --example sharded_worker -- file: 5
//!
//! Start it several times; each worker says which of the twelve customers are its own. It ends after so many seconds, or at Ctrl-C.

use std::time::Duration;

use tooz::Partitioner;

#[tokio::main]
async fn main() -> tooz::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap_or_else(|| "file:".to_owned());
    let seconds = arguments.next().and_then(|seconds| seconds.parse().ok()).unwrap_or(60);
    let coordinator = tooz::connect(&url, format!("worker-{}", std::process::id())).await?;
    // A worker with twice the weight gets twice the keys.
    let membership = coordinator.group("examples-workers")?.join_or_create(&serde_json::json!({ "weight": 1 })).await?;
    let mut partitioner = membership.partitioner().await?;
    let working = async {
        loop {
            println!("mine: {}", mine(&partitioner).join(" "));
            // Ends with false when the coordinator is closed.
            if !partitioner.changed().await {
                return;
            }
        }
    };
    tokio::select! {
        () = working => {}
        () = tokio::time::sleep(Duration::from_secs(seconds)) => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    // The others take the keys over at once.
    membership.leave().await?;
    coordinator.close().await
}

/// What this worker does now. Two workers may both think that a key is theirs while a member comes or goes: work that must not be done twice
/// takes a lock besides.
fn mine(partitioner: &Partitioner) -> Vec<String> {
    let customers = (1..=12).map(|number| format!("customer-{number}"));
    customers.filter(|customer| partitioner.belongs_to_self(customer)).collect()
}
