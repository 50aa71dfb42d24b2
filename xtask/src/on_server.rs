//! Programs of the package `tests` that work on a backend's server: the server is got hold of, the program built, and run.

use std::env;
use std::process::Command;

use anyhow::{Context, Result};

use crate::CommandEnd;
use crate::progress::{Progress, Show};
use crate::servers;
use crate::workspace::Workspace;

/// Runs that program with these arguments, one of which may be a backend.
pub(crate) fn run(workspace: &Workspace, program: &str, arguments: &[String]) -> Result<CommandEnd> {
    let known = workspace.backends()?;
    if let Some(backend) = arguments.iter().find(|argument| known.contains(argument)) {
        let progress = Progress::start(format!("{program} {backend}"), Show::Glimpse);
        servers::provide_for(backend, None, &progress)?;
        progress.finish("its server is here");
    }
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // The terminal is the program's: it says by itself how far it is.
    let status = Command::new(cargo)
        .args(["run", "--quiet", "--package", "tooz-tests", "--bin", program, "--"])
        .args(arguments)
        .current_dir(workspace.root())
        .status()
        .context("cargo can't be started")?;
    Ok(if status.success() { CommandEnd::Passed } else { CommandEnd::Failed })
}
