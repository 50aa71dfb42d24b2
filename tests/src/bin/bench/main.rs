//! The bench: what every operation costs, as a ratio to the raw round trip of the same server in the same run.
//!
//! `cargo xtask bench` builds and runs it. Each backend is measured alone, one measure after the other, by this process and
//! by workers that are this binary again. Nothing here judges a test: a target that is missed is a line in a table.

mod backend;
mod bare;
mod callers;
mod contend;
mod crash;
mod groups;
mod locks;
mod markdown;
mod memory_floor;
mod party;
mod plot;
mod progress;
mod raw;
mod report;
mod scale;
mod stats;
mod target;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;

use crate::backend::Backend;
use crate::progress::Progress;
use crate::report::Report;

/// Measures the operations of tooz beside the raw round trip of the same server.
#[derive(Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
pub(crate) struct Arguments {
    /// Backends to measure; all that this build has, if none is named
    backends: Vec<String>,
    /// Fewer rounds, no scale figures: under 30 seconds a backend
    #[arg(long)]
    quick: bool,
    /// Print JSON in place of tables
    #[arg(long)]
    json: bool,
    /// Print the short table of the README in place of all tables
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// Write a picture of the latencies beside the raw round trips
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

fn main() -> ExitCode {
    if let Some(role) = tooz_tests::process::role() {
        party::serve(&role);
        return ExitCode::SUCCESS;
    }
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let known = Backend::names();
    if let Some(unknown) = arguments.backends.iter().find(|name| !known.contains(&name.as_str())) {
        bail!("there is no backend `{unknown}` to measure; there are: {}", known.join(", "));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut reports = Vec::new();
    for name in known {
        if !arguments.backends.is_empty() && !arguments.backends.iter().any(|wanted| wanted == name) {
            continue;
        }
        let progress = Progress::new(name);
        let backend = Backend::start(name, &progress)?;
        // In a task, as where it is used: a measure within one process is woken as any other task is.
        let report = runtime.block_on(runtime.spawn(measure(backend, arguments.quick, progress)))??;
        if !arguments.json && !arguments.markdown {
            report.print();
        }
        reports.push(report);
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&reports)?);
    }
    if arguments.markdown {
        print!("{}", markdown::table(&reports));
    }
    if let Some(file) = &arguments.plot {
        plot::write(&reports, file)?;
        eprintln!("the picture is in {}", file.display());
    }
    Ok(())
}

async fn measure(backend: Backend, quick: bool, progress: Progress) -> Result<Report> {
    let mut report = Report::new(&backend, quick);
    raw::measure(&backend, &mut report, &progress).await?;
    locks::measure(&backend, &mut report, &progress).await?;
    callers::measure(&backend, &mut report, &progress).await?;
    groups::measure(&backend, &mut report, &progress).await?;
    contend::measure(&backend, &mut report, &progress).await?;
    crash::measure(&backend, &mut report, &progress).await?;
    if !quick {
        scale::measure(&backend, &mut report, &progress).await?;
    }
    progress.end();
    Ok(report)
}
