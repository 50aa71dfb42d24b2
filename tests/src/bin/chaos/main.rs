//! Chaos: workers in processes of their own play with every primitive of a backend while everything is broken that can be; a checker judges
//! what they did and were told.
//!
//! `cargo xtask chaos redis --seconds 60` is the way to run it. It prints the seed; the same seed draws the same faults. The exit code is 0
//! if every promise was kept that the backend does not give up under these faults, 1 if not.

mod backend;
mod chronicle;
mod concessions;
mod crew;
mod deeds;
mod fault;
mod ground;
mod leftovers;
mod nemesis;
mod plan;
mod record;
mod report;
mod run;
mod stalls;
mod verdict;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use tooz_conformance::mutant::Bug;

use crate::backend::Backend;
use crate::fault::FaultKind;

/// Breaks a backend in every way while workers use it, and judges what they were told.
#[derive(Clone, Debug, Parser)]
#[command(name = "chaos", bin_name = "cargo xtask chaos")]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub(crate) struct Arguments {
    /// The backend, such as `redis`
    #[arg(required_unless_present_any = ["table", "judge"])]
    backend: Option<String>,
    /// For how many minutes things are broken
    #[arg(long, conflicts_with = "seconds")]
    minutes: Option<u64>,
    /// For how many seconds [default: 60]
    #[arg(long)]
    seconds: Option<u64>,
    /// Which faults, when, and to whom: the same seed draws the same. Without it one is chosen, and printed
    #[arg(long)]
    seed: Option<u64>,
    /// Only these faults
    #[arg(long, value_delimiter = ',')]
    faults: Vec<FaultKind>,
    /// How many workers
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(2..=32))]
    workers: u8,
    /// On a cluster of three servers, with its own faults: leaders killed and cut off, majorities down
    #[arg(long)]
    cluster: bool,
    /// The server is of an older version at first, and a newer one goes on with its data; both are fetched
    #[arg(long, conflicts_with = "cluster")]
    upgrade: bool,
    /// The data have a small disk of their own, which is full at times; this takes the right to mount
    #[arg(long, conflicts_with = "cluster")]
    disk: bool,
    /// The folder of the reports
    #[arg(long, default_value = "target/chaos")]
    folder: PathBuf,
    /// Judge the history of that `report.json` once more in place of a run, and write its report anew
    #[arg(long, value_name = "REPORT")]
    judge: Option<PathBuf>,
    /// Put a known bug into the memory driver, to see that it is noticed
    #[arg(long, value_parser = tooz_tests::mutant::named)]
    bug: Option<Bug>,
    /// Print which backend gives up what under which fault, as Markdown, and end
    #[arg(long)]
    table: bool,
}

impl Arguments {
    fn time(&self) -> Duration {
        let seconds = self.seconds.or(self.minutes.map(|minutes| minutes.saturating_mul(60)));
        Duration::from_secs(seconds.unwrap_or(60))
    }
}

fn main() -> Result<ExitCode> {
    if let Some(role) = tooz_tests::process::role() {
        worker::serve(role)?;
        return Ok(ExitCode::SUCCESS);
    }
    let arguments = Arguments::parse();
    if arguments.table {
        print!("{}", concessions::table());
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(report) = &arguments.judge {
        let is_good = run::judge_again(report, &arguments.folder)?;
        return Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let backend = Backend::named(arguments.backend.as_deref().unwrap_or_default())?;
    let backend = &backend.with(&arguments)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build()?;
    let is_good = runtime.block_on(run::run(backend, &arguments))?;
    runtime.shutdown_background();
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
