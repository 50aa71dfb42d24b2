//! One leader of many candidates. SIGTERM hands the leadership over at once, without waiting for a timeout.
//!
//!     cargo run --package tooz --example leader -- file:
//!
//! Start it several times, end the leader with Ctrl-C or `kill`, and see the next one lead.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tooz::Leadership;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "file:".to_owned());
    let coordinator = tooz::connect(&url, format!("candidate-{}", std::process::id())).await?;
    let membership = coordinator.group("examples-billing")?.join_or_create(&()).await?;
    println!("waiting to be elected");
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        // Campaigns, leads, and after a loss campaigns again, until the work itself has an answer.
        answer = membership.lead(lead) => answer?,
        _ = terminated.recv() => println!("told to end"),
        _ = tokio::signal::ctrl_c() => println!("interrupted"),
    }
    // The dropped work has ended; its leadership is handed over before the member leaves.
    membership.leave().await?;
    coordinator.close().await?;
    println!("handed over");
    Ok(())
}

async fn lead(leadership: Arc<Leadership>) {
    println!("leading in epoch {}", leadership.epoch());
    loop {
        // Whatever is changed elsewhere is told the epoch, and refuses an older one.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
