//! `cargo xtask soak`: gets hold of the backend's server, builds the program that works on it for hours, and runs it.

use std::env;
use std::process::Command;

use anyhow::{Context, Result};

use crate::CommandEnd;
use crate::progress::{Progress, Show};
use crate::servers;
use crate::workspace::Workspace;

/// What to work on. All of it is the program's own affair: see its `--help`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// A backend, and the options of the program: --hours N, --minutes N, --afresh, --help
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<CommandEnd> {
    let known = workspace.backends()?;
    if let Some(backend) = options.arguments.iter().find(|argument| known.contains(argument)) {
        let progress = Progress::start(format!("soak {backend}"), Show::Glimpse);
        servers::provide_for(backend, None, &progress)?;
        progress.finish("its server is here");
    }
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // The terminal is the program's: it says how far it is.
    let status = Command::new(cargo)
        .args(["run", "--quiet", "--package", "tooz-tests", "--bin", "soak", "--"])
        .args(&options.arguments)
        .current_dir(workspace.root())
        .status()
        .context("cargo can't be started")?;
    Ok(if status.success() { CommandEnd::Passed } else { CommandEnd::Failed })
}
