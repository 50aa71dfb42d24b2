//! Several users on one folder, with umasks that keep others out. They are real: the processes of these cases change their user, which only root
//! may, so that elsewhere the cases are listed as ignored, with that reason.

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Command, ExitCode};

use common::{Folder, Process};

/// Two users of one group, which is the first's own group and not the second's, and one that is in none of theirs.
const ALICE: (u32, &str) = (20001, "20001:20100::077");
const BOB: (u32, &str) = (20002, "20002:20002:20100:077");
const STRANGER: (u32, &str) = (20003, "20003:20003::000");
const TEAM: u32 = 20100;

fn main() -> ExitCode {
    let mut trials = common::trials![
        users_of_one_folder_share_all_whatever_their_umasks,
        a_user_who_may_not_write_can_open_no_file_and_keep_no_other_out,
        what_root_makes_is_the_owners_of_the_folder,
        root_that_may_give_nothing_away_locks_no_owner_out,
        a_umask_that_takes_the_owners_bits_changes_nothing,
        an_entry_that_can_not_be_read_hides_no_others,
        a_full_disk_is_told_and_what_is_there_goes_on,
        a_read_only_file_system_lets_look,
    ];
    if !nix::unistd::geteuid().is_root() {
        let ignored =
            |trial: libtest_mimic::Trial| trial.with_kind("only root can be several users").with_ignored_flag(true);
        trials = trials.into_iter().map(ignored).collect();
    }
    common::main(trials)
}

/// A folder of an operator's making. What is above it lets all users through, as temporary folders of tests do not.
fn made(folder: &Folder, owner: u32, group: u32, mode: u32) {
    let above = folder.0.parent().unwrap();
    fs::set_permissions(above, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir_all(&folder.0).unwrap();
    chown(&folder.0, Some(owner), Some(group)).unwrap();
    fs::set_permissions(&folder.0, fs::Permissions::from_mode(mode)).unwrap();
}

/// A process of that user that does all that, one after another, and answers what came of it.
fn does(folder: &Folder, user: (u32, &str), name: &str, what: &[&str]) -> (Process, Vec<String>) {
    let words: Vec<_> = ["do", name].iter().chain(what).copied().collect();
    let mut process = folder.start_as_user(Some(user.1), &user.0.to_string(), &words);
    let said = what.iter().map(|_| process.line()).collect();
    (process, said)
}

async fn users_of_one_folder_share_all_whatever_their_umasks(folder: Folder) {
    for (round, (group, mode)) in [(TEAM, 0o2770), (TEAM, 0o770), (0, 0o777), (0, 0o1777)].into_iter().enumerate() {
        let folder = Folder(folder.0.join(round.to_string()));
        made(&Folder(folder.0.parent().unwrap().to_owned()), 0, 0, 0o755);
        made(&folder, 0, group, mode);
        let (mut alice, said) = does(&folder, ALICE, "x", &["lock", "join"]);
        assert_eq!(said, ["held", "joined"], "{mode:o}");
        let (mut bob, said) =
            does(&folder, BOB, "x", &["lock", "holders", "groups", "members", "join", "members", "delete"]);
        assert_eq!(said[..6], ["busy", "1", "x", "20001", "joined", "20001,20002"], "{mode:o}");
        assert!(said[6].starts_with("NotEmpty"), "{}", said[6]);
        alice.kill();
        let (_bob_too, said) = does(&folder, BOB, "x", &["members", "lock"]);
        assert_eq!(said, ["20002", "held"], "{mode:o}");
        bob.kill();
        // What the first made with a umask of 077 and left behind keeps no other user from anything.
        let (_alice, said) = does(&folder, ALICE, "x", &["members", "delete", "groups", "lock", "join", "members"]);
        assert_eq!(said, ["", "deleted", "", "busy", "joined", "20001"], "{mode:o}");
    }
}

async fn a_user_who_may_not_write_can_open_no_file_and_keep_no_other_out(folder: Folder) {
    // As `mkdir` makes folders: all users may read and enter.
    made(&folder, ALICE.0, TEAM, 0o755);
    let (_alice, said) = does(&folder, ALICE, "x", &["lock", "join", "close"]);
    assert_eq!(said, ["held", "joined", "closed"]);
    let files = ["locks/x", "groups/x/.group", ".layout"].map(|file| folder.0.join("tooz").join(file));
    let paths: Vec<_> = files.iter().map(|path| path.to_str().unwrap()).collect();
    let (_stranger, said) = does(&folder, STRANGER, "x", &paths);
    assert!(said.iter().all(|said| said == "permission denied"), "{said:?}");
    let (_stranger, said) = does(&folder, STRANGER, "x", &["holders", "members", "lock"]);
    for said in said {
        assert!(said.starts_with("Unauthorized") && said.contains("users that may write"), "{said}");
    }
    let (_alice, said) = does(&folder, ALICE, "x", &["lock", "join", "members"]);
    assert_eq!(said, ["held", "joined", "20001"]);
}

async fn what_root_makes_is_the_owners_of_the_folder(folder: Folder) {
    made(&folder, ALICE.0, TEAM, 0o755);
    let (mut root, said) = does(&folder, (0, "0:0::077"), "x", &["lock", "join"]);
    assert_eq!(said, ["held", "joined"]);
    let (_alice, said) = does(&folder, ALICE, "x", &["lock", "holders", "members", "join"]);
    assert_eq!(said, ["busy", "1", "0", "joined"]);
    root.kill();
    let (_alice, said) = does(&folder, ALICE, "x", &["lock", "members"]);
    assert_eq!(said, ["held", "20001"]);
}

async fn root_that_may_give_nothing_away_locks_no_owner_out(folder: Folder) {
    made(&folder, ALICE.0, ALICE.0, 0o700);
    let (_alice, said) = does(&folder, ALICE, "x", &["lock", "join"]);
    assert_eq!(said, ["held", "joined"]);
    let root = Command::new("setpriv")
        .args(["--bounding-set", "-chown"])
        .arg(std::env::current_exe().unwrap())
        .args(["--as=0:0::022", "--role", &folder.url(), "root", "do", "y", "lock", "join", "close"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut root = Process::of(root);
    let said = [root.line(), root.line()];
    assert!(said.iter().all(|said| said.starts_with("Unauthorized") && said.contains("locked out")), "{said:?}");
    root.kill();
    let (_alice, said) = does(&folder, ALICE, "y", &["lock", "join"]);
    assert_eq!(said, ["held", "joined"]);
}

async fn a_umask_that_takes_the_owners_bits_changes_nothing(folder: Folder) {
    for (round, user) in ["20001:20100::777", "20001:20100::700"].into_iter().enumerate() {
        let folder = Folder(folder.0.with_file_name(format!("umask-{round}")));
        made(&folder, ALICE.0, TEAM, 0o700);
        let (_alice, said) = does(&folder, (ALICE.0, user), "x", &["lock", "join"]);
        assert_eq!(said, ["held", "joined"]);
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
    }
}

async fn an_entry_that_can_not_be_read_hides_no_others(folder: Folder) {
    made(&folder, 0, TEAM, 0o2770);
    let (mut alice, said) = does(&folder, ALICE, "x", &["join"]);
    assert_eq!(said, ["joined"]);
    let (mut bob, said) = does(&folder, BOB, "x", &["join"]);
    assert_eq!(said, ["joined"]);
    let (_other, said) = does(&folder, BOB, "y", &["join"]);
    assert_eq!(said, ["joined"]);
    let close = |path: &str| {
        let path = folder.0.join("tooz/groups").join(path);
        chown(&path, Some(0), Some(0)).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    };
    close("x/20001");
    let (_bob, said) = does(&folder, BOB, "x", &["members", "groups"]);
    assert_eq!(said, ["20002", "x,y"]);
    alice.kill();
    bob.kill();
    let (_bob, said) = does(&folder, BOB, "x", &["members", "delete", "join", "members"]);
    assert!(said[0].is_empty() && said[1].starts_with("Config") && said[1].contains("x/20001"), "{said:?}");
    assert_eq!(said[2..], ["joined", "20002"]);
    close("x");
    let (_bob, said) = does(&folder, BOB, "x", &["groups", "members"]);
    assert!(said[0] == "y" && said[1].starts_with("Unauthorized"), "{said:?}");
}

async fn a_full_disk_is_told_and_what_is_there_goes_on(folder: Folder) {
    let disk = Mount::new(&folder.0, "size=256k");
    let ours = folder.connect("ours").await;
    let group = ours.group("g").unwrap();
    let membership = group.join_or_create(&1).await.unwrap();
    let lock = ours.lock("x").unwrap();
    lock.acquire().await.unwrap().release().await.unwrap();
    let full = disk.0.join("full");
    let _ = fs::write(&full, vec![1; 1 << 20]);
    for _ in 0..3 {
        let guard = lock.try_acquire().await.unwrap().expect("its file is there");
        guard.release().await.unwrap();
        let error = ours.lock("new").unwrap().try_acquire().await.unwrap_err();
        assert!(error.to_string().contains("make room"), "{error}");
        let error = membership.update(&2).await.unwrap_err();
        assert!(error.to_string().contains("make room"), "{error}");
        assert!(membership.is_member());
        assert_eq!(group.members().await.unwrap()[0].capabilities.as_json(), "1");
    }
    fs::remove_file(full).unwrap();
    membership.update(&2).await.unwrap();
    drop(ours.lock("new").unwrap().try_acquire().await.unwrap().expect("it is free"));
    let unfinished = fs::read_dir(folder.0.join("tooz/sessions")).unwrap().count();
    assert_eq!(unfinished, 1, "what could not be finished was taken away");
    ours.close().await.unwrap();
}

async fn a_read_only_file_system_lets_look(folder: Folder) {
    made(&folder, 0, 0, 0o700);
    let ours = folder.connect("ours").await;
    let _membership = ours.group("x").unwrap().join_or_create(&()).await.unwrap();
    let guard = ours.lock("x").unwrap().acquire().await.unwrap();
    // The same files by another way, on which nothing can be written.
    let view = Folder(folder.0.with_file_name("view"));
    let _view = Mount::read_only(&folder.0, &view.0);
    let looks = ["holders", "members", "groups", "lock", "join", "delete"];
    let (_other, said) = does(&view, (0, "0:0::022"), "x", &looks);
    assert_eq!(said[..3], ["1", "ours", "x"]);
    assert!(said[3..].iter().all(|said| said.contains("read-only")), "{said:?}");
    assert!(guard.is_held());
    guard.release().await.unwrap();
    ours.close().await.unwrap();
    let (_other, said) = does(&view, (0, "0:0::022"), "x", &["holders", "members"]);
    assert_eq!(said, ["0", ""]);
}

/// A small disk, gone at the end.
struct Mount(std::path::PathBuf);

impl Mount {
    fn new(at: &Path, options: &str) -> Self {
        fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).status();
        assert!(mounted.unwrap().success());
        Mount(at.to_owned())
    }

    fn read_only(of: &Path, at: &Path) -> Self {
        fs::create_dir_all(at).unwrap();
        let mount = |how: &[&str]| Command::new("mount").args(how).arg(at).status().unwrap().success();
        assert!(mount(&["--bind", of.to_str().unwrap()]) && mount(&["-o", "remount,bind,ro"]));
        Mount(at.to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
