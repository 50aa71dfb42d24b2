//! Test programs: built by cargo, once for all, and then run from here.
//!
//! `cargo test --package …` would build a driver's dependencies anew for every driver, because the features that are
//! asked for differ with the packages that are selected; and no case could be kept from running in two steps.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde_json::Value;

use crate::invocation::Invocation;
use crate::progress::Progress;
use crate::workspace::Workspace;

/// One program with tests in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Program {
    /// The folder of its package, relative to the root.
    pub(crate) folder: String,
    /// Its target: the name of a file in `tests/`, or of a library or program whose unit tests it has.
    pub(crate) target: String,
    /// `lib`, `bin` or `test`.
    kind: String,
    executable: PathBuf,
}

/// Which packages to build the tests of.
#[derive(Clone, Copy)]
pub(crate) enum Selection<'a> {
    Workspace,
    Packages(&'a [String]),
}

impl Selection<'_> {
    /// The command that builds all test programs, and whatever else the tests run.
    pub(crate) fn build(self, workspace: &Workspace) -> Invocation {
        let cargo = Invocation::cargo(workspace.root()).arguments(["test", "--no-run", "--all-features"]);
        match self {
            Selection::Workspace => cargo.arguments(["--workspace"]),
            Selection::Packages(names) => cargo.arguments(names.iter().flat_map(|name| ["--package", name])),
        }
    }
}

/// Builds the test programs, unless they are up to date, and lists them.
pub(crate) fn build(workspace: &Workspace, selection: Selection<'_>, progress: &Progress) -> Result<Vec<Program>> {
    let build = selection.build(workspace).arguments(["--message-format", "json-render-diagnostics"]);
    let mut programs = Vec::new();
    let mut rest = Vec::new();
    let finished = build.run(|line| {
        if line.starts_with('{') {
            programs.extend(Program::parse(line, workspace.root()));
        } else {
            progress.glimpse(line);
            rest.push(line.to_owned());
        }
    })?;
    if !finished.success {
        bail!("the tests could not be built:\n{}", [rest, finished.ending].concat().join("\n"));
    }
    programs.sort_by(|one, other| (&one.folder, &one.target).cmp(&(&other.folder, &other.target)));
    Ok(programs)
}

impl Program {
    /// What a line of cargo's JSON says, if it is about a test program.
    fn parse(line: &str, root: &Path) -> Option<Self> {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_test = message["reason"] == "compiler-artifact" && message["profile"]["test"] == true;
        let executable = message["executable"].as_str().filter(|_| is_test)?;
        let folder = Path::new(message["manifest_path"].as_str()?).parent()?;
        let folder = folder.strip_prefix(root).unwrap_or(folder);
        Some(Program {
            folder: folder.to_string_lossy().replace('\\', "/"),
            target: message["target"]["name"].as_str()?.to_owned(),
            kind: message["target"]["kind"][0].as_str()?.to_owned(),
            executable: executable.into(),
        })
    }

    /// Runs it where cargo would, and shows how to do the same by hand.
    pub(crate) fn invocation(&self, workspace: &Workspace) -> Invocation {
        let folder = workspace.root().join(&self.folder);
        Invocation::new(&self.executable, &folder)
            .standing_for(self.by_hand())
            .environment("CARGO_MANIFEST_DIR", &folder)
    }

    fn by_hand(&self) -> String {
        let target = match self.kind.as_str() {
            kind @ ("bin" | "test") => format!("--{kind} {}", self.target),
            _ => "--lib".to_owned(),
        };
        format!("cargo test --manifest-path {}/Cargo.toml --all-features {target} --", self.folder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_programs_are_told_from_all_else() {
        let line = |reason: &str, test: bool, executable: &str| {
            format!(
                r#"{{"reason":"{reason}","manifest_path":"/base/crates/red/Cargo.toml","target":{{"name":"quirks","kind":["test"]}},
                "profile":{{"test":{test}}},"executable":{executable}}}"#
            )
        };
        let parse = |line: String| Program::parse(&line, Path::new("/base"));
        let found = parse(line("compiler-artifact", true, r#""/target/quirks-1""#)).unwrap();
        let by_hand = "cargo test --manifest-path crates/red/Cargo.toml --all-features --test quirks --";
        assert_eq!(found.by_hand(), by_hand);
        assert_eq!(found.executable, Path::new("/target/quirks-1"));
        assert_eq!(parse(line("compiler-artifact", false, r#""/target/tooz""#)), None);
        assert_eq!(parse(line("compiler-artifact", true, "null")), None);
        assert_eq!(parse(line("build-script-executed", true, r#""/target/x""#)), None);
        assert_eq!(parse("{ no JSON".to_owned()), None);
    }
}
