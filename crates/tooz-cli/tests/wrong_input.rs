//! Each wrong input: exit code 64, and words that say what was wrong and what would be right.

mod shared;

use shared::{Bench, Done};

fn refused<'a>(bench: &Bench, words: impl IntoIterator<Item = &'a str>, hints: &[&str]) -> Done {
    let words: Vec<_> = words.into_iter().collect();
    let done = bench.run(words.iter().copied());
    assert_eq!(done.code, Some(64), "{words:?} {done:?}");
    assert_eq!(done.out, "", "{words:?}");
    for hint in hints {
        assert!(done.err.contains(hint), "{words:?} lacks {hint:?}: {}", done.err);
    }
    assert!(!done.err.contains("panick") && !done.err.contains("backtrace"), "{done:?}");
    done
}

#[test]
fn usage_is_checked() {
    let bench = Bench::new();
    refused(&bench, [], &["Usage"]);
    refused(&bench, ["lokc"], &["lock"]);
    refused(&bench, ["lock", "x"], &["CMD"]);
    refused(&bench, ["lock", "x", "true"], &["--"]);
    refused(&bench, ["lock", "--", "true"], &["NAME"]);
    refused(&bench, ["lock", "-x", "--", "true"], &["-x"]);
    refused(&bench, ["lock", "x", "--name=y", "--", "true"], &["--name"]);
    refused(&bench, ["lock", "x", "--wait", "1s", "--no-wait", "--", "true"], &["--no-wait"]);
    refused(&bench, ["lock", "x", "--conflict-exit-code", "256", "--", "true"], &["256"]);
    refused(&bench, ["partition", "g"], &["GROUP KEY"]);
    refused(&bench, ["ring", "k"], &["--node"]);
    refused(&bench, ["group", "make", "g"], &["make", "Usage"]);
    refused(&bench, ["completions", "csh"], &["bash"]);
    refused(&bench, ["__exec"], &["itself"]);
    refused(&bench, ["__guard", "x"], &["itself"]);
    // What is in a variable, as TOOZ_URL is here, need not be typed.
    for words in [&["holders"][..], &["lokc"], &["group", "make", "g"], &["groups", "--bogus"], &["ring", "k"]] {
        let done = refused(&bench, words.iter().copied(), &["Usage: tooz"]);
        assert!(!done.err.contains("--url"), "{words:?} {done:?}");
    }
}

#[test]
fn urls_are_checked() {
    let bench = Bench::new();
    let unknown = refused(&bench, ["--url", "fiel:///x", "groups"], &["fiel", "file", "memory"]);
    assert!(!unknown.err.contains("tooz_fiel") && !unknown.err.contains("features fiel"), "{unknown:?}");
    if !cfg!(feature = "redis") {
        refused(&bench, ["--url", "rediss://h", "groups"], &["cargo install --path crates/tooz-cli --features redis"]);
    }
    refused(&bench, ["--url", "nothing", "groups"], &["scheme"]);
    refused(&bench, ["--url", "", "groups"], &["scheme"]);
    refused(&bench, ["--url", "file:x", "groups"], &["absolute"]);
    refused(&bench, ["--url", &format!("{}?nmespace=x", bench.url()), "groups"], &["nmespace", "namespace"]);
    refused(&bench, ["--url", &format!("{}?session_timeout=soon", bench.url()), "groups"], &["500ms"]);
    let hints = ["session_timeout=1ms is too short", "100ms"];
    refused(&bench, ["--url", "memory://m?session_timeout=1ms", "lock", "x", "--", "true"], &hints);
    if cfg!(feature = "redis") {
        refused(&bench, ["--url", "redis://127.0.0.1:1?session_timeout=1ms", "groups"], &hints);
    }
}

#[test]
fn a_password_file_is_for_who_logs_in() {
    let bench = Bench::new();
    let none = "takes no credentials";
    for url in ["file:", "memory:"] {
        refused(&bench, ["--url", url, "--password-file", "/x", "groups"], &[none, "password_file"]);
        refused(&bench, ["--url", url, "groups", "--password-file=y"], &[none]);
        let done = Done::from(bench.tooz(["--url", url, "groups"]).env("TOOZ_PASSWORD_FILE", "/x").output().unwrap());
        assert!(done.code == Some(64) && done.err.contains(none), "{done:?}");
    }
    refused(&bench, ["--password-file", "", "groups"], &["--password-file"]);
    // A command that connects to no backend needs none.
    let done = Done::from(bench.tooz(["ring", "--node", "a", "k"]).env("TOOZ_PASSWORD_FILE", "/x").output().unwrap());
    assert_eq!(done.code, Some(0), "{done:?}");
}

#[test]
fn no_password_is_repeated_wherever_it_was_given() {
    let bench = Bench::new();
    for words in [
        ["--url", "redis://u:a@b/hunter2@h", "groups"],
        ["--url", "redis:/:hunter2@h", "groups"],
        ["--url", "redis://user:hunter2", "groups"],
        ["--url", "etcd://u:hunter2@h1,u2:hunter2@h2", "groups"],
        ["--url", "redis://u:hunter2%0d%0aDEL%20k@h", "groups"],
        ["--url", "redis://h?token=hunter2&hunter2", "groups"],
        ["redis://u:hunter2@h", "groups", "x"],
        ["--ulr=redis://u:hunter2@h", "groups", "x"],
        ["lock", "redis://u:hunter2@h", "groups"],
        ["groups", "redis://u:hunter2@h", "x"],
        ["lock", "x", "--wait=redis://u:hunter2@h"],
        ["groups", "--password-file", "hunter2"],
    ] {
        let done = refused(&bench, words, &[]);
        assert!(!done.err.contains("hunter2") || words[1] == "--password-file", "{words:?}: {done:?}");
    }
}

#[test]
fn durations_and_numbers_are_checked() {
    let bench = Bench::new();
    refused(&bench, ["lock", "x", "--wait", "soon", "--", "true"], &["soon", "500ms"]);
    refused(&bench, ["lock", "x", "--kill-after", "3", "--", "true"], &["500ms"]);
    refused(&bench, ["--url", "memory://m", "lock", "x", "--kill-after", "9s", "--", "true"], &["more than 5s", "10s"]);
    refused(&bench, ["ring", "--node", "a=many", "k"], &["many", "NAME=WEIGHT"]);
    refused(&bench, ["ring", "--node", "a", "--node", "a=2", "k"], &["twice"]);
    refused(&bench, ["ring", "--node", "a", "--points", "0", "k"], &["--points"]);
    refused(&bench, ["join", "g", "--capabilities", "{weight:1}", "--", "true"], &["JSON"]);
    for weight in ["\"heavy\"", "-1", "1.5", "null"] {
        let capabilities = format!("{{\"weight\": {weight}}}");
        refused(
            &bench,
            ["join", "g", "--capabilities", &capabilities, "--", "true"],
            &[weight, "whole number", "{\"weight\": 2}"],
        );
    }
    refused(&bench, ["lock", "x", "--events-fd", "99", "--", "true"], &["99", "--events-fd 3 3>"]);
    refused(&bench, ["lock", "x", "--events-fd", "0", "--", "true"], &["--events-fd"]);
    refused(&bench, ["lock", "x", "-c", "true", "--", "true"], &["-c"]);
    refused(&bench, ["lock", "x", "-w", "-1", "--", "true"], &["-1"]);
    refused(&bench, ["groups", "-q", "-v", "--bogus"], &["--bogus"]);
    let done = Done::from(bench.tooz(["groups"]).env("RUST_LOG", "tooz=loud").output().unwrap());
    assert!(done.code == Some(64) && done.err.contains("RUST_LOG"), "{done:?}");
}

#[test]
fn names_are_checked() {
    let bench = Bench::new();
    let long = "x".repeat(256);
    for words in [["holders", ""], ["members", ""], ["break", ""], ["watch", ""]] {
        refused(&bench, words, &["empty"]);
    }
    refused(&bench, ["lock", "", "--", "true"], &["empty"]);
    refused(&bench, ["lock", &long, "--", "true"], &["255", "256"]);
    refused(&bench, ["elect", &long, "--", "true"], &["255", "256"]);
    refused(&bench, ["lock", "a\nb", "--", "true"], &["control"]);
    refused(&bench, ["--member", "", "groups"], &["empty"]);
}

#[test]
fn folders_that_can_not_be_used_are_named() {
    let bench = Bench::new();
    std::fs::write(bench.path("backend"), "a file").unwrap();
    refused(&bench, ["lock", "x", "--", "true"], &["backend"]);
    // No user can make folders there, not even the superuser.
    refused(&bench, ["--url", "file:///proc/tooz", "lock", "x", "--", "true"], &["/proc/tooz"]);
}

#[test]
fn bytes_that_are_no_text_are_refused_as_a_name() {
    use std::os::unix::ffi::OsStrExt;
    let bench = Bench::new();
    let name = std::ffi::OsStr::from_bytes(b"\xff");
    let done = Done::from(bench.tooz(["holders"]).arg(name).output().unwrap());
    assert_eq!(done.code, Some(64), "{done:?}");
    // As an argument of CMD they are no business of tooz.
    let mut command = bench.tooz(["lock", "x", "--", "test"]);
    assert_eq!(command.arg(name).arg("=").arg(name).status().unwrap().code(), Some(0));
}
