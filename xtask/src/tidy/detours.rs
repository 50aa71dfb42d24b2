//! What would hide an arrow between two files from the graph: a name that a third file offers again, a text that is taken in from elsewhere, another
//! name for the root.

use anyhow::Result;

use super::Findings;
use super::code::code;
use super::graph::{Sources, is_root};

/// Sources that a generator makes, and the modules that take them in.
const TAKEN_IN: [&str; 1] = ["crates/tooz-etcd/src/proto/mod.rs"];

/// Names that belong to what is defined beside them, though they come from the standard library by another file.
const OFFERED_AGAIN: [(&str, &str); 1] = [("crates/tooz-core/src/base/mutex.rs", "base::sync::MutexGuard")];

pub(super) fn check(
    sources: &Sources,
    arrows: &[(&str, Vec<Result<String, String>>)],
    is_face: impl Fn(&str) -> bool,
    findings: &mut Findings,
) {
    for (module, text) in sources.shipped() {
        let (file, code) = (sources.file(module), code(text));
        if has_call(&code, "include") && !TAKEN_IN.contains(&file) {
            findings.error(file, "takes in a text with `include!`, whose imports nothing sees: make it a module");
        }
        if code.contains("extern crate self") {
            findings.error(file, "gives the root another name: say `crate`");
        }
        if is_root(module) || is_face(module) {
            continue;
        }
        for path in sources.offered_again(module, text) {
            if !OFFERED_AGAIN.contains(&(file, path.as_str())) {
                findings.error(file, format!("offers `crate::{path}` again: let others name the file that defines it"));
            }
        }
    }
    for (module, targets) in arrows {
        if targets.iter().any(|target| matches!(target, Err(import) if import.is_empty() || import == "*")) {
            findings
                .error(sources.file(module), "imports the root as a whole: name the file that defines what is used");
        }
    }
}

fn has_call(code: &str, name: &str) -> bool {
    let call = format!("{name}!");
    code.match_indices(&call).any(|(at, _)| !code[..at].ends_with(|one: char| one.is_alphanumeric() || one == '_'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::tests::repository;

    fn errors(files: &[(&str, &str)]) -> Vec<String> {
        let (_folder, workspace) = repository(files);
        let names: Vec<_> = files.iter().map(|(name, _)| (*name).to_owned()).collect();
        let sources = Sources::read(&workspace, &names, "red/src/").unwrap();
        let mut findings = Findings::default();
        check(&sources, &sources.arrows(|module| module == "face"), |module| module == "face", &mut findings);
        findings.errors
    }

    #[test]
    fn a_text_that_is_taken_in_is_named() {
        let found = errors(&[("red/src/a.rs", "include!(\"../b.rs\");"), ("red/src/b.rs", "include_str!(\"c\");")]);
        assert!(found.len() == 1 && found[0].contains("include!"), "{found:?}");
    }

    #[test]
    fn another_name_for_the_root_is_named() {
        for text in [
            "extern crate self as me;",
            "use super as all;",
            "use crate as all;",
            "use {crate::{self as all}};",
            "use super::*;",
        ] {
            let found = errors(&[("red/src/a.rs", text)]);
            assert!(found.len() == 1 && found[0].contains("root"), "{text}: {found:?}");
        }
    }

    #[test]
    fn a_name_that_a_third_file_offers_is_named() {
        let found = |text: &str| errors(&[("red/src/a.rs", text), ("red/src/a/b.rs", ""), ("red/src/c.rs", "")]);
        for text in ["pub(crate) use crate::c::C;", "pub use super::c::{C, D as E};", "pub(super) use {crate::c::C};"] {
            assert!(found(text).iter().any(|error| error.contains("again")), "{text}");
        }
        for text in
            ["use crate::c::C;", "pub use b::B;", "pub(crate) use self::b::B;", "pub(crate) use crate::a::b::B;"]
        {
            assert_eq!(found(text), Vec::<String>::new(), "{text}");
        }
        let roots = errors(&[
            ("red/src/lib.rs", "pub use crate::c::C;"),
            ("red/src/face.rs", "pub use crate::c::C;"),
            ("red/src/c.rs", ""),
        ]);
        assert_eq!(roots, Vec::<String>::new());
    }
}
