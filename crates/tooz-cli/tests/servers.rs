//! The command on real servers, where a session has a timeout and a server is the judge. Each trial is called `<backend>::…`.
//!
//! Times are the product's promises, and slack for a machine that does other things at the same time.

// Long because all trials on real servers are in one program, which starts one server of each kind for them.

#[path = "servers/outages.rs"]
mod outages;
mod shared;

use std::process::{ExitCode, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use shared::machine::Machine;
use shared::{Bench, Running, is_alive, lines, until};
use tooz_conformance::own::Own;
use tooz_testbed::{Kind, Provided, Server, Setup, for_tests};

/// Short, so that the tests are; long enough that a busy machine never misses it by accident.
const TIMEOUT: Duration = Duration::from_secs(4);

/// What starting a process and being started late may take on a machine that has nothing else to do.
const SLACK: Duration = Duration::from_millis(1500);

/// One backend as these tests see it.
struct Backend {
    kind: Kind,
    /// How long after its timeout a dead holder's lock may still be held.
    late: Duration,
    /// Whether a lock can be broken there, and the dead have to be waited for.
    has_leases: bool,
    server: OnceLock<Server>,
}

static BACKENDS: [Backend; 7] = [
    Backend { kind: Kind::Redis, late: Duration::from_millis(500), has_leases: true, server: OnceLock::new() },
    Backend { kind: Kind::Etcd, late: Duration::from_secs(1), has_leases: true, server: OnceLock::new() },
    // Consul ends a session after twice its timeout.
    Backend {
        kind: Kind::Consul,
        late: TIMEOUT.saturating_add(Duration::from_secs(1)),
        has_leases: true,
        server: OnceLock::new(),
    },
    Backend { kind: Kind::Memcached, late: Duration::from_millis(2500), has_leases: true, server: OnceLock::new() },
    // Sessions end at a tick of the leader.
    Backend { kind: Kind::ZooKeeper, late: Duration::from_secs(1), has_leases: true, server: OnceLock::new() },
    // The server sees a connection end.
    Backend { kind: Kind::Postgres, late: Duration::ZERO, has_leases: false, server: OnceLock::new() },
    Backend { kind: Kind::MySql, late: Duration::ZERO, has_leases: false, server: OnceLock::new() },
];

/// Of backends alone where a session is a lease of the server's, and not a connection.
const OF_LEASES: [&str; 2] =
    ["a_broken_lock_is_lost_for_its_holder_and_free_for_others", "a_member_that_crashed_is_followed_by_its_next_run"];

/// Whose servers, as the testbed starts them, refuse a stranger.
const ASKS_WHO_IT_IS: [Kind; 3] = [Kind::Redis, Kind::Postgres, Kind::MySql];

type Case = (&'static str, fn(&'static Backend));

const CASES: [Case; 22] = [
    (
        "a_broken_lock_is_lost_for_its_holder_and_free_for_others",
        a_broken_lock_is_lost_for_its_holder_and_free_for_others,
    ),
    ("the_lock_of_a_killed_holder_is_the_next_ones_in_time", the_lock_of_a_killed_holder_is_the_next_ones_in_time),
    (
        "cmd_of_a_stopped_tooz_is_dead_before_the_lock_is_anothers",
        cmd_of_a_stopped_tooz_is_dead_before_the_lock_is_anothers,
    ),
    ("a_killed_leader_is_followed_after_a_vacancy", a_killed_leader_is_followed_after_a_vacancy),
    ("a_watch_tells_who_comes_and_dies", a_watch_tells_who_comes_and_dies),
    ("many_lockers_take_turns_with_growing_tokens", many_lockers_take_turns_with_growing_tokens),
    ("the_doctor_finds_nothing_wrong", the_doctor_finds_nothing_wrong),
    ("a_member_that_crashed_is_followed_by_its_next_run", a_member_that_crashed_is_followed_by_its_next_run),
    ("a_member_is_taken_over_at_once_on_request", a_member_is_taken_over_at_once_on_request),
    ("an_outage_that_ends_in_time_does_not_end_cmd", an_outage_that_ends_in_time_does_not_end_cmd),
    ("an_outage_that_lasts_can_be_read_from_stderr", outages::an_outage_that_lasts_can_be_read_from_stderr),
    ("a_server_that_has_gone_is_told_of_with_the_reason", outages::a_server_that_has_gone_is_told_of_with_the_reason),
    ("an_outage_is_told_to_programs", outages::an_outage_is_told_to_programs),
    ("an_outage_that_passes_is_told_to_programs", outages::an_outage_that_passes_is_told_to_programs),
    ("a_membership_that_is_lost_is_told_to_programs", outages::a_membership_that_is_lost_is_told_to_programs),
    ("a_leader_tells_in_order_what_it_loses", outages::a_leader_tells_in_order_what_it_loses),
    ("a_missing_group_is_waited_for_through_an_outage", outages::a_missing_group_is_waited_for_through_an_outage),
    ("a_screen_shows_an_outage_and_the_session_behind_it", outages::a_screen_shows_an_outage_and_the_session_behind_it),
    ("a_short_session_ends_no_cmd_while_the_server_serves", a_short_session_ends_no_cmd_while_the_server_serves),
    ("a_membership_tells_of_its_loss_and_of_its_return", a_membership_tells_of_its_loss_and_of_its_return),
    ("cmds_own_code_stands_when_leaving_fails", cmds_own_code_stands_when_leaving_fails),
    ("a_signal_ends_a_leave_that_no_server_answers", a_signal_ends_a_leave_that_no_server_answers),
];

fn main() -> ExitCode {
    let mut trials: Vec<Trial> =
        BACKENDS.iter().flat_map(|backend| backend.cases().map(move |case| trial(backend, *case))).collect();
    let evicting =
        trial(&BACKENDS[0], ("the_doctor_finds_a_server_that_evicts", the_doctor_finds_a_server_that_evicts));
    let users_own = matches!(for_tests(Kind::Redis), Provided::Own(_));
    let refusing = (
        "what_is_refused_for_a_while_is_told_and_stands_again",
        what_is_refused_for_a_while_is_told_and_stands_again as fn(&'static Backend),
    );
    let refusing = trial(&BACKENDS[0], refusing);
    for backend in BACKENDS.iter().filter(|backend| ASKS_WHO_IT_IS.contains(&backend.kind)) {
        let name = "refused_credentials_have_an_exit_code_of_their_own";
        trials.push(trial(backend, (name, outages::refused_credentials_have_an_exit_code_of_their_own)));
    }
    // They need a server that is set up badly or changed, and no server of a user is.
    trials.extend([evicting, refusing].map(|one| if users_own { one.with_ignored_flag(true) } else { one }));
    Own::new(None, &[]).main(trials)
}

fn trial(backend: &'static Backend, (name, case): Case) -> Trial {
    let missing = match for_tests(backend.kind) {
        Provided::Missing(reason) => Some(reason),
        _ => None,
    };
    Own::new(missing, &[]).trial(&format!("{}::{name}", backend.kind), move || {
        case(backend);
        Ok(())
    })
}

impl Backend {
    fn cases(&self) -> impl Iterator<Item = &'static Case> {
        let has_leases = self.has_leases;
        CASES.iter().filter(move |(name, _)| has_leases || !OF_LEASES.contains(name))
    }

    /// A bench in a namespace of its own on the server that all trials of this backend share.
    fn bench(&self) -> Bench {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let url = match for_tests(self.kind) {
            Provided::Own(url) => url,
            _ => self.server.get_or_init(|| Server::start(self.kind).expect("the server starts")).url(),
        };
        let mark = if url.contains('?') { '&' } else { '?' };
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("cli-{}-{number}", std::process::id());
        Bench::on(format!("{url}{mark}namespace={namespace}&session_timeout={}s", TIMEOUT.as_secs()))
    }
}

/// A bench on a server that is its own, to be broken; nothing where the user gave one, which is not to be broken.
struct Breakable {
    bench: Bench,
    server: Server,
}

impl Breakable {
    fn start(backend: &Backend, options: &str) -> Option<Self> {
        if matches!(for_tests(backend.kind), Provided::Own(_)) {
            return None;
        }
        let server = Server::start(backend.kind).expect("the server starts");
        let bench = Bench::on(format!("{}?{options}", server.url()));
        Some(Breakable { bench, server })
    }

    /// Starts it, with what it says on stderr in the bench's file `said`.
    fn start_telling(&self, words: &[&str]) -> Running {
        let said = std::fs::File::create(self.bench.path("said")).unwrap();
        let mut command = self.bench.tooz(words.iter().copied());
        Running(command.stdout(Stdio::null()).stderr(said).spawn().unwrap())
    }

    fn until_said(&self, words: &str) {
        until(&format!("it says {words:?}"), || self.bench.text("said").contains(words));
    }
}

/// Writes down which process it is; the next one with this script tells if the last one is alive.
const ALONE: &str = "last=$(cat owner 2>/dev/null)
    if [ -n \"$last\" ] && kill -0 $last 2>/dev/null; then touch overlap; fi
    echo $$ > owner.new; mv owner.new owner; echo $TOOZ_FENCING_TOKEN >> tokens;";

/// `tooz lock` with a CMD that has written down who it is, and the id of that CMD.
fn hold(bench: &Bench, script: &str) -> (Running, i32) {
    let holder = bench.hold("x", &format!("{ALONE} {script}"));
    until("CMD has written its token", || bench.text("tokens").ends_with('\n'));
    (holder, bench.number("ready-x"))
}

/// The tokens of all holders so far.
fn tokens(bench: &Bench) -> Vec<u64> {
    lines(&bench.path("tokens")).iter().map(|token| token.parse().unwrap()).collect()
}

fn wait_for_next(bench: &Bench) -> Running {
    bench.start(["lock", "x", "--", "sh", "-c", &format!("{ALONE} touch next")])
}

/// Waits until somebody else has the lock; answers how long that took.
fn until_next(bench: &Bench, begin: Instant) -> Duration {
    until("the next one has the lock", || bench.path("next").exists());
    begin.elapsed()
}

/// Where a session ends with its connection, the server frees the lock when `tooz` is killed, at the moment at which its guard hears of that as well: the README says so.
fn cmd_is_dead_first(backend: &Backend, bench: &Bench) -> bool {
    !backend.has_leases || !bench.path("overlap").exists()
}

fn a_broken_lock_is_lost_for_its_holder_and_free_for_others(backend: &Backend) {
    let bench = backend.bench();
    let (mut holder, cmd) = hold(&bench, "sleep 60");
    let token = tokens(&bench)[0].to_string();
    let wrong = bench.run(["break", "x", "--token", "1"]);
    assert_eq!(wrong.code, Some(66), "{wrong:?}");
    assert!(is_alive(cmd), "another token is another grant");
    let done = bench.run(["break", "x", "--token", &token]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.out.starts_with("taken from ") && done.out.ends_with(&format!(" (token {token})\n")), "{done:?}");
    assert_eq!(bench.run(["lock", "x", "--wait", "2s", "--", "true"]).code, Some(0));
    assert_eq!(holder.code(), Some(76));
    assert!(!is_alive(cmd));
    assert_eq!(bench.run(["break", "x"]).code, Some(66), "there is nothing to break");
}

fn the_lock_of_a_killed_holder_is_the_next_ones_in_time(backend: &Backend) {
    let (bench, machine) = (backend.bench(), Machine::watch());
    let (holder, _) = hold(&bench, "sleep 60");
    let mut next = wait_for_next(&bench);
    // It has to be in the queue, or this would be about something else.
    std::thread::sleep(Duration::from_millis(500));
    let begin = Instant::now();
    holder.signal("KILL");
    let took = until_next(&bench, begin);
    assert!(cmd_is_dead_first(backend, &bench), "CMD outlived its lock");
    let most = TIMEOUT + backend.late + machine.slack(SLACK);
    assert!(took < most, "{took:?} is more than {most:?}");
    assert_eq!(next.code(), Some(0));
    let tokens = tokens(&bench);
    assert!(tokens.len() == 2 && tokens[0] < tokens[1], "{tokens:?}");
}

fn cmd_of_a_stopped_tooz_is_dead_before_the_lock_is_anothers(backend: &Backend) {
    let (bench, machine) = (backend.bench(), Machine::watch());
    // It does not end by itself when it is told to.
    let (mut holder, cmd) = hold(&bench, "trap '' TERM; while :; do sleep 0.1; done");
    let mut next = wait_for_next(&bench);
    std::thread::sleep(Duration::from_millis(500));
    let begin = Instant::now();
    holder.signal("STOP");
    let took = until_next(&bench, begin);
    assert!(!bench.path("overlap").exists(), "CMD outlived its lock");
    assert!(!is_alive(cmd));
    let most = TIMEOUT + backend.late + machine.slack(SLACK);
    assert!(took < most, "{took:?} is more than {most:?}");
    holder.signal("CONT");
    assert_eq!(holder.code(), Some(76));
    assert_eq!(next.code(), Some(0));
}

fn a_killed_leader_is_followed_after_a_vacancy(backend: &Backend) {
    let (bench, machine) = (backend.bench(), Machine::watch());
    let stand = |member: &str| {
        let script = format!("echo $$ > leads-{member}.new; mv leads-{member}.new leads-{member}; exec sleep 60");
        bench.start(["elect", "g", "--member", member, "--", "sh", "-c", &script])
    };
    let first = stand("first");
    until("the first one leads", || bench.path("leads-first").exists());
    let mut watch = watch(&bench, &["watch", "g", "--leader", "--json"]);
    let events = || kinds(&bench);
    until("the watch has begun", || events() == ["elected first"]);
    let mut second = stand("second");
    until("the second one is a member", || bench.run(["members", "g"]).out.lines().count() == 2);
    // Being a member, it stands at once.
    std::thread::sleep(Duration::from_millis(300));
    let begin = Instant::now();
    first.signal("KILL");
    until("the second one leads", || bench.path("leads-second").exists());
    let (took, most) = (begin.elapsed(), TIMEOUT + backend.late + machine.slack(SLACK));
    assert!(took < most, "{took:?} is more than {most:?}");
    if backend.has_leases {
        assert!(!is_alive(bench.number("leads-first")), "both CMDs run");
    } else {
        until("the first CMD is dead", || !is_alive(bench.number("leads-first")));
    }
    until("the watch has told it", || events() == ["elected first", "vacant", "elected second"]);
    second.signal("TERM");
    assert_eq!(second.code(), Some(143));
    until("the watch tells that there is no leader", || events().last().is_some_and(|event| event == "vacant"));
    watch.signal("TERM");
    assert_eq!(watch.code(), Some(0));
}

fn a_watch_tells_who_comes_and_dies(backend: &Backend) {
    let (bench, machine) = (backend.bench(), Machine::watch());
    assert_eq!(bench.run(["group", "create", "g"]).code, Some(0));
    let mut watch = watch(&bench, &["watch", "g", "--json"]);
    until("the snapshot", || kinds(&bench) == ["snapshot"]);
    let member = bench.start(["join", "g", "--member", "a", "--capabilities", "{\"x\":1}"]);
    until("a joins", || kinds(&bench) == ["snapshot", "joined a"]);
    let begin = Instant::now();
    member.signal("KILL");
    until("a dies", || kinds(&bench) == ["snapshot", "joined a", "left a"]);
    let (took, most) = (begin.elapsed(), TIMEOUT + backend.late + machine.slack(SLACK));
    assert!(took < most, "{took:?} is more than {most:?}");
    assert_eq!(bench.run(["group", "delete", "g"]).code, Some(0), "the dead do not linger");
    assert_eq!(watch.code(), Some(0));
    assert_eq!(kinds(&bench).last().unwrap(), "deleted");
}

fn many_lockers_take_turns_with_growing_tokens(backend: &Backend) {
    let bench = backend.bench();
    let script = format!("{ALONE} sleep 0.02");
    let mut lockers: Vec<Running> = (0..10).map(|_| bench.start(["lock", "x", "--", "sh", "-c", &script])).collect();
    for locker in &mut lockers {
        assert_eq!(locker.code(), Some(0));
    }
    assert!(!bench.path("overlap").exists());
    let tokens = tokens(&bench);
    assert_eq!(tokens.len(), 10);
    assert!(tokens.windows(2).all(|pair| pair[0] < pair[1]), "{tokens:?}");
}

fn the_doctor_finds_nothing_wrong(backend: &Backend) {
    let bench = backend.bench();
    let done = bench.run(["doctor"]);
    assert_eq!((done.code, done.err.as_str()), (Some(0), ""), "{done:?}");
    assert!(!done.out.contains("wrong\t") && done.out.contains("round trip"), "{done:?}");
    let json = bench.run(["doctor", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(report["driver"], backend.kind.name());
    assert!(report["server"].as_str().is_some_and(|server| !server.is_empty()), "{report}");
    assert_eq!(report["session"]["timeout_ms"], 4000);
    for figure in ["read", "write", "lock_and_release", "hand_over"] {
        assert!(report["measured"][figure]["p50_us"].is_u64(), "{figure}: {report}");
    }
    assert_eq!(bench.run(["groups"]).out, "");
    // A warning is one only if it is asked for.
    let warned = report["verdict"] == "warning";
    assert_eq!(bench.run(["doctor", "--strict"]).code, Some(i32::from(warned)));
}

fn the_doctor_finds_a_server_that_evicts(backend: &Backend) {
    let setup = Setup::new(backend.kind).argument("--maxmemory 100mb --maxmemory-policy allkeys-lru");
    let server = setup.start().expect("the server starts");
    let refused = Bench::on(server.url()).run(["doctor"]);
    assert_eq!(refused.code, Some(64), "{refused:?}");
    assert!(refused.err.contains("noeviction"), "{refused:?}");
    let accepted = Bench::on(format!("{}?allow_eviction=true", server.url())).run(["doctor"]);
    assert_eq!(accepted.code, Some(1), "{accepted:?}");
    let finding = accepted.out.lines().find(|line| line.starts_with("wrong\t")).expect("something is wrong");
    assert!(finding.contains("CONFIG SET maxmemory-policy noeviction"), "{finding}");
    server.stop().expect("the server stops");
    let gone = Bench::on(format!("{}?connect_timeout=2s", server.url())).run(["doctor"]);
    assert_eq!((gone.code, gone.out.as_str()), (Some(69), ""), "{gone:?}");
}

fn a_member_that_crashed_is_followed_by_its_next_run(backend: &Backend) {
    let (bench, machine) = (backend.bench(), Machine::watch());
    for command in ["join", "elect"] {
        let words = [command, "g", "--member", "service", "--", "sh", "-c", "touch up; exec sleep 60"];
        let first = bench.start(words);
        until("it is up", || bench.path("up").exists());
        std::fs::remove_file(bench.path("up")).unwrap();
        let begin = Instant::now();
        first.signal("KILL");
        // As a supervisor does it, at once.
        let next = bench.run([command, "g", "--member", "service", "--", "sh", "-c", "exit 5"]);
        assert_eq!(next.code, Some(5), "{next:?}");
        assert!(next.err.contains("waiting for its end, at most") && next.err.contains("--take-over"), "{next:?}");
        let (took, most) = (begin.elapsed(), TIMEOUT + backend.late + machine.slack(SLACK));
        assert!(took < most, "{took:?} is more than {most:?}");
    }
}

fn a_member_is_taken_over_at_once_on_request(backend: &Backend) {
    let bench = backend.bench();
    let mut first = bench.start(["join", "g", "--member", "service", "--", "sh", "-c", "touch up; exec sleep 60"]);
    until("it is up", || bench.path("up").exists());
    let begin = Instant::now();
    let next = bench.run(["join", "g", "--member", "service", "--take-over", "--", "sh", "-c", "exit 5"]);
    assert_eq!(next.code, Some(5), "{next:?}");
    // It did not wait for the end of a session.
    assert!(begin.elapsed() < TIMEOUT, "{:?}", begin.elapsed());
    assert_eq!(first.code(), Some(76));
}

/// At the defaults: a heartbeat each 3.3 s, a deadline 9 s after the last one, SIGTERM 2.5 s before that. So 3.1 s are the most that an
/// outage may last wherever between two heartbeats it begins.
fn an_outage_that_ends_in_time_does_not_end_cmd(backend: &Backend) {
    let Some(own) = Breakable::start(backend, "session_timeout=10s") else { return };
    let mut holder = own.bench.hold("x", "trap 'touch told' TERM; while [ ! -e go ]; do sleep 0.05; done; exit 9");
    for round in 0..4 {
        // Heartbeats are somewhere else in each round.
        std::thread::sleep(Duration::from_millis(3_400 + 700 * round));
        own.server.pause().unwrap();
        std::thread::sleep(Duration::from_millis(2_800));
        own.server.resume().unwrap();
    }
    std::thread::sleep(Duration::from_secs(1));
    assert!(!own.bench.path("told").exists(), "it was told to end");
    std::fs::write(own.bench.path("go"), "").unwrap();
    assert_eq!(holder.code(), Some(9));
}

fn a_short_session_ends_no_cmd_while_the_server_serves(backend: &Backend) {
    let Some(own) = Breakable::start(backend, "session_timeout=4s") else { return };
    // Longer than any session without a heartbeat.
    let words: [&[&str]; 2] = [&["lock", "x", "--", "sleep", "6"], &["elect", "g", "--", "sleep", "6"]];
    let running = words.map(|words| own.bench.tooz(words.iter().copied()).stderr(Stdio::piped()).spawn().unwrap());
    for one in running {
        let output = one.wait_with_output().unwrap();
        assert!(output.status.success(), "{:?}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
}

fn a_membership_tells_of_its_loss_and_of_its_return(backend: &Backend) {
    let Some(own) = Breakable::start(backend, "session_timeout=2s") else { return };
    let mut member = own.start_telling(&["join", "g", "--member", "a", "--", "sh", "-c", "exec sleep 60"]);
    own.until_said("joined group \"g\" as \"a\"");
    own.server.pause().unwrap();
    own.until_said("the membership of group \"g\" was lost: ");
    own.server.resume().unwrap();
    own.until_said("joined group \"g\" again as \"a\"");
    assert!(own.bench.run(["members", "g"]).out.starts_with("a\t"));
    member.signal("TERM");
    assert_eq!(member.code(), Some(143));
}

fn cmds_own_code_stands_when_leaving_fails(backend: &Backend) {
    let Some(own) = Breakable::start(backend, "session_timeout=30s&operation_timeout=1s") else { return };
    for command in ["join", "elect"] {
        let script = "touch up; while [ ! -e go ]; do sleep 0.05; done; exit 7";
        let mut member = own.start_telling(&[command, "g", "--", "sh", "-c", script]);
        until("CMD is up", || own.bench.path("up").exists());
        own.server.pause().unwrap();
        std::fs::write(own.bench.path("go"), "").unwrap();
        let code = member.code();
        own.server.resume().unwrap();
        assert_eq!(code, Some(7), "{}", own.bench.text("said"));
        assert!(own.bench.text("said").lines().count() > 1, "nothing is said of it: {}", own.bench.text("said"));
        std::fs::remove_file(own.bench.path("go")).unwrap();
        std::fs::remove_file(own.bench.path("up")).unwrap();
    }
}

fn a_signal_ends_a_leave_that_no_server_answers(backend: &Backend) {
    let Some(own) = Breakable::start(backend, "session_timeout=60s&operation_timeout=15s") else { return };
    let mut member = own.start_telling(&["join", "g", "--", "sh", "-c", "touch up; exec sleep 1"]);
    until("CMD is up", || own.bench.path("up").exists());
    own.server.pause().unwrap();
    std::thread::sleep(Duration::from_millis(2_500));
    assert!(member.0.try_wait().unwrap().is_none(), "it did not wait at all: {}", own.bench.text("said"));
    let begin = Instant::now();
    // The leave, and what closing does beyond it.
    while member.0.try_wait().unwrap().is_none() {
        assert!(begin.elapsed() < Duration::from_secs(3), "{}", own.bench.text("said"));
        member.signal("TERM");
        std::thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(member.code(), Some(0), "{}", own.bench.text("said"));
}

/// A password that was changed at the server, and is put back.
fn what_is_refused_for_a_while_is_told_and_stands_again(backend: &Backend) {
    let own = Breakable::start(backend, "session_timeout=2s").expect("it is not the user's own");
    let redis_cli = |password: &[&str], words: &[&str]| {
        let mut command = own.server.tool("redis-cli").unwrap();
        let status = command.args(password).args(words).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(status.success(), "{words:?}");
    };
    let mut member = own.start_telling(&["join", "g", "--member", "a", "--", "sh", "-c", "exec sleep 60"]);
    own.until_said("joined group \"g\" as \"a\"");
    let mut watch = watch(&own.bench, &["watch", "g", "--json"]);
    until("the snapshot", || kinds(&own.bench) == ["snapshot"]);
    redis_cli(&[], &["CONFIG", "SET", "requirepass", "other"]);
    redis_cli(&["-a", "other"], &["CLIENT", "KILL", "TYPE", "normal"]);
    redis_cli(&["-a", "other"], &["CLIENT", "KILL", "TYPE", "pubsub"]);
    own.until_said("the membership of group \"g\" was lost: ");
    own.until_said("; trying again");
    assert!(member.0.try_wait().unwrap().is_none() && watch.0.try_wait().unwrap().is_none(), "one has given up");
    redis_cli(&["-a", "other"], &["CONFIG", "SET", "requirepass", ""]);
    own.until_said("joined group \"g\" again as \"a\"");
    let other = own.bench.start(["join", "g", "--member", "b"]);
    until("the watch goes on", || kinds(&own.bench).iter().any(|event| event == "joined b"));
    other.signal("TERM");
    watch.signal("TERM");
    assert_eq!(watch.code(), Some(0));
    member.signal("TERM");
    assert_eq!(member.code(), Some(143), "{}", own.bench.text("said"));
}

/// A watch that writes its lines into the bench's file `events`.
fn watch(bench: &Bench, words: &[&str]) -> Running {
    let output = std::fs::File::create(bench.path("events")).unwrap();
    let mut command = bench.tooz(words.iter().copied());
    Running(command.stdout(output).stderr(Stdio::inherit()).spawn().unwrap())
}

/// What has been written there: each event with whom it is about.
fn kinds(bench: &Bench) -> Vec<String> {
    let whole = |line: &String| serde_json::from_str::<serde_json::Value>(line).ok();
    let words = |event: serde_json::Value| {
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        format!("{} {}", text("event"), text("member")).trim().to_owned()
    };
    lines(&bench.path("events")).iter().filter_map(whole).map(words).collect()
}
