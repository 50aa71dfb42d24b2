//! Every driver can be found from the facade: a feature, a name in the crate, a row in the README.

use anyhow::Result;

use super::Findings;
use crate::workspace::Workspace;

const MANIFEST: &str = "crates/tooz/Cargo.toml";
const LIBRARY: &str = "crates/tooz/src/lib.rs";
const README: &str = "README.md";

pub(super) fn check(workspace: &Workspace, findings: &mut Findings) -> Result<()> {
    let missing: Vec<_> = [MANIFEST, LIBRARY, README].into_iter().filter(|file| !workspace.has(file)).collect();
    if !missing.is_empty() {
        for file in missing {
            findings.error(file, "is missing");
        }
        return Ok(());
    }
    let features = workspace.facade_features()?;
    let library = workspace.read(LIBRARY)?;
    let readme = workspace.read(README)?;
    for driver in workspace.drivers()? {
        if !features.contains(&driver) {
            findings.error(MANIFEST, format!("[features] needs `{driver}`"));
        }
        let import = format!("pub use tooz_{}", driver.replace('-', "_"));
        if !library.contains(&import) {
            findings.error(LIBRARY, format!("needs `{import} as …;` for its feature"));
        }
        let row = format!("| `{driver}`");
        if !readme.lines().any(|line| line.starts_with(&row)) {
            findings.error(README, format!("the table of drivers needs a row that begins with \"{row}\""));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::tests::repository;

    fn errors(manifest: &str, library: &str, readme: &str) -> Vec<String> {
        let (_folder, workspace) = repository(&[
            ("crates/tooz-red/Cargo.toml", ""),
            ("crates/tooz-red/src/session.rs", ""),
            (MANIFEST, manifest),
            (LIBRARY, library),
            (README, readme),
        ]);
        let mut findings = Findings::default();
        check(&workspace, &mut findings).unwrap();
        findings.errors
    }

    #[test]
    fn a_driver_that_is_everywhere_is_fine() {
        let manifest = "[features]\nred = [\"dep:tooz-red\"]";
        assert!(errors(manifest, "pub use tooz_red as red;", "| `red` | yes |").is_empty());
    }

    #[test]
    fn each_place_that_lacks_a_driver_is_named() {
        let found = errors("", "", "");
        assert_eq!(found.len(), 3);
        for (error, file) in found.iter().zip([MANIFEST, LIBRARY, README]) {
            assert!(error.starts_with(file), "{error}");
        }
    }
}
