//! Which file of a crate imports from which: made of the paths `crate::…` and `super::…` that are not for tests.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::code::{code, end_of_brackets, inline_modules};
use crate::workspace::Workspace;

/// The imports of each file, as paths of modules.
pub(super) type Graph = BTreeMap<String, BTreeSet<String>>;

/// The files of one crate, by the module that each of them is; `lib` or `main` is the root.
pub(super) struct Sources {
    /// The folder, with a slash at its end.
    folder: String,
    pub(super) texts: BTreeMap<String, String>,
    modules: BTreeSet<String>,
    only_for_tests: BTreeSet<String>,
}

impl Sources {
    pub(super) fn read(workspace: &Workspace, files: &[String], folder: &str) -> Result<Self> {
        let mut texts = BTreeMap::new();
        for file in files {
            let module = file.strip_prefix(folder).and_then(|path| path.strip_suffix(".rs"));
            // A program in `bin` is a crate of its own.
            if let Some(module) = module.filter(|module| !module.starts_with("bin/")) {
                let module = module.strip_suffix("/mod").unwrap_or(module);
                texts.insert(module.replace('/', "::"), workspace.read(file)?);
            }
        }
        let modules = texts.keys().cloned().collect();
        let only_for_tests = texts.iter().flat_map(|(module, text)| test_modules(module, text)).collect();
        Ok(Sources { folder: folder.to_owned(), texts, modules, only_for_tests })
    }

    /// The modules that are no tests, and what each imports from; `Err`: the path that leads to no file but the root, or to a
    /// module that `is_face` says to define nothing.
    pub(super) fn arrows(&self, is_face: impl Fn(&str) -> bool) -> Vec<(&str, Vec<Result<String, String>>)> {
        let ours = self.texts.iter().filter(|(module, _)| !is_root(module) && !self.is_for_tests(module));
        let arrows = ours.map(|(module, text)| {
            let targets =
                imports(module, text).into_iter().map(|import| self.defining(&import, &is_face).ok_or(import));
            (module.as_str(), targets.collect())
        });
        arrows.filter(|(module, _): &(&str, _)| !is_face(module)).collect()
    }

    pub(super) fn file(&self, module: &str) -> String {
        format!("{}{}.rs", self.folder, module.replace("::", "/"))
    }

    pub(super) fn is_for_tests(&self, module: &str) -> bool {
        self.only_for_tests.iter().any(|one| one == module || is_inside(module, one))
    }

    /// The module that a path leads into; `None`: one that is no file of its own, such as the root.
    fn defining(&self, import: &str, is_face: &impl Fn(&str) -> bool) -> Option<String> {
        let mut path = import;
        loop {
            if self.modules.contains(path) && !is_face(path) {
                return Some(path.to_owned());
            }
            path = path.rsplit_once("::")?.0;
        }
    }
}

fn is_root(module: &str) -> bool {
    module == "lib" || module == "main"
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
    let text = text.replace("#[cfg(all(test, shuttle))]\n", "#[cfg(test)]\n");
    let after = text.split("#[cfg(test)]\n").skip(1).filter_map(|rest| rest.lines().next());
    let names = after.filter_map(|line| line.rsplit("mod ").next()?.strip_suffix(';').map(str::to_owned));
    names.map(|name| if is_root(parent) { name } else { format!("{parent}::{name}") }).collect()
}

/// How a path begins that leads to another file of the crate, or gives the root or the parent another name.
const BEGINNINGS: [&str; 4] = ["crate::", "crate as ", "super::", "super as "];

/// The paths that begin with `crate::` or `super::`, as they are from the root, one for each name: of imports, and of what is named where it
/// is used.
fn imports(module: &str, text: &str) -> Vec<String> {
    let code = code(text);
    let mut paths = Vec::new();
    for (at, word) in BEGINNINGS.iter().flat_map(|word| code.match_indices(word)) {
        let (before, after) = (&code[..at], &code[at..]);
        // The middle of a longer name, a macro's crate, for whom something is visible, the second step of a path.
        let is_part = before.ends_with(|one: char| one.is_alphanumeric() || one == '_' || one == '$');
        if is_part || before.ends_with("(in ") || (word.starts_with("super") && before.ends_with("super::")) {
            continue;
        }
        let is_import = before.trim_end().ends_with("use") && before.ends_with(char::is_whitespace);
        let named = if is_import {
            after.split(';').next().map(leaves).unwrap_or_default()
        } else {
            let end = after.find(|one: char| !(one.is_alphanumeric() || one == '_' || one == ':'));
            vec![after[..end.unwrap_or(after.len())].to_owned()]
        };
        let inline = inline_modules(before);
        paths.extend(named.iter().filter_map(|path| from_root(module, inline, path)));
    }
    paths
}

/// The path as it is from the root, without the other name that an import may give it; `None`: it stays within the file, of which it is used
/// in so many modules that are written out there.
fn from_root(module: &str, inline: usize, path: &str) -> Option<String> {
    let path = path.split(" as ").next().unwrap_or_default().trim();
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

/// The parts between commas that stand in no braces.
fn at_commas(text: &str) -> Vec<&str> {
    let (mut parts, mut begin, mut depth) = (Vec::new(), 0, 0);
    for (at, one) in text.char_indices() {
        match one {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[begin..]);
    parts
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
            ["faults::proxy::connection::self", "faults::proxy::connection::Connection"]
        );
        assert_eq!(from("fn f() { super::super::wait() }"), ["faults::wait"]);
        assert_eq!(from("use super::super::super::Error;"), ["Error"]);
        assert_eq!(from("use super as up; use crate as all;"), ["", "faults::proxy"]);
        assert_eq!(from("pub(super) fn f() {} pub(in super::super) fn g() {}"), Vec::<String>::new());
    }

    #[test]
    fn super_within_a_module_of_the_file_is_the_file() {
        assert_eq!(imports("tls", "mod on { use super::Unreached; use super::super::wire::Wire; }"), ["wire::Wire"]);
    }

    #[test]
    fn braces_within_braces_are_taken_apart() {
        assert_eq!(leaves("a::{b::{c as d, e}, f,\n g}"), ["a::b::c as d", "a::b::e", "a::f", "a::g"]);
        assert_eq!(imports("a", "use crate::{b::{C as D}, e::F};"), ["b::C", "e::F"]);
    }
}
