//! The top level of the repository, the change log, and paths of one's own machine.

use anyhow::Result;

use super::Findings;
use crate::workspace::Workspace;

/// All that may lie at the top, beside names with a dot: a newcomer reads it in one glance.
const TOP_LEVEL: [&str; 9] =
    ["CHANGELOG.md", "Cargo.lock", "Cargo.toml", "LICENSE", "README.md", "crates", "deny.toml", "tests", "xtask"];

/// Top folders that exist on one machine and mean nothing on another.
const PRIVATE: [&str; 3] = ["home", "root", "work"];

pub(super) fn check(workspace: &Workspace, files: &[String], findings: &mut Findings) -> Result<()> {
    let mut seen = Vec::new();
    for file in files {
        let top = file.split('/').next().unwrap_or(file);
        if !seen.contains(&top) {
            seen.push(top);
            if !top.starts_with('.') && !TOP_LEVEL.contains(&top) {
                findings.error(top, format!("the top level holds only {TOP_LEVEL:?}"));
            }
        }
        // What is not text has no paths that anybody reads.
        if let Ok(text) = workspace.read(file) {
            check_paths(file, &text, findings);
        }
    }
    check_change_log(workspace, findings)
}

fn check_change_log(workspace: &Workspace, findings: &mut Findings) -> Result<()> {
    let file = "CHANGELOG.md";
    if !workspace.has(file) {
        findings.error(file, "is missing; users read there what changed for them");
        return Ok(());
    }
    let text = workspace.read(file)?;
    let manifest = workspace.manifest("Cargo.toml")?;
    let version = manifest
        .get("workspace")
        .and_then(|workspace| workspace.get("package")?.get("version")?.as_str())
        .unwrap_or_default();
    let wanted = ["## [Unreleased]".to_owned(), format!("## [{version}]")];
    if !text.lines().any(|line| wanted.iter().any(|heading| line.starts_with(heading))) {
        findings.error(file, format!("needs a section `{}` or `{}`", wanted[0], wanted[1]));
    }
    Ok(())
}

fn check_paths(file: &str, text: &str, findings: &mut Findings) {
    let is_page = has_extension(file, "md");
    for (index, line) in text.lines().enumerate() {
        let is_documentation = is_page || line.trim_start().starts_with("//");
        for top in PRIVATE {
            // An example in the documentation may well show somebody's home.
            if (top == "home" && is_documentation) || !names_folder(line, top) {
                continue;
            }
            let place = format!("{file}:{}", index + 1);
            findings.error(&place, format!("/{top}/… is a path of one machine; use a relative or temporary one"));
        }
    }
}

/// Whether an absolute path below this top folder is in the line, and not just a folder of that name deeper down.
fn names_folder(line: &str, top: &str) -> bool {
    let path = format!("/{top}/");
    line.match_indices(&path).any(|(at, _)| {
        let is_start = !line[..at].ends_with(|before: char| {
            before.is_alphanumeric() || matches!(before, '_' | '-' | '.' | '}' | ')' | '>' | '~')
        });
        let goes_on = line[at + path.len()..].starts_with(|after: char| after.is_alphanumeric());
        is_start && goes_on
    })
}

fn has_extension(file: &str, extension: &str) -> bool {
    std::path::Path::new(file).extension().is_some_and(|found| found == extension)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::tests::repository;

    fn errors(files: &[(&str, &str)]) -> Vec<String> {
        let (_folder, workspace) = repository(files);
        let mut findings = Findings::default();
        check(&workspace, &workspace.files().unwrap(), &mut findings).unwrap();
        findings.errors
    }

    const MANIFEST: (&str, &str) = ("Cargo.toml", "[workspace.package]\nversion = \"0.3.0\"");
    const LOG: (&str, &str) = ("CHANGELOG.md", "# Changes\n\n## [Unreleased]\n");

    #[test]
    fn a_good_repository_has_no_errors() {
        let files = [MANIFEST, LOG, (".ci/run", ""), ("crates/a/b.rs", "")];
        assert!(errors(&files).is_empty());
    }

    #[test]
    fn an_unknown_name_at_the_top_is_an_error() {
        let found = errors(&[MANIFEST, LOG, ("scripts/one", ""), ("scripts/two", "")]);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("scripts: "));
    }

    #[test]
    fn the_change_log_needs_this_version_or_what_is_unreleased() {
        assert_eq!(errors(&[MANIFEST]).len(), 1);
        assert_eq!(errors(&[MANIFEST, ("CHANGELOG.md", "## [0.2.0]")]).len(), 1);
        assert!(errors(&[MANIFEST, ("CHANGELOG.md", "## [0.3.0] - 2026")]).is_empty());
    }

    #[test]
    fn a_path_of_one_machine_is_an_error_with_its_line() {
        let code = format!("\nopen(\"/{}/secret\")", "root");
        let found = errors(&[MANIFEST, LOG, ("crates/a.rs", &code)]);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("crates/a.rs:2: "), "{found:?}");
    }

    #[test]
    fn an_example_and_a_deeper_folder_are_no_paths_of_one_machine() {
        assert!(!names_folder("see docs/root/index", "root"));
        assert!(!names_folder("{base}/work/item", "work"));
        let page = format!("put it into /{}/alice/locks", "home");
        assert!(errors(&[MANIFEST, LOG, ("README.md", &page)]).is_empty());
    }
}
