//! A `/dev/shm` of one's own, as containers have one: small, or another than that of the host. By mount namespaces, which a test may make where it is root or
//! where users may make namespaces of users. And processes that are counted apart, but share the memory.

use std::process::Command;

use libtest_mimic::{Completion, Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::bed::{self, Name, Started, within};

type Case = fn(&Name);

/// Listed with the reason where this system allows no mounts.
pub(crate) fn trials() -> Vec<Trial> {
    let may_mount = apart("1m", "true").status().is_ok_and(|status| status.success());
    let cases: [(_, Case); 6] = [
        ("a_full_file_system_is_told_and_kills_no_process", a_full_file_system_is_told_and_kills_no_process),
        ("processes_that_start_together_need_the_memory_of_one_table", those_that_start_together),
        ("a_table_that_a_killed_process_left_half_made_takes_no_memory_of_the_next", a_half_made_table),
        ("a_file_system_without_inodes_is_told_as_such", a_file_system_without_inodes_is_told_as_such),
        ("a_shared_memory_of_ones_own_has_its_own_table_and_the_doctor_says_so", one_of_ones_own),
        ("a_process_of_another_namespace_is_not_named_as_one_of_this", another_namespace_of_processes),
    ];
    let trial = |(name, case): (&'static str, Case)| {
        let kind = if may_mount { "" } else { "not claimed: this system allows no mounts" };
        Trial::ignorable_test(name, move || -> Result<Completion, Failed> {
            case(&Name::new());
            Ok(Completion::Completed)
        })
        .with_kind(kind)
        .with_ignored_flag(!may_mount)
    };
    cases.into_iter().map(trial).collect()
}

/// A shell in a namespace with a `/dev/shm` of that size.
fn apart(size: &str, script: &str) -> Command {
    let user = if nix::unistd::Uid::effective().is_root() { "-m" } else { "-Urm" };
    let mut command = Command::new("unshare");
    command.args([user, "sh", "-c"]).arg(format!("mount -t tmpfs -o size={size} none /dev/shm && {script}"));
    command
}

fn role(name: &Name, size: &str, words: &str) -> Started {
    let program = std::env::current_exe().unwrap();
    Started::new(apart(size, &format!("exec {} --role '{}' other {words}", program.display(), name.url())))
}

fn a_full_file_system_is_told_and_kills_no_process(name: &Name) {
    let said = role(name, "1m", "try x").line();
    assert!(said.contains("/dev/shm is full") && said.contains("size="), "{said}");
    // What is reserved is there: filling the rest does no harm.
    let program = std::env::current_exe().unwrap();
    let (program, url) = (program.display(), name.url());
    let script = format!(
        "{program} --role '{url}' one try x && {{ cat /dev/zero > /dev/shm/rest; {program} --role '{url}' two try y; }} 2>/dev/null"
    );
    let mut filled = Started::new(apart("4m", &script));
    assert_eq!([filled.line(), filled.line()], ["held", "held"]);
}

fn those_that_start_together(name: &Name) {
    let url = format!("ipc://{}?size=16", name.0);
    let program = std::env::current_exe().unwrap();
    let script =
        format!("for one in 1 2 3 4 5 6 7 8; do {} --role '{url}' m$one try x$one & done; wait", program.display());
    for _ in 0..4 {
        let mut started = Started::new(apart("24m", &script));
        for _ in 0..8 {
            assert_eq!(started.line(), "held");
        }
    }
}

/// There is no room for a second table beside it, and it may be of this very moment.
fn a_half_made_table(name: &Name) {
    let (program, url) = (std::env::current_exe().unwrap(), format!("ipc://{}?size=16", name.0));
    let try_it = format!("{} --role '{url}' one try x", program.display());
    let root = name.root();
    let root = root.display();
    let script = format!("{try_it} && mv {root}/table {root}/.new-0123456789abcdef && {try_it} && ls -A {root}");
    let mut started = Started::new(apart("24m", &script));
    assert_eq!([started.line(), started.line(), started.line(), started.line()], ["held", "held", "sessions", "table"]);
}

fn a_file_system_without_inodes_is_told_as_such(name: &Name) {
    // The folders take five and the table two; the session's file and its doorbell find none.
    let said = role(name, "8m,nr_inodes=8", "try x").line();
    assert!(said.contains("no inodes") && !said.contains("size="), "{said}");
}

fn one_of_ones_own(name: &Name) {
    let mut here = name.start(&["hold", "x"]);
    here.line();
    assert_eq!(name.start(&["try", "x"]).line(), "busy");
    assert_eq!(role(name, "8m", "try x").line(), "held", "it is another table");
    let [ours, theirs] = [name.start(&["doctor", "x"]).line(), role(name, "8m", "doctor x").line()];
    assert!(ours.contains("a container that has its own /dev/shm has its own table"), "{ours}");
    assert_ne!(ours, theirs, "the device tells them apart");
}

/// To end the process of that number here would hit another.
fn another_namespace_of_processes(name: &Name) {
    bed::run(async {
        let ours = name.connect("ours").await;
        let _first = ours.lock("y").unwrap().acquire().await.unwrap();
        let mut command = Command::new("unshare");
        command.args([if nix::unistd::Uid::effective().is_root() { "-p" } else { "-Urp" }, "-f", "--kill-child"]);
        let mut holder = Started::new({
            command.arg(std::env::current_exe().unwrap()).args(["--role", &name.url(), "other", "hold", "x"]);
            command
        });
        holder.line();
        let holders = ours.lock("x").unwrap().holders().await.unwrap();
        assert_eq!((holders[0].member.as_str(), holders[0].pid), ("other", None));
        assert!(ours.lock("x").unwrap().try_acquire().await.unwrap().is_none(), "the kernel says that it lives");
        // `unshare` waits for it, and its number here is another.
        let waits = holder.child.id();
        let children = std::fs::read_to_string(format!("/proc/{waits}/task/{waits}/children")).unwrap();
        kill(Pid::from_raw(children.trim().parse().unwrap()), Signal::SIGSTOP).unwrap();
        name.own_by_slot(1);
        let error = within(ours.lock("z").unwrap().try_acquire()).await.unwrap_err().to_string();
        assert!(error.contains("of another container") && error.contains("pid:["), "{error}");
        holder.kill();
        drop(within(ours.lock("x").unwrap().acquire()).await.unwrap());
    });
}
