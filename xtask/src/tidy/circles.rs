//! No crate has a circle of files that import each other, and no library imports through its root. A program and a test are crates, too.

use std::collections::BTreeSet;

use anyhow::Result;

use super::floors::CORE;
use super::graph::{Sources, circle, graph};
use super::{Findings, detours};
use crate::workspace::Workspace;

/// The floors of the testbed, from the ground up; a file beside them is the house's door and may see all of them.
const TESTBED: (&str, [&str; 3]) = ("crates/tooz-testbed/src/", ["provision", "server", "faults"]);

pub(super) fn check(workspace: &Workspace, files: &[String], findings: &mut Findings) -> Result<()> {
    for folder in folders(&workspace.members()?, files) {
        // Core has floors besides, and checks its circles with them.
        if folder == CORE {
            continue;
        }
        let is_library = files.contains(&format!("{folder}lib.rs"));
        let sources = Sources::read(workspace, files, &folder)?;
        let arrows = sources.arrows(|_| false);
        for (module, targets) in &arrows {
            for target in targets {
                if let Err(import) = target
                    && is_library
                    && !(import.is_empty() || import == "*")
                {
                    findings.error(
                        sources.file(module),
                        format!("`crate::{import}` goes through the root: name the file that defines it"),
                    );
                }
                if let (Ok(target), true) = (target, folder == TESTBED.0)
                    && height(target) > height(module)
                {
                    findings.error(
                        sources.file(module),
                        format!("`crate::{target}` is on a floor above; the floors are {:?}", TESTBED.1),
                    );
                }
            }
        }
        if let Some(circle) = circle(&graph(&arrows)) {
            findings.error(&folder, format!("these files import each other in a circle: {}", circle.join(" -> ")));
        }
        detours::check(&sources, &arrows, |_| false, findings);
    }
    Ok(())
}

/// The folders of all crates: those with a root, and `tests`, in which each file is one that may share modules with the others.
fn folders(members: &[String], files: &[String]) -> BTreeSet<String> {
    let mut folders = BTreeSet::new();
    for file in files {
        let Some(path) = members.iter().find_map(|member| file.strip_prefix(member)?.strip_prefix('/')) else {
            continue;
        };
        let (folder, name) = file.rsplit_once('/').unwrap_or_default();
        if ["lib.rs", "main.rs"].contains(&name) || path.strip_prefix("tests/") == Some(name) {
            folders.insert(format!("{folder}/"));
        }
    }
    folders
}

/// What stands beside the floors is above all of them.
fn height(module: &str) -> usize {
    let floor = module.split("::").next().unwrap_or_default();
    TESTBED.1.iter().position(|known| *known == floor).unwrap_or(TESTBED.1.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::tests::repository;

    fn errors(files: &[(&str, &str)]) -> Vec<String> {
        let mut all = vec![
            ("Cargo.toml", "[workspace]\nmembers = [\"crates/*\"]"),
            ("crates/tooz-red/Cargo.toml", ""),
            ("crates/tooz-red/src/lib.rs", "mod a;\nmod b;\npub const CARD: u8 = 0;"),
        ];
        all.extend_from_slice(files);
        let (_folder, workspace) = repository(&all);
        let names: Vec<_> = all.iter().map(|(name, _)| (*name).to_owned()).collect();
        let mut findings = Findings::default();
        check(&workspace, &names, &mut findings).unwrap();
        findings.errors
    }

    #[test]
    fn a_circle_and_a_detour_by_the_root_are_named() {
        let straight = [("crates/tooz-red/src/a.rs", "use crate::b::B;"), ("crates/tooz-red/src/b.rs", "")];
        assert_eq!(errors(&straight), Vec::<String>::new());
        let round =
            [("crates/tooz-red/src/a.rs", "use crate::b::B;"), ("crates/tooz-red/src/b.rs", "use crate::a::A;")];
        assert!(errors(&round)[0].contains("a -> b -> a"), "{:?}", errors(&round));
        let detour = [("crates/tooz-red/src/a.rs", "use crate::CARD;"), ("crates/tooz-red/src/b.rs", "")];
        assert!(errors(&detour)[0].contains("goes through the root"), "{:?}", errors(&detour));
    }

    #[test]
    fn a_circle_by_super_is_one_and_so_is_one_of_a_program() {
        let round =
            [("crates/tooz-red/src/a.rs", "use super::b::B;"), ("crates/tooz-red/src/b.rs", "use super::a::A;")];
        assert!(errors(&round)[0].contains("a -> b -> a"), "{:?}", errors(&round));
        let program = [
            ("crates/blue/Cargo.toml", ""),
            ("crates/blue/src/main.rs", "mod a;\nmod b;"),
            ("crates/blue/src/a.rs", "use crate::b::B;\nuse crate::Main;"),
            ("crates/blue/src/b.rs", "use super::a::A;"),
        ];
        let found = errors(&program);
        assert!(found.len() == 1 && found[0].contains("a -> b -> a"), "{found:?}");
    }

    #[test]
    fn a_circle_of_a_test_or_of_a_program_is_one() {
        for folder in ["crates/tooz-red/tests/quirks", "crates/tooz-red/src/bin/bench"] {
            let [root, one, two] = ["main", "stats", "report"].map(|name| format!("{folder}/{name}.rs"));
            let found = errors(&[
                (&root, "mod stats;\nmod report;"),
                (&one, "use crate::report as _;"),
                (&two, "use super::stats::Stats;"),
            ]);
            assert!(found.len() == 1 && found[0].contains("report -> stats -> report"), "{found:?}");
        }
        let beside = [
            ("crates/tooz-red/tests/quirks.rs", "mod raw;\nmod stage;"),
            ("crates/tooz-red/tests/raw/mod.rs", "use crate::stage::Stage;"),
            ("crates/tooz-red/tests/stage/mod.rs", "use crate::raw::Raw;"),
        ];
        let found = errors(&beside);
        assert!(found.len() == 1 && found[0].contains("raw -> stage -> raw"), "{found:?}");
    }

    #[test]
    fn a_name_for_the_root_hides_no_circle() {
        for text in ["use super as all;", "use {crate::{b::B}};", "mod up { pub(crate) use crate as all; }"] {
            let found = errors(&[("crates/tooz-red/src/a.rs", text), ("crates/tooz-red/src/b.rs", "use crate::a::A;")]);
            assert!(!found.is_empty(), "{text}");
        }
    }
}
