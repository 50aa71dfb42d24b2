//! What is said on stderr: one line each, with the time, so that a person reads there what happened, and nothing where it is no news.

mod shared;

use std::fs::File;
use std::process::Stdio;
use std::time::Duration;

use shared::session::Session;
use shared::{Bench, Running, children, lines, signal, until, without_times};

/// Starts `tooz`, with what it says in the bench's file `said`.
fn start_telling(bench: &Bench, words: &[&str]) -> Running {
    let said = File::create(bench.path("said")).unwrap();
    Running(bench.tooz(words.iter().copied()).stdout(Stdio::null()).stderr(said).spawn().unwrap())
}

fn until_said(bench: &Bench, words: &str) {
    until(&format!("it says {words:?}"), || bench.text("said").contains(words));
}

#[test]
fn each_line_has_the_local_time() {
    let bench = Bench::new();
    let zone = |zone: &str| {
        let output = bench.tooz(["members", "g"]).env("TZ", zone).output().unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    let said = zone("UTC");
    let time = said.split(" tooz: ").next().unwrap();
    assert!(time.len() == 19 && time.starts_with("20") && time.as_bytes()[13] == b':', "{said}");
    // By a rule, which needs no file of zones: fourteen hours to the east it is another day or half of one.
    let elsewhere = zone("<+14>-14");
    assert_ne!(said[..13], elsewhere[..13], "{elsewhere}");
}

#[test]
fn a_waiter_says_for_whom_it_waits_and_that_it_has_the_lock() {
    let bench = Bench::new();
    let holder = bench.start([
        "lock",
        "x",
        "--member",
        "first",
        "--",
        "sh",
        "-c",
        "touch up; while [ ! -e go ]; do sleep 0.01; done",
    ]);
    until("it holds", || bench.path("up").exists());
    let mut waiter = start_telling(&bench, &["lock", "x", "--", "true"]);
    until_said(&bench, "waiting");
    std::fs::write(bench.path("go"), "").unwrap();
    assert_eq!(waiter.code(), Some(0));
    let said = without_times(&bench.text("said"));
    let said: Vec<_> = said.lines().collect();
    assert!(said[0].starts_with("tooz: waiting for lock \"x\", held by \"first\" since 2"), "{said:?}");
    assert!(said[0].contains("exclusive, token ") && said[0].contains(&format!("pid {}", holder.pid())), "{said:?}");
    assert!(said[1].starts_with("tooz: acquired lock \"x\" (exclusive, token "), "{said:?}");
    assert_eq!(said.len(), 2, "{said:?}");
}

#[test]
fn cron_gets_no_mail_of_what_is_no_news() {
    let bench = Bench::new();
    let silent = ["lock", "x", "--no-wait", "--conflict-exit-code", "0", "--", "true"];
    for _ in 0..2 {
        let done = bench.run(silent);
        assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (Some(0), "", ""));
    }
    let _holder = bench.hold("x", "sleep 60");
    for words in [&silent[..], &["lock", "x", "-n", "-E", "0", "--json", "--", "true"]] {
        let done = bench.run(words.iter().copied());
        assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (Some(0), "", ""));
    }
    // Errors are news, also with -q.
    let failed = bench.run(["--url", "file:///proc/tooz", "lock", "x", "-q", "-n", "-E", "0", "--", "true"]);
    assert!(failed.code != Some(0) && failed.err.contains("/proc/tooz"), "{failed:?}");
    let quiet = bench.run(["lock", "y", "-q", "--", "true"]);
    assert_eq!((quiet.code, quiet.err.as_str()), (Some(0), ""));
    let by_variable = bench.tooz(["lock", "y", "--", "true"]).env("TOOZ_QUIET", "1").output().unwrap();
    assert!(by_variable.stderr.is_empty(), "{by_variable:?}");
}

#[test]
fn a_leader_says_that_it_waits_leads_and_resigns() {
    let bench = Bench::new();
    let first =
        ["elect", "g", "--member", "first", "--", "sh", "-c", "touch up; while [ ! -e go ]; do sleep 0.01; done"];
    let mut first = bench.start(first);
    until("it leads", || bench.path("up").exists());
    let mut second = start_telling(&bench, &["elect", "g", "--member", "second", "--", "true"]);
    until_said(&bench, "waiting to lead group \"g\", led by \"first\" (epoch ");
    std::fs::write(bench.path("go"), "").unwrap();
    assert_eq!((first.code(), second.code()), (Some(0), Some(0)));
    let said = without_times(&bench.text("said"));
    let begins = [
        "joined group \"g\" as \"second\"",
        "waiting to lead",
        "elected leader of group \"g\" (epoch ",
        "resigning as leader of group \"g\"",
    ];
    for (line, begin) in said.lines().zip(begins) {
        assert!(line.starts_with(&format!("tooz: {begin}")), "{said}");
    }
    assert_eq!(said.lines().count(), begins.len(), "{said}");
}

/// The session of `memory:` has a timeout, and its heartbeats stop with the process.
#[test]
fn a_loss_can_be_read_from_stderr_alone() {
    let bench = Bench::new();
    let words = ["--url", "memory://m?session_timeout=2s", "lock", "x", "--", "sh", "-c", "touch up; exec sleep 60"];
    let mut holder = start_telling(&bench, &words);
    until("CMD runs", || bench.path("up").exists());
    holder.signal("STOP");
    // While tooz stands still its guard says why it ends CMD, at that moment.
    until_said(&bench, "CMD is told to end (SIGTERM): no heartbeat has come for so long");
    assert!(!bench.text("said").contains("lost"), "{}", bench.text("said"));
    std::thread::sleep(Duration::from_secs(2));
    holder.signal("CONT");
    assert_eq!(holder.code(), Some(76));
    let said = without_times(&bench.text("said"));
    assert!(said.contains("tooz: memory lives in this process alone: it excludes no other process"), "{said}");
    assert!(said.lines().last().unwrap().starts_with("tooz: lock \"x\" was lost: "), "{said}");
}

#[test]
fn a_broken_lock_is_told_at_the_moment_of_the_kill() {
    let bench = Bench::new();
    let mut holder = start_telling(&bench, &["lock", "x", "--", "sh", "-c", "touch up; exec sleep 60"]);
    until("CMD runs", || bench.path("up").exists());
    for namespace in std::fs::read_dir(bench.path("backend")).unwrap().flatten() {
        std::fs::remove_dir_all(namespace.path().join("locks")).unwrap();
    }
    assert_eq!(holder.code(), Some(76));
    let said = without_times(&bench.text("said"));
    assert_eq!(said.matches("tooz: CMD is killed (SIGKILL): ").count(), 1, "{said}");
}

#[test]
fn signals_are_told_whether_they_go_to_cmd_or_end_a_wait() {
    let bench = Bench::new();
    let words = ["lock", "x", "--", "sh", "-c", "trap 'exit 5' TERM; touch up; while :; do sleep 0.05; done"];
    let mut holder = start_telling(&bench, &words);
    until("CMD runs", || bench.path("up").exists());
    let waiting = bench.tooz(["lock", "x", "--", "true"]).stderr(File::create(bench.path("waits")).unwrap()).spawn();
    let mut waiting = Running(waiting.unwrap());
    until("it waits", || bench.text("waits").contains("waiting"));
    waiting.signal("TERM");
    assert_eq!(waiting.code(), Some(143));
    assert!(lines(&bench.path("waits")).last().unwrap().ends_with("SIGTERM came: waiting is given up"));
    holder.signal("TERM");
    assert_eq!(holder.code(), Some(5));
    let said = bench.text("said");
    assert_eq!(said.matches("tooz: SIGTERM came, and is forwarded to CMD").count(), 1, "{said}");
}

#[test]
fn a_tooz_in_cmd_is_told_that_it_waits_for_its_own_parent() {
    let bench = Bench::new();
    let nested = |words: &str| {
        let mut command =
            bench.tooz(["--member", "me", "lock", "x", "-q", "-c", &format!("TOOZ_QUIET= \"$TOOZ\" {words}")]);
        shared::Done::from(command.env("TOOZ", env!("CARGO_BIN_EXE_tooz")).output().unwrap())
    };
    for words in ["lock x -n -- true", "lock x -w 0.5 -- true"] {
        let done = nested(words);
        assert_eq!(done.code, Some(75), "{done:?}");
        assert!(done.err.lines().all(|line| line.contains("held by \"me\" since 2")), "{done:?}");
        assert!(done.err.contains("the tooz that this command runs under"), "{done:?}");
    }
    let other = nested("lock x -n --member other -- true");
    assert!(other.code == Some(75) && !other.err.contains("runs under"), "{other:?}");
}

#[test]
fn a_guard_whose_tooz_has_died_says_so() {
    let bench = Bench::new();
    let holder = start_telling(&bench, &["lock", "x", "--", "sh", "-c", "echo $$ > up; exec sleep 60"]);
    let cmd = bench.number("up");
    holder.signal("KILL");
    until("CMD is dead", || !shared::is_alive(cmd));
    until_said(&bench, "CMD is killed (SIGKILL): its tooz has died");
}

#[test]
fn a_reader_that_does_not_read_keeps_no_cmd_alive() {
    let bench = Bench::new();
    // A pipe that is full from the beginning, and a reader that never reads.
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = bench.tooz([
        "--url",
        "memory://m?session_timeout=2s",
        "-vv",
        "lock",
        "x",
        "--",
        "sh",
        "-c",
        "echo $$ > up; exec sleep 60 2>/dev/null",
    ]);
    let holder = Running(command.stdout(Stdio::null()).stderr(writer.try_clone().unwrap()).spawn().unwrap());
    let cmd = bench.number("up");
    fill(writer);
    std::thread::sleep(Duration::from_secs(3));
    assert!(shared::is_alive(cmd), "ended although every heartbeat came");
    holder.signal("STOP");
    until("CMD is dead", || !shared::is_alive(cmd));
    drop(reader);
}

/// Writes until nothing goes in any more; the thread that writes stays behind.
fn fill(mut pipe: std::io::PipeWriter) {
    let (sender, full) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        while std::io::Write::write_all(&mut pipe, &[b'.'; 4096]).is_ok() {
            let _ = sender.send(());
        }
    });
    while full.recv_timeout(Duration::from_millis(500)).is_ok() {}
}

#[test]
fn tracing_is_told_on_request() {
    let bench = Bench::new();
    let plain = bench.run(["lock", "x", "--", "true"]);
    assert_eq!(plain.err.lines().count(), 1, "{plain:?}");
    let told = bench.run(["lock", "x", "-vv", "--", "true"]);
    assert!(told.err.lines().count() > 1 && told.err.contains("tooz::"), "{told:?}");
    let by_filter = bench.tooz(["lock", "x", "-q", "--", "true"]).env("RUST_LOG", "tooz=trace").output().unwrap();
    assert!(!by_filter.stderr.is_empty());
}

#[test]
fn a_terminal_shows_that_it_waits() {
    let bench = Bench::new();
    let mut session = Session::open();
    let holder = session.bench.hold("x", "while [ ! -e go ]; do sleep 0.01; done");
    session.type_in("\"$TOOZ\" lock x -- echo got-$((1 + 1)); echo code-$?-\n");
    session.shows("waiting for lock \"x\", held by");
    session.forget();
    // The line moves.
    session.shows("waiting for lock \"x\"");
    std::fs::write(session.bench.path("go"), "").unwrap();
    session.shows("got-2");
    session.shows("code-0-");
    drop((holder, bench));
}

#[test]
fn a_crash_of_the_guard_is_told() {
    let bench = Bench::new();
    let mut holder = start_telling(&bench, &["lock", "x", "--", "sh", "-c", "touch up; exec sleep 60"]);
    until("CMD runs", || bench.path("up").exists());
    signal(children(holder.pid())[0], "KILL");
    assert_eq!(holder.code(), Some(125));
    assert!(
        lines(&bench.path("said")).last().unwrap().ends_with("the guard process was killed, so CMD was killed too")
    );
}
