//! Which file of a crate imports from which: made of the paths `crate::…` that are not for tests.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use crate::workspace::Workspace;

/// The imports of each file, as paths of modules.
pub(super) type Graph = BTreeMap<String, BTreeSet<String>>;

/// The files of one crate, by the module that each of them is; `lib` is the root.
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
        let ours = self.texts.iter().filter(|(module, _)| *module != "lib" && !self.is_for_tests(module));
        let arrows = ours.map(|(module, text)| {
            let targets = imports(text).into_iter().map(|import| self.defining(&import, &is_face).ok_or(import));
            (module.as_str(), targets.collect())
        });
        arrows.filter(|(module, _): &(&str, _)| !is_face(module)).collect()
    }

    pub(super) fn file(&self, module: &str) -> String {
        format!("{}{}.rs", self.folder, module.replace("::", "/"))
    }

    fn is_for_tests(&self, module: &str) -> bool {
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

/// The graph of these arrows. What a module imports from the rooms inside of it is its own.
pub(super) fn graph(arrows: &[(&str, Vec<Result<String, String>>)]) -> Graph {
    let below = |module: &str, targets: &[Result<String, String>]| {
        let known = targets.iter().filter_map(|target| target.as_ref().ok());
        known.filter(|target| *target != module && !is_inside(target, module)).cloned().collect()
    };
    arrows.iter().map(|(module, targets)| ((*module).to_owned(), below(module, targets))).collect()
}

/// Without the tests of the file, and without its comments.
pub(super) fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The files that a module has for its tests alone.
fn test_modules(parent: &str, text: &str) -> Vec<String> {
    let text = text.replace("#[cfg(all(test, shuttle))]\n", "#[cfg(test)]\n");
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

/// `a::{b, c}` is `a::b` and `a::c`.
pub(super) fn leaves(path: &str) -> Vec<String> {
    let path: String = path.split_whitespace().collect::<Vec<_>>().join(" ");
    let braced = path.strip_prefix('{').map(|inside| ("", inside)).or_else(|| path.split_once("::{"));
    match braced {
        None => vec![path.trim().to_owned()],
        Some((before, inside)) => {
            let names = inside.trim_end_matches('}').split(',').map(str::trim).filter(|name| !name.is_empty());
            names.map(|name| format!("{before}::{name}").trim_start_matches(':').to_owned()).collect()
        }
    }
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
