//! Groups, members, leaders, watches, elections and owners.

mod shared;

use std::process::Stdio;

use shared::{Bench, Running, lines, until};

/// A member that stays until it is ended.
fn join(bench: &Bench, group: &str, member: &str, capabilities: &str) -> Running {
    let group = format!("--group={group}");
    let words = ["join", &group, "--member", member, "--capabilities", capabilities];
    let running = bench.start(words);
    let wanted = format!("{member}\t");
    until("it has joined", || bench.run(["members", &group]).out.lines().any(|line| line.starts_with(&wanted)));
    running
}

#[test]
fn members_are_listed_with_their_capabilities() {
    let bench = Bench::new();
    let _a = join(&bench, "g", "a", r#"{"weight": 2}"#);
    let mut b = join(&bench, "g", "b", "[1, null]");
    let json = bench.run(["members", "g", "--json"]);
    assert_eq!(
        json.out,
        "[{\"member\":\"a\",\"capabilities\":{\"weight\":2}},{\"member\":\"b\",\"capabilities\":[1,null]}]\n"
    );
    assert_eq!(bench.run(["groups"]).out, "g\n");
    assert_eq!(bench.run(["groups", "--json"]).out, "[\"g\"]\n");
    assert_eq!(bench.run(["leader", "g", "--json"]).out, "null\n");
    assert_eq!(bench.run(["leader", "g"]).out, "");
    let refused = bench.run(["group", "delete", "g"]);
    assert_eq!(refused.code, Some(75), "{refused:?}");
    b.signal("TERM");
    assert_eq!(b.code(), Some(0));
    assert_eq!(bench.run(["members", "g"]).out.lines().count(), 1);
}

#[test]
fn a_living_namesake_is_told_of_and_replaced_only_on_request() {
    let bench = Bench::new();
    let url = format!("{}?session_timeout=1s", bench.url());
    for command in ["join", "elect"] {
        let first = bench.path(&format!("first-{command}"));
        let mut holder = bench.tooz(["join", "g", "--member", "a", "--", "sleep", "60"]);
        let mut holder = Running(holder.stderr(std::fs::File::create(&first).unwrap()).spawn().unwrap());
        until("it has joined", || !lines(&first).is_empty());
        let twin = bench.run(["--url", &url, command, "g", "--member", "a", "--", "true"]);
        assert_eq!(twin.code, Some(73), "{twin:?}");
        let said: Vec<_> = twin.err.lines().collect();
        assert!(
            said[0].contains("\"a\"") && said[0].contains("at most 2s") && said[0].contains("--take-over"),
            "{twin:?}"
        );
        assert!(said.last().unwrap().contains("living member"), "{twin:?}");
        let begin = std::time::Instant::now();
        let new = bench.run([command, "g", "--member", "a", "--take-over", "--", "sh", "-c", "exit 3"]);
        assert_eq!(new.code, Some(3), "{new:?}");
        assert!(begin.elapsed().as_secs() < 5, "{:?}", begin.elapsed());
        assert_eq!(holder.code(), Some(76));
        assert!(lines(&first).last().unwrap().contains("took the membership over"), "{:?}", lines(&first));
    }
}

#[test]
fn waiting_for_a_namesake_ends_with_a_signal() {
    let bench = Bench::new();
    let _first = join(&bench, "g", "a", "null");
    let said = bench.path("said");
    let mut twin = bench.tooz(["join", "g", "--member", "a", "--", "true"]);
    let mut twin = Running(twin.stderr(std::fs::File::create(&said).unwrap()).spawn().unwrap());
    until("it waits", || !lines(&said).is_empty());
    twin.signal("TERM");
    assert_eq!(twin.code(), Some(143));
}

#[test]
fn groups_are_created_and_deleted() {
    let bench = Bench::new();
    assert_eq!(bench.run(["group", "create", "g"]).code, Some(0));
    assert_eq!(bench.run(["group", "create", "g"]).code, Some(73));
    assert_eq!(bench.run(["members", "g"]).out, "");
    assert_eq!(bench.run(["group", "delete", "g"]).code, Some(0));
    let absent = bench.run(["group", "delete", "g"]);
    assert_eq!(absent.code, Some(66));
    assert_eq!(shared::without_times(&absent.err), "tooz: there is no group \"g\", so there is nothing to delete\n");
    for words in [
        vec!["members", "g"],
        vec!["watch", "g"],
        vec!["watch", "g", "--leader"],
        vec!["leader", "g"],
        vec!["partition", "g", "k"],
    ] {
        let done = bench.run(words.iter().copied());
        assert_eq!(done.code, Some(66), "{done:?}");
        let said = shared::without_times(&done.err);
        assert_eq!(said, "tooz: there is no group \"g\"; tooz groups lists those that there are\n", "{words:?}");
    }
}

#[test]
fn a_member_stays_while_its_cmd_runs() {
    let bench = Bench::new();
    let tooz = env!("CARGO_BIN_EXE_tooz");
    let script = format!("{tooz} members $TOOZ_GROUP; exit 4");
    let done = bench.run(["join", "g", "--member", "me", "--", "sh", "-c", &script]);
    assert_eq!((done.code, done.out.as_str()), (Some(4), "me\tnull\n"));
    assert_eq!(shared::without_times(&done.err), "tooz: joined group \"g\" as \"me\"\n");
    assert_eq!(bench.run(["members", "g"]).out, "");
}

#[test]
fn a_watch_tells_who_comes_goes_and_dies() {
    let bench = Bench::new();
    assert_eq!(bench.run(["group", "create", "g"]).code, Some(0));
    let events = bench.path("events");
    let output = std::fs::File::create(&events).unwrap();
    let mut watch = Running(bench.tooz(["watch", "g", "--json"]).stdout(output).spawn().unwrap());
    let has = |start: &str| lines(&events).iter().any(|line| line.starts_with(start));
    until("the snapshot", || has("{\"event\":\"snapshot\",\"members\":[],"));
    let a = join(&bench, "g", "a", "{\"x\":1}");
    until("a joins", || has("{\"event\":\"joined\",\"member\":\"a\",\"capabilities\":{\"x\":1},\"at\":\""));
    a.signal("KILL");
    until("a dies", || has("{\"event\":\"left\",\"member\":\"a\",\"at\":"));
    assert_eq!(bench.run(["join", "g", "--member", "b", "--", "true"]).code, Some(0));
    until("b goes", || has("{\"event\":\"left\",\"member\":\"b\""));
    assert_eq!(bench.run(["group", "delete", "g"]).code, Some(0));
    until("the end", || has("{\"event\":\"deleted\""));
    assert_eq!(watch.code(), Some(0));
}

#[test]
fn a_reader_that_goes_away_ends_a_watch_quietly() {
    let bench = Bench::new();
    assert_eq!(bench.run(["group", "create", "g"]).code, Some(0));
    let mut command = bench.tooz(["watch", "g"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let done = shared::Done::from(child.wait_with_output().unwrap());
    assert_eq!((done.code, done.err.as_str()), (Some(0), ""));
}

#[test]
fn a_watch_ends_with_its_reader_and_not_with_the_next_event() {
    use std::io::{BufRead, BufReader};
    let bench = Bench::new();
    assert_eq!(bench.run(["group", "create", "g"]).code, Some(0));
    for words in [&["watch", "g"][..], &["watch", "g", "--leader"]] {
        let mut command = bench.tooz(words.iter().copied());
        let mut watch = Running(command.stdout(Stdio::piped()).spawn().unwrap());
        let mut first = String::new();
        let mut reader = BufReader::new(watch.0.stdout.take().unwrap());
        reader.read_line(&mut first).unwrap();
        assert!(first.contains("snapshot") || first.contains("vacant"), "{first}");
        assert!(watch.0.try_wait().unwrap().is_none(), "it ended by itself");
        drop(reader);
        let begin = std::time::Instant::now();
        assert_eq!(watch.code(), Some(0));
        assert!(begin.elapsed().as_secs() < 5, "{:?}", begin.elapsed());
    }
}

#[test]
fn a_watch_of_the_leader_ends_with_the_group() {
    let bench = Bench::new();
    assert_eq!(bench.run(["group", "create", "g"]).code, Some(0));
    let watched = bench.path("watched");
    let output = std::fs::File::create(&watched).unwrap();
    let mut watch = Running(bench.tooz(["watch", "g", "--leader"]).stdout(output).spawn().unwrap());
    until("the watch is on", || lines(&watched).len() == 1);
    assert_eq!(bench.run(["group", "delete", "g"]).code, Some(0));
    assert_eq!(watch.code(), Some(0));
}

#[test]
fn a_reader_that_does_not_read_keeps_no_signal_from_a_watch() {
    let bench = Bench::new();
    // More than a pipe holds.
    let _member = join(&bench, "g", "a", &format!("\"{}\"", "x".repeat(100_000)));
    let mut watch = Running(bench.tooz(["watch", "g"]).stdout(Stdio::piped()).spawn().unwrap());
    until("it is stuck", || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", watch.pid())).into_iter().flatten().flatten();
        let waits = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("wchan")).ok());
        waits.into_iter().any(|place| place.contains("pipe")) || shared::state(watch.pid()) == Some('S')
    });
    std::thread::sleep(std::time::Duration::from_millis(500));
    watch.signal("TERM");
    assert_eq!(watch.code(), Some(0));
}

#[test]
fn a_dead_leader_is_followed_by_one_with_a_greater_epoch() {
    let bench = Bench::new();
    let script = "echo $TOOZ_MEMBER $TOOZ_EPOCH $TOOZ_FENCING_TOKEN >> terms; sleep 60";
    let candidate = |member: &str| bench.start(["elect", "g", "--member", member, "--", "sh", "-c", script]);
    let mut candidates = vec![candidate("a")];
    until("a leads", || lines(&bench.path("terms")).len() == 1);
    candidates.push(candidate("b"));
    until("b has joined", || bench.run(["members", "g"]).out.lines().count() == 2);
    assert_eq!(lines(&bench.path("terms")).len(), 1);
    let leader = bench.run(["leader", "g"]).out;
    let first: Vec<String> = lines(&bench.path("terms"))[0].split(' ').map(str::to_owned).collect();
    assert_eq!(leader, format!("{}\t{}\n", first[0], first[1]));
    assert_eq!(first[1], first[2]);
    let watched = bench.path("watched");
    let output = std::fs::File::create(&watched).unwrap();
    let watch = Running(bench.tooz(["watch", "g", "--leader", "--json"]).stdout(output).spawn().unwrap());
    until("the watch is on", || lines(&watched).len() == 1);
    candidates[0].signal("KILL");
    until("b leads", || lines(&bench.path("terms")).len() == 2);
    let second: Vec<String> = lines(&bench.path("terms"))[1].split(' ').map(str::to_owned).collect();
    assert_eq!(second[0], "b");
    assert!(first[1].parse::<u64>().unwrap() < second[1].parse::<u64>().unwrap());
    until("the change was pushed", || lines(&watched).len() >= 3);
    let events: Vec<_> = lines(&watched).iter().map(|line| line.split('"').nth(3).unwrap().to_owned()).collect();
    assert_eq!(events, ["elected", "vacant", "elected"]);
    drop(watch);
    candidates[1].signal("TERM");
    assert_eq!(candidates[1].code(), Some(143));
    assert_eq!(bench.run(["leader", "g", "--json"]).out, "null\n");
}

#[test]
fn an_elected_cmd_ends_tooz_with_its_own_code() {
    let bench = Bench::new();
    for words in
        [&["elect", "g", "--", "sh", "-c", "exit 6"][..], &["elect", "g", "--once", "--", "sh", "-c", "exit 6"]]
    {
        assert_eq!(bench.run(words.iter().copied()).code, Some(6));
    }
    assert_eq!(bench.run(["members", "g"]).out, "");
}

#[test]
fn holders_are_shown_and_breaking_says_what_it_can() {
    let bench = Bench::new();
    assert_eq!(bench.run(["holders", "x"]).out, "");
    assert_eq!(bench.run(["holders", "x", "--json"]).out, "[]\n");
    let free = bench.run(["break", "x"]);
    assert_eq!((free.code, free.err.contains("no member holds lock")), (Some(66), true), "{free:?}");
    let holder = bench.hold("x", "echo $TOOZ_FENCING_TOKEN > token; sleep 60");
    until("the token is written", || bench.text("token").ends_with('\n'));
    let token = bench.text("token").trim().to_owned();
    let shown = bench.run(["holders", "x"]).out;
    let cells: Vec<_> = shown.trim_end().split('\t').collect();
    assert_eq!((cells[1], cells[2], cells[4]), ("exclusive", token.as_str(), holder.pid().to_string().as_str()));
    let other = bench.run(["break", "x", "--token", "1"]);
    assert_eq!((other.code, other.err.contains("with token 1")), (Some(66), true), "{other:?}");
    // The kernel takes no file lock by force; the command says so instead of pretending.
    let refused = bench.run(["break", "x", "--token", &token]);
    assert_eq!((refused.code, refused.err.contains("can't be broken")), (Some(64), true), "{refused:?}");
}

#[test]
fn a_ring_and_a_group_of_the_same_nodes_agree() {
    let bench = Bench::new();
    let ring = bench.run(["ring", "--node", "foo", "--node=bar", "--node", "baz=1", "k0", "k1", "k3", "k6", "k7"]);
    // From Python's tooz.
    assert_eq!(ring.out, "k0\tfoo\nk1\tbaz\nk3\tbar\nk6\tbaz\nk7\tbar\n");
    let json = bench.run(["ring", "--node", "a", "--node", "b=3", "--node", "c=2", "--json", "k2", "k8"]);
    assert_eq!(json.out, "[{\"key\":\"k2\",\"owners\":[\"a\"]},{\"key\":\"k8\",\"owners\":[\"c\"]}]\n");
    let _members = ["foo", "bar", "baz"].map(|member| join(&bench, "g", member, "null"));
    assert_eq!(bench.run(["partition", "g", "k0", "k1", "k3", "k6", "k7"]).out, ring.out);
    let replicas = bench.run(["partition", "g", "--replicas", "2", "k0", "--", "-k"]);
    assert!(replicas.out.starts_with("k0\tfoo,bar\n-k\t"), "{replicas:?}");
    assert_eq!(bench.run(["partition", "--group=g", "k0"]).out, "k0\tfoo\n");
}

#[test]
fn groups_have_nasty_names_too() {
    let bench = Bench::new();
    let names = ["a/b", "..", "a b", "Ä", "A", "a", "%2F", "-x"];
    for name in names {
        assert_eq!(bench.run(["group", "create", &format!("--group={name}")]).code, Some(0), "{name}");
    }
    let mut sorted = names;
    sorted.sort_unstable();
    assert_eq!(bench.run(["groups"]).out.lines().collect::<Vec<_>>(), sorted);
}

#[test]
fn drivers_help_version_and_completions_are_printed() {
    let bench = Bench::new();
    let drivers = bench.run(["drivers"]);
    assert!(drivers.out.contains("file:///") && drivers.out.contains("session_timeout"), "{drivers:?}");
    let json: serde_json::Value = serde_json::from_str(&bench.run(["drivers", "--json"]).out).unwrap();
    let names: Vec<_> =
        json["drivers"].as_array().unwrap().iter().map(|driver| driver["name"].as_str().unwrap()).collect();
    let linked: &[&str] =
        if cfg!(feature = "full") { &["etcd", "file", "memory", "redis"] } else { &["file", "memory"] };
    assert!(linked.iter().all(|name| names.contains(name)), "{names:?}");
    for words in [vec!["--help"], vec!["lock", "--help"], vec!["--version"], vec!["completions", "bash"]] {
        let done = bench.run(words.iter().copied());
        assert!(done.code == Some(0) && !done.out.is_empty() && !done.out.contains("__guard"), "{words:?} {done:?}");
    }
}
