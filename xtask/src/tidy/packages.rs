//! Each package that is published says what it is, and has the licence and the page that go with it.

use anyhow::Result;

use super::Findings;
use crate::workspace::Workspace;

const LICENSE: &str = "LICENSE";

/// Where all that is published lies, and nothing else.
const PUBLISHED: &str = "crates/";

/// How many keywords a register takes.
const MOST_KEYWORDS: usize = 5;

/// What a register shows of a package.
const SHOWN: [&str; 4] = ["description", "keywords", "categories", "readme"];

pub(super) fn check(workspace: &Workspace, findings: &mut Findings) -> Result<()> {
    let root = workspace.manifest("Cargo.toml")?;
    let shared = root.get("workspace").and_then(|workspace| workspace.get("package")?.get("keywords")?.as_array());
    if shared.is_some_and(|words| words.len() > MOST_KEYWORDS) {
        findings.error("Cargo.toml", format!("has more than {MOST_KEYWORDS} keywords"));
    }
    for member in workspace.members()? {
        let file = format!("{member}/Cargo.toml");
        if !workspace.has(&file) {
            continue;
        }
        let manifest = workspace.manifest(&file)?;
        let package = manifest.get("package");
        let setting = |key: &str| package.and_then(|package| package.get(key));
        if setting("publish").and_then(toml::Value::as_bool) == Some(false) {
            if member.starts_with(PUBLISHED) {
                findings.error(&file, format!("`publish = false`, but all in {PUBLISHED} is published"));
            }
            continue;
        }
        for key in SHOWN.iter().filter(|key| setting(key).is_none_or(is_empty)) {
            findings.error(&file, format!("[package] needs `{key}`, since it is published"));
        }
        if setting("keywords").and_then(toml::Value::as_array).is_some_and(|words| words.len() > MOST_KEYWORDS) {
            findings.error(&file, format!("has more than {MOST_KEYWORDS} keywords"));
        }
        if setting("metadata").and_then(|metadata| metadata.get("docs")?.get("rs")).is_none_or(is_empty) {
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

/// Whether a setting says nothing, or no: `readme = false`, a description of one blank, a table without rows.
fn is_empty(value: &toml::Value) -> bool {
    match value {
        toml::Value::String(text) => text.trim().is_empty(),
        toml::Value::Array(list) => list.is_empty(),
        toml::Value::Table(table) => table.is_empty(),
        other => other.as_bool() == Some(false),
    }
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

    #[test]
    fn what_is_there_and_says_nothing_is_named() {
        for (one, other) in [
            ("description = \"A\"", "description = \" \""),
            ("readme = \"README.md\"", "readme = false"),
            ("keywords.workspace = true", "keywords = [\"a\", \"b\", \"c\", \"d\", \"e\", \"f\"]"),
            ("all-features = true", ""),
        ] {
            let found = errors(&WHOLE.replace(one, other), "may");
            assert_eq!(found.len(), 1, "{other}: {found:?}");
        }
    }

    #[test]
    fn what_lies_among_the_published_is_published() {
        let (_folder, workspace) = repository(&[
            (
                "Cargo.toml",
                "[workspace]\nmembers = [\"crates/*\"]\n[workspace.package]\nkeywords = [\"a\", \"b\", \"c\", \"d\", \"e\", \"f\"]",
            ),
            ("crates/tooz-red/Cargo.toml", "[package]\npublish = false"),
        ]);
        let mut findings = Findings::default();
        check(&workspace, &mut findings).unwrap();
        let found = findings.errors;
        assert!(found.len() == 2 && found[0].contains("keywords") && found[1].contains("publish"), "{found:?}");
    }
}
