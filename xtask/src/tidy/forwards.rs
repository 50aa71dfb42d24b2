//! What a session answers stands where it is answered: the `session.rs` files hand on hardly anything under the same name.
//!
//! A forward is a function whose whole body is one call of another function or method, found by fields and by accessors without arguments, that has its
//! own name or is given nothing but its own parameters. What is awaited, asked with `?`, put into `Ok(…)` or into an error of ours is one, too. A body
//! that calls anything besides, to find what to ask or to judge the answer, says something; so does one that calls a method of its own type.

use anyhow::Result;

use super::Findings;
use super::code::{at_commas, code, end_of_brackets};
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
        let what = format!("{} functions only hand on, at most {MOST} may: {}", all.len(), all.join(", "));
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
        Some((name, parameters(&head[..open]), &head[open + 1..open + length - 1]))
    });
    heads.filter(|(name, parameters, body)| hands_on(name, parameters, body)).map(|(name, ..)| name).collect()
}

/// The names of the parameters in the head of a function.
fn parameters(head: &str) -> Vec<&str> {
    let Some(open) = head.find('(') else { return Vec::new() };
    let inside = &head[open + 1..open + end_of_brackets(&head[open..]) - 1];
    let names = at_commas(inside).into_iter().map(|part| part.split(':').next().unwrap_or_default());
    names.map(|name| name.trim().trim_start_matches("mut ").trim_start_matches('&')).collect()
}

fn hands_on(name: &str, parameters: &[&str], body: &str) -> bool {
    let call = the_call(body);
    let Some(open) = begin_of_arguments(&call) else { return false };
    let (path, arguments) = (&call[..open], &call[open..]);
    // An accessor is a step of the path; a question mark or an argument on the way is not.
    let steps = path.replace("()", "");
    let is_path = steps.chars().all(|one| one.is_alphanumeric() || matches!(one, '_' | '.' | ':'));
    let callee = path.rsplit(['.', ':']).next().unwrap_or_default();
    if !is_path || callee.len() == path.len() {
        return false;
    }
    let is_own = ["self.", "Self::"].iter().any(|own| path.strip_prefix(own) == Some(callee));
    let mut given = at_commas(&arguments[1..arguments.len() - 1]).into_iter().filter(|argument| !argument.is_empty());
    let is_given_on = given.all(|argument| parameters.contains(&argument.trim_start_matches('&')));
    // A copy of what is there is an answer.
    callee == name || (!is_own && is_given_on && callee != "clone")
}

/// A body without what only passes the answer of its one call on.
fn the_call(body: &str) -> String {
    let mut call: String = body.chars().filter(|one| !one.is_whitespace()).collect();
    loop {
        let shorter = [";", "?", ".await", ".map_err(Into::into)"].iter().find_map(|end| call.strip_suffix(end));
        let inside =
            || call.strip_prefix("Ok(").filter(|rest| end_of_brackets(&call[2..]) == rest.len() + 1)?.strip_suffix(')');
        match shorter.or_else(inside) {
            Some(rest) => call = rest.to_owned(),
            None => return call,
        }
    }
}

/// Where the pair of brackets is opened with which the call ends.
fn begin_of_arguments(call: &str) -> Option<usize> {
    let mut all = call.match_indices('(').map(|(at, _)| at);
    all.find(|at| at + end_of_brackets(&call[*at..]) == call.len())
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
            fn b(&self) { self.c() } fn c(&self) { self.x.clone() } fn d(&self) { self.x.f(self.y.g()) } fn h() { i(1) } fn e(&self) -> u8 { self.e() + 1 } }";
        assert_eq!(forwards(saying), Vec::<&str>::new());
    }

    #[test]
    fn a_detour_and_another_name_make_no_answer() {
        for body in [
            "self.inner().f()",
            "self.0.f().map_err(Into::into)",
            "self.0.do_f()",
            "return self.inner.read().do_f(&a).await;",
            "lock::take(self, a)?",
        ] {
            assert_eq!(forwards(&format!("impl S {{ fn f(&self, a: &str) -> u8 {{ {body} }} }}")), ["f"], "{body}");
        }
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
