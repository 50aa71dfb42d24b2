//! A type of core has its methods on its own floor: one that is defined on a floor above, in an `impl` there, could be called from below, and no path
//! would show it.
//!
//! Only what `impl Type { … }` makes visible beyond its folder is looked at. Whose method a call is, and what a trait's `impl` leads to, only the compiler knows.

use std::collections::BTreeMap;

use anyhow::Result;

use super::Findings;
use super::code::{code, end_of_brackets};
use super::floors::{CORE, FLOORS, height};
use super::graph::Sources;
use super::words::type_names;
use crate::workspace::Workspace;

/// What drivers say of an error is of the contract, and is offered on the error, where an author looks for it.
const ABOVE: [(&str, &str); 1] = [("driver::answers", "Error")];

pub(super) fn check(workspace: &Workspace, files: &[String], findings: &mut Findings) -> Result<()> {
    let sources = Sources::read(workspace, files, CORE)?;
    let texts: Vec<_> = sources.shipped().map(|(module, text)| (module, code(text))).collect();
    let mut homes: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (module, code) in &texts {
        for name in type_names(code) {
            homes.entry(name).or_default().push(module);
        }
    }
    for (module, code) in &texts {
        for (name, body) in inherent(code) {
            let is_below = homes.get(name).is_some_and(|homes| homes.iter().all(|home| height(home) < height(module)));
            if is_below && is_seen_elsewhere(body) && !ABOVE.contains(&(module, name)) {
                let what = format!(
                    "`{name}` is of a floor below: its methods have to be there, too (the floors are {FLOORS:?})"
                );
                findings.error(sources.file(module), what);
            }
        }
    }
    Ok(())
}

/// The type and the inside of each `impl` that is of no trait.
fn inherent(code: &str) -> Vec<(&str, &str)> {
    let all = code.match_indices("impl").filter(|(at, word)| {
        let before = code[..*at].trim_end();
        let is_item = before.is_empty() || before.ends_with([';', '}', '{', ']']) || before.ends_with("unsafe");
        is_item && code[at + word.len()..].starts_with(|one: char| one == '<' || one.is_whitespace())
    });
    let all = all.filter_map(|(at, word)| {
        let head = &code[at + word.len()..];
        let open = head.find('{')?;
        let inside = &head[open..open + end_of_brackets(&head[open..])];
        Some((without_parameters(&head[..open]), inside))
    });
    all.filter(|(head, _)| !head.contains(" for "))
        .filter_map(|(head, inside)| Some((type_name(head)?, inside)))
        .collect()
}

/// The head of an `impl` without the parameters before the type.
fn without_parameters(head: &str) -> &str {
    let mut depth = 0_usize;
    for (at, one) in head.char_indices() {
        match one {
            '<' => depth += 1,
            '>' if !head[..at].ends_with(['-', '=']) => depth = depth.saturating_sub(1),
            _ if depth == 0 && !one.is_whitespace() => return &head[at..],
            _ => {}
        }
    }
    head
}

fn type_name(head: &str) -> Option<&str> {
    let path = head.split(|one: char| one == '<' || one.is_whitespace()).find(|part| !part.is_empty())?;
    path.rsplit("::").next()
}

/// What is private, or of `super` alone, is seen on its own floor at most.
fn is_seen_elsewhere(body: &str) -> bool {
    body.match_indices("pub").any(|(at, word)| {
        let after = &body[at + word.len()..];
        let is_word = body[..at].ends_with(|one: char| one.is_whitespace() || one == '{');
        is_word && !after.starts_with("(super)") && after.starts_with(|one: char| one == '(' || one.is_whitespace())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::tests::repository;

    fn errors(above: &str) -> Vec<String> {
        let files = [
            (format!("{CORE}base/settings.rs"), "pub(crate) struct Settings<T>(T);"),
            (format!("{CORE}handles/connect.rs"), above),
        ];
        let borrowed: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
        let (_folder, workspace) = repository(&borrowed);
        let names: Vec<_> = files.iter().map(|(path, _)| path.clone()).collect();
        let mut findings = Findings::default();
        check(&workspace, &names, &mut findings).unwrap();
        findings.errors
    }

    #[test]
    fn a_method_for_a_type_of_a_floor_below_is_named() {
        for above in [
            "impl Settings { pub(crate) fn read() {} }",
            "impl<T: Into<Vec<u8>>> crate::base::settings::Settings<T> {\n    pub async fn read() {}\n}",
        ] {
            let found = errors(above);
            assert!(found.len() == 1 && found[0].contains("`Settings`"), "{above}: {found:?}");
        }
    }

    #[test]
    fn what_is_seen_nowhere_else_and_what_is_of_ones_own_is_fine() {
        for above in [
            "impl Settings { fn read() {} pub(super) fn again() {} }",
            "impl From<Own> for Settings { }",
            "pub struct Own; impl Own { pub fn read(&self) -> impl Settings { self.0.public() } }",
        ] {
            assert_eq!(errors(above), Vec::<String>::new(), "{above}");
        }
    }
}
