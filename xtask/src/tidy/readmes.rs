//! The examples of a README are whole: it is read as it is written, where rustdoc's hidden lines (`# …`) are in sight.

use anyhow::Result;

use super::Findings;
use super::fences::blocks;
use crate::workspace::Workspace;

/// Languages in which such a line is something else. What says nothing of its language, or another word, may be Rust to rustdoc.
const OTHERS: [&str; 6] = ["console", "hcl", "sh", "sql", "text", "toml"];

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
    let blocks = blocks(text).into_iter().filter(|block| {
        let mut words =
            block.info.split(|one: char| !(one.is_alphanumeric() || one == '_')).filter(|word| !word.is_empty());
        !words.next().is_some_and(|word| OTHERS.contains(&word))
    });
    let lines =
        blocks.flat_map(|block| block.lines).map(|(number, line)| (number, line.trim_matches([' ', '\t', '>'])));
    lines.filter(|(_, line)| *line == "#" || line.starts_with("# ")).map(|(number, _)| number).collect()
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
    fn a_hidden_line_is_found_behind_any_fence_and_any_word() {
        for (begin, end) in [
            ("~~~", "~~~"),
            ("````rust", "````"),
            ("```rust no_run", "```"),
            ("```{.rust}", "```"),
            ("```standalone_crate", "```"),
            ("```test_harness", "```"),
            ("  ```rust,edition2024", "  ```"),
        ] {
            assert_eq!(hidden_lines(&format!("{begin}\n# use a;\nfn main() {{}}\n{end}\n# Title")), [2], "{begin}");
        }
        assert_eq!(hidden_lines("\n    # use a;\n    fn main() {}"), [2]);
        assert_eq!(hidden_lines("> ```\n> # use a;\n> fn main() {}\n> ```\n> # Title"), [2]);
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
