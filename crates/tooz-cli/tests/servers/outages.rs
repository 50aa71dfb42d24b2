//! Outages of real servers: what a person reads of them on stderr, what a program reads as events, and what a screen shows.

use std::fs::File;
use std::process::Stdio;

use tooz_testbed::{Kind, Setup};

use super::shared::screen::Screen;
use super::shared::session::Session;
use super::shared::shape::Shapes;
use super::shared::{Bench, Running, lines, until, with_default_signals, without_times};
use super::{Backend, Breakable};

/// A CMD that does not end when it is told to: so there is time for all that happens.
const STUBBORN: &str = "trap '' TERM; touch up; while :; do sleep 0.1; done";

/// Fails unless each of these is said, and in this order.
fn said_in_order(said: &str, words: &[&str]) {
    let mut rest = said;
    for word in words {
        let at = rest.find(word).unwrap_or_else(|| panic!("{word:?} is not said, or too early:\n{said}"));
        rest = &rest[at + word.len()..];
    }
}

pub(super) fn an_outage_that_lasts_can_be_read_from_stderr(backend: &Backend) {
    let Some(own) = Breakable::start(backend, "session_timeout=4s") else { return };
    let mut holder = own.start_telling(&["lock", "x", "--", "sh", "-c", STUBBORN]);
    until("CMD is up", || own.bench.path("up").exists());
    own.server.pause().unwrap();
    own.until_said("CMD is told to end (SIGTERM): no heartbeat has come for so long");
    assert_eq!(holder.code(), Some(76), "{}", own.bench.text("said"));
    own.server.resume().unwrap();
    let said = without_times(&own.bench.text("said"));
    said_in_order(
        &said,
        &[
            "tooz: acquired lock \"x\" (exclusive, token ",
            "tooz: session suspended: ",
            "tooz: CMD is told to end (SIGTERM): ",
            "tooz: session lost: ",
            "tooz: lock \"x\" was lost: ",
        ],
    );
    assert_eq!(said.matches("CMD is killed (SIGKILL): ").count(), 1, "{said}");
    assert_eq!(said.matches("session lost: ").count(), 1, "{said}");
}

pub(super) fn a_server_that_has_gone_is_told_of_with_the_reason(backend: &Backend) {
    let Some(own) = Breakable::start(backend, "session_timeout=4s") else { return };
    let mut holder = own.start_telling(&["lock", "x", "--", "sh", "-c", STUBBORN]);
    until("CMD is up", || own.bench.path("up").exists());
    own.server.kill().unwrap();
    assert_eq!(holder.code(), Some(76), "{}", own.bench.text("said"));
    let said = own.bench.text("said");
    // Where a session is a connection it is lost at once.
    let word =
        if backend.has_leases { format!("session suspended: {}: ", backend.kind) } else { "session lost: ".to_owned() };
    assert!(said.contains(&word), "{said}");
    for line in said.lines().map(str::to_lowercase) {
        assert!(!line.contains("os {") && !line.contains("os error") && line.matches("refused").count() <= 1, "{line}");
    }
}

/// Started by a shell that opens descriptor 7 for the bench's file `events`.
fn start_with_events(own: &Breakable, words: &str) -> Running {
    let mut shell = with_default_signals("sh");
    shell.args(["-c", &format!("exec \"$TOOZ\" {words} 7>events")]);
    shell.env("TOOZ", env!("CARGO_BIN_EXE_tooz")).env("TOOZ_URL", own.bench.url()).current_dir(own.bench.path(""));
    let said = File::create(own.bench.path("said")).unwrap();
    Running(shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said).spawn().unwrap())
}

/// The names of the events so far, each of the documented shape.
fn names(own: &Breakable) -> Vec<String> {
    let (shapes, text) = (Shapes::documented(), own.bench.text("events"));
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| shapes.check_event(line)).collect()
}

/// Fails unless they come in this order, whatever comes between.
fn in_order(names: &[String], wanted: &str) {
    let mut rest = names.iter();
    for word in wanted.split(' ') {
        assert!(rest.any(|name| name == word), "{word} is missing, or too early: {names:?}");
    }
}

pub(super) fn an_outage_is_told_to_programs(backend: &Backend) {
    let Some(own) = Breakable::start(backend, "session_timeout=4s") else { return };
    let mut holder = start_with_events(&own, &format!("lock x --events-fd 7 -c \"{STUBBORN}\""));
    until("CMD is up", || own.bench.path("up").exists());
    own.server.pause().unwrap();
    assert_eq!(holder.code(), Some(76), "{}", own.bench.text("said"));
    own.server.resume().unwrap();
    let names = names(&own);
    in_order(&names, "acquired started suspended ending session_lost lost error exit");
    assert_eq!(names.iter().filter(|name| *name == "ending").count(), 2, "SIGTERM and SIGKILL: {names:?}");
    let suspended = lines(&own.bench.path("events")).into_iter().find(|line| line.contains("\"suspended\"")).unwrap();
    assert!(!suspended.contains("\"sure_until\":null"), "{suspended}");
}

pub(super) fn an_outage_that_passes_is_told_to_programs(backend: &Backend) {
    let Some(own) = Breakable::start(backend, "session_timeout=20s") else { return };
    let script = "touch up; while [ ! -e go ]; do sleep 0.05; done; exit 9";
    let mut holder = start_with_events(&own, &format!("lock x --events-fd 7 -c '{script}'"));
    until("CMD is up", || own.bench.path("up").exists());
    own.server.pause().unwrap();
    let has = |name: &str| names(&own).iter().any(|one| one == name);
    until("it is suspended", || has("suspended"));
    own.server.resume().unwrap();
    until("it is resumed", || has("resumed"));
    std::fs::write(own.bench.path("go"), "").unwrap();
    assert_eq!(holder.code(), Some(9), "{}", own.bench.text("said"));
    in_order(&names(&own), "acquired started suspended resumed command_ended released exit");
}

pub(super) fn a_membership_that_is_lost_is_told_to_programs(backend: &Backend) {
    let Some(own) = Breakable::start(backend, "session_timeout=2s") else { return };
    let mut member = start_with_events(&own, "join g --member a --events-fd 7");
    let has = |name: &str| names(&own).iter().any(|one| one == name);
    until("it has joined", || has("joined"));
    own.server.pause().unwrap();
    until("it is lost", || has("membership_lost"));
    own.server.resume().unwrap();
    until("it is a member again", || has("rejoined"));
    member.signal("TERM");
    assert_eq!(member.code(), Some(0), "{}", own.bench.text("said"));
    in_order(&names(&own), "joined suspended session_lost membership_lost reopened rejoined interrupted left exit");
}

pub(super) fn a_leader_tells_in_order_what_it_loses(backend: &Backend) {
    let Some(own) = Breakable::start(backend, "session_timeout=3s") else { return };
    let cmd = ["--", "sh", "-c", "touch up; exec sleep 60"];
    let mut once = own.start_telling(&[&["elect", "g", "--once"][..], &cmd].concat());
    until("CMD is up", || own.bench.path("up").exists());
    own.server.pause().unwrap();
    assert_eq!(once.code(), Some(76), "{}", own.bench.text("said"));
    own.server.resume().unwrap();
    let said = own.bench.text("said");
    said_in_order(
        &said,
        &["elected leader", "session suspended", "CMD is told to end", "the leadership of group \"g\" was lost"],
    );
    assert!(!said.contains("again"), "it ends: {said}");
    let mut patient = own.start_telling(&[&["elect", "g"][..], &cmd].concat());
    own.until_said("elected leader");
    own.server.pause().unwrap();
    own.until_said("joining again");
    std::fs::remove_file(own.bench.path("up")).unwrap();
    own.server.resume().unwrap();
    until("CMD is up again", || own.bench.path("up").exists());
    let said = own.bench.text("said");
    said_in_order(
        &said,
        &["elected leader", "session suspended", "session lost", "joining again", "joined group", "elected leader"],
    );
    said_in_order(&said, &["session lost", "campaigning again", "elected leader"]);
    said_in_order(&said, &["session opened anew", "joined group \"g\" again"]);
    patient.signal("TERM");
    assert_eq!(patient.code(), Some(143));
    assert!(own.bench.text("said").contains("SIGTERM came, and is forwarded to CMD"), "{}", own.bench.text("said"));
}

pub(super) fn a_missing_group_is_waited_for_through_an_outage(backend: &Backend) {
    let Some(own) = Breakable::start(backend, "operation_timeout=1s") else { return };
    let mut asking = own.start_telling(&["members", "g", "--wait-for-group"]);
    own.until_said("waiting for group \"g\" to be created");
    own.server.pause().unwrap();
    own.until_said("; trying again");
    assert!(asking.0.try_wait().unwrap().is_none(), "{}", own.bench.text("said"));
    own.server.resume().unwrap();
    own.until_said("it works again");
    assert_eq!(own.bench.run(["group", "create", "g"]).code, Some(0));
    assert_eq!(asking.code(), Some(0), "{}", own.bench.text("said"));
}

/// Wrong credentials for a server, on those that ask for some: for all commands the same exit code.
pub(super) fn refused_credentials_have_an_exit_code_of_their_own(backend: &Backend) {
    let mut setup = Setup::new(backend.kind);
    if backend.kind == Kind::Redis {
        setup = setup.argument("--requirepass right");
    }
    let server = setup.start().expect("the server starts");
    let (scheme, rest) =
        server.url().split_once("://").map(|(scheme, rest)| (scheme.to_owned(), rest.to_owned())).unwrap();
    let host = rest.split_once('@').map_or(rest.as_str(), |(_, host)| host);
    let bench = Bench::on(format!("{scheme}://stranger:hunter2@{host}"));
    let (shapes, run) = (Shapes::documented(), ["--", "true"]);
    for words in [
        &["groups"][..],
        &["status", "--once"],
        &["doctor"],
        &[&["lock", "x"][..], &run].concat(),
        &[&["elect", "g"][..], &run].concat(),
        &[&["join", "g"][..], &run].concat(),
        &["watch", "g", "--wait-for-group"],
    ] {
        let done = bench.run(words.iter().copied());
        assert_eq!(done.code, Some(77), "{words:?} {done:?}");
        assert!(!done.err.contains("hunter2"), "{done:?}");
    }
    let done = bench.run(["groups", "--json"]);
    assert_eq!((done.code, shapes.check_event(&done.err).as_str()), (Some(77), "error"));
    assert!(done.err.contains("\"kind\":\"Unauthorized\"") && done.err.contains("\"exit_code\":77"), "{done:?}");
}

pub(super) fn a_screen_shows_an_outage_and_the_session_behind_it(backend: &Backend) {
    let Some(own) = Breakable::start(backend, "session_timeout=3s") else { return };
    let mut session = Session::open();
    session.type_in(&format!("\"$TOOZ\" --url '{}' status --session --every 300ms; echo code-$?-\n", own.bench.url()));
    let shows = |session: &Session, line: usize, words: &str| {
        until(&format!("line {line} shows {words:?}: {:?}", Screen::of(&session.written()).lines()), || {
            Screen::of(&session.written()).lines()[line].contains(words)
        });
    };
    shows(&session, 1, "open, sure for ");
    own.server.pause().unwrap();
    shows(&session, 0, "no answer for ");
    shows(&session, 1, "lost: ");
    own.server.resume().unwrap();
    shows(&session, 0, "round trip: p50 ");
    shows(&session, 1, "open, sure for ");
    let screen = Screen::of(&session.written());
    // A look may have been answered in part, and then each part says what it lacks.
    for words in [
        ["the backend does not answer: ", "session suspended: "],
        ["the backend answers again", "session opened anew"],
        ["session lost: "; 2],
    ] {
        let is_told = words.iter().any(|words| screen.lines().iter().any(|line| line.contains(words)));
        assert!(is_told, "{words:?}: {:#?}", screen.lines());
    }
    session.type_in("q");
    session.shows("code-0-");
}
