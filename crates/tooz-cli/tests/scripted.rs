//! What programs rely on: the JSON of each subcommand as the README documents it, events on a descriptor, and exit codes.

// Long because each shape that the README promises has its trial here, beside the reader of that README.

mod shared;

use std::collections::BTreeSet;
use std::process::Stdio;

use serde_json::Value;
use shared::shape::Shapes;
use shared::{Bench, Running, lines, until};

fn json(bench: &Bench, words: &[&str]) -> Value {
    let done = bench.run(words.iter().copied().chain(["--json"]));
    assert_eq!(done.code, Some(0), "{words:?} {done:?}");
    assert_eq!(done.out.lines().count(), 1, "{words:?} {done:?}");
    serde_json::from_str(&done.out).unwrap()
}

/// A leader, a member, a holder and a waiter.
fn crowd(bench: &Bench) -> Vec<Running> {
    let mut crowd = vec![bench.start(["elect", "g", "--member", "a", "--", "sh", "-c", "touch leads; exec sleep 60"])];
    until("it leads", || bench.path("leads").exists());
    crowd.push(bench.start(["join", "g", "--member", "b", "--capabilities", "{\"weight\":2}"]));
    until("it has joined", || bench.run(["members", "g"]).out.contains("b\t"));
    crowd.push(bench.hold("x", "sleep 60"));
    crowd.push(bench.start(["lock", "x", "--", "true"]));
    crowd
}

#[test]
fn each_value_has_the_documented_shape() {
    let bench = Bench::new();
    let shapes = Shapes::documented();
    let crowd = crowd(&bench);
    for (name, words) in [
        ("groups", &["groups"][..]),
        ("members", &["members", "g"]),
        ("leader", &["leader"]),
        ("locks", &["locks"]),
        ("holders", &["holders", "x"]),
        ("partition", &["partition", "g", "k"]),
        ("ring", &["ring", "--node", "a", "k"]),
        ("drivers", &["drivers"]),
        ("status", &["status"]),
        ("doctor", &["doctor"]),
    ] {
        let value = json(&bench, words);
        assert!(value.as_array().is_none_or(|list| !list.is_empty()), "{words:?} shows nothing: {value}");
        shapes.check(name, &value);
    }
    shapes.check("LEADER", &json(&bench, &["leader", "g"]));
    assert_eq!(bench.run(["group", "create", "h"]).code, Some(0));
    assert_eq!(json(&bench, &["leader", "h"]), Value::Null);
    shapes.check("leader", &json(&bench, &["leader"]));
    drop(crowd);
}

#[test]
fn what_is_in_memory_has_the_documented_shape_too() {
    let bench = Bench::new();
    let shapes = Shapes::documented();
    for (name, words) in [("status", &["status", "--session"][..]), ("doctor", &["doctor"]), ("locks", &["locks"])] {
        let mut all = vec!["-q", "--url", "memory://m"];
        all.extend(words);
        shapes.check(name, &json(&bench, &all));
    }
}

#[test]
fn a_watch_has_the_documented_events() {
    let bench = Bench::new();
    let shapes = Shapes::documented();
    assert_eq!(bench.run(["group", "create", "g"]).code, Some(0));
    let watch = |name: &str, words: &[&str]| {
        let file = std::fs::File::create(bench.path(name)).unwrap();
        Running(bench.tooz(words.iter().copied()).stdout(file).spawn().unwrap())
    };
    let mut members = watch("members", &["watch", "g", "--json"]);
    let mut leaders = watch("leaders", &["watch", "g", "--leader", "--json"]);
    until("both have begun", || !lines(&bench.path("members")).is_empty() && !lines(&bench.path("leaders")).is_empty());
    assert_eq!(bench.run(["elect", "g", "--", "true"]).code, Some(0));
    until("the member has left", || lines(&bench.path("members")).iter().any(|line| line.contains("\"left\"")));
    assert_eq!(bench.run(["group", "delete", "g"]).code, Some(0));
    assert_eq!((members.code(), leaders.code()), (Some(0), Some(0)));
    let names = |file| -> Vec<_> { lines(&bench.path(file)).iter().map(|line| shapes.check_event(line)).collect() };
    assert_eq!(names("members"), ["snapshot", "joined", "left", "deleted"]);
    assert!(names("leaders").iter().all(|name| ["vacant", "elected", "deleted"].contains(&name.as_str())));
}

/// Runs it by a shell that opens descriptor 7 for the file `events`; answers the names of the events.
fn events_of(bench: &Bench, words: &str) -> (Option<i32>, Vec<String>) {
    let mut shell = shared::with_default_signals("sh");
    shell.args(["-c", &format!("exec \"$TOOZ\" {words} 7>events")]).env("TOOZ", env!("CARGO_BIN_EXE_tooz"));
    shell.env("TOOZ_URL", bench.url()).current_dir(bench.path("")).stdout(Stdio::null()).stderr(Stdio::null());
    let code = shell.status().unwrap().code();
    let shapes = Shapes::documented();
    (code, lines(&bench.path("events")).iter().map(|line| shapes.check_event(line)).collect())
}

#[test]
fn events_are_written_to_the_callers_descriptor() {
    let bench = Bench::new();
    let (code, names) = events_of(&bench, "lock x -q --events-fd 7 -c 'exit 3'");
    assert_eq!((code, names), (Some(3), words("acquired started command_ended released exit")));
    let (code, names) = events_of(&bench, "elect g --events-fd 7 -- true");
    assert_eq!((code, names), (Some(0), words("joined elected started command_ended resigning left exit")));
    let (code, names) = events_of(&bench, "join g --events-fd 7 -- true");
    assert_eq!((code, names), (Some(0), words("joined started command_ended left exit")));
    let _holder = bench.hold("x", "sleep 60");
    let (code, names) = events_of(&bench, "lock x -w 0.3 --events-fd 7 -- true");
    assert_eq!((code, names), (Some(75), words("waiting error exit")));
    // For cron no word is said of that, but a program that asked is told.
    let (code, names) = events_of(&bench, "lock x -n -E 0 --events-fd 7 -- true");
    assert_eq!((code, names), (Some(0), words("error exit")));
    assert!(bench.text("events").contains("\"kind\":\"NotAcquired\""), "{}", bench.text("events"));
    let (code, names) = events_of(&bench, "join '' --events-fd 7 -- true");
    assert_eq!((code, names), (Some(64), words("error exit")));
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

#[test]
fn the_caller_writes_behind_the_events() {
    let bench = Bench::new();
    let mut shell = shared::with_default_signals("sh");
    let script = "exec 7>events; echo before >&7; \"$TOOZ\" lock x -q --events-fd 7 -- true; echo behind >&7";
    shell.args(["-c", script]).env("TOOZ", env!("CARGO_BIN_EXE_tooz")).env("TOOZ_URL", bench.url());
    assert!(shell.current_dir(bench.path("")).status().unwrap().success());
    let written = lines(&bench.path("events"));
    assert_eq!((written[0].as_str(), written.last().unwrap().as_str()), ("before", "behind"));
    assert_eq!(written.len(), 2 + words("acquired started command_ended released exit").len(), "{written:?}");
}

/// What a shell with that redirection says of it on stderr, and the code.
fn with_descriptor(bench: &Bench, words: &str, redirection: &str) -> shared::Done {
    let mut shell = shared::with_default_signals("sh");
    shell.args(["-c", &format!("\"$TOOZ\" {words} --events-fd 7 -- true {redirection}")]);
    shell.env("TOOZ", env!("CARGO_BIN_EXE_tooz")).env("TOOZ_URL", bench.url()).current_dir(bench.path(""));
    shared::Done::from(shell.output().unwrap())
}

#[test]
fn a_descriptor_that_can_not_be_written_to_is_refused() {
    let bench = Bench::new();
    std::fs::write(bench.path("read-only"), "").unwrap();
    for (redirection, why) in [("7<read-only", "open for reading"), ("7</", "open for reading"), ("7>&-", "Bad file")] {
        let done = with_descriptor(&bench, "lock x", redirection);
        assert_eq!(done.code, Some(64), "{redirection}: {done:?}");
        assert!(done.err.contains(why) && done.err.contains("--events-fd 3 3>"), "{redirection}: {done:?}");
    }
}

#[test]
fn events_that_can_not_be_written_are_complained_of_once_and_end_nothing() {
    let bench = Bench::new();
    for quiet in ["", "-q"] {
        let done = with_descriptor(&bench, &format!("lock x {quiet}"), "7>/dev/full");
        assert_eq!(done.code, Some(0), "{done:?}");
        assert_eq!(done.err.matches("No space left").count(), 1, "{done:?}");
    }
    let json = with_descriptor(&bench, "--json lock x", "7>/dev/full");
    let names: Vec<_> = json.err.lines().map(|line| Shapes::documented().check_event(line)).collect();
    assert_eq!(names, ["acquired", "warning"], "{json:?}");
    // A reader that has seen enough is no fault: `| head -1`.
    let gone = with_descriptor(&bench, "lock x -q", "7>&1 | head -1");
    assert_eq!((gone.code, gone.out.lines().count(), gone.err.as_str()), (Some(0), 1, ""), "{gone:?}");
}

#[test]
fn events_go_into_a_socket_and_to_stdout_too() {
    let bench = Bench::new();
    let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut command = bench.tooz(["lock", "x", "-q", "--events-fd", "1", "--", "true"]);
    assert!(command.stdout(std::os::fd::OwnedFd::from(writer)).status().unwrap().success());
    drop(command);
    let text = std::io::read_to_string(reader).unwrap();
    let names: Vec<_> = text.lines().map(|line| Shapes::documented().check_event(line)).collect();
    assert_eq!(names, words("acquired started command_ended released exit"));
}

#[test]
fn cmd_has_not_the_descriptor_of_the_events() {
    let bench = Bench::new();
    let (code, names) = events_of(&bench, "lock x --events-fd 7 -c 'test ! -e /proc/self/fd/7'");
    assert_eq!(code, Some(0), "{names:?}");
}

#[test]
fn a_loss_is_told_to_programs() {
    let bench = Bench::new();
    let mut shell = shared::with_default_signals("sh");
    let script = "exec \"$TOOZ\" lock x --events-fd 7 -c 'touch up; exec sleep 60' 7>events";
    shell.args(["-c", script]).env("TOOZ", env!("CARGO_BIN_EXE_tooz")).env("TOOZ_URL", bench.url());
    let mut holder = Running(shell.current_dir(bench.path("")).stderr(Stdio::null()).spawn().unwrap());
    until("CMD runs", || bench.path("up").exists());
    for namespace in std::fs::read_dir(bench.path("backend")).unwrap().flatten() {
        std::fs::remove_dir_all(namespace.path().join("locks")).unwrap();
    }
    assert_eq!(holder.code(), Some(76));
    let shapes = Shapes::documented();
    let names: Vec<_> = lines(&bench.path("events")).iter().map(|line| shapes.check_event(line)).collect();
    assert!(["ending", "lost", "error", "exit"].iter().all(|name| names.iter().any(|one| one == name)), "{names:?}");
    assert_eq!(names.last().unwrap(), "exit");
}

#[test]
fn errors_are_json_where_it_is_asked_for() {
    let bench = Bench::new();
    let shapes = Shapes::documented();
    let cases: [(&[&str], i32, &str); 6] = [
        (&["members", "g"], 66, "NotFound"),
        (&["holders", ""], 64, "Config"),
        (&["--url", "fiel:", "groups"], 64, "Usage"),
        (&["lokc"], 64, "Usage"),
        (&["lock", "x"], 64, "Usage"),
        (&["break", "x"], 66, "NotFound"),
    ];
    for (words, code, kind) in cases {
        let done = bench.run(words.iter().copied().chain(["--json"]));
        assert_eq!((done.code, done.out.as_str(), done.err.lines().count()), (Some(code), "", 1), "{words:?} {done:?}");
        assert_eq!(shapes.check_event(&done.err), "error");
        let error: Value = serde_json::from_str(&done.err).unwrap();
        assert_eq!(
            (error["kind"].as_str(), error["exit_code"].as_i64()),
            (Some(kind), Some(i64::from(code))),
            "{error}"
        );
    }
    let by_variable = bench.tooz(["members", "g"]).env("TOOZ_JSON", "1").output().unwrap();
    assert!(by_variable.stderr.starts_with(b"{\"event\":\"error\""), "{by_variable:?}");
}

#[test]
fn on_stderr_events_are_json_too() {
    let bench = Bench::new();
    let shapes = Shapes::documented();
    let done = bench.run(["--json", "lock", "x", "--", "no-such-program-of-tooz"]);
    assert_eq!(done.code, Some(127));
    let names: BTreeSet<_> = done.err.lines().map(|line| shapes.check_event(line)).collect();
    assert_eq!(names, BTreeSet::from(["acquired".to_owned(), "error".to_owned()]), "{done:?}");
}

#[test]
fn what_a_trace_adds_is_json_too() {
    let bench = Bench::new();
    let done = bench.run(["--json", "-vv", "lock", "x", "--", "true"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let names: Vec<_> = done.err.lines().map(|line| Shapes::documented().check_event(line)).collect();
    assert!(names.iter().any(|name| name == "trace") && names.iter().any(|name| name == "acquired"), "{done:?}");
}

#[test]
fn a_signal_that_is_forwarded_is_an_event() {
    let bench = Bench::new();
    let mut shell = shared::with_default_signals("sh");
    let script = "exec \"$TOOZ\" lock x --events-fd 7 -c 'trap \"exit 5\" TERM; touch up; while :; do sleep 0.05; done' 7>events";
    shell.args(["-c", script]).env("TOOZ", env!("CARGO_BIN_EXE_tooz")).env("TOOZ_URL", bench.url());
    let mut holder = Running(shell.current_dir(bench.path("")).stderr(Stdio::null()).spawn().unwrap());
    until("CMD runs", || bench.path("up").exists());
    holder.signal("TERM");
    assert_eq!(holder.code(), Some(5));
    let shapes = Shapes::documented();
    let names: Vec<_> = lines(&bench.path("events")).iter().map(|line| shapes.check_event(line)).collect();
    assert_eq!(names, words("acquired started forwarded command_ended released exit"));
}

#[test]
fn output_that_can_not_be_written_is_an_error() {
    let bench = Bench::new();
    assert_eq!(bench.run(["group", "create", "g"]).code, Some(0));
    for words in [
        &["--help"][..],
        &["lock", "--help"],
        &["--version"],
        &["groups"],
        &["groups", "--json"],
        &["drivers"],
        &["status"],
        &["doctor"],
        &["ring", "--node", "a", "k"],
        &["completions", "bash"],
        &["watch", "g"],
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = bench.tooz(words.iter().copied()).stdout(full).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.code() == Some(74) && said.contains("No space left"),
            "{words:?}: {:?} {said}",
            output.status
        );
    }
}

#[test]
fn exit_codes_tell_errors_apart() {
    let bench = Bench::new();
    let code = |words: &[&str]| bench.run(words.iter().copied()).code;
    assert_eq!(code(&["lock", "x", "--", "sh", "-c", "exit 42"]), Some(42));
    assert_eq!(code(&["groups", "--bogus"]), Some(64));
    assert_eq!(code(&["--url", "file:x", "groups"]), Some(64));
    assert_eq!(code(&["members", "g"]), Some(66));
    let _holder = bench.hold("x", "sleep 60");
    assert_eq!(code(&["lock", "x", "-n", "--", "true"]), Some(75));
    assert_eq!(code(&["lock", "x", "-n", "-E", "7", "--", "true"]), Some(7));
    assert_eq!(code(&["group", "create", "g"]), Some(0));
    assert_eq!(code(&["group", "create", "g"]), Some(73));
    assert_eq!(code(&["lock", "y", "--", "no-such-program-of-tooz"]), Some(127));
    assert_eq!(code(&["lock", "y", "--", bench.path("").to_str().unwrap()]), Some(126));
}

#[test]
fn a_server_that_is_not_there_is_unavailable() {
    // A port that was just free.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut urls = Vec::new();
    for (feature, url) in [
        (cfg!(feature = "redis"), format!("redis://127.0.0.1:{port}")),
        (cfg!(feature = "etcd"), format!("etcd://127.0.0.1:{port}")),
        (cfg!(feature = "consul"), format!("consul://127.0.0.1:{port}")),
        (cfg!(feature = "memcached"), format!("memcached://127.0.0.1:{port}")),
        (cfg!(feature = "postgres"), format!("postgres://u:secret@127.0.0.1:{port}/db")),
        (cfg!(feature = "mysql"), format!("mysql://u:secret@127.0.0.1:{port}/db")),
        (cfg!(feature = "zookeeper"), format!("zookeeper://127.0.0.1:{port}")),
    ] {
        urls.extend(feature.then_some(url));
    }
    let bench = Bench::new();
    for url in urls {
        let url = format!("{url}?connect_timeout=2s");
        let done = bench.run(["--url", &url, "groups"]);
        assert_eq!(done.code, Some(69), "{url}: {done:?}");
        let said = done.err.to_lowercase();
        assert_eq!(said.matches("refused").count(), 1, "{url}: said once, in plain words: {}", done.err);
        assert!(!said.contains("os {") && !said.contains("os error") && !said.contains("secret"), "{}", done.err);
    }
}

#[test]
fn a_tooz_in_cmd_asks_the_same_backend_as_the_same_member() {
    let bench = Bench::new();
    let url = format!("{}?namespace=other", bench.url());
    let script = "\"$TOOZ\" holders x; \"$TOOZ\" lock inner -q -c 'echo $TOOZ_MEMBER'";
    let mut command = bench.tooz(["--url", &url, "--member", "me", "lock", "x", "-q", "-c", script]);
    let done = shared::Done::from(command.env("TOOZ", env!("CARGO_BIN_EXE_tooz")).output().unwrap());
    assert!(done.out.starts_with("me\texclusive\t") && done.out.ends_with("\nme\n"), "{done:?}");
}

#[test]
fn an_empty_variable_is_one_that_is_not_set() {
    let bench = Bench::new();
    let mut command = bench.tooz(["lock", "x", "-q", "-c", "echo $TOOZ_MEMBER"]);
    for name in ["TOOZ_MEMBER", "TOOZ_JSON", "TOOZ_QUIET", "TOOZ_VERBOSE", "TOOZ_PASSWORD_FILE", "RUST_LOG"] {
        command.env(name, "");
    }
    let done = shared::Done::from(command.output().unwrap());
    assert!(done.code == Some(0) && done.out.len() > 5 && done.err.is_empty(), "{done:?}");
}

#[test]
fn a_missing_group_is_waited_for_on_request() {
    let bench = Bench::new();
    let begin = std::time::Instant::now();
    let late = bench.run(["members", "g", "--wait-for-group=300ms"]);
    assert_eq!(late.code, Some(66), "{late:?}");
    assert!(begin.elapsed() >= std::time::Duration::from_millis(300));
    let said = shared::without_times(&late.err);
    assert!(said.starts_with("tooz: waiting for group \"g\" to be created\n"), "{said}");
    let events = std::fs::File::create(bench.path("events")).unwrap();
    let mut watch =
        Running(bench.tooz(["watch", "g", "--json", "--wait-for-group", "-q"]).stdout(events).spawn().unwrap());
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(watch.0.try_wait().unwrap().is_none(), "it did not wait");
    assert_eq!(bench.run(["group", "create", "g"]).code, Some(0));
    until("the snapshot", || !lines(&bench.path("events")).is_empty());
    watch.signal("TERM");
    assert_eq!(watch.code(), Some(0));
}

#[test]
fn the_locks_in_use_and_all_leaders_are_listed() {
    let bench = Bench::new();
    assert_eq!(bench.run(["locks"]).out, "");
    let crowd = crowd(&bench);
    let locks = bench.run(["locks"]).out;
    assert!(locks.starts_with("x\texclusive\t"), "{locks}");
    let leaders = bench.run(["leader"]).out;
    assert!(leaders.starts_with("g\ta\t"), "{leaders}");
    drop(crowd);
}

#[test]
fn a_leadership_is_ended_by_force_where_that_can_be() {
    let bench = Bench::new();
    let none = bench.run(["break", "--leader", "g"]);
    assert_eq!((none.code, none.err.contains("no member leads group \"g\"")), (Some(66), true), "{none:?}");
    let crowd = crowd(&bench);
    // The kernel takes no file lock by force, but says which leadership it would have been.
    let refused = bench.run(["break", "--leader", "g"]);
    assert_eq!((refused.code, refused.err.contains("can't be broken")), (Some(64), true), "{refused:?}");
    drop(crowd);
    if cfg!(all(feature = "ipc", target_os = "linux")) {
        let bench = Bench::on(format!("ipc://tooz-cli-{}", std::process::id()));
        let mut leader = bench.start(["elect", "g", "--once", "--", "sh", "-c", "touch leads; exec sleep 60"]);
        until("it leads", || bench.path("leads").exists());
        Shapes::documented().check("break", &json(&bench, &["break", "--leader", "g"]));
        assert_eq!(leader.code(), Some(76));
        let mut holder = bench.hold("x", "sleep 60");
        let done = bench.run(["break", "x"]);
        assert!(done.code == Some(0) && done.out.starts_with("taken from "), "{done:?}");
        assert_eq!(holder.code(), Some(76));
    }
}

#[test]
fn manual_pages_and_completions_are_written() {
    let bench = Bench::new();
    assert_eq!(bench.run(["manual", "dist"]).code, Some(0));
    let page = bench.text("dist/man1/tooz-lock.1");
    assert!(page.contains(".TH") && page.contains("EXAMPLES") && page.contains("conflict\\-exit\\-code"), "{page}");
    assert!(bench.path("dist/man1/tooz.1").exists() && bench.path("dist/man1/tooz-group-create.1").exists());
    assert!(bench.text("dist/completions/tooz.bash").contains("--events-fd"));
}
