//! The floors of core: arrows between its files point downwards, and never in a circle.
//!
//! The graph is made of the paths `crate::…` that are not for tests. Each names the file that defines what it leads to.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::Findings;
use crate::workspace::Workspace;

const CORE: &str = "crates/tooz-core/src/";

/// From the ground up. A floor knows itself and those below it.
const FLOORS: [&str; 4] = ["base", "driver", "engine", "handles"];

/// All that the root of core offers: what users type, and the face for those who write drivers.
const ROOT_NAMES: [&str; 44] = [
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
    "connect",
    "drivers",
];

/// The imports of each file, as paths of modules.
type Graph = BTreeMap<String, BTreeSet<String>>;

pub(super) fn check(workspace: &Workspace, files: &[String], findings: &mut Findings) -> Result<()> {
    let mut texts = BTreeMap::new();
    for file in files {
        if let Some(module) = file.strip_prefix(CORE).and_then(|path| path.strip_suffix(".rs")) {
            texts.insert(module.replace('/', "::"), workspace.read(file)?);
        }
    }
    let modules: BTreeSet<_> = texts.keys().cloned().collect();
    let only_for_tests: BTreeSet<_> = texts.iter().flat_map(|(module, text)| test_modules(module, text)).collect();
    let mut graph = Graph::new();
    for (module, text) in &texts {
        let imports = imports(text);
        if module == "lib" {
            check_root(&names(text), findings);
            continue;
        }
        // The face of the contract only says again what its rooms define.
        if FLOORS.contains(&module.as_str()) || only_for_tests.contains(module) {
            continue;
        }
        let file = format!("{CORE}{}.rs", module.replace("::", "/"));
        let mut below = BTreeSet::new();
        for import in imports {
            let Some(target) = defining(&import, &modules) else {
                findings.error(&file, format!("`crate::{import}`: name the file that defines it"));
                continue;
            };
            if height(&target) > height(module) {
                findings.error(&file, format!("`crate::{import}` points to a floor above; the floors are {FLOORS:?}"));
            }
            if target != *module && !is_inside(&target, module) {
                below.insert(target);
            }
        }
        graph.insert(module.clone(), below);
    }
    if let Some(circle) = circle(&graph) {
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

/// Without the tests of the file, and without its comments.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The files that a module has for its tests alone.
fn test_modules(parent: &str, text: &str) -> Vec<String> {
    let after = text.split("#[cfg(test)]\n").skip(1).filter_map(|rest| rest.lines().next());
    let names = after.filter_map(|line| line.rsplit("mod ").next()?.strip_suffix(';').map(str::to_owned));
    names.map(|name| if parent == "lib" { name } else { format!("{parent}::{name}") }).collect()
}

/// The paths behind `crate::`, one for each name: of imports, and of what is named where it is used.
fn imports(text: &str) -> Vec<String> {
    let code = code(text);
    let mut paths = Vec::new();
    for (at, word) in code.match_indices("crate::") {
        let (before, after) = (&code[..at], &code[at + word.len()..]);
        if before.ends_with("use ") {
            paths.extend(after.split(';').next().map(leaves).unwrap_or_default());
        } else if !before.ends_with('$') {
            let end = after.find(|one: char| !(one.is_alphanumeric() || one == '_' || one == ':'));
            paths.push(after[..end.unwrap_or(after.len())].to_owned());
        }
    }
    paths
}

/// The public names of the root, macros and what is hidden from the documentation aside.
fn names(text: &str) -> BTreeSet<String> {
    let code = code(text);
    let uses = code.split("pub use ").skip(1).filter_map(|rest| rest.split_once(';'));
    let paths = uses.flat_map(|(path, _)| leaves(path)).filter(|path| !path.contains(" as "));
    paths.filter_map(|path| path.rsplit("::").next().map(str::to_owned)).collect()
}

/// `a::{b, c}` is `a::b` and `a::c`.
fn leaves(path: &str) -> Vec<String> {
    let path: String = path.split_whitespace().collect::<Vec<_>>().join(" ");
    match path.split_once("::{") {
        None => vec![path.trim().to_owned()],
        Some((before, inside)) => {
            let names = inside.trim_end_matches('}').split(',').map(str::trim).filter(|name| !name.is_empty());
            names.map(|name| format!("{before}::{name}")).collect()
        }
    }
}

/// The module that a path leads into; `None`: one that is no file of its own, such as the root or a floor.
fn defining(import: &str, modules: &BTreeSet<String>) -> Option<String> {
    let mut path = import;
    loop {
        if modules.contains(path) && !FLOORS.contains(&path) {
            return Some(path.to_owned());
        }
        path = path.rsplit_once("::")?.0;
    }
}

fn height(module: &str) -> Option<usize> {
    let floor = module.split("::").next().unwrap_or_default();
    FLOORS.iter().position(|known| *known == floor)
}

/// Whether one is a room inside the other, as `options::backend_url` is in `options`.
fn is_inside(one: &str, other: &str) -> bool {
    one.strip_prefix(other).is_some_and(|rest| rest.starts_with("::"))
}

/// One circle, if there is any: what is left when all that imports nothing of the rest is taken away, again and again.
fn circle(graph: &Graph) -> Option<Vec<String>> {
    let mut left = graph.clone();
    loop {
        let done: BTreeSet<_> = left
            .iter()
            .filter(|(_, below)| below.iter().all(|one| !left.contains_key(one)))
            .map(|(one, _)| one.clone())
            .collect();
        if done.is_empty() {
            break;
        }
        left.retain(|module, _| !done.contains(module));
    }
    let mut path = vec![left.keys().next()?.clone()];
    loop {
        let last = path.last()?;
        let next = left.get(last)?.iter().find(|one| left.contains_key(*one))?.clone();
        if let Some(begin) = path.iter().position(|one| *one == next) {
            path.push(next);
            return Some(path.split_off(begin));
        }
        path.push(next);
    }
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
