//! The examples of a README are whole: it is read as it is written, where rustdoc's hidden lines (`# …`) are in sight.

use anyhow::Result;

use super::Findings;
use crate::workspace::Workspace;

/// What rustdoc takes for Rust, by the first word behind the fence.
const RUST: [&str; 6] = ["", "compile_fail", "ignore", "no_run", "rust", "should_panic"];

pub(super) fn check(workspace: &Workspace, files: &[String], findings: &mut Findings) -> Result<()> {
    for file in files.iter().filter(|file| file.rsplit('/').next() == Some("README.md")) {
        for line in hidden_lines(&workspace.read(file)?) {
            findings.error(
                &format!("{file}:{line}"),
                "a line that rustdoc hides is in sight here: write the whole example",
            );
        }
    }
    Ok(())
}

/// Their numbers.
fn hidden_lines(text: &str) -> Vec<usize> {
    let (mut hidden, mut fence) = (Vec::new(), None);
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        match (line.strip_prefix("```"), fence) {
            (Some(kind), None) => {
                let kind = kind.split(',').next().unwrap_or_default().trim();
                fence = Some(RUST.contains(&kind) || kind.starts_with("edition"));
            }
            (Some(_), Some(_)) => fence = None,
            (None, Some(true)) if line == "#" || line.starts_with("# ") => hidden.push(index + 1),
            _ => {}
        }
    }
    hidden
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::tests::repository;

    #[test]
    fn hidden_lines_are_those_of_rust_alone() {
        assert_eq!(hidden_lines("# Title\n```\n# use a;\n#[b]\n#\n```\n# More\n```no_run\n# c\n```"), [3, 5, 9]);
        assert_eq!(hidden_lines("```sh\n# a comment\n```\n```text\n# b\n```"), Vec::<usize>::new());
    }

    #[test]
    fn each_is_named_with_its_line() {
        let files = [("crates/tooz-red/README.md", "```rust\n# a\n```"), ("crates/notes.md", "```\n# a\n```")];
        let (_folder, workspace) = repository(&files);
        let mut findings = Findings::default();
        check(&workspace, &files.map(|(name, _)| name.to_owned()), &mut findings).unwrap();
        let found = findings.errors;
        assert!(found.len() == 1 && found[0].starts_with("crates/tooz-red/README.md:2: "), "{found:?}");
    }
}
