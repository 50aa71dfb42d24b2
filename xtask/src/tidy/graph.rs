//! Which file of a crate imports from which: made of the paths `crate::…`, `$crate::…` and `super::…` that are not for tests.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::code::{at_commas, code, end_of_brackets, inline_modules, item, only_for_tests};
use crate::workspace::Workspace;

/// The imports of each file, as paths of modules.
pub(super) type Graph = BTreeMap<String, BTreeSet<String>>;

/// The files of one crate, by the module that each of them is; `lib` or `main` is the root.
pub(super) struct Sources {
    pub(super) texts: BTreeMap<String, String>,
    /// Where each of them lies.
    files: BTreeMap<String, String>,
    only_for_tests: BTreeSet<String>,
}

impl Sources {
    pub(super) fn read(workspace: &Workspace, files: &[String], folder: &str) -> Result<Self> {
        let (mut texts, mut places) = (BTreeMap::new(), BTreeMap::new());
        for file in files {
            let module = file.strip_prefix(folder).and_then(|path| path.strip_suffix(".rs"));
            if let Some(module) = module.filter(|module| !is_of_another_crate(files, folder, module)) {
                let module = module.strip_suffix("/mod").unwrap_or(module).replace('/', "::");
                texts.insert(module.clone(), workspace.read(file)?);
                places.insert(module, file.clone());
            }
        }
        let only_for_tests = texts.iter().flat_map(|(module, text)| test_modules(module, text)).collect();
        Ok(Sources { texts, files: places, only_for_tests })
    }

    /// The modules that are no tests, and what each imports from; `Err`: the path that leads to no file but the root, or to a
    /// module that `is_face` says to define nothing.
    pub(super) fn arrows(&self, is_face: impl Fn(&str) -> bool) -> Vec<(&str, Vec<Result<String, String>>)> {
        let ours = self.shipped().filter(|(module, _)| !is_root(module));
        let arrows = ours.map(|(module, text)| {
            let targets =
                imports(module, text).into_iter().map(|import| self.defining(&import, &is_face).ok_or(import));
            (module, targets.collect())
        });
        arrows.collect()
    }

    /// The modules that are no tests, and their texts.
    pub(super) fn shipped(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.texts.iter().map(|(module, text)| (module.as_str(), text.as_str()));
        all.filter(|(module, _)| !self.is_for_tests(module))
    }

    /// What a module offers again though another file defines it, as paths. A module may offer what the rooms inside of it define.
    pub(super) fn offered_again(&self, module: &str, text: &str) -> Vec<String> {
        let code = code(text);
        let mut offered = Vec::new();
        for (at, body) in use_statements(&code).into_iter().filter(|(at, _)| is_public(&code[..*at])) {
            let inline = inline_modules(&code[..at]);
            let paths = leaves(body).into_iter().filter_map(|path| from_root(module, inline, &path));
            offered.extend(paths.filter(|path| {
                let of = self.defining(path, &|_| false);
                of.is_none_or(|of| of != module && !is_inside(&of, module))
            }));
        }
        offered
    }

    pub(super) fn file(&self, module: &str) -> &str {
        self.files.get(module).map_or("", String::as_str)
    }

    pub(super) fn is_for_tests(&self, module: &str) -> bool {
        self.only_for_tests.iter().any(|one| one == module || is_inside(module, one))
    }

    /// The module that a path leads into; `None`: one that is no file of its own, such as the root.
    fn defining(&self, import: &str, is_face: &impl Fn(&str) -> bool) -> Option<String> {
        let mut path = import;
        loop {
            if self.texts.contains_key(path) && !is_face(path) {
                return Some(path.to_owned());
            }
            path = path.rsplit_once("::")?.0;
        }
    }
}

pub(super) fn is_root(module: &str) -> bool {
    module == "lib" || module == "main"
}

/// A folder with a root of its own is a crate of its own, and so is each file in `bin`.
fn is_of_another_crate(files: &[String], folder: &str, module: &str) -> bool {
    let has_root =
        |inner: &str| ["lib", "main"].iter().any(|root| files.contains(&format!("{folder}{inner}/{root}.rs")));
    module.starts_with("bin/") || module.match_indices('/').any(|(at, _)| has_root(&module[..at]))
}

/// The graph of these arrows. What a module imports from the rooms inside of it is its own.
pub(super) fn graph(arrows: &[(&str, Vec<Result<String, String>>)]) -> Graph {
    let below = |module: &str, targets: &[Result<String, String>]| {
        let known = targets.iter().filter_map(|target| target.as_ref().ok());
        known.filter(|target| *target != module && !is_inside(target, module)).cloned().collect()
    };
    arrows.iter().map(|(module, targets)| ((*module).to_owned(), below(module, targets))).collect()
}

/// The files that a module has for its tests alone.
fn test_modules(parent: &str, text: &str) -> Vec<String> {
    let items = only_for_tests(text);
    let names = items.iter().filter_map(|item| item.strip_suffix(';')?.rsplit_once("mod ").map(|(_, name)| name));
    names.map(|name| if is_root(parent) { name.to_owned() } else { format!("{parent}::{name}") }).collect()
}

/// Each `use` of a code: where it stands, and what is between the word and the semicolon.
pub(super) fn use_statements(code: &str) -> Vec<(usize, &str)> {
    let all = code
        .match_indices("use ")
        .filter(|(at, _)| !code[..*at].ends_with(|one: char| one.is_alphanumeric() || one == '_' || one == '#'));
    all.filter_map(|(at, word)| Some((at, code[at + word.len()..].split_once(';')?.0))).collect()
}

/// Whether the words before an item make it visible to others.
fn is_public(before: &str) -> bool {
    let before = before.trim_end();
    let before = match before.strip_suffix(')') {
        Some(inside) => inside.rsplit_once('(').map_or("", |(before, _)| before.trim_end()),
        None => before,
    };
    before.strip_suffix("pub").is_some_and(|before| !before.ends_with(|one: char| one.is_alphanumeric() || one == '_'))
}

/// The paths that begin with `crate::` or `super::`, as they are from the root, one for each name: of imports, and of what is named where it
/// is used.
fn imports(module: &str, text: &str) -> Vec<String> {
    let mut code = without_exported_macros(&code(text));
    let mut paths = Vec::new();
    let mut blanks = Vec::new();
    for (at, body) in use_statements(&code) {
        let inline = inline_modules(&code[..at]);
        paths.extend(leaves(body).iter().filter_map(|path| from_root(module, inline, path)));
        blanks.push((at, "use ".len() + body.len()));
    }
    for (at, length) in blanks {
        code.replace_range(at..at + length, &" ".repeat(length));
    }
    for (at, word) in ["crate::", "super::"].iter().flat_map(|word| code.match_indices(word)) {
        let (before, after) = (&code[..at], &code[at..]);
        // The middle of a longer name, for whom something is visible, the second step of a path.
        let is_part = before.ends_with(|one: char| one.is_alphanumeric() || one == '_');
        if is_part || before.ends_with("(in ") || (word.starts_with("super") && before.ends_with("super::")) {
            continue;
        }
        let end = after.find(|one: char| !(one.is_alphanumeric() || one == '_' || one == ':'));
        paths.extend(from_root(module, inline_modules(before), &after[..end.unwrap_or(after.len())]));
    }
    paths
}

/// What a macro names that other crates call goes by the root, as it has to.
fn without_exported_macros(code: &str) -> String {
    let mut kept = String::new();
    let mut rest = code;
    while let Some(at) = rest.find("#[macro_export]") {
        kept.push_str(&rest[..at]);
        rest = &rest[at + item(&rest[at..]).1..];
    }
    kept + rest
}

/// The path as it is from the root, without the other name that an import may give it; `None`: it stays within the file, of which it is used
/// in so many modules that are written out there. The root itself is an empty path.
fn from_root(module: &str, inline: usize, path: &str) -> Option<String> {
    let path = path.split(" as ").next().unwrap_or_default().trim();
    let path = path.trim_end_matches("::self");
    let path = path.strip_prefix('$').unwrap_or(path);
    if let Some(path) = path.strip_prefix("crate").filter(|path| path.is_empty() || path.starts_with("::")) {
        return Some(path.trim_start_matches(':').to_owned());
    }
    let mut rest = path.strip_prefix("self::").unwrap_or(path);
    let mut steps = 0_usize;
    while let Some(after) = rest.strip_prefix("super").filter(|after| after.is_empty() || after.starts_with("::")) {
        rest = after.trim_start_matches(':');
        steps += 1;
    }
    let steps = steps.checked_sub(inline).filter(|steps| *steps > 0)?;
    let mut names: Vec<_> = module.split("::").collect();
    names.truncate(names.len().saturating_sub(steps));
    names.extend(rest.split("::").filter(|name| !name.is_empty()));
    Some(names.join("::"))
}

/// `a::{b, c::{d, e}}` is `a::b`, `a::c::d` and `a::c::e`.
pub(super) fn leaves(path: &str) -> Vec<String> {
    let path: String = path.split_whitespace().collect::<Vec<_>>().join(" ");
    let Some(open) = path.find('{') else {
        return vec![path];
    };
    let inside = &path[open + 1..open + end_of_brackets(&path[open..]) - 1];
    let all = at_commas(inside).into_iter().flat_map(leaves).filter(|name| !name.is_empty());
    all.map(|name| format!("{}{name}", &path[..open])).collect()
}

/// Whether one is a room inside the other, as `options::backend_url` is in `options`.
fn is_inside(one: &str, other: &str) -> bool {
    one.strip_prefix(other).is_some_and(|rest| rest.starts_with("::"))
}

/// One circle, if there is any: what is left when all that imports nothing of the rest is taken away, again and again.
pub(super) fn circle(graph: &Graph) -> Option<Vec<String>> {
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

    #[test]
    fn paths_by_super_lead_from_the_file_that_they_stand_in() {
        let from = |text: &str| imports("faults::proxy::shared", text);
        assert_eq!(
            from("use super::connection::{self, Connection as C};"),
            ["faults::proxy::connection", "faults::proxy::connection::Connection"]
        );
        assert_eq!(from("fn f() { super::super::wait() }"), ["faults::wait"]);
        assert_eq!(from("use super::super::super::Error;"), ["Error"]);
        assert_eq!(from("use super as up; use crate as all; use crate::{self as a};"), ["faults::proxy", "", ""]);
        assert_eq!(from("pub(super) fn f() {} pub(in super::super) fn g() {}"), Vec::<String>::new());
    }

    #[test]
    fn super_within_a_module_of_the_file_is_the_file() {
        assert_eq!(imports("tls", "mod on { use super::Unreached; use super::super::wire::Wire; }"), ["wire::Wire"]);
    }

    #[test]
    fn a_macro_and_braces_around_all_lead_to_the_same_files() {
        let from = |text: &str| imports("a", text);
        assert_eq!(from("macro_rules! up { () => { $crate::b::B } }"), ["b::B"]);
        assert_eq!(from("#[macro_export]\nmacro_rules! up { () => { $crate::B } }\nuse crate::c;"), ["c"]);
        assert_eq!(from("use {crate::{b::B, c::C}, super::d};"), ["b::B", "c::C", "d"]);
    }

    #[test]
    fn a_folder_with_a_root_is_a_crate_of_its_own() {
        let files: Vec<_> = ["t/a.rs", "t/b/main.rs", "t/b/c.rs", "t/d/mod.rs"].map(str::to_owned).to_vec();
        let is_other = |module: &str| is_of_another_crate(&files, "t/", module);
        assert!(is_other("b/c") && is_other("bin/x") && !is_other("a") && !is_other("d/mod"));
    }

    #[test]
    fn braces_within_braces_are_taken_apart() {
        assert_eq!(leaves("a::{b::{c as d, e}, f,\n g}"), ["a::b::c as d", "a::b::e", "a::f", "a::g"]);
        assert_eq!(imports("a", "use crate::{b::{C as D}, e::F};"), ["b::C", "e::F"]);
    }
}
