//! Every driver has the same rooms, so that a reader who knows one finds the way in all.

use std::collections::BTreeSet;

use anyhow::Result;

use super::Findings;
use crate::workspace::Workspace;

/// The rooms that no driver lacks. `watch.rs` is there only where a backend pushes.
const ROOMS: [(&str, &str); 8] = [
    ("README.md", "the syntax of URLs, options, characteristics and caveats"),
    ("src/lib.rs", "the card and its registration"),
    ("src/options.rs", "the options of the URL"),
    ("src/error.rs", "how an error of the client becomes one of ours"),
    ("src/session.rs", "the connection and its liveness"),
    ("src/lock.rs", "locks"),
    ("src/group.rs", "groups"),
    ("tests/conformance.rs", "the suite"),
];

/// Rooms that a driver may have: the same word is the same thing in all of them. Each further room is one that no other driver needs, and
/// stands in the table of the code map.
pub(super) const COMMON: [&str; 17] = [
    "checkup",
    "client",
    "connection",
    "dispatch",
    "error",
    "group",
    "holdings",
    "layout",
    "lib",
    "lock",
    "login",
    "options",
    "record",
    "session",
    "tls",
    "version",
    "watch",
];

/// The code map, whose table says what each driver has besides: `| `tooz-red` | `room` … |`.
pub(super) const MAP: &str = "crates/ARCHITECTURE.md";

const README_AS_DOCS: &str = r#"#![doc = include_str!("../README.md")]"#;

pub(super) fn check(workspace: &Workspace, files: &[String], findings: &mut Findings) -> Result<()> {
    for driver in workspace.drivers()? {
        let folder = format!("crates/tooz-{driver}");
        for (room, what) in ROOMS {
            let file = format!("{folder}/{room}");
            if !workspace.has(&file) {
                findings.error(&file, format!("is missing; in every driver it holds {what}"));
            }
        }
        check_names(workspace, files, &driver, findings)?;
        check_documentation(workspace, &format!("{folder}/src/lib.rs"), findings)?;
        check_suite(workspace, &format!("{folder}/Cargo.toml"), findings)?;
    }
    Ok(())
}

/// The rooms of a driver, by the names of their files and folders.
pub(super) fn rooms_of(files: &[String], driver: &str) -> BTreeSet<String> {
    let folder = format!("crates/tooz-{driver}/src/");
    let rooms = files.iter().filter_map(|file| file.strip_prefix(&folder)?.split('/').next());
    rooms.map(|room| room.strip_suffix(".rs").unwrap_or(room).to_owned()).collect()
}

/// The names of a driver's rooms.
fn check_names(workspace: &Workspace, files: &[String], driver: &str, findings: &mut Findings) -> Result<()> {
    let map = if workspace.has(MAP) { workspace.read(MAP)? } else { String::new() };
    let row = format!("| `tooz-{driver}` |");
    let own = map.lines().find(|line| line.starts_with(&row)).unwrap_or_default();
    let folder = format!("crates/tooz-{driver}/src/");
    let rooms = rooms_of(files, driver);
    for room in rooms.iter().filter(|room| !COMMON.contains(&room.as_str()) && !own.contains(&format!("`{room}`"))) {
        let file = format!("{folder}{room}");
        findings.error(&file, format!("is no room of all drivers: rename it, or name it in the row {row} of {MAP}"));
    }
    for room in own.split('`').skip(3).step_by(2).filter(|room| !rooms.contains(*room)) {
        findings.error(MAP, format!("tooz-{driver} has no room `{room}`"));
    }
    Ok(())
}

fn check_documentation(workspace: &Workspace, file: &str, findings: &mut Findings) -> Result<()> {
    if workspace.has(file) && !workspace.read(file)?.contains(README_AS_DOCS) {
        let what = format!("the README is the documentation of a driver: add `{README_AS_DOCS}`");
        findings.error(file, what);
    }
    Ok(())
}

/// With the usual harness the suite's `main` is never called, and no case runs without anyone noticing.
fn check_suite(workspace: &Workspace, file: &str, findings: &mut Findings) -> Result<()> {
    let manifest = workspace.manifest(file)?;
    let tests = manifest.get("test").and_then(toml::Value::as_array);
    let has_own_main = tests.into_iter().flatten().any(|test| {
        let setting = |key: &str| test.get(key);
        setting("name").and_then(toml::Value::as_str) == Some("conformance")
            && setting("harness").and_then(toml::Value::as_bool) == Some(false)
    });
    if !has_own_main {
        findings.error(file, "needs `[[test]]` with `name = \"conformance\"` and `harness = false`");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::tests::repository;

    const MANIFEST: &str = "[[test]]\nname = \"conformance\"\nharness = false";

    fn errors(lib: &str, manifest: &str, without: &str) -> Vec<String> {
        let mut files = vec![("crates/tooz-red/Cargo.toml".to_owned(), manifest)];
        for (room, _) in ROOMS {
            if room != without {
                let text = if room == "src/lib.rs" { lib } else { "" };
                files.push((format!("crates/tooz-red/{room}"), text));
            }
        }
        let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
        let (_folder, workspace) = repository(&files);
        judged(&workspace, &files)
    }

    fn judged(workspace: &Workspace, files: &[(&str, &str)]) -> Vec<String> {
        let names: Vec<_> = files.iter().map(|(name, _)| (*name).to_owned()).collect();
        let mut findings = Findings::default();
        check(workspace, &names, &mut findings).unwrap();
        findings.errors
    }

    #[test]
    fn a_driver_with_all_rooms_is_fine() {
        assert!(errors(README_AS_DOCS, MANIFEST, "").is_empty());
    }

    #[test]
    fn a_missing_room_is_named() {
        let found = errors(README_AS_DOCS, MANIFEST, "src/session.rs");
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("crates/tooz-red/src/session.rs: "));
    }

    #[test]
    fn the_readme_has_to_be_the_documentation() {
        assert_eq!(errors("//! Red.", MANIFEST, "").len(), 1);
    }

    #[test]
    fn the_suite_needs_its_own_main() {
        assert_eq!(errors(README_AS_DOCS, "", "").len(), 1);
    }

    #[test]
    fn a_room_of_ones_own_is_named() {
        let mut files: Vec<_> = ROOMS.iter().map(|(room, _)| (format!("crates/tooz-red/{room}"), "")).collect();
        files.retain(|(room, _)| !room.ends_with("lib.rs"));
        let mut files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
        files.push(("crates/tooz-red/Cargo.toml", MANIFEST));
        files.push(("crates/tooz-red/src/lib.rs", README_AS_DOCS));
        files.push(("crates/tooz-red/src/mailbox.rs", ""));
        let (_folder, workspace) = repository(&files);
        let found = judged(&workspace, &files);
        assert!(found.len() == 1 && found[0].contains("mailbox"), "{found:?}");
        files.push((MAP, "| `tooz-red` | `mailbox` holds letters, `vigil` watches |"));
        let (_folder, workspace) = repository(&files);
        let found = judged(&workspace, &files);
        assert!(found.len() == 1 && found[0].contains("no room `vigil`"), "{found:?}");
    }
}
