//! `cargo xtask tidy`: the house rules that no compiler knows. Each finding names a file and what would be right.

mod circles;
mod code;
mod detours;
mod facade;
mod fences;
mod floors;
mod forwards;
mod graph;
mod guide;
mod layout;
mod manifests;
mod map;
mod methods;
mod packages;
mod poison;
mod readmes;
mod rooms;
mod root;
mod sources;
mod words;

use anyhow::Result;

use crate::CommandEnd;
use crate::workspace::Workspace;

/// What was found.
#[derive(Default)]
pub(crate) struct Findings {
    pub(crate) errors: Vec<String>,
    pub(crate) warnings: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace) -> Result<CommandEnd> {
    let findings = check(workspace)?;
    for line in findings.lines() {
        println!("{line}");
    }
    let (errors, warnings) = (findings.errors.len(), findings.warnings.len());
    println!("tidy: {errors} errors, {warnings} warnings");
    Ok(if errors == 0 { CommandEnd::Passed } else { CommandEnd::Failed })
}

pub(crate) fn check(workspace: &Workspace) -> Result<Findings> {
    let files = workspace.files()?;
    let mut findings = Findings::default();
    layout::check(workspace, &files, &mut findings)?;
    manifests::check(workspace, &mut findings)?;
    packages::check(workspace, &mut findings)?;
    readmes::check(workspace, &files, &mut findings)?;
    map::check(workspace, &files, &mut findings)?;
    words::check(workspace, &files, &mut findings)?;
    rooms::check(workspace, &files, &mut findings)?;
    facade::check(workspace, &mut findings)?;
    root::check(workspace, &files, &mut findings)?;
    floors::check(workspace, &files, &mut findings)?;
    methods::check(workspace, &files, &mut findings)?;
    circles::check(workspace, &files, &mut findings)?;
    poison::check(workspace, &files, &mut findings)?;
    forwards::check(workspace, &mut findings)?;
    guide::check(workspace, &mut findings)?;
    sources::check(workspace, &files, &mut findings)?;
    Ok(findings)
}

impl Findings {
    fn error(&mut self, file: &str, what: impl AsRef<str>) {
        self.errors.push(format!("{file}: {}", what.as_ref()));
    }

    fn warning(&mut self, file: &str, what: impl AsRef<str>) {
        self.warnings.push(format!("{file}: {}", what.as_ref()));
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let errors = self.errors.iter().map(|text| format!("error: {text}"));
        let warnings = self.warnings.iter().map(|text| format!("warning: {text}"));
        errors.chain(warnings).collect()
    }
}
