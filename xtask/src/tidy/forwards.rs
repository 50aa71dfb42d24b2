//! What a session answers stands where it is answered: the `session.rs` files hand on hardly anything under the same name.
//!
//! A forward is a function whose whole body is one call of a function or method that has its own name: what is awaited, asked with `?` or put into
//! `Ok(…)` is one, too. A body that calls anything besides, to find what to ask or to judge the answer, says something.

use anyhow::Result;

use super::Findings;
use super::code::{code, end_of_brackets};
use crate::workspace::Workspace;

/// How many there may be in all drivers together.
const MOST: usize = 5;

pub(super) fn check(workspace: &Workspace, findings: &mut Findings) -> Result<()> {
    let mut all = Vec::new();
    for driver in workspace.drivers()? {
        let file = format!("crates/tooz-{driver}/src/session.rs");
        if workspace.has(&file) {
            let code = code(&workspace.read(&file)?);
            all.extend(forwards(&code).into_iter().map(|name| format!("{driver}: {name}")));
        }
    }
    if all.len() > MOST {
        let what = format!(
            "{} functions only hand on to one of their own name, at most {MOST} may: {}",
            all.len(),
            all.join(", ")
        );
        findings.error("crates/*/src/session.rs", what);
    }
    Ok(())
}

fn forwards(code: &str) -> Vec<&str> {
    let functions = code.match_indices("fn ").filter(|(at, _)| code[..*at].ends_with(char::is_whitespace));
    let heads = functions.filter_map(|(at, word)| {
        let head = &code[at + word.len()..];
        let name = &head[..head.find(|one: char| !(one.is_alphanumeric() || one == '_'))?];
        let open = head.find('{').filter(|open| !head[..*open].contains(';'))?;
        let length = end_of_brackets(&head[open..]);
        Some((name, &head[open + 1..open + length - 1]))
    });
    heads.filter(|(name, body)| is_call_of(name, body)).map(|(name, _)| name).collect()
}

fn is_call_of(name: &str, body: &str) -> bool {
    let mut call: String = body.chars().filter(|one| !one.is_whitespace()).collect();
    loop {
        let shorter = [";", "?", ".await"].iter().find_map(|end| call.strip_suffix(end));
        let inside =
            || call.strip_prefix("Ok(").filter(|rest| end_of_brackets(&call[2..]) == rest.len() + 1)?.strip_suffix(')');
        match shorter.or_else(inside) {
            Some(rest) => call = rest.to_owned(),
            None => break,
        }
    }
    let Some(open) = call.find('(') else { return false };
    let is_whole = end_of_brackets(&call[open..]) == call.len() - open;
    let before = call[..open].strip_suffix(name);
    is_whole && before.is_some_and(|path| path.ends_with('.') || path.ends_with("::"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::tests::repository;

    #[test]
    fn a_forward_is_one_call_of_the_same_name() {
        let forwarding = "impl S {\n  async fn lock(&self, r: &R) -> Result<()> {\n    lock::lock(self, r).await\n  }\n  \
            fn a(&self) -> Result<u8> { Ok(self.x.a()?) }\n fn b() { self.x.y.b(); } }";
        assert_eq!(forwards(forwarding), ["lock", "a", "b"]);
        let saying = "trait T { fn a(&self); } impl S { fn a(&self) -> Result<u8> { Ok(self.opened()?.a()) }\n\
            fn b(&self) { self.x.c() } fn c(&self) { self.c().d() } fn e(&self) -> u8 { self.e() + 1 } }";
        assert_eq!(forwards(saying), Vec::<&str>::new());
    }

    #[test]
    fn five_are_borne_and_six_are_not() {
        let found = |count: usize| {
            let text = " fn a(&self) { self.x.a() }".repeat(count);
            let (_folder, workspace) =
                repository(&[("crates/tooz-red/Cargo.toml", ""), ("crates/tooz-red/src/session.rs", &text)]);
            let mut findings = Findings::default();
            check(&workspace, &mut findings).unwrap();
            findings.errors.len()
        };
        assert_eq!((found(MOST), found(MOST + 1)), (0, 1));
    }
}
