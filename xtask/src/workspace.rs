//! What is in the repository: members, backends, features, files. Read from the tree, so that a new
//! driver crate is part of every command as soon as it is there.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

/// Crates named `tooz-…` that have the shape of a driver in part, but are none.
const NOT_DRIVERS: [&str; 2] = ["core", "conformance"];

/// The repository that this command was started for.
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// The repository that holds this crate. Cargo says at run time where that is; what was compiled in
    /// is the answer for a binary that is started by hand.
    pub(crate) fn discover() -> Result<Self> {
        let package = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = package.parent().context("the xtask crate has no parent folder")?;
        Ok(Self::at(root))
    }

    pub(crate) fn at(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where cargo builds; relative settings count from the root, where every command is started.
    pub(crate) fn target(&self) -> PathBuf {
        let setting = std::env::var_os("CARGO_TARGET_DIR").filter(|value| !value.is_empty());
        self.root.join(setting.unwrap_or_else(|| OsStr::new("target").to_owned()))
    }

    /// The folders of all members, relative to the root.
    pub(crate) fn members(&self) -> Result<Vec<String>> {
        let manifest = self.manifest("Cargo.toml")?;
        let patterns = manifest
            .get("workspace")
            .and_then(|workspace| workspace.get("members")?.as_array())
            .context("Cargo.toml has no list workspace.members")?;
        let mut members = BTreeSet::new();
        for pattern in patterns.iter().filter_map(toml::Value::as_str) {
            match pattern.strip_suffix("/*") {
                Some(parent) => members.extend(self.packages_under(parent)?),
                None => {
                    members.insert(pattern.to_owned());
                }
            }
        }
        Ok(members.into_iter().collect())
    }

    /// The names, without `tooz-`, of the crates that have the conformance suite among their tests.
    pub(crate) fn backends(&self) -> Result<Vec<String>> {
        self.candidates(&["tests/conformance.rs"])
    }

    /// The names, without `tooz-`, of the crates that are drivers. Either mark is enough, so that a driver
    /// that lacks one of them is still seen and told so.
    pub(crate) fn drivers(&self) -> Result<Vec<String>> {
        self.candidates(&["src/session.rs", "tests/conformance.rs"])
    }

    /// The features of the facade that one can ask for by name.
    pub(crate) fn facade_features(&self) -> Result<Vec<String>> {
        let manifest = self.manifest("crates/tooz/Cargo.toml")?;
        let features = manifest.get("features").and_then(toml::Value::as_table);
        Ok(features.into_iter().flat_map(toml::Table::keys).filter(|name| *name != "default").cloned().collect())
    }

    pub(crate) fn manifest(&self, path: &str) -> Result<toml::Table> {
        self.read(path)?.parse().with_context(|| format!("{path} is not TOML"))
    }

    pub(crate) fn read(&self, path: &str) -> Result<String> {
        fs::read_to_string(self.root.join(path)).with_context(|| format!("cannot read {path}"))
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.root.join(path).is_file()
    }

    /// All files that belong to the repository, relative to the root and with `/`: tracked ones, and new ones
    /// that are not ignored, so that a mistake is seen before it is committed.
    pub(crate) fn files(&self) -> Result<Vec<String>> {
        let mut files = match self.files_by_git() {
            Some(files) => files,
            // A source archive has no git: all but the builds is the repository then.
            None => self.files_by_walking()?,
        };
        files.sort();
        files.dedup();
        Ok(files)
    }

    fn files_by_git(&self) -> Option<Vec<String>> {
        if !self.root.join(".git").exists() {
            return None;
        }
        let answer = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(&self.root)
            .stdin(Stdio::null())
            .output()
            .ok()?;
        if !answer.status.success() {
            return None;
        }
        let names = String::from_utf8_lossy(&answer.stdout);
        Some(
            names
                .split('\0')
                // A file that was deleted, but not yet in the index, is still listed.
                .filter(|name| !name.is_empty() && self.has(name))
                .map(str::to_owned)
                .collect(),
        )
    }

    fn files_by_walking(&self) -> Result<Vec<String>> {
        let mut files = Vec::new();
        let mut folders = vec![String::new()];
        while let Some(folder) = folders.pop() {
            for (name, is_folder) in entries(&self.root.join(&folder))? {
                let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
                if !is_folder {
                    files.push(path);
                } else if name != "target" && name != ".git" {
                    folders.push(path);
                }
            }
        }
        Ok(files)
    }

    fn candidates(&self, marks: &[&str]) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for path in self.packages_under("crates")? {
            let Some(name) = path.strip_prefix("crates/tooz-") else {
                continue;
            };
            if !NOT_DRIVERS.contains(&name) && marks.iter().any(|mark| self.has(&format!("{path}/{mark}"))) {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// Like cargo's own globs: a folder without a manifest is not a package, and no error.
    fn packages_under(&self, parent: &str) -> Result<Vec<String>> {
        let mut packages: Vec<String> = entries(&self.root.join(parent))?
            .into_iter()
            .map(|(name, _)| format!("{parent}/{name}"))
            .filter(|path| self.has(&format!("{path}/Cargo.toml")))
            .collect();
        packages.sort();
        Ok(packages)
    }
}

/// The names in a folder, and whether each is a folder itself. Symbolic links are not followed.
fn entries(folder: &Path) -> Result<Vec<(String, bool)>> {
    let cannot_list = || format!("cannot list {}", folder.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(cannot_list)? {
        let entry = entry.with_context(cannot_list)?;
        let is_folder = entry.file_type().with_context(cannot_list)?.is_dir();
        found.push((entry.file_name().to_string_lossy().into_owned(), is_folder));
    }
    Ok(found)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A repository in a temporary folder, made of the files that a test needs.
    pub(crate) fn repository(files: &[(&str, &str)]) -> (tempfile::TempDir, Workspace) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        let workspace = Workspace::at(folder.path());
        (folder, workspace)
    }

    fn small_repository() -> (tempfile::TempDir, Workspace) {
        repository(&[
            ("Cargo.toml", "[workspace]\nmembers = [\"crates/*\", \"xtask\"]"),
            ("crates/tooz/Cargo.toml", "[features]\ndefault = [\"red\"]\nred = []\nblue = []"),
            ("crates/tooz-red/Cargo.toml", ""),
            ("crates/tooz-red/tests/conformance.rs", ""),
            ("crates/tooz-blue/Cargo.toml", ""),
            ("crates/tooz-blue/src/session.rs", ""),
            ("crates/tooz-core/Cargo.toml", ""),
            ("crates/tooz-core/src/session.rs", ""),
            ("crates/notes/README.md", ""),
            ("target/debug/built.rs", ""),
        ])
    }

    #[test]
    fn members_are_packages_only() {
        let (_folder, workspace) = small_repository();
        assert_eq!(
            workspace.members().unwrap(),
            ["crates/tooz", "crates/tooz-blue", "crates/tooz-core", "crates/tooz-red", "xtask"]
        );
    }

    #[test]
    fn a_conformance_suite_makes_a_backend() {
        let (_folder, workspace) = small_repository();
        assert_eq!(workspace.backends().unwrap(), ["red"]);
        assert_eq!(workspace.drivers().unwrap(), ["blue", "red"]);
    }

    #[test]
    fn the_default_is_not_a_feature_of_its_own() {
        let (_folder, workspace) = small_repository();
        assert_eq!(workspace.facade_features().unwrap(), ["blue", "red"]);
    }

    #[test]
    fn builds_are_not_files_of_the_repository() {
        let (_folder, workspace) = small_repository();
        let files = workspace.files().unwrap();
        assert!(files.contains(&"crates/notes/README.md".to_owned()));
        assert!(!files.iter().any(|file| file.starts_with("target/")));
    }
}
