//! The guide for authors of drivers shows the code of the example that is compiled and tested, word for word.

use anyhow::Result;

use super::Findings;
use super::fences::blocks;
use crate::workspace::Workspace;

const GUIDE: &str = "crates/tooz-core/src/driver/guide.md";
const EXAMPLE: [&str; 2] = ["tests/out-of-tree-driver/src/lib.rs", "tests/out-of-tree-driver/tests/conformance.rs"];

pub(super) fn check(workspace: &Workspace, findings: &mut Findings) -> Result<()> {
    if !workspace.has(GUIDE) {
        return Ok(());
    }
    let mut example = String::new();
    for file in EXAMPLE {
        example.push_str(&workspace.read(file)?);
    }
    let guide = workspace.read(GUIDE)?;
    for block in blocks(&guide).into_iter().filter(|block| block.info.contains("ignore")) {
        let block = block.lines.iter().map(|(_, line)| *line).collect::<Vec<_>>().join("\n");
        if !example.contains(&block) {
            let begin = block.lines().next().unwrap_or_default();
            findings.error(GUIDE, format!("the code that begins with `{begin}` is not that of {}", EXAMPLE[0]));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::tests::repository;

    #[test]
    fn code_that_the_example_does_not_have_is_found() {
        let guide = "# Guide\n\n```ignore\nfn a() {}\n```\n\n```ignore\nfn b() {}\n```\n";
        let (_folder, workspace) =
            repository(&[(GUIDE, guide), (EXAMPLE[0], "fn a() {}\n"), (EXAMPLE[1], "fn c() {}\n")]);
        let mut findings = Findings::default();
        check(&workspace, &mut findings).unwrap();
        assert!(findings.errors.len() == 1 && findings.errors[0].contains("fn b"), "{:?}", findings.errors);
    }

    #[test]
    fn code_is_compared_behind_every_fence_that_is_ignored() {
        for (begin, end) in [("```rust,ignore", "```"), ("~~~ignore", "~~~"), ("````ignore", "````")] {
            let guide = format!("{begin}\nfn b() {{}}\n{end}\n");
            let (_folder, workspace) = repository(&[(GUIDE, &guide), (EXAMPLE[0], ""), (EXAMPLE[1], "")]);
            let mut findings = Findings::default();
            check(&workspace, &mut findings).unwrap();
            assert_eq!(findings.errors.len(), 1, "{begin}");
        }
    }
}
