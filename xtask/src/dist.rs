//! `cargo xtask dist`: what a package of the command has beside the program: manual pages and completion scripts.

use anyhow::Result;

use crate::CommandEnd;
use crate::invocation::Invocation;
use crate::progress::{Progress, Show};
use crate::workspace::Workspace;

/// The folder below cargo's own.
const FOLDER: &str = "dist";

pub(crate) fn run(workspace: &Workspace) -> Result<CommandEnd> {
    let folder = workspace.target().join(FOLDER);
    let progress = Progress::start("manual pages and completions".to_owned(), Show::Glimpse);
    // The command writes them itself: it alone knows its options.
    let write = Invocation::cargo(workspace.root())
        .arguments(["run", "--package", "tooz-cli", "--", "manual"])
        .arguments([folder.clone()]);
    let finished = write.run(|line| progress.glimpse(line))?;
    if !finished.success {
        finished.output.iter().chain(&finished.ending).for_each(|line| progress.announce(line));
        progress.finish("FAILED");
        return Ok(CommandEnd::Failed);
    }
    progress.finish("ok");
    println!("{}", folder.display());
    Ok(CommandEnd::Passed)
}
