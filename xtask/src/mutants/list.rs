//! The crates into which faults are put, and the lists in which these stand, beside the tests that catch them.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::mutants::CORE;
use crate::mutants::seed::Seed;
use crate::servers;
use crate::workspace::Workspace;

/// Where every room of core has a fault.
const FLOORS: [&str; 2] = ["engine", "handles"];
/// Rooms that only tests have, and those in which nothing is done.
const WITHOUT_DEEDS: [&str; 4] = ["engine/fake.rs", "engine/mortal.rs", "engine/metric.rs", "engine/no_meter.rs"];

/// A crate that is mutated.
pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) folder: String,
}

/// All crates that have a list.
pub(crate) fn subjects(workspace: &Workspace) -> Result<Vec<Subject>> {
    let names = [CORE.to_owned()].into_iter().chain(workspace.drivers()?);
    let subjects = names.map(|name| Subject { folder: format!("crates/tooz-{name}"), name });
    Ok(subjects.filter(|subject| workspace.has(&subject.list())).collect())
}

impl Subject {
    pub(crate) fn list(&self) -> String {
        format!("{}/mutants.toml", self.folder)
    }

    pub(crate) fn sources(&self) -> String {
        format!("{}/src/", self.folder)
    }

    pub(crate) fn package(&self) -> String {
        format!("tooz-{}", self.name)
    }

    pub(crate) fn is_core(&self) -> bool {
        self.name == CORE
    }

    /// What its tests find in their environment, so that they may start servers.
    pub(crate) fn environment(&self) -> Option<(&'static str, &'static str)> {
        servers::environment(&self.name)
    }

    /// A test that takes longer hangs, and has noticed by that. Servers take their time to start where much else runs.
    pub(crate) fn limit(&self) -> Duration {
        if self.is_core() { Duration::from_mins(1) } else { Duration::from_mins(5) }
    }

    /// How many run beside each other: most of their time they wait, and each may have a server.
    pub(crate) fn at_once(&self) -> usize {
        if self.is_core() { 4 } else { 2 }
    }

    /// The faults of its list.
    pub(crate) fn seeds(&self, workspace: &Workspace) -> Result<Vec<Seed>> {
        let list = self.list();
        let table = workspace.manifest(&list)?;
        let all = table.get("mutant").and_then(toml::Value::as_array);
        let all = all.with_context(|| format!("{list} has no [[mutant]]"))?;
        let seeds = all.iter().map(|one| Seed::read(one).with_context(|| format!("in {list}")));
        let seeds = seeds.collect::<Result<Vec<_>>>()?;
        let names: BTreeSet<_> = seeds.iter().map(|seed| &seed.name).collect();
        ensure!(names.len() == seeds.len(), "two mutants in {list} have one name");
        if self.is_core() {
            self.has_one_in_each_room(workspace, &seeds)?;
        }
        Ok(seeds)
    }

    /// Every room of `engine` and `handles` has one at least, but those without deeds.
    fn has_one_in_each_room(&self, workspace: &Workspace, seeds: &[Seed]) -> Result<()> {
        let (files, sources) = (workspace.files()?, self.sources());
        let rooms = files.iter().filter_map(|file| file.strip_prefix(&sources)).filter(|file| is_room(file));
        let without: Vec<_> = rooms.filter(|room| !seeds.iter().any(|seed| seed.file == *room)).collect();
        ensure!(without.is_empty(), "no mutant in {} is in {}", self.list(), without.join(", "));
        Ok(())
    }
}

fn is_room(file: &str) -> bool {
    let floor = file.split_once('/').filter(|(floor, room)| FLOORS.contains(floor) && !room.contains('/'));
    floor.is_some() && !WITHOUT_DEEDS.contains(&file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_is_a_file_on_one_of_the_floors() {
        assert!(is_room("engine/heart.rs") && is_room("handles/lock.rs"));
        assert!(
            !is_room("base/latch.rs")
                && !is_room("engine/line/tests.rs")
                && !is_room("engine/fake.rs")
                && !is_room("engine.rs")
        );
    }
}
