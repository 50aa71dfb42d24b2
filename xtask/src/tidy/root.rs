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

/// The modules of its own, which may be there: the handles for threads without async, and pages to read.
const MODULES: [&str; 2] = ["blocking", "guide"];

/// All that the root of core offers: what users type, and the face for those who write drivers.
const ROOT_NAMES: [&str; 47] = [
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
    "register",
];

/// What an exported macro of core needs, and no page shows.
const HIDDEN_NAMES: [&str; 1] = ["__inventory"];

/// What may be public in a root.
const ITEMS: [&str; 12] =
    ["const", "enum", "extern crate", "fn", "macro", "mod", "static", "struct", "trait", "type", "union", "use"];

pub(super) fn check(workspace: &Workspace, files: &[String], findings: &mut Findings) -> Result<()> {
    if workspace.has(CORE) {
        let wanted = ROOT_NAMES.iter().map(|name| (*name).to_owned()).collect();
        let instead = "offer it in `driver`, or add it to the list in xtask";
        compare(CORE, &all_names(workspace, files, CORE, findings)?, &wanted, instead, findings);
    }
    if workspace.has(FACADE) {
        let drivers = workspace.drivers()?.into_iter().map(|driver| driver.replace('-', "_"));
        let wanted = drivers.chain([ALL_OF_CORE.to_owned()]).collect();
        let instead = "the facade offers all of core's root, its drivers, the blocking handles and the guide";
        let mut found = all_names(workspace, files, FACADE, findings)?;
        for module in MODULES {
            found.remove(module);
        }
        compare(FACADE, &found, &wanted, instead, findings);
    }
    Ok(())
}

/// The names of a root, with those of the macros that any file of its crate exports, since they stand in the root.
fn all_names(workspace: &Workspace, files: &[String], root: &str, findings: &mut Findings) -> Result<BTreeSet<String>> {
    let text = code(&workspace.read(root)?);
    let mut found = names(&text);
    if calls_macro(&text) {
        findings.error(root, "calls a macro, whose names nothing counts: write them out");
    }
    let folder = root.trim_end_matches("lib.rs");
    for file in files.iter().filter(|file| file.starts_with(folder) && file.strip_suffix(".rs").is_some()) {
        found.extend(exported_macros(&code(&workspace.read(file)?)));
    }
    Ok(found)
}

fn exported_macros(code: &str) -> Vec<String> {
    let all = code.split("#[macro_export").skip(1).filter_map(|after| after.split_once("macro_rules!"));
    let end = |one: char| !(one.is_alphanumeric() || one == '_');
    all.filter_map(|(_, after)| after.trim_start().split(end).next().map(str::to_owned)).collect()
}

/// A macro may be defined in a root: what it makes counts where it is called.
fn calls_macro(code: &str) -> bool {
    code.match_indices('!').any(|(at, _)| {
        let name = code[..at].rsplit(|one: char| !(one.is_alphanumeric() || one == '_')).next().unwrap_or_default();
        let is_call = code[at + 1..].trim_start().starts_with(['(', '[', '{']);
        let opened = |open: char, close: char| code[..at].matches(open).count() > code[..at].matches(close).count();
        !name.is_empty()
            && is_call
            && ![('(', ')'), ('[', ']'), ('{', '}')].iter().any(|(open, close)| opened(*open, *close))
    })
}

fn compare(file: &str, found: &BTreeSet<String>, wanted: &BTreeSet<String>, instead: &str, findings: &mut Findings) {
    for name in found.difference(wanted) {
        findings.error(file, format!("`{name}` is no name that users type: {instead}"));
    }
    for name in wanted.difference(found) {
        findings.error(file, format!("`{name}` is missing, which users type"));
    }
}

/// The public names of a root, by which users call them; of `*` the whole path.
fn names(code: &str) -> BTreeSet<String> {
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
        let is_hidden = before.trim_end().ends_with("#[doc(hidden)]");
        if *kind == "use" || *kind == "extern crate" {
            let all = leaves(rest.split(';').next().unwrap_or_default());
            names.extend(
                all.iter().map(|path| name(path)).filter(|name| !(is_hidden && HIDDEN_NAMES.contains(&name.as_str()))),
            );
        } else {
            let end = |one: char| !(one.is_alphanumeric() || one == '_');
            names.extend(rest.trim_start().split(end).next().map(str::to_owned));
        }
    }
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
        let names: Vec<_> = files.iter().map(|(name, _)| (*name).to_owned()).collect();
        check(&workspace, &names, &mut findings).unwrap();
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

    #[test]
    fn a_macro_that_is_exported_is_a_name_of_the_root() {
        let more = "#[macro_export]\n#[doc(hidden)]\nmacro_rules! unregister { ($driver:expr) => {}; }";
        let found = errors(&[(CORE, &all_of_core()), ("crates/tooz-core/src/driver/card.rs", more)]);
        assert!(found.len() == 1 && found[0].contains("`unregister`"), "{found:?}");
        let facade = format!("pub use tooz_core::*;\npub use tooz_red as red;\n{more}");
        let found = errors(&[(FACADE, &facade)]);
        assert!(found.len() == 1 && found[0].contains("`unregister`"), "{found:?}");
    }

    #[test]
    fn a_name_behind_underscores_is_one_unless_it_is_known_and_hidden() {
        for more in ["pub use driver::Session as __Session;", "#[doc(hidden)]\npub use driver::Session as __Session;"] {
            let found = errors(&[(CORE, &format!("{}\n{more}", all_of_core()))]);
            assert!(found.len() == 1 && found[0].contains("`__Session`"), "{found:?}");
        }
        let found = errors(&[(CORE, &all_of_core().replace("#[doc(hidden)]", ""))]);
        assert!(found.len() == 1 && found[0].contains("`__inventory`"), "{found:?}");
    }

    #[test]
    fn a_root_makes_no_names_by_macros() {
        let more =
            "macro_rules! face { ($($name:path),*) => { $(pub use $name;)* }; }\nface!(driver::session::Session);";
        let found = errors(&[(CORE, &format!("{}\n{more}", all_of_core()))]);
        assert!(found.len() == 1 && found[0].contains("macro"), "{found:?}");
    }
}
