//! The guard and the last step before CMD, spoken to as `tooz` does it, so that each can be stopped between two words.

mod shared;

use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use shared::{Bench, Running, is_alive, state, until};

const START: u8 = 1;
const DEADLINE: u8 = 2;
const ENDED: u8 = 9;

/// Why CMD ended, in the guard's last word.
const BY_ITSELF: u64 = 0;
const BY_THE_DEADLINE: u64 = 1;

/// A guard whose `tooz` is this test.
struct Guard {
    process: Running,
    stream: UnixStream,
}

impl Guard {
    fn of(bench: &Bench, script: &str) -> Self {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let address = format!("tooz-test-{}-{count}", std::process::id());
        let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&address).unwrap()).unwrap();
        let own = std::process::id().to_string();
        let process = bench
            .tooz(["__guard", &address, &own, "false", "0", "..", "sh", "-c", script])
            .spawn()
            .map(Running)
            .unwrap();
        let (stream, _) = listener.accept().unwrap();
        Guard { process, stream }
    }

    fn say(&self, word: u8, first: u64, second: u64) {
        let mut frame = vec![word];
        frame.extend(first.to_le_bytes());
        frame.extend(second.to_le_bytes());
        (&self.stream).write_all(&frame).unwrap();
    }

    /// Why CMD ended, once it has.
    fn last_word(&mut self) -> u64 {
        self.stream.set_read_timeout(Some(shared::PATIENCE)).unwrap();
        loop {
            let mut frame = [0; 17];
            self.stream.read_exact(&mut frame).unwrap();
            if frame[0] == ENDED {
                return u64::from_le_bytes(frame[1..9].try_into().unwrap());
            }
        }
    }

    fn stop(&self) {
        self.process.signal("STOP");
        until("it stands still", || state(self.process.pid()) == Some('T'));
    }
}

/// The moment after so many milliseconds, as the guard counts.
fn after(milliseconds: u64) -> u64 {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap());
    u64::try_from(now.as_nanos()).unwrap() + milliseconds * 1_000_000
}

const MILLISECOND: u64 = 1_000_000;

#[test]
fn cmd_is_not_started_when_its_time_has_come_meanwhile() {
    let bench = Bench::new();
    for (deadline, kill_after) in [(0, 0), (after(0), 0), (after(5_000), 6_000 * MILLISECOND)] {
        let mut guard = Guard::of(&bench, "touch started");
        guard.say(START, deadline, kill_after);
        assert_eq!(guard.last_word(), BY_THE_DEADLINE);
        assert!(!bench.path("started").exists());
    }
}

#[test]
fn a_guard_that_stood_still_before_the_start_looks_again() {
    let bench = Bench::new();
    let mut guard = Guard::of(&bench, "touch started");
    guard.stop();
    guard.say(START, after(300), 0);
    std::thread::sleep(Duration::from_millis(400));
    guard.process.signal("CONT");
    assert_eq!(guard.last_word(), BY_THE_DEADLINE);
    assert!(!bench.path("started").exists());
}

#[test]
fn a_later_deadline_that_was_said_in_time_counts_also_after_a_standstill() {
    let bench = Bench::new();
    for _ in 0..3 {
        let mut guard = Guard::of(&bench, "touch started; while [ ! -e go ]; do sleep 0.01; done");
        guard.say(START, after(4_000), 500 * MILLISECOND);
        until("CMD runs", || bench.path("started").exists());
        guard.stop();
        guard.say(DEADLINE, after(60_000), 0);
        std::thread::sleep(Duration::from_millis(4_100));
        guard.process.signal("CONT");
        std::thread::sleep(Duration::from_millis(50));
        std::fs::write(bench.path("go"), "").unwrap();
        assert_eq!(guard.last_word(), BY_ITSELF, "ended although the deadline had been moved in time");
        std::fs::remove_file(bench.path("go")).unwrap();
        std::fs::remove_file(bench.path("started")).unwrap();
    }
}

#[test]
fn a_deadline_that_is_not_moved_ends_cmd_in_two_steps() {
    let bench = Bench::new();
    let mut guard = Guard::of(&bench, "trap 'touch told' TERM; echo $$ > cmd; while :; do sleep 0.02; done");
    let deadline = after(5_000);
    guard.say(START, deadline, 3_000 * MILLISECOND);
    let cmd = bench.number("cmd");
    until("it is told", || bench.path("told").exists());
    assert!(after(0) < deadline && is_alive(cmd), "told too late, or not at all");
    assert_eq!(guard.last_word(), BY_THE_DEADLINE);
    assert!(!is_alive(cmd));
    assert!(after(0) >= deadline && after(0) < deadline + 3_000 * MILLISECOND);
}

#[test]
fn a_reader_of_nothing_does_not_keep_the_guard_from_the_deadline() {
    let bench = Bench::new();
    // Each stop is a word to tooz, which reads none of them.
    let script = "echo $$ > cmd.new; mv cmd.new cmd; while :; do kill -STOP $$; done";
    let guard = Guard::of(&bench, script);
    guard.say(START, after(4_000), 0);
    let cmd = bench.number("cmd");
    let begin = std::time::Instant::now();
    while is_alive(cmd) {
        assert!(begin.elapsed() < Duration::from_secs(8), "CMD lives beyond its deadline");
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(cmd), nix::sys::signal::Signal::SIGCONT);
        std::thread::sleep(Duration::from_micros(300));
    }
}

#[test]
fn the_last_step_before_cmd_looks_at_the_deadline_as_well() {
    let bench = Bench::new();
    let own = std::process::id().to_string();
    let code = |deadline: u64, kill_after: u64| {
        let (deadline, kill_after) = (deadline.to_string(), kill_after.to_string());
        let words =
            ["__exec", &own, "false", "", "0", &deadline, &kill_after, "..", "sh", "-c", "touch started; exit 3"];
        bench.run(words)
    };
    for done in [code(0, 0), code(after(0), 0), code(after(5_000), 6_000 * MILLISECOND)] {
        assert_eq!(done.code, Some(76), "{done:?}");
        assert!(done.err.contains("was not started") && !bench.path("started").exists(), "{done:?}");
    }
    assert_eq!(code(after(60_000), MILLISECOND).code, Some(3));
    assert_eq!(code(u64::MAX, u64::MAX).code, Some(3));
}
