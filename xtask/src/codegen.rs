//! `cargo xtask codegen`: writes anew what is generated and checked in.

use anyhow::{Result, bail};

use crate::CommandEnd;
use crate::invocation::Invocation;
use crate::progress::{Progress, Show};
use crate::workspace::Workspace;

/// A crate with generated code has a test of this name: it compares what is checked in with what would be generated, or, with
/// the variable set, writes it.
const TEST: &str = "codegen";
const WRITE: (&str, &str) = ("TOOZ_CODEGEN", "write");

pub(crate) fn run(workspace: &Workspace) -> Result<CommandEnd> {
    let crates = generated(workspace)?;
    if crates.is_empty() {
        bail!("no crate has a test `{TEST}`, so nothing is generated");
    }
    let mut verdict = CommandEnd::Passed;
    for member in crates {
        let progress = Progress::start(format!("codegen {member}"), Show::Glimpse);
        let manifest = format!("{member}/Cargo.toml");
        let generate = Invocation::cargo(workspace.root())
            .arguments(["test", "--manifest-path", &manifest, "--all-features", "--test", TEST])
            .environment(WRITE.0, WRITE.1);
        let finished = generate.run(|line| progress.glimpse(line))?;
        if !finished.success {
            verdict = CommandEnd::Failed;
            finished.output.iter().chain(&finished.ending).for_each(|line| progress.announce(line));
        }
        progress.finish(if finished.success { "ok" } else { "FAILED" });
    }
    Ok(verdict)
}

/// The folders of the crates with generated code.
fn generated(workspace: &Workspace) -> Result<Vec<String>> {
    let mut members = workspace.members()?;
    members.retain(|member| workspace.has(&format!("{member}/tests/{TEST}.rs")));
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::tests::repository;

    #[test]
    fn the_test_marks_a_crate_with_generated_code() {
        let (_folder, workspace) = repository(&[
            ("Cargo.toml", "[workspace]\nmembers = [\"crates/*\"]"),
            ("crates/red/Cargo.toml", ""),
            ("crates/blue/Cargo.toml", ""),
            ("crates/blue/tests/codegen.rs", ""),
        ]);
        assert_eq!(generated(&workspace).unwrap(), ["crates/blue"]);
    }
}
