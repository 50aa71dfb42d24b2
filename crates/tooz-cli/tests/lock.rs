//! `tooz lock`: order, waiting, exit codes, signals.

mod shared;

use std::process::Stdio;
use std::time::{Duration, Instant};

use shared::{Bench, Running, is_alive, lines, until};

#[test]
fn two_at_once_run_one_after_the_other_with_growing_tokens() {
    let bench = Bench::new();
    let script = "echo start $TOOZ_FENCING_TOKEN >> log; sleep 0.1; echo end $TOOZ_FENCING_TOKEN >> log";
    let mut both: Vec<_> = (0..2).map(|_| bench.start(["lock", "x", "--", "sh", "-c", script])).collect();
    for one in &mut both {
        assert_eq!(one.code(), Some(0));
    }
    let log = lines(&bench.path("log"));
    let words: Vec<Vec<&str>> = log.iter().map(|line| line.split(' ').collect()).collect();
    assert_eq!(words.iter().map(|line| line[0]).collect::<Vec<_>>(), ["start", "end", "start", "end"]);
    assert_eq!(words[0][1], words[1][1]);
    assert!(words[0][1].parse::<u64>().unwrap() < words[2][1].parse::<u64>().unwrap());
}

#[test]
fn many_lockers_of_whom_half_are_killed_never_overlap() {
    let bench = Bench::new();
    // The last holder's process has to be gone before the next one begins, whatever became of it and its tooz.
    let script = "last=$(cat owner 2>/dev/null)
        if [ -n \"$last\" ] && kill -0 $last 2>/dev/null; then echo overlap >> log; fi
        echo $$ > owner; echo $TOOZ_FENCING_TOKEN >> log; sleep 0.03";
    let mut lockers: Vec<Running> = (0..30).map(|_| bench.start(["lock", "x", "--", "sh", "-c", script])).collect();
    until("somebody is at work", || bench.path("owner").exists());
    for (index, locker) in lockers.iter_mut().enumerate() {
        if index % 2 == 0 {
            let _ = locker.0.kill();
            std::thread::sleep(Duration::from_millis(7));
        }
    }
    for (index, locker) in lockers.iter_mut().enumerate() {
        let code = locker.code();
        assert!(index % 2 == 0 || code == Some(0), "{index}: {code:?}");
    }
    let log = lines(&bench.path("log"));
    let tokens: Vec<u64> = log.iter().map(|line| line.parse().expect("an overlap")).collect();
    assert!(tokens.len() >= 15, "{tokens:?}");
    assert!(tokens.windows(2).all(|pair| pair[0] < pair[1]), "{tokens:?}");
}

#[test]
fn waiting_ends_in_time_with_its_own_code() {
    let bench = Bench::new();
    let _holder = bench.hold("x", "sleep 60");
    let begin = Instant::now();
    let done = bench.run(["lock", "x", "--wait", "300ms", "--", "true"]);
    assert_eq!(done.code, Some(75), "{done:?}");
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(2), "{took:?}");
    let said = shared::without_times(&done.err);
    assert!(said.starts_with("tooz: waiting for lock \"x\", held by "), "{said}");
    assert!(said.contains("tooz: lock \"x\" is held by \"") && !said.contains("by another"), "{said}");
    assert_eq!(bench.run(["lock", "x", "--no-wait", "--", "true"]).code, Some(75));
    assert_eq!(bench.run(["lock", "x", "--no-wait", "--conflict-exit-code", "9", "--", "true"]).code, Some(9));
    assert_eq!(bench.run(["lock", "y", "--no-wait", "--", "true"]).code, Some(0));
}

#[test]
fn shared_holders_stand_beside_each_other() {
    let bench = Bench::new();
    let script = "touch $TOOZ_FENCING_TOKEN.in; while [ ! -e go ]; do sleep 0.01; done";
    let mut both: Vec<_> = (0..2).map(|_| bench.start(["lock", "x", "--shared", "--", "sh", "-c", script])).collect();
    until("both hold it", || {
        let names = std::fs::read_dir(bench.path("")).unwrap().flatten();
        names.filter(|entry| entry.file_name().to_string_lossy().ends_with(".in")).count() == 2
    });
    assert_eq!(bench.run(["lock", "x", "--no-wait", "--", "true"]).code, Some(75));
    let holders = bench.run(["holders", "x", "--json"]);
    assert_eq!(holders.out.matches("\"shared\"").count(), 2, "{holders:?}");
    std::fs::write(bench.path("go"), "").unwrap();
    for one in &mut both {
        assert_eq!(one.code(), Some(0));
    }
    assert_eq!(bench.run(["lock", "x", "--no-wait", "--", "true"]).code, Some(0));
}

#[test]
fn exit_codes_are_those_of_cmd_or_of_env() {
    let bench = Bench::new();
    let code = |words: &[&str]| {
        let mut all = vec!["lock", "x", "--"];
        all.extend(words);
        bench.run(all).code
    };
    assert_eq!(code(&["true"]), Some(0));
    assert_eq!(code(&["sh", "-c", "exit 42"]), Some(42));
    assert_eq!(code(&["sh", "-c", "kill -KILL $$"]), Some(137));
    assert_eq!(code(&["sh", "-c", "kill -TERM $$"]), Some(143));
    assert_eq!(code(&["tooz-no-such-command"]), Some(127));
    assert_eq!(code(&[bench.path("").to_str().unwrap()]), Some(126));
}

#[test]
fn cmd_has_its_environment_and_streams() {
    let bench = Bench::new();
    let script = "read line; echo \"$line $TOOZ_LOCK $TOOZ_MEMBER\"; echo oops >&2";
    let mut command = bench.tooz(["lock", "a b", "-q", "--member", "me", "--", "sh", "-c", script]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"hello\n").unwrap();
    let done = shared::Done::from(child.wait_with_output().unwrap());
    assert_eq!((done.out.as_str(), done.err.as_str()), ("hello a b me\n", "oops\n"));
}

#[test]
fn cmd_inherits_nothing_of_ours() {
    let bench = Bench::new();
    // Both look at themselves: a shell blocks signals for a moment whenever it starts something.
    let script = "ls /proc/self/fd; exec grep -E 'SigBlk|SigIgn' /proc/self/status";
    let below = bench.run(["lock", "x", "--", "sh", "-c", script]);
    let mut plain = shared::with_default_signals("sh");
    let alone = shared::Done::from(plain.args(["-c", script]).stdin(Stdio::null()).output().unwrap());
    assert_eq!(below.out, alone.out);
}

#[test]
fn a_daemon_that_cmd_leaves_behind_does_not_keep_the_lock() {
    let bench = Bench::new();
    let done = bench.run(["lock", "x", "--", "sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $! > daemon"]);
    assert_eq!(done.code, Some(0));
    let daemon = bench.number("daemon");
    assert!(is_alive(daemon));
    assert_eq!(bench.run(["lock", "x", "--no-wait", "--", "true"]).code, Some(0));
    shared::signal(daemon, "KILL");
}

#[test]
fn a_signal_ends_the_waiting() {
    let bench = Bench::new();
    let mut holder = bench.hold("x", "sleep 60");
    for (name, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let mut waiter = bench.start(["lock", "x", "--", "touch", "never"]);
        until("it handles signals", || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", waiter.pid())).unwrap_or_default();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0");
            u64::from_str_radix(caught.trim(), 16).unwrap_or(0) & 1 << 14 != 0
        });
        waiter.signal(name);
        assert_eq!(waiter.code(), Some(code));
    }
    holder.signal("TERM");
    assert_eq!(holder.code(), Some(143));
    assert_eq!(bench.run(["lock", "x", "--no-wait", "--", "true"]).code, Some(0));
    assert!(!bench.path("never").exists());
}

#[test]
fn a_signal_is_forwarded_and_the_result_is_that_of_cmd() {
    let bench = Bench::new();
    for (name, code) in [("INT", 11), ("TERM", 12), ("HUP", 13), ("USR1", 14)] {
        let script = format!("trap 'kill $!; exit {code}' {name}; sleep 60 & touch trap-{name}; wait");
        let lock = format!("lock-{name}");
        let mut holder = bench.hold(&lock, &script);
        until("the trap is set", || bench.path(&format!("trap-{name}")).exists());
        holder.signal(name);
        assert_eq!(holder.code(), Some(code), "{name}");
    }
}

#[test]
fn a_signal_that_was_ignored_stays_ignored() {
    let bench = Bench::new();
    let tooz = env!("CARGO_BIN_EXE_tooz");
    let script = format!("trap '' HUP; exec {tooz} lock x -- sh -c 'echo $$ > ready; kill -HUP $$; exit 5'");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &script]).env("TOOZ_URL", bench.url()).current_dir(bench.path(""));
    assert_eq!(command.status().unwrap().code(), Some(5));
}

#[test]
fn cmd_ignores_what_was_ignored_and_nothing_else() {
    let bench = Bench::new();
    let sets: [&[&str]; 5] =
        [&[], &["PIPE"], &["CHLD"], &["HUP", "INT", "QUIT"], &["PIPE", "CHLD", "USR1", "TTOU", "WINCH"]];
    for ignored in sets {
        let words = ["grep", "SigIgn", "/proc/self/status"];
        let mut direct = shared::with_signals(ignored, words[0]);
        let direct = shared::Done::from(direct.args(&words[1..]).output().unwrap());
        let mut under = shared::with_signals(ignored, env!("CARGO_BIN_EXE_tooz"));
        under.env("TOOZ_URL", bench.url()).args(["lock", "x", "--"]).args(words);
        let under = shared::Done::from(under.output().unwrap());
        assert_eq!((under.code, under.out.as_str()), (Some(0), direct.out.as_str()), "{ignored:?}: {under:?}");
        let mut ending = shared::with_signals(ignored, env!("CARGO_BIN_EXE_tooz"));
        ending.env("TOOZ_URL", bench.url()).args(["lock", "x", "--", "sh", "-c", "(exit 3) & wait $!; exit 7"]);
        assert_eq!(ending.status().unwrap().code(), Some(7), "{ignored:?}");
    }
}

#[test]
fn nasty_names_are_locks_of_their_own() {
    let bench = Bench::new();
    let long = "x".repeat(255);
    let names = ["a/b", "..", ".", "a b", "Ä", "A", "a", "%2F", "-x", "--json", "/", &long];
    let held: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(index, name)| {
            let script = format!("touch in-{index}; sleep 60");
            let argument = format!("--name={name}");
            let running = bench.start(["lock", &argument, "--no-wait", "--", "sh", "-c", &script]);
            until("it is held", || bench.path(&format!("in-{index}")).exists());
            running
        })
        .collect();
    for name in names {
        let argument = format!("--name={name}");
        assert_eq!(bench.run(["lock", &argument, "--no-wait", "--", "true"]).code, Some(75), "{name}");
    }
    drop(held);
}
