//! Each package that is published says what it is, and has the licence and the page that go with it.

use anyhow::Result;

use super::Findings;
use crate::workspace::Workspace;

const LICENSE: &str = "LICENSE";

/// What a register shows of a package.
const SHOWN: [&str; 4] = ["description", "keywords", "categories", "readme"];

pub(super) fn check(workspace: &Workspace, findings: &mut Findings) -> Result<()> {
    for member in workspace.members()? {
        let file = format!("{member}/Cargo.toml");
        if !workspace.has(&file) {
            continue;
        }
        let manifest = workspace.manifest(&file)?;
        let package = manifest.get("package");
        let setting = |key: &str| package.and_then(|package| package.get(key));
        if setting("publish").and_then(toml::Value::as_bool) == Some(false) {
            continue;
        }
        for key in SHOWN.iter().filter(|key| setting(key).is_none_or(is_empty)) {
            findings.error(&file, format!("[package] needs `{key}`, since it is published"));
        }
        if setting("metadata").and_then(|metadata| metadata.get("docs")?.get("rs")).is_none() {
            findings
                .error(&file, "needs `[package.metadata.docs.rs]`, which says with which features its pages are made");
        }
        if let Some(readme) = setting("readme").and_then(toml::Value::as_str)
            && !workspace.has(&format!("{member}/{readme}"))
        {
            findings.error(&format!("{member}/{readme}"), "is missing, which the manifest names");
        }
        let license = format!("{member}/{LICENSE}");
        if !workspace.has(&license) || workspace.read(&license)? != workspace.read(LICENSE)? {
            findings.error(&license, "has to be the licence at the top: make it a link to that");
        }
    }
    Ok(())
}

fn is_empty(value: &toml::Value) -> bool {
    value.as_str().is_some_and(str::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::tests::repository;

    const WHOLE: &str = "[package]\ndescription = \"A\"\nkeywords.workspace = true\ncategories = [\"b\"]\nreadme = \"README.md\"\n\
                         [package.metadata.docs.rs]\nall-features = true";

    fn errors(manifest: &str, license: &str) -> Vec<String> {
        let (_folder, workspace) = repository(&[
            ("Cargo.toml", "[workspace]\nmembers = [\"one\"]"),
            (LICENSE, "may"),
            ("one/Cargo.toml", manifest),
            ("one/LICENSE", license),
            ("one/README.md", ""),
        ]);
        let mut findings = Findings::default();
        check(&workspace, &mut findings).unwrap();
        findings.errors
    }

    #[test]
    fn a_package_with_all_and_one_that_is_not_published_are_fine() {
        assert_eq!(errors(WHOLE, "may"), Vec::<String>::new());
        assert_eq!(errors("[package]\npublish = false", ""), Vec::<String>::new());
    }

    #[test]
    fn each_thing_that_a_package_lacks_is_named() {
        for key in SHOWN {
            let lines: Vec<_> = WHOLE.lines().filter(|line| !line.starts_with(key)).collect();
            let found = errors(&lines.join("\n"), "may");
            assert!(found.len() == 1 && found[0].contains(key), "{found:?}");
        }
        let found = errors(WHOLE.split("[package.metadata").next().unwrap(), "may");
        assert!(found.len() == 1 && found[0].contains("docs.rs"), "{found:?}");
        let found = errors(&WHOLE.replace("README", "ABOUT"), "may not");
        assert!(found.len() == 2 && found[0].contains("ABOUT") && found[1].contains(LICENSE), "{found:?}");
    }
}
