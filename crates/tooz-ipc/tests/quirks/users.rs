//! Several users on one name: those that the URL lets in, and no others. Root alone can be several users, so that these are listed elsewhere.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use libtest_mimic::{Completion, Failed, Trial};
use nix::unistd::{Gid, Uid, chown};

use crate::bed::{Name, Started};

type Case = fn(&Name);

pub(crate) fn trials() -> Vec<Trial> {
    let is_root = Uid::effective().is_root();
    let cases: [(_, Case); 5] = [
        ("three_users_share_a_name_that_is_for_all", three_users_share_a_name_that_is_for_all),
        ("a_file_that_its_dead_maker_gave_to_no_other_user_keeps_none_out", a_file_that_was_not_given),
        ("the_members_of_a_group_share_a_name_and_others_do_not", members_of_a_group),
        ("without_a_mode_each_user_has_its_own", without_a_mode_each_user_has_its_own),
        ("a_folder_that_another_user_has_put_there_is_refused", a_folder_of_another_user),
    ];
    let trial = |(name, case): (&'static str, Case)| {
        Trial::ignorable_test(name, move || -> Result<Completion, Failed> {
            case(&Name::new());
            Ok(Completion::Completed)
        })
        .with_kind(if is_root { "" } else { "not claimed: only root can be several users" })
        .with_ignored_flag(!is_root)
    };
    cases.into_iter().map(trial).collect()
}

/// A copy of this program that every user may run.
struct Program(tempfile::TempDir);

impl Program {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("tooz-ipc-").tempdir_in("/tmp").unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        // Copied by another process: a fork of a case beside this one would keep it open for writing for a moment.
        let copied =
            Command::new("cp").arg(std::env::current_exe().unwrap()).arg(folder.path().join("quirks")).status();
        assert!(copied.unwrap().success());
        Program(folder)
    }

    /// A user and its group, with a umask that would keep all others out.
    fn start(&self, url: &str, user: u32, group: u32, words: &[&str]) -> Started {
        let (user, group) = (user.to_string(), group.to_string());
        let mut command = Command::new(self.0.path().join("quirks"));
        command.args(["--role", url, &user, "as", &user, &group, "077"]).args(words);
        Started::new(command)
    }
}

fn three_users_share_a_name_that_is_for_all(name: &Name) {
    let (program, url) = (Program::new(), format!("ipc://{}?size=2&mode=666", name.0));
    let mut first = program.start(&url, 5001, 5001, &["hold", "x"]);
    first.line();
    for user in [5002, 5003] {
        assert_eq!(program.start(&url, user, user, &["try", "x"]).line(), "busy");
    }
    let mut second = program.start(&url, 5002, 5002, &["wait", "x"]);
    assert_eq!(second.line(), "waits");
    first.kill();
    assert!(second.line().parse::<u64>().is_ok(), "another user's death is told");
    // Another user's doorbell can be rung.
    let mut member = program.start(&url, 5001, 5001, &["join", "g"]);
    member.line();
    let mut watcher = program.start(&url, 5003, 5003, &["watch", "g"]);
    assert!(watcher.line().starts_with("Snapshot"));
    let begun = Instant::now();
    let mut newcomer = program.start(&url, 5002, 5002, &["join", "g"]);
    assert_eq!(newcomer.line(), "joined");
    assert!(watcher.line().starts_with("Joined"));
    assert!(begun.elapsed() < Duration::from_millis(900), "by a ring, not by looking each second");
}

/// What a process leaves that is killed in the middle of its first calls.
fn a_file_that_was_not_given(name: &Name) {
    let (program, url) = (Program::new(), format!("ipc://{}?size=2&mode=666", name.0));
    let mut first = program.start(&url, 5001, 5001, &["hold", "x"]);
    first.line();
    first.kill();
    let alive = PathBuf::from("/dev/shm/tooz-all").join(&name.0).join("tooz/sessions/0");
    fs::set_permissions(&alive, Permissions::from_mode(0o600)).unwrap();
    // It finds that the slot of the dead is free.
    let mut second = program.start(&url, 5002, 5002, &["hold", "y"]);
    second.line();
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        assert_eq!(program.start(&url, 5003, 5003, &["try", "x"]).line(), "held");
        if fs::metadata(&alive).unwrap().permissions().mode() & 0o777 == 0o666 {
            break;
        }
        assert!(Instant::now() < until, "the slot is not used again");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn members_of_a_group(name: &Name) {
    let (program, url) = (Program::new(), format!("ipc://{}?size=2&group=4711", name.0));
    let mut first = program.start(&url, 5001, 4711, &["hold", "x"]);
    first.line();
    assert_eq!(program.start(&url, 5002, 4711, &["try", "x"]).line(), "busy");
    let stranger = program.start(&url, 5003, 5003, &["try", "x"]).line();
    assert!(stranger.contains("denied") || stranger.contains("not permitted"), "{stranger}");
    assert!(stranger.contains("for the members of that"), "{stranger}");
    let mode = |path: &str| {
        fs::metadata(PathBuf::from("/dev/shm/tooz-g4711").join(path)).unwrap().permissions().mode() & 0o777
    };
    assert_eq!((mode(""), mode(&format!("{}/tooz/table", name.0))), (0o770, 0o660));
    drop(first);
    let _ = fs::remove_dir_all("/dev/shm/tooz-g4711");
}

fn without_a_mode_each_user_has_its_own(name: &Name) {
    let (program, url) = (Program::new(), name.url());
    let mut first = program.start(&url, 5001, 5001, &["hold", "x"]);
    first.line();
    assert_eq!(program.start(&url, 5002, 5002, &["try", "x"]).line(), "held");
    for user in [5001, 5002] {
        let folder = PathBuf::from(format!("/dev/shm/tooz-{user}"));
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        let _ = fs::remove_dir_all(folder);
    }
}

fn a_folder_of_another_user(name: &Name) {
    let (program, url) = (Program::new(), name.url());
    let folder = PathBuf::from("/dev/shm/tooz-5009");
    fs::create_dir(&folder).unwrap();
    chown(&folder, Some(Uid::from_raw(5008)), Some(Gid::from_raw(5008))).unwrap();
    fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
    let said = program.start(&url, 5009, 5009, &["try", "x"]).line();
    let open = {
        chown(&folder, Some(Uid::from_raw(5009)), None).unwrap();
        program.start(&url, 5009, 5009, &["try", "x"]).line()
    };
    fs::remove_dir_all(&folder).unwrap();
    assert!(said.contains("belongs to user 5008"), "{said}");
    assert!(open.contains("is open to other users"), "{open}");
}
