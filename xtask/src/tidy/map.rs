//! The code map names every room of core in the row of its floor, and every room that drivers have in common.

use std::collections::BTreeSet;

use anyhow::Result;

use super::Findings;
use super::floors::{CORE, FLOORS};
use super::graph::Sources;
use super::rooms::{COMMON, MAP};
use crate::workspace::Workspace;

pub(super) fn check(workspace: &Workspace, files: &[String], findings: &mut Findings) -> Result<()> {
    if !workspace.has(MAP) {
        return Ok(());
    }
    let map = workspace.read(MAP)?;
    for room in COMMON.iter().filter(|room| !map.lines().any(|line| names_in(first_cell(line)).contains(*room))) {
        findings.error(MAP, format!("the table of the drivers' rooms lacks `{room}`"));
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
}
