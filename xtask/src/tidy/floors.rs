//! The floors of core: arrows between its files point downwards, and never in a circle.
//!
//! The graph is made of the paths `crate::…` and `super::…` that are not for tests. Each names the file that defines what it leads to. The own file of a
//! floor, its face, stands as high as the floor.

use anyhow::Result;

use super::Findings;
use super::detours;
use super::graph::{Sources, circle, graph};
use crate::workspace::Workspace;

pub(super) const CORE: &str = "crates/tooz-core/src/";

/// From the ground up. A floor knows itself and those below it.
pub(super) const FLOORS: [&str; 4] = ["base", "driver", "engine", "handles"];

pub(super) fn check(workspace: &Workspace, files: &[String], findings: &mut Findings) -> Result<()> {
    let sources = Sources::read(workspace, files, CORE)?;
    // A face only says again what its rooms define.
    let is_face = |module: &str| FLOORS.contains(&module);
    let arrows = sources.arrows(is_face);
    for (module, _) in arrows.iter().filter(|(module, _)| height(module).is_none()) {
        findings.error(sources.file(module), format!("stands on no floor; the floors are {FLOORS:?}"));
    }
    for (module, targets) in &arrows {
        for target in targets {
            let what = match target {
                // Of the root as a whole, `detours` tells.
                Err(import) if import.is_empty() || import == "*" => continue,
                Err(import) => format!("`crate::{import}`: name the file that defines it"),
                Ok(target) if height(target) > height(module) => {
                    format!("`crate::{target}` is on a floor above; the floors are {FLOORS:?}")
                }
                Ok(_) => continue,
            };
            findings.error(sources.file(module), what);
        }
    }
    if let Some(circle) = circle(&graph(&arrows)) {
        findings.error(CORE, format!("these files import each other in a circle: {}", circle.join(" -> ")));
    }
    detours::check(&sources, &arrows, is_face, findings);
    Ok(())
}

pub(super) fn height(module: &str) -> Option<usize> {
    let floor = module.split("::").next().unwrap_or_default();
    FLOORS.iter().position(|known| *known == floor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::tests::repository;

    fn errors(files: &[(&str, &str)]) -> Vec<String> {
        let paths: Vec<_> = files.iter().map(|(path, text)| (format!("{CORE}{path}"), *text)).collect();
        let borrowed: Vec<_> = paths.iter().map(|(path, text)| (path.as_str(), *text)).collect();
        let (_folder, workspace) = repository(&borrowed);
        let mut findings = Findings::default();
        let names: Vec<_> = paths.into_iter().map(|(path, _)| path).collect();
        check(&workspace, &names, &mut findings).unwrap();
        findings.errors
    }

    #[test]
    fn arrows_downwards_are_fine() {
        let files = [
            ("base.rs", "pub(crate) mod id;\n#[cfg(test)]\npub(crate) mod fake;"),
            ("base/id.rs", ""),
            ("base/fake.rs", "use crate::handles::lock::Lock;"),
            (
                "engine/heart.rs",
                "use crate::base::id::{Id, Name};\n#[cfg(test)]\nmod tests {\n    use crate::handles::lock::Lock;\n}",
            ),
            ("handles/lock.rs", "use crate::base::id::Id;\nuse crate::engine::heart::Heart;"),
        ];
        assert_eq!(errors(&files), Vec::<String>::new());
    }

    #[test]
    fn an_arrow_upwards_and_one_through_the_root_are_named() {
        let found =
            errors(&[("base/id.rs", "use crate::handles::lock::Lock;\nuse crate::Error;"), ("handles/lock.rs", "")]);
        let inline = errors(&[("base/id.rs", "fn f() { crate::Error::new() }")]);
        assert_eq!(inline.len(), 1, "{inline:?}");
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("floor above") && found[1].contains("the file that defines"), "{found:?}");
    }

    #[test]
    fn a_circle_is_shown_with_its_files() {
        let found = errors(&[
            ("engine/a.rs", "use crate::engine::b::B;"),
            ("engine/b.rs", "use crate::engine::{\n    c::C,\n};"),
            ("engine/c.rs", "use crate::engine::a::A;"),
            ("engine/d.rs", "use crate::engine::a::A;"),
        ]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("engine::a -> engine::b -> engine::c -> engine::a"), "{found:?}");
    }

    #[test]
    fn super_is_followed_and_code_behind_tests_is_seen() {
        let up = errors(&[("base/id.rs", "use super::super::handles::lock::Lock;"), ("handles/lock.rs", "")]);
        assert!(up.len() == 1 && up[0].contains("floor above"), "{up:?}");
        let behind = "#[cfg(test)]\nmod tests {}\nuse crate::handles::lock::Lock;";
        let up = errors(&[("base/id.rs", behind), ("handles/lock.rs", "")]);
        assert!(up.len() == 1 && up[0].contains("floor above"), "{up:?}");
        let face = errors(&[("base/id.rs", "use super::super::Error; use super::Clock;"), ("base.rs", "")]);
        assert_eq!(face.len(), 2, "{face:?}");
        let round = [("engine/a.rs", "use super::b::B;"), ("engine/b.rs", "use super::a::A;")];
        assert!(errors(&round)[0].contains("circle"), "{:?}", errors(&round));
    }

    #[test]
    fn a_face_stands_as_high_as_its_floor() {
        let lock = ("handles/lock.rs", "");
        for (face, text) in [
            ("engine.rs", "mod a;\nuse crate::handles::lock::Lock;\npub(crate) fn name(lock: &Lock) {}"),
            ("base.rs", "pub(crate) use crate::handles::lock::Lock;"),
            ("driver.rs", "pub use crate::handles::lock::Lock as UserLock;"),
        ] {
            let found = errors(&[(face, text), lock]);
            assert!(found.len() == 1 && found[0].contains("floor above"), "{found:?}");
        }
        assert_eq!(
            errors(&[("handles.rs", "pub(crate) use crate::engine::hold::Hold;"), ("engine/hold.rs", "")]),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_macro_hides_no_arrow() {
        let text = "macro_rules! up { () => { $crate::handles::lock::Lock } }";
        let found = errors(&[("base/latch.rs", text), ("handles/lock.rs", "")]);
        assert!(found.len() == 1 && found[0].contains("floor above"), "{found:?}");
    }

    #[test]
    fn a_file_beside_the_floors_is_named() {
        let found = errors(&[
            ("lib.rs", "mod extra;\n#[cfg(all(test, shuttle))]\nmod proofs;"),
            ("extra.rs", ""),
            ("proofs.rs", ""),
        ]);
        assert!(found.len() == 1 && found[0].contains("extra.rs: stands on no floor"), "{found:?}");
    }
}
