//! What is to be looked at: a page that needs nothing else, the same as JSON, and a few lines on the terminal.

mod page;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use tooz_conformance::history::History;

use crate::verdict::Verdict;

/// All that a report says.
#[derive(Serialize)]
struct Report<'a> {
    verdict: &'a Verdict,
    history: &'a History,
}

/// The same, read.
#[derive(Deserialize)]
struct OldReport {
    verdict: Verdict,
    history: History,
}

/// Reads a `report.json`.
pub(crate) fn read(file: &Path) -> Result<(Verdict, History)> {
    let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let report: OldReport =
        serde_json::from_slice(&text).with_context(|| format!("{} is no report", file.display()))?;
    Ok((report.verdict, report.history))
}

/// Writes `index.html` and `report.json`.
pub(crate) fn write(folder: &Path, verdict: &Verdict, history: &History) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let json = serde_json::to_string(&Report { verdict, history })?;
    let write = |name: &str, text: &str| {
        let file = folder.join(name);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    };
    write("report.json", &json)?;
    write("index.html", &page::page(verdict, history)?)
}

pub(crate) fn print(verdict: &Verdict, folder: &Path) {
    for (what, count) in &verdict.counts {
        println!("{count:>9} {what}");
    }
    for (error, count) in verdict.errors.iter().take(8) {
        println!("{count:>9} times: {error}");
    }
    for violation in &verdict.conceded {
        println!("given up, and shown: {violation}");
    }
    for violation in &verdict.violations {
        println!("WRONG: {violation}");
    }
    for what in verdict.stuck.iter().chain(&verdict.left) {
        println!("WRONG: {what}");
    }
    let word = if verdict.is_good() { "every promise was kept" } else { "a promise was broken" };
    println!("{} --seed {}: {word}; see {}", verdict.backend, verdict.seed, folder.join("index.html").display());
}
