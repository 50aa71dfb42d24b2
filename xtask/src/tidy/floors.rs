//! The floors of core: arrows between its files point downwards, and never in a circle.
//!
//! The graph is made of the paths `crate::…` that are not for tests. Each names the file that defines what it leads to.

use std::collections::BTreeSet;

use anyhow::Result;

use super::Findings;
use super::graph::{Sources, circle, code, graph, leaves};
use crate::workspace::Workspace;

const CORE: &str = "crates/tooz-core/src/";

/// From the ground up. A floor knows itself and those below it.
const FLOORS: [&str; 4] = ["base", "driver", "engine", "handles"];

/// All that the root of core offers: what users type, and the face for those who write drivers.
const ROOT_NAMES: [&str; 45] = [
    "Capabilities",
    "Characteristic",
    "Characteristics",
    "Checkup",
    "ConnectOptions",
    "Coordinator",
    "Credentials",
    "Driver",
    "Error",
    "ErrorKind",
    "FenceGate",
    "FencingToken",
    "Group",
    "GroupEvent",
    "GroupId",
    "GroupWatch",
    "HashRing",
    "Holder",
    "JoinOptions",
    "Leader",
    "LeaderEvent",
    "LeaderWatch",
    "Leadership",
    "Lock",
    "LockGuard",
    "LockMode",
    "LockName",
    "Loss",
    "LossReason",
    "MemberId",
    "Membership",
    "Namespace",
    "Outcome",
    "Partitioner",
    "Probe",
    "Result",
    "RosterEntry",
    "SessionEvent",
    "SessionEvents",
    "SessionState",
    "SharedLock",
    "Terms",
    "Waiter",
    "connect",
    "drivers",
];

pub(super) fn check(workspace: &Workspace, files: &[String], findings: &mut Findings) -> Result<()> {
    let sources = Sources::read(workspace, files, CORE)?;
    if let Some(root) = sources.texts.get("lib") {
        check_root(&names(root), findings);
    }
    // A floor's own file, and the face of the contract, only say again what their rooms define.
    let arrows = sources.arrows(|module| FLOORS.contains(&module));
    for (module, targets) in &arrows {
        for target in targets {
            let what = match target {
                Err(import) => format!("`crate::{import}`: name the file that defines it"),
                Ok(target) if height(target) > height(module) => {
                    format!("`crate::{target}` is on a floor above; the floors are {FLOORS:?}")
                }
                Ok(_) => continue,
            };
            findings.error(&sources.file(module), what);
        }
    }
    if let Some(circle) = circle(&graph(&arrows)) {
        findings.error(CORE, format!("these files import each other in a circle: {}", circle.join(" -> ")));
    }
    Ok(())
}

fn check_root(found: &BTreeSet<String>, findings: &mut Findings) {
    let file = format!("{CORE}lib.rs");
    let wanted: BTreeSet<_> = ROOT_NAMES.iter().map(|name| (*name).to_owned()).collect();
    for name in found.difference(&wanted) {
        findings.error(
            &file,
            format!("`{name}` is no name that users type: offer it in `driver`, or add it to the list in xtask"),
        );
    }
    for name in wanted.difference(found) {
        findings.error(&file, format!("`{name}` is missing, which users type"));
    }
}

/// The public names of the root, macros and what is hidden from the documentation aside.
fn names(text: &str) -> BTreeSet<String> {
    let code = code(text);
    let uses = code.split("pub use ").skip(1).filter_map(|rest| rest.split_once(';'));
    let paths = uses.flat_map(|(path, _)| leaves(path)).filter(|path| !path.contains(" as "));
    paths.filter_map(|path| path.rsplit("::").next().map(str::to_owned)).collect()
}

fn height(module: &str) -> Option<usize> {
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
    fn the_root_offers_what_users_type_and_nothing_else() {
        let all = format!("pub use base::{{{}}};", ROOT_NAMES.join(", "));
        assert_eq!(errors(&[("lib.rs", &all)]), Vec::<String>::new());
        let found = errors(&[("lib.rs", &format!("{}\npub use driver::Session;", all.replace(" Lock, ", " ")))]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("`Session`") && found[1].contains("`Lock`"), "{found:?}");
    }
}
