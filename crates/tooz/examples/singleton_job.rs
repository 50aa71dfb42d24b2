//! The nightly job runs once, however many machines start it at the same minute.
//!
//!     cargo run --package tooz --example singleton_job -- file:
//!
//! Start it in two terminals: the second says that the job runs elsewhere. The URL is any backend whose feature is enabled.

use std::time::Duration;

use tooz::FencingToken;

#[tokio::main]
async fn main() -> tooz::Result<()> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "file:".to_owned());
    let coordinator = tooz::connect(&url, member()).await?;
    match coordinator.lock("examples-nightly")?.try_acquire().await? {
        None => println!("the job runs elsewhere"),
        Some(guard) => {
            // The job is stopped as soon as the lock is lost: before another machine can have it.
            match guard.while_held(job(guard.fencing_token())).await {
                Ok(()) => guard.release().await?,
                Err(reason) => eprintln!("stopped half-way: {reason}"),
            }
        }
    }
    coordinator.close().await
}

async fn job(token: FencingToken) {
    println!("running under token {token}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    println!("done");
}

/// A name that tells at three in the morning which process it is.
fn member() -> String {
    format!("job-{}", std::process::id())
}
