//! `cargo xtask bench`: builds the bench, optimised, and runs it.

use std::env;
use std::process::Command;

use anyhow::{Context, Result};

use crate::CommandEnd;
use crate::workspace::Workspace;

/// What to measure. All of it is the bench's own affair: see its `--help`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Backends, and the options of the bench: --quick, --json, --markdown, --plot FILE.svg, --help
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<CommandEnd> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // The terminal is the bench's: it shows its own progress, and its tables may be piped.
    let status = Command::new(cargo)
        .args(["run", "--release", "--package", "tooz-tests", "--bin", "bench", "--"])
        .args(&options.arguments)
        .current_dir(workspace.root())
        .status()
        .context("cargo can't be started")?;
    Ok(if status.success() { CommandEnd::Passed } else { CommandEnd::Failed })
}
