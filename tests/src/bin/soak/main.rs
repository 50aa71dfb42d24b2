//! A soak program on the facade: hours of work on a backend, many processes on one lock, or hundreds of thousands of operations in one process.
//!
//! `cargo xtask soak redis --hours 8` does everything that tooz does, again and again, on a server of its own, and shows that memory, descriptors,
//! threads and what is stored at the server stay flat. What it sees is written down as it goes: the same command goes on where it was ended.
//!
//! `cargo run -p tooz-tests --bin soak -- --url redis://localhost --processes 8 --seconds 30` contends for one lock, prints who
//! had how many turns and how long each waited, and judges: no two held at once, tokens grow, every process had its
//! turns. `--churn 200000` takes, gives back, joins and leaves in a loop, and shows that memory stays flat. What is left at
//! the server afterwards is the server's tool's to show. The exit code is 0 if all was well, 1 if not.

mod census;
mod churn;
mod contend;
mod curve;
mod diary;
mod endure;
mod ground;
mod report;
mod usage;
mod verdict;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;

/// Works on a backend for hours, contends for one lock with many processes, or comes and goes a great many times.
#[derive(Clone, Debug, Parser)]
#[command(name = "soak", bin_name = "cargo xtask soak")]
struct Arguments {
    /// The backend, such as `redis`, on a server of its own: works on it for hours, and goes on where it was ended
    #[arg(required_unless_present = "url", conflicts_with = "url")]
    backend: Option<String>,
    /// For how many hours
    #[arg(long, conflicts_with = "minutes")]
    hours: Option<u64>,
    /// For how many minutes [default: 20]
    #[arg(long)]
    minutes: Option<u64>,
    /// Begin anew, and do not go on where the last run was ended
    #[arg(long)]
    afresh: bool,
    /// The folder in which is written down what was seen
    #[arg(long, default_value = "target/soak")]
    folder: PathBuf,
    /// Forget so many bytes at each operation, to see that a leak is noticed
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    leak: usize,
    /// In place of a backend: the URL of one that is there; `file:` and every other linked driver will do, `memory:` is of one process
    #[arg(long)]
    url: Option<String>,
    /// How many processes contend
    #[arg(long, default_value_t = 8)]
    processes: usize,
    /// For how many seconds they contend
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// How long each keeps the lock, in microseconds
    #[arg(long, default_value_t = 2000)]
    section: u64,
    /// The session timeout, in milliseconds
    #[arg(long, default_value_t = 10_000)]
    session_timeout: u64,
    /// The lock
    #[arg(long, default_value = "soak")]
    lock: String,
    /// Do not ask for fairness: for runs in which the server is killed and started again meanwhile
    #[arg(long)]
    with_faults: bool,
    /// In place of contending: so many operations of one process, each a lock or a membership taken and given back
    #[arg(long, value_name = "OPERATIONS")]
    churn: Option<u64>,
    /// How many tasks share the work or the churn, each with a coordinator of its own
    #[arg(long, default_value_t = 4)]
    tasks: u64,
}

impl Arguments {
    /// For how long a backend is worked on.
    fn time(&self) -> Duration {
        let minutes = self.minutes.or(self.hours.map(|hours| hours.saturating_mul(60)));
        Duration::from_mins(minutes.unwrap_or(20))
    }

    fn url(&self) -> Result<&str> {
        self.url.as_deref().context("--url is missing")
    }
}

fn main() -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if let Some(role) = tooz_tests::process::role() {
        runtime.block_on(contend::worker(role))?;
        return Ok(ExitCode::SUCCESS);
    }
    let arguments = Arguments::parse();
    let well = match (&arguments.backend, arguments.churn) {
        (Some(backend), _) => runtime.block_on(endure::run(&arguments, backend))?,
        (None, Some(operations)) => runtime.block_on(churn::run(&arguments, operations))?,
        (None, None) => runtime.block_on(contend::run(&arguments))?,
    };
    // What hangs in the background must not hang the exit.
    runtime.shutdown_timeout(Duration::from_millis(100));
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
