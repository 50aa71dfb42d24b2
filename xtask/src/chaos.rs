//! `cargo xtask chaos`: gets hold of the backend's server, builds the program that breaks it, and runs it.

use anyhow::Result;

use crate::workspace::Workspace;
use crate::{CommandEnd, on_server};

/// What to break. All of it is the program's own affair: see its `--help`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// A backend, and the options of the program: --minutes N, --seconds N, --seed S, --faults a,b, --help
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<CommandEnd> {
    on_server::run(workspace, "chaos", &options.arguments)
}
