//! A soak program on the facade: many processes on one lock, or hundreds of thousands of operations in one process.
//!
//! `cargo run -p tooz-tests --bin soak -- --url redis://localhost --processes 8 --seconds 30` contends for one lock, prints who
//! had how many turns and how long each waited, and judges: no two held at once, tokens grow, every process had its
//! turns. `--churn 200000` takes, gives back, joins and leaves in a loop, and shows that memory stays flat. What is left at
//! the server afterwards is the server's tool's to show. The exit code is 0 if all was well, 1 if not.

mod churn;
mod contend;
mod report;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;

/// Contends for one lock with many processes, or comes and goes a great many times.
#[derive(Clone, Debug, Parser)]
#[command(name = "soak")]
struct Arguments {
    /// The backend; `file:` and every other linked driver will do, `memory:` is of one process.
    #[arg(long)]
    url: String,
    /// How many processes contend.
    #[arg(long, default_value_t = 8)]
    processes: usize,
    /// For how long, in seconds.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// How long each keeps the lock, in microseconds.
    #[arg(long, default_value_t = 2000)]
    section: u64,
    /// The session timeout, in milliseconds.
    #[arg(long, default_value_t = 10_000)]
    session_timeout: u64,
    /// The lock.
    #[arg(long, default_value = "soak")]
    lock: String,
    /// Do not ask for fairness: for runs in which the server is killed and started again meanwhile.
    #[arg(long)]
    with_faults: bool,
    /// In place of contending: so many operations of one process, each a lock or a membership taken and given back.
    #[arg(long, value_name = "OPERATIONS")]
    churn: Option<u64>,
    /// How many tasks share the churn, each with a coordinator of its own.
    #[arg(long, default_value_t = 8)]
    tasks: u64,
}

fn main() -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if let Some(role) = tooz_tests::process::role() {
        runtime.block_on(contend::worker(role))?;
        return Ok(ExitCode::SUCCESS);
    }
    let arguments = Arguments::parse();
    let well = match arguments.churn {
        Some(operations) => runtime.block_on(churn::run(&arguments, operations))?,
        None => runtime.block_on(contend::run(&arguments))?,
    };
    // What hangs in the background must not hang the exit.
    runtime.shutdown_timeout(Duration::from_millis(100));
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
