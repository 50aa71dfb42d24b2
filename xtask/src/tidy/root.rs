//! The roots of core and of the facade offer what users type, and nothing else.

use std::collections::BTreeSet;

use anyhow::Result;

use super::Findings;
use super::code::code;
use super::graph::leaves;
use crate::workspace::Workspace;

const CORE: &str = "crates/tooz-core/src/lib.rs";
const FACADE: &str = "crates/tooz/src/lib.rs";

/// What the facade takes from core.
const ALL_OF_CORE: &str = "tooz_core::*";

/// All that the root of core offers: what users type, and the face for those who write drivers.
const ROOT_NAMES: [&str; 46] = [
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
    "driver",
    "drivers",
];

/// What may be public in a root.
const ITEMS: [&str; 12] =
    ["const", "enum", "extern crate", "fn", "macro", "mod", "static", "struct", "trait", "type", "union", "use"];

pub(super) fn check(workspace: &Workspace, findings: &mut Findings) -> Result<()> {
    if workspace.has(CORE) {
        let wanted = ROOT_NAMES.iter().map(|name| (*name).to_owned()).collect();
        let instead = "offer it in `driver`, or add it to the list in xtask";
        compare(CORE, &names(&workspace.read(CORE)?), &wanted, instead, findings);
    }
    if workspace.has(FACADE) {
        let drivers = workspace.drivers()?.into_iter().map(|driver| driver.replace('-', "_"));
        let wanted = drivers.chain([ALL_OF_CORE.to_owned()]).collect();
        let instead = "the facade offers all of core's root, and its drivers";
        compare(FACADE, &names(&workspace.read(FACADE)?), &wanted, instead, findings);
    }
    Ok(())
}

fn compare(file: &str, found: &BTreeSet<String>, wanted: &BTreeSet<String>, instead: &str, findings: &mut Findings) {
    for name in found.difference(wanted) {
        findings.error(file, format!("`{name}` is no name that users type: {instead}"));
    }
    for name in wanted.difference(found) {
        findings.error(file, format!("`{name}` is missing, which users type"));
    }
}

/// The public names of a root, by which users call them; of `*` the whole path. What begins with `__` is for macros alone.
fn names(text: &str) -> BTreeSet<String> {
    let code = code(text);
    let mut names = BTreeSet::new();
    for (at, word) in code.match_indices("pub ") {
        let before = &code[..at];
        if before.ends_with(|one: char| one.is_alphanumeric() || one == '_') || depth(before) > 0 {
            continue;
        }
        let item = unqualified(&code[at + word.len()..]);
        let Some(kind) = ITEMS.iter().find(|kind| item.strip_prefix(**kind).is_some_and(|rest| rest.starts_with(' ')))
        else {
            continue;
        };
        let rest = &item[kind.len()..];
        if *kind == "use" || *kind == "extern crate" {
            names.extend(leaves(rest.split(';').next().unwrap_or_default()).iter().map(|path| name(path)));
        } else {
            let end = |one: char| !(one.is_alphanumeric() || one == '_');
            names.extend(rest.trim_start().split(end).next().map(str::to_owned));
        }
    }
    names.retain(|name| !name.starts_with("__"));
    names
}

/// An item without the words that may stand before its kind.
fn unqualified(item: &str) -> &str {
    let mut item = item.trim_start();
    while let Some(rest) =
        ["async ", "unsafe ", "const fn", "extern \"\" "].iter().find_map(|word| item.strip_prefix(word))
    {
        if item.starts_with("const fn") {
            return &item["const ".len()..];
        }
        item = rest.trim_start();
    }
    item
}

fn name(path: &str) -> String {
    let path = path.trim();
    match path.rsplit_once(" as ") {
        Some((_, name)) => name.to_owned(),
        None if path.ends_with('*') => path.to_owned(),
        None => path.rsplit("::").find(|name| *name != "self").unwrap_or_default().to_owned(),
    }
}

fn depth(before: &str) -> usize {
    before.matches('{').count() - before.matches('}').count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::tests::repository;

    fn errors(files: &[(&str, &str)]) -> Vec<String> {
        let (_folder, workspace) = repository(
            &[files, &[("crates/tooz-red/Cargo.toml", ""), ("crates/tooz-red/src/session.rs", "")]].concat(),
        );
        let mut findings = Findings::default();
        check(&workspace, &mut findings).unwrap();
        findings.errors
    }

    fn all_of_core() -> String {
        format!("pub use base::{{{}}};\n#[doc(hidden)]\npub use inventory as __inventory;", ROOT_NAMES.join(", "))
    }

    #[test]
    fn the_root_offers_what_users_type_and_nothing_else() {
        assert_eq!(errors(&[(CORE, &all_of_core())]), Vec::<String>::new());
        let found = errors(&[(CORE, &format!("{}\npub use driver::Session;", all_of_core().replace(" Lock, ", " ")))]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("`Session`") && found[1].contains("`Lock`"), "{found:?}");
    }

    #[test]
    fn whatever_is_public_in_the_root_is_a_name() {
        let more = "pub use driver::Session as Foreign;\npub const fn two() {}\npub struct Three { pub four: u8 }\npub mod five { pub fn six() {} }\npub use seven::*;\npub(crate) fn eight() {}";
        let found = names(more);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["Foreign", "Three", "five", "seven::*", "two"]);
    }

    #[test]
    fn the_facade_offers_core_and_its_drivers() {
        assert_eq!(errors(&[(FACADE, "pub use tooz_core::*;\npub use tooz_red as red;")]), Vec::<String>::new());
        let found =
            errors(&[(FACADE, "pub use tooz_core::*;\npub use tooz_red as red;\npub use tooz_core::driver::Session;")]);
        assert!(found.len() == 1 && found[0].contains("`Session`"), "{found:?}");
    }
}
