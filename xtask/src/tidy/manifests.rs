//! Every member takes edition, minimum version, licence and lints from the workspace.

use anyhow::Result;

use super::Findings;
use crate::workspace::Workspace;

const INHERITED: [&str; 3] = ["edition", "rust-version", "license"];

pub(super) fn check(workspace: &Workspace, findings: &mut Findings) -> Result<()> {
    for member in workspace.members()? {
        let file = format!("{member}/Cargo.toml");
        if !workspace.has(&file) {
            findings.error(&file, "is missing, but a member of the workspace");
            continue;
        }
        let manifest = workspace.manifest(&file)?;
        let package = manifest.get("package");
        for key in INHERITED {
            if !is_inherited(package.and_then(|package| package.get(key))) {
                findings.error(&file, format!("[package] needs `{key}.workspace = true`"));
            }
        }
        if !is_inherited(manifest.get("lints")) {
            findings.error(&file, "needs `[lints]` with `workspace = true`");
        }
    }
    Ok(())
}

fn is_inherited(value: Option<&toml::Value>) -> bool {
    value.and_then(|value| value.get("workspace")?.as_bool()).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::tests::repository;

    fn errors(manifest: &str) -> Vec<String> {
        let (_folder, workspace) =
            repository(&[("Cargo.toml", "[workspace]\nmembers = [\"one\"]"), ("one/Cargo.toml", manifest)]);
        let mut findings = Findings::default();
        check(&workspace, &mut findings).unwrap();
        findings.errors
    }

    #[test]
    fn a_member_that_inherits_all_is_fine() {
        let found = errors(
            "[package]\nedition.workspace = true\nrust-version = { workspace = true }\n\
             license.workspace = true\n[lints]\nworkspace = true",
        );
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn each_setting_of_its_own_is_named() {
        let found = errors("[package]\nedition = \"2024\"\nrust-version.workspace = true");
        assert_eq!(found.len(), 3);
        assert!(found[0].contains("edition"));
        assert!(found[1].contains("license"));
        assert!(found[2].contains("lints"));
    }
}
