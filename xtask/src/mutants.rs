//! `cargo xtask mutants`: faults that are put into core or a driver one by one, each of which a named test has to notice.
//!
//! What stands in Rust is built at once, into a copy of the workspace, each fault behind a question that a variable of the environment answers.
//! So it costs the run of the one test that catches it, and no build. Scripts and statements, which are sent to servers as they
//! stand, are changed and built one after the other.

mod list;
mod program;
mod seed;
mod tree;
mod trial;

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use crate::CommandEnd;
use crate::mutants::list::Subject;
use crate::mutants::program::Programs;
use crate::mutants::seed::Seed;
use crate::mutants::tree::Tree;
use crate::mutants::trial::Trials;
use crate::workspace::Workspace;

/// The subject where none is named.
const CORE: &str = "core";

/// Which faults to try.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Crates (`core`, `redis`, …) or `all`, and names of faults where only these are wanted; without a crate it is core
    names: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<CommandEnd> {
    let known = list::subjects(workspace)?;
    let is_named = |subject: &&Subject| options.names.iter().any(|name| *name == subject.name || name == "all");
    let named: Vec<_> = known.iter().filter(is_named).collect();
    let is_default = |subject: &&Subject| named.is_empty() && subject.name == CORE;
    let subjects: Vec<_> = known.iter().filter(|subject| is_named(subject) || is_default(subject)).collect();
    let faults = options.names.iter().filter(|name| *name != "all" && known.iter().all(|one| one.name != **name));
    let faults: BTreeSet<_> = faults.map(String::as_str).collect();
    let mut found = BTreeSet::new();
    let mut trials = Trials::default();
    for subject in subjects {
        let seeds = subject.seeds(workspace)?;
        let wanted: Vec<_> = seeds.iter().filter(|seed| faults.is_empty() || faults.contains(&*seed.name)).collect();
        found.extend(wanted.iter().map(|seed| seed.name.clone()));
        try_all(workspace, subject, &seeds, &wanted, &mut trials)?;
    }
    let missing: Vec<_> = faults.iter().filter(|name| !found.contains(**name)).copied().collect();
    ensure!(missing.is_empty(), "there is no such fault: {}; the lists are crates/*/mutants.toml", missing.join(", "));
    Ok(trials.end())
}

/// Tries the wanted ones of all that are known of one crate.
fn try_all(
    workspace: &Workspace,
    subject: &Subject,
    all: &[Seed],
    wanted: &[&Seed],
    trials: &mut Trials,
) -> Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    let tree = Tree::copy(workspace, subject)?;
    tree.sow(all)?;
    println!("running {} tests", wanted.len() + 1);
    let programs = Programs::build(subject, &tree, wanted)?;
    trials.control(subject, &programs, wanted)?;
    let (switched, written): (Vec<_>, Vec<_>) = wanted.iter().partition(|seed| seed.is_switched());
    trials.run_beside(subject, &programs, &switched)?;
    for seed in written {
        let programs = tree.with(seed, || Programs::build(subject, &tree, &[seed]))?;
        trials.run_beside(subject, &programs, &[seed])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn here() -> Workspace {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate has a parent folder");
        Workspace::at(root)
    }

    #[test]
    fn each_seed_still_has_its_place_and_its_test() {
        let workspace = here();
        let subjects = list::subjects(&workspace).unwrap();
        let cases = tree::texts(&workspace, "crates/tooz-conformance/src/cases/").unwrap();
        for subject in &subjects {
            let mut sources = tree::texts(&workspace, &subject.sources()).unwrap();
            let tests = tree::texts(&workspace, &format!("{}/tests/", subject.folder)).unwrap();
            for seed in subject.seeds(&workspace).unwrap() {
                let name = seed.caught_by.rsplit("::").next().expect("a name has a last part");
                let mut all = sources.values().chain(tests.values()).chain(cases.values());
                let is_there = all.any(|text| text.contains(name));
                assert!(is_there, "{}: {}: there is no test {}", subject.list(), seed.name, seed.caught_by);
                seed.apply(&mut sources).unwrap();
            }
        }
    }

    #[test]
    fn every_driver_has_five_seeds_at_least() {
        let workspace = here();
        let subjects = list::subjects(&workspace).unwrap();
        for driver in workspace.drivers().unwrap() {
            let subject = subjects.iter().find(|subject| subject.name == driver);
            let count = subject.map_or(0, |subject| subject.seeds(&workspace).unwrap().len());
            assert!(count >= 5, "crates/tooz-{driver}/mutants.toml has {count} faults, and not five");
        }
    }
}
