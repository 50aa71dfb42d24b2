//! Poison is dealt with in one place: the mutex of core, which core and the drivers use.

use anyhow::Result;

use super::Findings;
use super::code::code;
use crate::workspace::Workspace;

/// The mutex, and what takes it from the standard library.
const HOME: [&str; 2] = ["crates/tooz-core/src/base/mutex.rs", "crates/tooz-core/src/base/sync.rs"];

pub(super) fn check(workspace: &Workspace, files: &[String], findings: &mut Findings) -> Result<()> {
    for file in files.iter().filter(|file| !HOME.contains(&file.as_str())) {
        let is_source = file.strip_prefix("crates/").is_some_and(|path| path.split('/').nth(1) == Some("src"));
        if is_source && file.strip_suffix(".rs").is_some() && code(&workspace.read(file)?).contains("PoisonError") {
            findings.error(file, format!("deals with poison: take the mutex that has none, of {}", HOME[0]));
        }
    }
    Ok(())
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
}
