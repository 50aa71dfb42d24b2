//! A service that ends as a supervisor wishes: at SIGTERM it finishes what it has in hand, gives everything back, and is gone before
//! SIGKILL. A service that is just killed keeps its lock until the session timeout.
//!
//!     cargo run --package tooz --example sigterm -- file:

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tooz::SessionEvent;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "file:".to_owned());
    let coordinator = tooz::connect(&url, format!("service-{}", std::process::id())).await?;
    // What happens to the session goes to the log: an operator reads there why a lock was lost.
    let mut events = coordinator.events();
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            match event {
                SessionEvent::Lost(reason) => eprintln!("session lost: {reason}"),
                SessionEvent::Troubled(error) => eprintln!("in trouble: {error}"),
                other => eprintln!("{other:?}"),
            }
        }
    });
    let mut terminated = signal(SignalKind::terminate())?;
    let lock = coordinator.lock("examples-service")?;
    let guard = tokio::select! {
        guard = lock.acquire() => guard?,
        // A dropped wait withdraws: the next in the queue is not kept waiting.
        _ = terminated.recv() => return Ok(coordinator.close().await?),
    };
    println!("serving under token {}", guard.fencing_token());
    let (loss, mut requests) = (guard.loss(), 0);
    loop {
        tokio::select! {
            biased;
            _ = terminated.recv() => break,
            _ = tokio::signal::ctrl_c() => break,
            reason = loss.wait() => return Err(reason.into()),
            () = serve_one() => requests += 1,
        }
    }
    println!("served {requests} requests, going");
    guard.release().await?;
    coordinator.close().await?;
    println!("gone");
    Ok(())
}

async fn serve_one() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}
