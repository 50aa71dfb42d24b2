//! On a terminal: CMD has the foreground and gives it back, Ctrl-C and Ctrl-Z reach it, `fg` goes on.

mod shared;

use shared::session::Session;
use shared::{is_alive, state, until};

/// The process group in the foreground of the terminal of a process, and the group of the process.
fn groups(pid: i32) -> (i32, i32) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat[stat.rfind(')').unwrap() + 1..].split_whitespace().collect();
    (fields[5].parse().unwrap(), fields[2].parse().unwrap())
}

#[test]
fn cmd_reads_from_the_terminal_and_the_shell_goes_on() {
    let mut session = Session::open();
    let pid = session.lock("read line; echo got-$line-; exit 3");
    let (foreground, group) = groups(pid);
    assert_eq!((foreground, group), (pid, pid));
    session.type_in("hello\n");
    session.shows("got-hello-");
    session.shows("code-3-");
    session.type_in("echo the-shell-$((1 + 1))\n");
    session.shows("the-shell-2");
}

#[test]
fn ctrl_c_reaches_cmd_alone() {
    let mut session = Session::open();
    session.lock("trap 'echo caught; exit 9' INT; echo armed; while :; do sleep 0.05; done");
    session.shows("armed");
    session.type_in("\x03");
    session.shows("caught");
    session.shows("code-9-");
}

#[test]
fn ctrl_z_stops_cmd_and_tooz_and_fg_goes_on() {
    let mut session = Session::open();
    let pid = session.lock("read line; echo got-$line-");
    session.type_in("\x1a");
    session.shows("Stopped");
    assert_eq!(state(pid), Some('T'));
    // It is still the holder: the lock did not change hands.
    assert_eq!(session.bench.run(["lock", "x", "--no-wait", "--", "true"]).code, Some(75));
    session.type_in("echo the-shell-$((1 + 1))\n");
    session.shows("the-shell-2");
    session.type_in("fg\n");
    until("CMD goes on", || state(pid) != Some('T'));
    session.type_in("again\n");
    session.shows("got-again-");
}

#[test]
fn a_stop_from_elsewhere_stops_both_and_bg_goes_on() {
    let mut session = Session::open();
    let pid = session.lock("read line < fifo; echo done-in-the-$((0))-background");
    let holders = session.bench.run(["holders", "x", "--json"]).out;
    let tooz: i32 = holders.rsplit_once("\"pid\":").unwrap().1.trim_end_matches(['}', ']', '\n']).parse().unwrap();
    shared::signal(tooz, "TSTP");
    session.shows("Stopped");
    until("both are stopped", || state(pid) == Some('T') && state(tooz) == Some('T'));
    session.type_in("bg\n");
    until("both go on", || state(pid) != Some('T') && state(tooz) != Some('T'));
    std::fs::write(session.bench.path("fifo"), "go\n").unwrap();
    session.shows("done-in-the-0-background");
    until("tooz ends", || !is_alive(tooz));
}

#[test]
fn a_lock_that_was_lost_during_a_stop_does_not_go_on() {
    let mut session = Session::open();
    let pid = session.lock("read line < fifo");
    session.type_in("\x1a");
    session.shows("Stopped");
    for namespace in std::fs::read_dir(session.bench.path("backend")).unwrap().flatten() {
        std::fs::remove_dir_all(namespace.path().join("locks")).unwrap();
    }
    session.type_in("fg; echo code-$?-\n");
    session.shows("code-76-");
    assert!(!is_alive(pid));
}

#[test]
fn a_word_from_the_background_stops_nothing() {
    let mut session = Session::open();
    session.type_in("stty tostop\n");
    let pid = session.lock("read line < fifo");
    for namespace in std::fs::read_dir(session.bench.path("backend")).unwrap().flatten() {
        std::fs::remove_dir_all(namespace.path().join("locks")).unwrap();
    }
    session.shows("CMD is killed (SIGKILL)");
    session.shows("code-76-");
    assert!(!is_alive(pid));
}

#[test]
fn in_a_pipeline_the_terminal_stays_with_the_others() {
    let mut session = Session::open();
    std::fs::write(session.bench.path("script"), "echo from-cmd; sleep 0.3").unwrap();
    session
        .type_in("\"$TOOZ\" lock x -- sh script | (read piped; read typed < /dev/tty; echo \"both-$piped-$typed-\")\n");
    session.type_in("typed\n");
    session.shows("both-from-cmd-typed-");
}
