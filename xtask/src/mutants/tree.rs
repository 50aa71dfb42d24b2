//! The copy of the workspace into which faults are put: the sources of the workspace are never touched.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::mutants::list::Subject;
use crate::mutants::seed::Seed;
use crate::workspace::Workspace;

/// The variable that says which fault is alive.
pub(crate) const WHICH: &str = "TOOZ_MUTANT";
/// What answers in the copy which fault is alive.
const MUTANT: &str = r#"
pub(crate) fn mutant(name: &str) -> bool {
    std::env::var_os("WHICH").is_some_and(|which| which == name)
}
"#;

/// A copy of the workspace, for one crate's faults.
pub(crate) struct Tree {
    root: PathBuf,
    /// The crate, and its sources.
    pub(crate) folder: PathBuf,
    sources: PathBuf,
    texts: BTreeMap<String, String>,
}

/// The files below that folder, by their names within it.
pub(crate) fn texts(workspace: &Workspace, folder: &str) -> Result<BTreeMap<String, String>> {
    let files = workspace.files()?;
    let names = files.iter().filter_map(|file| Some((file, file.strip_prefix(folder)?)));
    names.map(|(file, name)| Ok((name.to_owned(), workspace.read(file)?))).collect()
}

impl Tree {
    /// Copies the workspace. What has not changed keeps its time, so that it is not built again. The sources of the crate are written once,
    /// with the faults in them.
    pub(crate) fn copy(workspace: &Workspace, subject: &Subject) -> Result<Tree> {
        let root = workspace.target().join("mutants");
        let sources = subject.sources();
        for file in workspace.files()?.iter().filter(|file| !file.starts_with(&sources)) {
            write_if_new(&root.join(file), &fs::read(workspace.root().join(file))?)?;
        }
        let texts = texts(workspace, &sources)?;
        Ok(Tree { folder: root.join(&subject.folder), sources: root.join(sources), root, texts })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Writes the sources of the crate with all faults in them that are built beside each other.
    pub(crate) fn sow(&self, seeds: &[Seed]) -> Result<()> {
        let mut texts = self.texts.clone();
        seeds.iter().try_for_each(|seed| seed.apply(&mut texts))?;
        if let Some(root) = texts.get_mut("lib.rs") {
            root.insert_str(0, "#![allow(unused)]\n");
            root.push_str(&MUTANT.replace("WHICH", WHICH));
        }
        texts.iter().try_for_each(|(name, text)| write_if_new(&self.sources.join(name), text.as_bytes()))
    }

    /// Does something while that fault stands in its file.
    pub(crate) fn with<T>(&self, seed: &Seed, deed: impl FnOnce() -> Result<T>) -> Result<T> {
        let text = self.texts.get(&seed.file).with_context(|| format!("there is no {}", seed.file))?;
        let path = self.sources.join(&seed.file);
        write_if_new(&path, seed.changed(text)?.as_bytes())?;
        let done = deed();
        write_if_new(&path, text.as_bytes())?;
        done
    }
}

fn write_if_new(path: &Path, content: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|there| there == content) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}
