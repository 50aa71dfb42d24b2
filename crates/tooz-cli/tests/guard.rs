//! What happens to CMD when `tooz`, its guard or both are killed or stopped, and when the lock is lost.

mod shared;

use std::time::{Duration, Instant};

use shared::{Bench, children, is_alive, signal, until};

/// A CMD with a child that ignores SIGTERM and one in a session of its own; each writes its id down.
const FAMILY: &str = "sh -c 'trap \"\" TERM; echo $$ > stubborn; while :; do sleep 1; done' &
    setsid sh -c 'echo $$ > stranger; trap \"\" TERM; while :; do sleep 1; done' &
    while :; do sleep 1; done";

fn family(bench: &Bench) -> [i32; 3] {
    [bench.number("ready-x"), bench.number("stubborn"), bench.number("stranger")]
}

/// The guard of a `tooz` that runs CMD.
fn guard_of(tooz: i32) -> i32 {
    until("there is a guard", || !children(tooz).is_empty());
    children(tooz)[0]
}

#[test]
fn all_of_cmd_dies_with_a_killed_tooz_before_the_lock_is_free() {
    let bench = Bench::new();
    let holder = bench.hold("x", FAMILY);
    let family = family(&bench);
    // The next holder looks by itself whether anybody of the last one's is alive.
    let look = family.map(|pid| format!("kill -0 {pid} 2>/dev/null && echo {pid} lives;")).concat();
    let next = bench.tooz(["lock", "x", "--", "sh", "-c", &look]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(200));
    holder.signal("KILL");
    let begin = Instant::now();
    let done = shared::Done::from(next.wait_with_output().unwrap());
    assert_eq!(done.out, "", "CMD outlived its lock");
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert!(family.iter().all(|pid| !is_alive(*pid)));
}

#[test]
fn the_lock_is_not_free_before_the_guard_has_ended_cmd() {
    // A group whose last parent in the session dies is continued by the kernel if it is stopped; with this process
    // as the new parent of the guard it is not.
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let bench = Bench::new();
    let holder = bench.hold("x", FAMILY);
    let family = family(&bench);
    let guard = guard_of(holder.pid());
    // A guard that is slow to act, made so slow that everybody can see it.
    signal(guard, "STOP");
    holder.signal("KILL");
    assert_eq!(bench.run(["lock", "x", "--wait", "500ms", "--", "true"]).code, Some(75));
    assert!(family.iter().all(|pid| is_alive(*pid)));
    signal(guard, "CONT");
    assert_eq!(bench.run(["lock", "x", "--wait", "10s", "--", "true"]).code, Some(0));
    assert!(family.iter().all(|pid| !is_alive(*pid)));
}

#[test]
fn all_of_cmd_dies_with_a_killed_guard() {
    let bench = Bench::new();
    let mut holder = bench.hold("x", FAMILY);
    let family = family(&bench);
    signal(guard_of(holder.pid()), "KILL");
    assert_eq!(holder.code(), Some(125));
    assert!(family.iter().all(|pid| !is_alive(*pid)));
    assert_eq!(bench.run(["lock", "x", "--no-wait", "--", "true"]).code, Some(0));
}

#[test]
fn a_stopped_tooz_keeps_lock_and_cmd_where_the_kernel_is_the_judge() {
    let bench = Bench::new();
    let mut holder = bench.hold("x", "while [ ! -e go ]; do sleep 0.01; done; exit 7");
    holder.signal("STOP");
    assert_eq!(bench.run(["lock", "x", "--wait", "300ms", "--", "true"]).code, Some(75));
    assert!(is_alive(bench.number("ready-x")));
    std::fs::write(bench.path("go"), "").unwrap();
    holder.signal("CONT");
    assert_eq!(holder.code(), Some(7));
}

/// `memory:` has a session timeout like a server's; no other process can reach that lock, but the deadline is judged the same way.
fn hold_in_memory(bench: &Bench, script: &str) -> shared::Running {
    let script = format!("echo $$ > ready-x.new; mv ready-x.new ready-x; {script}");
    let words = ["--url", "memory://m?session_timeout=2s", "lock", "x", "--", "sh", "-c", &script];
    let running = bench.start(words);
    until("CMD runs", || bench.path("ready-x").exists());
    running
}

#[test]
fn the_guard_of_a_stopped_tooz_ends_cmd_at_the_deadline() {
    let bench = Bench::new();
    let mut holder = hold_in_memory(&bench, FAMILY);
    let family = family(&bench);
    // Longer than the timeout: the heartbeats move the deadline on.
    std::thread::sleep(Duration::from_millis(2500));
    assert!(family.iter().all(|pid| is_alive(*pid)), "ended although every heartbeat came");
    holder.signal("STOP");
    let begin = Instant::now();
    until("all of CMD is dead", || family.iter().all(|pid| !is_alive(*pid)));
    assert!(begin.elapsed() < Duration::from_secs(2), "after the expiry: {:?}", begin.elapsed());
    holder.signal("CONT");
    assert_eq!(holder.code(), Some(76));
}

#[test]
fn cmd_gets_a_chance_to_tidy_up_before_the_deadline() {
    let bench = Bench::new();
    let script = "trap 'kill $!; touch tidied; exit 0' TERM; sleep 60 & touch trapped; wait";
    let mut holder = hold_in_memory(&bench, script);
    until("the trap is set", || bench.path("trapped").exists());
    holder.signal("STOP");
    until("it was told", || bench.path("tidied").exists());
    holder.signal("CONT");
    assert_eq!(holder.code(), Some(76));
}

#[test]
fn a_stopped_guard_is_replaced_by_tooz_itself() {
    let bench = Bench::new();
    let mut holder = bench.hold("x", FAMILY);
    let family = family(&bench);
    signal(guard_of(holder.pid()), "STOP");
    // The lock file is gone: the lock is lost, and the guard, which should act now, sleeps.
    remove_lock_files(&bench.path("backend"));
    assert_eq!(holder.code(), Some(76));
    assert!(family.iter().all(|pid| !is_alive(*pid)));
}

#[test]
fn cmd_is_killed_when_the_lock_file_is_deleted() {
    let bench = Bench::new();
    let mut holder = bench.hold("x", FAMILY);
    let family = family(&bench);
    remove_lock_files(&bench.path("backend"));
    assert_eq!(holder.code(), Some(76));
    assert!(family.iter().all(|pid| !is_alive(*pid)));
}

/// As a cleaner of temporary files would do.
fn remove_lock_files(backend: &std::path::Path) {
    for namespace in std::fs::read_dir(backend).unwrap().flatten() {
        std::fs::remove_dir_all(namespace.path().join("locks")).unwrap();
    }
}

#[test]
fn a_lock_in_a_lock_ends_with_the_outer_one() {
    let bench = Bench::new();
    let tooz = env!("CARGO_BIN_EXE_tooz");
    let outer = bench.hold("x", &format!("{tooz} lock inner -- sh -c 'echo $$ > inner; sleep 60'"));
    let inner = bench.number("inner");
    outer.signal("KILL");
    until("the inner CMD is dead", || !is_alive(inner));
    assert_eq!(bench.run(["lock", "inner", "--wait", "5s", "--", "true"]).code, Some(0));
}

#[test]
fn a_leader_that_was_stopped_too_long_campaigns_again_unless_told_not_to() {
    let bench = Bench::new();
    let url = "memory://m?session_timeout=2s";
    let script = "echo $TOOZ_EPOCH >> terms; exec sleep 60";
    let elect = |once: &[&'static str]| {
        let mut words = vec!["--url", url, "elect", "g"];
        words.extend(once);
        words.extend(["--", "sh", "-c", script]);
        bench.start(words)
    };
    let terms = || shared::lines(&bench.path("terms"));
    let lose = |leader: &shared::Running| {
        let guard = guard_of(leader.pid());
        until("CMD runs", || !children(guard).is_empty());
        let cmd = children(guard)[0];
        leader.signal("STOP");
        until("CMD is dead", || !is_alive(cmd));
        // Past the expiry, so that the session is over as well.
        std::thread::sleep(Duration::from_secs(1));
        leader.signal("CONT");
    };
    let mut patient = elect(&[]);
    until("it leads", || terms().len() == 1);
    lose(&patient);
    until("it leads again", || terms().len() == 2);
    let epochs: Vec<u64> = terms().iter().map(|line| line.parse().unwrap()).collect();
    assert!(epochs[0] < epochs[1], "{epochs:?}");
    patient.signal("TERM");
    assert_eq!(patient.code(), Some(143));
    let mut once = elect(&["--once"]);
    until("it leads", || terms().len() == 3);
    lose(&once);
    assert_eq!(once.code(), Some(76));
}
