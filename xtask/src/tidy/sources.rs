//! Every source file says first what it is, is of a size that can be read, and holds nothing unfinished. What is generated is
//! not meant to be read.

use std::ffi::OsStr;
use std::path::Path;

use anyhow::Result;

use super::Findings;
use crate::workspace::Workspace;

const FOLDERS: [&str; 3] = ["crates/", "tests/", "xtask/"];

/// Macros that mark what is not done. Clippy sees them only in code that is compiled on this platform.
const UNFINISHED: [&str; 3] = ["todo", "unimplemented", "dbg"];

const README: &str = "#![doc = include_str!(\"../README.md\")]";

const LONG: usize = 400;

/// Where a file is longer only if it is one of a few, which say why.
const CORE: &str = "crates/tooz-core/src/";
const LONG_IN_CORE: [&str; 1] = ["base/hashring.rs"];

/// What a generator writes in the first lines of a file. In core nothing is generated.
const GENERATED: &str = "@generated";

/// Languages other than Rust that sources are written in: the end of the file's name, and how a comment begins.
const OTHERS: [(&str, &str); 3] = [("lua", "--"), ("proto", "//"), ("sql", "--")];

pub(super) fn check(workspace: &Workspace, files: &[String], findings: &mut Findings) -> Result<()> {
    for file in files.iter().filter(|file| FOLDERS.iter().any(|folder| file.starts_with(folder))) {
        let Some(end) = Path::new(file).extension().and_then(OsStr::to_str) else {
            continue;
        };
        if end == "rs" {
            check_rust(file, &workspace.read(file)?, findings);
        } else if let Some((_, comment)) = OTHERS.iter().find(|(other, _)| *other == end) {
            check_other(file, comment, &workspace.read(file)?, findings);
        }
    }
    Ok(())
}

fn check_rust(file: &str, text: &str, findings: &mut Findings) {
    if !file.starts_with(CORE) && text.lines().take(3).any(|line| line.contains(GENERATED)) {
        return;
    }
    // The README of a crate is the `//!` of its root.
    let says =
        text.lines().next().and_then(|line| line.strip_prefix("//!")).is_some_and(|line| !line.trim().is_empty());
    if !says && !text.starts_with(README) {
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
    check_length(file, "//", text, findings);
}

fn check_other(file: &str, comment: &str, text: &str, findings: &mut Findings) {
    if !text.starts_with(comment) {
        findings.error(file, format!("the first line has to be a comment (`{comment} …`) that says what this file is"));
    }
    check_length(file, comment, text, findings);
}

fn check_length(file: &str, comment: &str, text: &str, findings: &mut Findings) {
    let length = text.lines().count();
    let reason = format!("{comment} Long because");
    if length <= LONG {
        return;
    }
    let has_reason = text.lines().any(|line| line.starts_with(&reason));
    let what = format!("has {length} lines; split it, or say why not in a line `{reason} …`");
    match file.strip_prefix(CORE) {
        Some(path) if !has_reason => findings.error(file, format!("{what}, and name `{path}` in xtask")),
        Some(path) if !LONG_IN_CORE.contains(&path) => {
            findings.error(file, format!("has {length} lines; split it, or name `{path}` in the list in xtask"));
        }
        None if !has_reason => findings.warning(file, what),
        _ => {}
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
        check_rust("a.rs", text, &mut findings);
        findings
    }

    #[test]
    fn a_file_says_first_what_it_is() {
        assert!(findings("//! A room.\n").errors.is_empty());
        assert_eq!(findings("\n//! A room.\n").errors.len(), 1);
        assert_eq!(findings("use a::b;\n").errors.len(), 1);
        assert_eq!(findings("//!\n//! A room.\n").errors.len(), 1);
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
        let reasoned = format!("{long}// Long because it is a table.\n");
        assert!(findings(&reasoned).warnings.is_empty());
    }

    #[test]
    fn a_long_file_of_core_is_an_error_unless_it_is_listed_and_says_why() {
        let found = |path: &str, reason: &str| {
            let mut findings = Findings::default();
            check_rust(&format!("{CORE}{path}"), &format!("//! A room.\n{}{reason}", "\n".repeat(LONG)), &mut findings);
            findings.errors.len()
        };
        let reason = "// Long because it is a table.\n";
        assert_eq!(found("engine/heart.rs", "// @generated"), 1);
        assert_eq!(found(LONG_IN_CORE[0], reason), 0);
        assert_eq!(
            (found(LONG_IN_CORE[0], ""), found("engine/heart.rs", reason), found("engine/heart.rs", "")),
            (1, 1, 1)
        );
    }

    #[test]
    fn what_is_generated_is_let_alone() {
        let generated = format!("// This file is @generated by somebody.\n{}", "\n".repeat(LONG));
        let found = findings(&generated);
        assert!(found.errors.is_empty() && found.warnings.is_empty());
    }

    #[test]
    fn scripts_say_first_what_they_are() {
        let found = |text: &str| {
            let mut findings = Findings::default();
            check_other("a.lua", "--", text, &mut findings);
            (findings.errors.len(), findings.warnings.len())
        };
        assert_eq!(found("-- Takes a lock.\nreturn 1\n"), (0, 0));
        assert_eq!(found("return 1\n"), (1, 0));
        assert_eq!(found(&format!("-- Takes a lock.\n{}", "\n".repeat(LONG))), (0, 1));
    }
}
