//! Poison is dealt with in one place: the mutex of core, which core and the drivers use.

use anyhow::Result;

use super::Findings;
use super::code::code;
use super::graph::{leaves, use_statements};
use crate::workspace::Workspace;

/// The mutex, and what takes it from the standard library.
const HOME: [&str; 2] = ["crates/tooz-core/src/base/mutex.rs", "crates/tooz-core/src/base/sync.rs"];

/// What is said of poison, by whatever name.
const WORDS: [&str; 4] = ["PoisonError", "Poisoned", "clear_poison", "is_poisoned"];

/// What can be poisoned, and what would hide that it is named.
const POISONABLE: [&str; 4] = ["std::sync::Mutex", "std::sync::RwLock", "std::sync::*", "std::sync"];

pub(super) fn check(workspace: &Workspace, files: &[String], findings: &mut Findings) -> Result<()> {
    for file in files.iter().filter(|file| !HOME.contains(&file.as_str())) {
        let is_source = file.strip_prefix("crates/").is_some_and(|path| path.split('/').nth(1) == Some("src"));
        if is_source && file.strip_suffix(".rs").is_some() && deals_with_poison(&code(&workspace.read(file)?)) {
            findings.error(file, format!("deals with poison: take the mutex that has none, of {}", HOME[0]));
        }
    }
    Ok(())
}

fn deals_with_poison(code: &str) -> bool {
    let imports = use_statements(code).into_iter().flat_map(|(_, body)| leaves(body));
    let mut imports =
        imports.map(|path| path.split(" as ").next().unwrap_or_default().trim_end_matches("::self").to_owned());
    let is_named = |path: &str| {
        code.match_indices(path).any(|(at, _)| !code[at + path.len()..].starts_with(|one: char| one.is_alphanumeric()))
    };
    WORDS.iter().any(|word| code.contains(word))
        || POISONABLE[..2].iter().any(|path| is_named(path))
        || imports.any(|path| POISONABLE.contains(&path.trim_start_matches("::")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::tests::repository;

    #[test]
    fn poison_elsewhere_is_named() {
        let text = "fn f() { g(PoisonError::into_inner) }";
        let files = [
            (HOME[0], text),
            ("crates/tooz-red/src/a.rs", text),
            ("crates/tooz-red/src/b.rs", "// PoisonError\n#[cfg(test)]\nmod tests { use std::sync::PoisonError; }"),
            ("crates/tooz-red/tests/c.rs", text),
        ];
        let (_folder, workspace) = repository(&files);
        let mut findings = Findings::default();
        check(&workspace, &files.map(|(name, _)| name.to_owned()), &mut findings).unwrap();
        let found = findings.errors;
        assert!(found.len() == 1 && found[0].starts_with("crates/tooz-red/src/a.rs"), "{found:?}");
    }

    #[test]
    fn a_mutex_that_can_be_poisoned_is_poison() {
        for text in [
            "use std::sync::Mutex as StdMutex; fn f() { *m.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) }",
            "use std::{sync::{Arc, RwLock}}; fn f() { match m.read() { Ok(guard) => *guard, Err(error) => *error.into_inner() } }",
            "use std::sync::{self, Arc}; fn f(m: &sync::Mutex<u8>) { m.lock().expect() }",
            "fn f(m: &::std::sync::Mutex<u8>) { m.lock().map(|guard| *guard).unwrap_or_default() }",
            "fn f() { m.clear_poison(); }",
            "fn f() { match m.try_lock() { Err(TryLockError::Poisoned(p)) => *p.into_inner(), _ => 0 } }",
        ] {
            assert!(deals_with_poison(text), "{text}");
        }
        for text in
            ["use std::sync::{Arc, MutexGuard, OnceLock}; use tokio::sync::Mutex;", "fn f() { response.into_inner() }"]
        {
            assert!(!deals_with_poison(text), "{text}");
        }
    }
}
