//! Every source file says first what it is, is of a size that can be read, and holds nothing unfinished.

use std::path::Path;

use anyhow::Result;

use super::Findings;
use crate::workspace::Workspace;

const FOLDERS: [&str; 3] = ["crates/", "tests/", "xtask/"];

/// Macros that mark what is not done. Clippy sees them only in code that is compiled on this platform.
const UNFINISHED: [&str; 3] = ["todo", "unimplemented", "dbg"];

const README: &str = "#![doc = include_str!(\"../README.md\")]";

const LONG: usize = 400;
const REASON: &str = "// Long because";

pub(super) fn check(workspace: &Workspace, files: &[String], findings: &mut Findings) -> Result<()> {
    for file in files {
        let is_rust = Path::new(file).extension().is_some_and(|end| end == "rs");
        if is_rust && FOLDERS.iter().any(|folder| file.starts_with(folder)) {
            check_file(file, &workspace.read(file)?, findings);
        }
    }
    Ok(())
}

fn check_file(file: &str, text: &str, findings: &mut Findings) {
    // The README of a crate is the `//!` of its root.
    if !text.starts_with("//!") && !text.starts_with(README) {
        findings.error(
            file,
            "the first line has to be a `//!` (in a crate's root, its README taken in) that says what this file is",
        );
    }
    for (index, line) in text.lines().enumerate() {
        for name in UNFINISHED {
            if calls(line, name) {
                findings.error(&format!("{file}:{}", index + 1), format!("{name}! may not stay"));
            }
        }
    }
    let length = text.lines().count();
    if length > LONG && !text.lines().any(|line| line.starts_with(REASON)) {
        findings.warning(file, format!("has {length} lines; split it, or say why not in a line `{REASON} …`"));
    }
}

/// Comments may: a hidden line of a documentation example stands for what every reader writes anew.
fn calls(line: &str, name: &str) -> bool {
    if line.trim_start().starts_with("//") {
        return false;
    }
    let call = format!("{name}!(");
    line.match_indices(&call)
        .any(|(at, _)| !line[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> Findings {
        let mut findings = Findings::default();
        check_file("a.rs", text, &mut findings);
        findings
    }

    #[test]
    fn a_file_says_first_what_it_is() {
        assert!(findings("//! A room.\n").errors.is_empty());
        assert_eq!(findings("\n//! A room.\n").errors.len(), 1);
        assert_eq!(findings("use a::b;\n").errors.len(), 1);
        assert!(findings(&format!("{README}\n")).errors.is_empty());
    }

    #[test]
    fn unfinished_code_is_an_error_with_its_line() {
        for name in UNFINISHED {
            let found = findings(&format!("//! A room.\nfn f() {{ {name}!() }}")).errors;
            assert_eq!(found.len(), 1);
            assert!(found[0].starts_with("a.rs:2: "));
        }
        assert!(!calls("not_a_todo!()", "todo"));
        let example = format!("/// # fn f() {{ {}!() }}", UNFINISHED[0]);
        assert!(!calls(&example, UNFINISHED[0]));
    }

    #[test]
    fn a_long_file_is_a_warning_unless_it_says_why() {
        let long = format!("//! A room.\n{}", "\n".repeat(LONG));
        let found = findings(&long);
        assert!(found.errors.is_empty());
        assert_eq!(found.warnings.len(), 1);
        let reasoned = format!("{long}{REASON} it is a table.\n");
        assert!(findings(&reasoned).warnings.is_empty());
    }
}
