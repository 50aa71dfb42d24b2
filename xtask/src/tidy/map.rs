//! The code map names every room of core in the row of its floor, and every room that drivers have in common; it names no file that is not there.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::Findings;
use super::floors::{CORE, FLOORS};
use super::graph::Sources;
use super::rooms::{COMMON, MAP, rooms_of};
use crate::workspace::Workspace;

/// The line above the table of the rooms that some drivers share.
const SHARED: &str = "| room | what it is in each driver that has it |";

pub(super) fn check(workspace: &Workspace, files: &[String], findings: &mut Findings) -> Result<()> {
    if !workspace.has(MAP) {
        return Ok(());
    }
    let map = workspace.read(MAP)?;
    for room in COMMON.iter().filter(|room| !map.lines().any(|line| names_in(first_cell(line)).contains(*room))) {
        findings.error(MAP, format!("the table of the drivers' rooms lacks `{room}`"));
    }
    let mut owners = BTreeMap::new();
    for room in workspace.drivers()?.iter().flat_map(|driver| rooms_of(files, driver)) {
        *owners.entry(room).or_insert(0) += 1;
    }
    check_shared(&map, &owners, findings);
    for stop in map.lines().filter_map(stop) {
        if !workspace.has(&stop) {
            findings.error(MAP, format!("tells of `{stop}`, which is not there"));
        }
    }
    let sources = Sources::read(workspace, files, CORE)?;
    for floor in FLOORS {
        let row = map.lines().find(|line| names_in(first_cell(line)) == [floor]).unwrap_or_default();
        let named = names_in(row);
        let inside = format!("{floor}::");
        let mut rooms: Vec<_> = sources.texts.keys().filter(|module| !sources.is_for_tests(module)).collect();
        rooms.retain(|module| module.starts_with(&inside));
        let rooms: BTreeSet<_> = rooms.iter().filter_map(|module| module[inside.len()..].split("::").next()).collect();
        for room in rooms.iter().filter(|room| !named.contains(*room)) {
            findings.error(
                &format!("{CORE}{floor}/{room}"),
                format!("is not in the map: name it in the row `{floor}` of {MAP}"),
            );
        }
        // The first is the floor itself.
        for room in named
            .iter()
            .skip(1)
            .filter(|room| !rooms.contains(*room) && !workspace.has(&format!("{CORE}{floor}/{room}")))
        {
            findings.error(MAP, format!("core has no room `{room}` on the floor `{floor}`"));
        }
    }
    Ok(())
}

/// A room that several drivers have means the same in each, as the table says; one of a single driver stands in its row alone.
fn check_shared(map: &str, owners: &BTreeMap<String, usize>, findings: &mut Findings) {
    let rows = map.lines().skip_while(|line| *line != SHARED).skip(2).take_while(|line| line.starts_with('|'));
    let shared: Vec<_> = rows.flat_map(|row| names_in(first_cell(row))).collect();
    for room in shared.iter().filter(|room| owners.get(**room).is_none_or(|count| *count < 2)) {
        findings.error(MAP, format!("`{room}` is in the table of shared rooms, but not in two drivers"));
    }
    for (room, count) in owners.iter().filter(|(_, count)| **count > 1) {
        if !COMMON.contains(&room.as_str()) && !shared.contains(&room.as_str()) {
            findings.error(
                MAP,
                format!("{count} drivers have a room `{room}`: say in the table of shared rooms what it is"),
            );
        }
    }
}

/// The file of a stop on the way of one acquire: `3. `engine/heart`: …` is one of core, unless it names its crate.
fn stop(line: &str) -> Option<String> {
    let (number, rest) = line.split_once(". `")?;
    let (path, rest) = rest.split_once('`')?;
    let (folder, room) = path.split_once('/').filter(|_| rest.starts_with(':') && number.parse::<u8>().is_ok())?;
    let is_crate = folder.starts_with("tooz-");
    Some(if is_crate { format!("crates/{folder}/src/{room}.rs") } else { format!("{CORE}{folder}/{room}.rs") })
}

fn first_cell(line: &str) -> &str {
    line.strip_prefix('|').and_then(|row| row.split('|').next()).unwrap_or_default()
}

/// What stands between grave accents.
fn names_in(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::tests::repository;

    fn errors(map: &str) -> Vec<String> {
        let common: Vec<_> =
            COMMON.iter().filter(|room| **room != "layout").map(|room| format!("| `{room}` | so |")).collect();
        let map = format!("{}\n{map}", common.join("\n"));
        let files = [
            (MAP, map.as_str()),
            ("crates/tooz-core/src/engine.rs", "mod heart;\n#[cfg(test)]\nmod fake;"),
            ("crates/tooz-core/src/engine/heart.rs", ""),
            ("crates/tooz-core/src/engine/heart/tests.rs", ""),
            ("crates/tooz-core/src/engine/fake.rs", ""),
        ];
        let (_folder, workspace) = repository(&files);
        let mut findings = Findings::default();
        check(&workspace, &files.map(|(name, _)| name.to_owned()), &mut findings).unwrap();
        findings.errors
    }

    #[test]
    fn each_room_of_core_is_in_the_row_of_its_floor() {
        assert_eq!(errors("| `layout` | so |\n| `engine` | what runs | `heart` |"), Vec::<String>::new());
        let found = errors("| `layout` | so |\n| `engine` | what runs | `vigil` |\n| `base` | values | |");
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("engine/heart") && found[1].contains("`vigil`"), "{found:?}");
    }

    #[test]
    fn each_room_that_drivers_share_is_in_the_table() {
        let found = errors("| `engine` | what runs | `heart` |");
        assert!(found.len() == 1 && found[0].contains("`layout`"), "{found:?}");
    }

    #[test]
    fn each_stop_of_an_acquire_is_a_file() {
        let table = "| `layout` | so |\n| `engine` | what runs | `heart` |";
        assert_eq!(
            errors(&format!("{table}\n1. `engine/heart`: runs.\n2. **The deadline** of `a/b`.")),
            Vec::<String>::new()
        );
        let found = errors(&format!("{table}\n1. `engine/obtain`: asks.\n2. `tooz-red/lock`: takes."));
        assert!(found.len() == 2 && found[0].contains("engine/obtain.rs"), "{found:?}");
        assert!(found[1].contains("crates/tooz-red/src/lock.rs"), "{found:?}");
    }

    #[test]
    fn a_room_of_two_drivers_is_in_the_table_and_one_of_one_is_not() {
        let found = |table: &str| {
            let map = format!("{SHARED}\n|---|---|\n{table}\n\n| `other` | so |");
            let owners = BTreeMap::from([("batch".to_owned(), 2), ("lock".to_owned(), 2), ("vigil".to_owned(), 1)]);
            let mut findings = Findings::default();
            check_shared(&map, &owners, &mut findings);
            findings.errors
        };
        assert_eq!(found("| `batch` | a job, not a `vigil` |"), Vec::<String>::new());
        let missing = found("");
        assert!(missing.len() == 1 && missing[0].contains("`batch`"), "{missing:?}");
        let more = found("| `batch`, `vigil`, `mailbox` | so |");
        assert!(more.len() == 2 && more[0].contains("`vigil`") && more[1].contains("`mailbox`"), "{more:?}");
    }
}
