//! `tooz status`: as tables, as one value, and as a screen on a terminal of 80 by 24.

mod shared;

use serde_json::Value;
use shared::screen::Screen;
use shared::session::Session;
use shared::{Bench, Running, until};

/// A leader, two members, a holder and a waiter.
fn crowd(bench: &Bench) -> Vec<Running> {
    let mut crowd =
        vec![bench.start(["elect", "billing", "--member", "chief", "--", "sh", "-c", "touch leads; exec sleep 60"])];
    until("it leads", || bench.path("leads").exists());
    crowd.push(bench.start(["join", "billing", "--member", "worker-7", "--capabilities", "{\"weight\":3}"]));
    until("it has joined", || bench.run(["members", "billing"]).out.contains("worker-7"));
    crowd.push(bench.hold("nightly", "sleep 60"));
    crowd.push(bench.start(["lock", "nightly", "--member", "patient", "--", "true"]));
    crowd
}

#[test]
fn one_look_is_printed_as_tables() {
    let bench = Bench::new();
    let crowd = crowd(&bench);
    let done = bench.run(["status", "--once"]);
    assert_eq!((done.code, done.err.as_str()), (Some(0), ""), "{done:?}");
    for word in [
        "GROUPS",
        "billing",
        "chief",
        "leader, epoch ",
        "worker-7",
        "{\"weight\":3}",
        "LOCKS",
        "nightly",
        "holds",
        "exclusive",
        "round trip: ",
    ] {
        assert!(done.out.contains(word), "{word:?} is missing: {}", done.out);
    }
    assert!(!done.out.contains('\u{1b}'), "{done:?}");
    assert!(
        done.out.contains("session: none") && done.out.contains("no backend records when a member joined"),
        "{}",
        done.out
    );
    // Where it is no terminal the same is printed without being asked for.
    assert!(bench.run(["status"]).out.contains("worker-7"));
    let filtered = bench.run(["status", "--once", "--filter", "NIGHT"]).out;
    assert!(filtered.contains("nightly") && !filtered.contains("billing"), "{filtered}");
    drop(crowd);
}

#[test]
fn one_look_is_one_value() {
    let bench = Bench::new();
    let crowd = crowd(&bench);
    let done = bench.run(["status", "--json"]);
    assert_eq!((done.code, done.err.as_str(), done.out.lines().count()), (Some(0), "", 1), "{done:?}");
    let value: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(value["driver"], "file");
    assert_eq!(value["groups"][0]["leader"]["member"], "chief");
    assert_eq!(value["groups"][0]["members"][1]["capabilities"]["weight"], 3);
    assert_eq!(value["locks"][0]["lock"], "nightly");
    assert_eq!(value["locks"][0]["holders"][0]["mode"], "exclusive");
    assert!(value["session"]["round_trip"]["p50_us"].is_u64(), "{value}");
    drop(crowd);
}

#[test]
fn a_session_is_shown_on_request() {
    let bench = Bench::new();
    let value = |words: &[&str]| -> Value {
        let mut all = vec!["--url", "memory://m?session_timeout=4s", "-q", "status", "--json"];
        all.extend(words);
        serde_json::from_str(&bench.run(all).out).unwrap()
    };
    assert_eq!(value(&[])["session"]["state"], "none");
    let session = &value(&["--session"])["session"];
    assert_eq!((&session["state"], &session["timeout_ms"]), (&"open".into(), &4000.into()), "{session}");
    let (remaining, last) = (session["remaining_ms"].as_u64().unwrap(), session["last_heartbeat_ms"].as_u64().unwrap());
    assert!(remaining > 0 && remaining <= 3600 && last <= 3600, "{session}");
}

#[test]
fn what_can_not_be_reached_is_an_error() {
    let bench = Bench::new();
    let file = bench.path("no-folder");
    std::fs::write(&file, "").unwrap();
    let done = bench.run(["--url", &format!("file://{}", file.display()), "status", "--json"]);
    assert!(done.code == Some(64) && done.err.contains("no-folder"), "{done:?}");
}

/// The rows and columns to which the cursor was sent.
fn places(written: &str) -> Vec<(usize, usize)> {
    let mut places = Vec::new();
    for part in written.split("\u{1b}[").skip(1) {
        let Some(end) = part.find(|one: char| !one.is_ascii_digit() && one != ';') else { continue };
        if part[end..].starts_with('H')
            && let Some((row, column)) = part[..end].split_once(';')
        {
            places.push((row.parse().unwrap(), column.parse().unwrap()));
        }
    }
    places
}

#[test]
fn the_screen_lives_and_leaves_the_terminal_as_it_was() {
    let mut session = Session::open();
    let crowd = crowd(&session.bench);
    session.type_in("\"$TOOZ\" status --every 100ms; echo code-$?-\n");
    for word in ["GROUPS", "billing", "worker-7", "LOCKS", "nightly", "CHANGES", "quit"] {
        session.shows(word);
    }
    let written = session.written();
    assert!(written.contains("\u{1b}[?1049h"), "the other screen: {written:?}");
    assert!(places(&written).iter().all(|(row, column)| *row <= 24 && *column <= 80), "{written:?}");
    session.bench.run(["group", "create", "afresh"]);
    session.shows("afresh");
    session.shows("created");
    session.type_in("/worker");
    session.shows("filter:");
    session.type_in("\r");
    session.type_in("p");
    session.shows("PAUSED");
    session.type_in("p");
    session.type_in("s");
    // One word behind all that stood there before: only what changes is written.
    session.shows("kernel");
    session.type_in("h");
    session.shows("scroll");
    session.type_in("h");
    session.type_in("q");
    session.shows("code-0-");
    assert!(session.written().contains("\u{1b}[?1049l"));
    session.type_in("echo the-shell-$((1 + 1))\n");
    session.shows("the-shell-2");
    drop(crowd);
}

#[test]
fn the_latest_changes_are_seen_on_a_full_screen() {
    let mut session = Session::open();
    for number in 10..50 {
        assert_eq!(session.bench.run(["group", "create", &format!("group-{number}")]).code, Some(0));
    }
    session.type_in("\"$TOOZ\" status --every 100ms; echo code-$?-\n");
    let lines = |session: &Session| Screen::of(&session.written()).lines();
    until("the groups are seen", || lines(&session).iter().any(|line| line.contains("group-10")));
    assert_eq!(session.bench.run(["group", "create", "zebra"]).code, Some(0));
    until("the change is seen", || lines(&session).iter().any(|line| line.contains("group zebra was created")));
    let seen = lines(&session);
    let title = seen.iter().position(|line| line == "CHANGES").expect("it has its title");
    assert!(title > 12 && seen[2] == "GROUPS" && seen[23].contains("1-"), "{seen:#?}");
    // At the end of the list they stand where they belong, and nothing twice.
    session.type_in("G");
    until("the end is seen", || lines(&session).iter().any(|line| line.starts_with("LOCKS")));
    assert_eq!(lines(&session).iter().filter(|line| *line == "CHANGES").count(), 1, "{:#?}", lines(&session));
    session.type_in("q");
    session.shows("code-0-");
}

#[test]
fn a_signal_leaves_the_terminal_as_it_was() {
    let mut session = Session::open();
    session.type_in("sh -c 'echo $$ > pid.new; mv pid.new pid; exec \"$TOOZ\" status'; echo code-$?-; stty -a | tr ';' '\\n' | grep -c ' -icanon'\n");
    let pid = session.bench.number("pid");
    session.shows("CHANGES");
    shared::signal(pid, "TERM");
    session.shows("code-143-");
    assert!(session.written().contains("\u{1b}[?1049l"));
    // Lines are edited again.
    session.shows("\n0\r");
}

#[test]
fn ctrl_z_gives_the_terminal_back_and_fg_takes_it_again() {
    let mut session = Session::open();
    session.type_in("\"$TOOZ\" status\n");
    session.shows("CHANGES");
    session.type_in("\x1a");
    session.shows("Stopped");
    assert!(session.written().contains("\u{1b}[?1049l"));
    session.type_in("echo the-shell-$((1 + 1))\n");
    session.shows("the-shell-2");
    session.forget();
    session.type_in("fg\n");
    session.shows("CHANGES");
    session.type_in("q");
    session.shows("\u{1b}[?1049l");
    session.type_in("echo again-$((1 + 1))\n");
    session.shows("again-2");
}

#[test]
fn no_colour_is_shown_where_none_is_wanted() {
    let mut session = Session::open();
    session.type_in("NO_COLOR=1 \"$TOOZ\" status\n");
    session.shows("CHANGES");
    session.type_in("q");
    session.shows("\u{1b}[?1049l");
    let written = session.written();
    let coloured = written.contains("38;5;");
    assert!(!coloured, "{written:?}");
}
