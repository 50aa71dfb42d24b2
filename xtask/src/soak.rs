//! `cargo xtask soak`: gets hold of the backend's server, builds the program that works on it for hours, and runs it.

use anyhow::Result;

use crate::workspace::Workspace;
use crate::{CommandEnd, on_server};

/// What to work on. All of it is the program's own affair: see its `--help`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// A backend, and the options of the program: --hours N, --minutes N, --afresh, --help
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<CommandEnd> {
    on_server::run(workspace, "soak", &options.arguments)
}
