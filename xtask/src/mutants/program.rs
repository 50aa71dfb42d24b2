//! The test programs of the copy.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::invocation::Invocation;
use crate::mutants::list::Subject;
use crate::mutants::seed::Seed;
use crate::mutants::tree::{Tree, WHICH};

/// The test programs by name; `lib` has the unit tests.
pub(crate) struct Programs {
    paths: BTreeMap<String, PathBuf>,
    folder: PathBuf,
    environment: Vec<(&'static str, PathBuf)>,
}

impl Programs {
    /// Builds those in which the tests are that notice these faults.
    pub(crate) fn build(subject: &Subject, tree: &Tree, seeds: &[&Seed]) -> Result<Self> {
        let places = seeds.iter().map(|seed| seed.place().map(|(program, _)| program));
        let mut arguments = vec!["test".to_owned(), "--package".to_owned(), subject.package()];
        arguments.extend(["--no-run", "--message-format=json-render-diagnostics"].map(str::to_owned));
        arguments.extend(features(subject).iter().map(|&word| word.to_owned()));
        for program in places.collect::<Result<BTreeSet<_>>>()? {
            arguments.extend(if program == "lib" {
                vec!["--lib".to_owned()]
            } else {
                vec!["--test".to_owned(), program.to_owned()]
            });
        }
        // A folder of its own: cargo would take the copy's products for those of the original.
        let cargo = Invocation::cargo(tree.root()).arguments(arguments);
        let cargo = cargo.environment("CARGO_TARGET_DIR", tree.root().join("target"));
        let mut paths = BTreeMap::new();
        let finished = cargo.run(|line| {
            let message: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
            let (name, path) = (message["target"]["name"].as_str(), message["executable"].as_str());
            if let (Some(name), Some(path)) = (name, path) {
                let is_library = message["target"]["kind"][0] == "lib";
                paths.insert(if is_library { "lib" } else { name }.to_owned(), path.into());
            }
        })?;
        if !finished.success {
            bail!("{} with its mutants does not build:\n{}", subject.package(), finished.output.join("\n"));
        }
        Ok(Programs { paths, folder: tree.folder.clone(), environment: environment(subject)? })
    }

    /// The command that runs that test of that program, with that fault alive.
    pub(crate) fn command(&self, program: &str, test: &str, fault: Option<&str>) -> Result<Command> {
        let path = self.paths.get(program).with_context(|| format!("there is no test program {program}"))?;
        let mut command = Command::new(path);
        command.args(["--exact", test]).current_dir(&self.folder).envs(self.environment.iter().cloned());
        command.env("CARGO_MANIFEST_DIR", &self.folder).env_remove(WHICH).envs(fault.map(|fault| (WHICH, fault)));
        command.stdin(Stdio::null()).stderr(Stdio::null());
        Ok(command)
    }
}

fn features(subject: &Subject) -> &'static [&'static str] {
    if subject.is_core() { &["--features", "metrics"] } else { &["--all-features"] }
}

/// The servers' programs are those of the workspace, since the copy would fetch them once more.
fn environment(subject: &Subject) -> Result<Vec<(&'static str, PathBuf)>> {
    let Some((name, value)) = subject.environment() else { return Ok(Vec::new()) };
    let folder = std::env::var_os("TOOZ_TESTBED_DIR").map(PathBuf::from);
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the crate has no parent folder")?;
    let folder = folder.unwrap_or_else(|| here.join("target/testbed"));
    Ok(vec![(name, value.into()), ("TOOZ_TESTBED_DIR", folder)])
}
