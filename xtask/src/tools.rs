//! Tools that a fresh machine lacks: built once, kept below the target folder.

use std::env::consts::EXE_SUFFIX;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::invocation::Invocation;
use crate::progress::Progress;
use crate::workspace::Workspace;

/// Pinned, so that a new release never breaks an old commit.
const CARGO_DENY: &str = "0.20.2";

/// The path of cargo-deny, which is built first if it is not there in this version.
pub(crate) fn cargo_deny(workspace: &Workspace, progress: &Progress) -> Result<PathBuf> {
    let tools = workspace.target().join("tools");
    let program = tools.join("bin").join(format!("cargo-deny{EXE_SUFFIX}"));
    if is_installed(&program, workspace.root()) {
        return Ok(program);
    }
    progress.announce(&format!(
        "cargo-deny {CARGO_DENY} is not there yet: it is built once into {}, which usually takes about 2 minutes",
        tools.display()
    ));
    // Beside the result, so that a build folder which others share is not flooded, and easily removed.
    let build = tools.join("build");
    let install = Invocation::cargo(workspace.root())
        .arguments(["install", "cargo-deny", "--version", CARGO_DENY])
        // Not optimized: it is built for longer than it ever runs.
        .arguments(["--debug", "--locked", "--force", "--root"])
        .arguments([&tools])
        .arguments(["--target-dir"])
        .arguments([&build])
        .environment("CARGO_PROFILE_DEV_DEBUG", "0");
    let mut compiled = 0;
    let finished = install.run(|line| {
        if line.trim_start().starts_with("Compiling ") {
            compiled += 1;
            progress.glimpse(&format!("crate {compiled}: {}", line.trim()));
        } else {
            progress.line(line);
        }
    })?;
    if !finished.success {
        // The build folder stays: what is built already need not be built again.
        let output = [finished.output, finished.ending].concat();
        bail!("cargo-deny could not be built:\n{}", output.join("\n"));
    }
    fs::remove_dir_all(&build).with_context(|| format!("cannot remove {}", build.display()))?;
    Ok(program)
}

fn is_installed(program: &Path, folder: &Path) -> bool {
    program.is_file()
        && Invocation::new(program, folder)
            .arguments(["--version"])
            .run(|_| ())
            .is_ok_and(|finished| finished.success && finished.output == [format!("cargo-deny {CARGO_DENY}")])
}
