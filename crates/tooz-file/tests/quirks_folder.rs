//! What lies in the folder: what others put there, what a power cut leaves, which layout it has, what the dead leave behind, and what looking costs.

// Long because each way in which a folder may be wrong is a trial of its own.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use common::{Folder, take, within};
use tooz_core::{ConnectOptions, Coordinator, ErrorKind, JoinOptions, LossReason};

fn main() -> ExitCode {
    common::main(common::trials![
        what_others_put_into_the_folder_is_refused_and_left_as_it_is,
        a_file_that_is_spoiled_under_an_open_lock_is_not_written_over,
        after_a_power_cut_everything_goes_on,
        a_group_that_lost_its_own_file_can_be_made_again,
        a_namespace_in_another_layout_is_refused_by_all_who_come,
        a_namespace_that_is_moved_under_a_session_is_refused_by_it,
        a_foreign_file_that_begins_with_zeros_stays,
        a_namespace_without_a_record_is_layout_1_and_gets_one,
        many_who_come_first_agree_on_one_layout,
        what_the_dead_leave_is_swept_however_many_live,
        a_change_costs_a_watcher_no_look_at_the_others,
        memberships_cost_nothing_while_nothing_happens,
        who_is_taken_over_after_an_update_is_told_at_once,
        the_last_open_files_are_left_to_the_application,
        waits_that_lack_files_go_on_and_are_told_once,
        capabilities_that_are_too_large_are_refused,
        more_than_four_thousand_share_a_lock,
        members_that_come_and_die_are_told_as_they_are,
    ])
}

/// The names in a folder of the namespace.
fn names(folder: &Folder, branch: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(folder.0.join("tooz").join(branch)).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

async fn what_others_put_into_the_folder_is_refused_and_left_as_it_is(folder: Folder) {
    let ours = folder.connect("ours").await;
    let group = ours.group("g").unwrap();
    let membership = group.join_or_create(&()).await.unwrap();
    take(&ours).await;
    let at = |path: &str| folder.0.join("tooz").join(path);
    let foreign: &[(&str, &[u8])] = &[
        ("locks/script", b"#!/bin/sh\necho important\n"),
        ("locks/binary", &[0xff; 4096]),
        ("elections/g", b"notes\n"),
        ("groups/g/notes.txt", b"dear diary\n"),
        ("groups/g/other", b"[1, 2, 3]\n"),
        ("groups/spoiled/.group", b"not a group's\n"),
        ("sessions/notes", b"mine\n"),
    ];
    for (path, content) in foreign {
        fs::create_dir_all(at(path).parent().unwrap()).unwrap();
        fs::write(at(path), content).unwrap();
    }
    fs::create_dir(at("locks/folder")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(at("locks/pipe")).status().unwrap().success());
    fs::create_dir(at("groups/g/folder")).unwrap();
    symlink("g", at("groups/link")).unwrap();

    for name in ["script", "binary", "folder", "pipe"] {
        let error = ours.lock(name).unwrap().try_acquire().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains(&format!("locks/{name}")), "{error}");
        let _ = ours.lock(name).unwrap().holders().await;
    }
    assert_eq!(
        tokio::time::timeout(Duration::from_secs(5), membership.campaign()).await.unwrap().unwrap_err().kind(),
        ErrorKind::Config
    );
    assert_eq!(group.members().await.unwrap().len(), 1);
    assert_eq!(ours.groups().await.unwrap().len(), 1);
    let other = folder.connect("other").await;
    let error = other.group("g").unwrap().join(&()).await.unwrap_err();
    assert!(error.to_string().contains("groups/g/other"), "{error}");
    assert!(other.group("spoiled").unwrap().join(&()).await.is_err());
    membership.leave().await.unwrap();
    let error = group.delete().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    // Sweepers come by as well.
    take(&other).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    for (path, content) in foreign {
        assert_eq!(fs::read(at(path)).unwrap(), *content, "{path}");
    }
    assert!(at("groups/g/folder").is_dir() && at("locks/pipe").exists());
    for path in ["notes.txt", "other"] {
        fs::remove_file(at("groups/g").join(path)).unwrap();
    }
    fs::remove_dir(at("groups/g/folder")).unwrap();
    group.delete().await.unwrap();
}

async fn a_file_that_is_spoiled_under_an_open_lock_is_not_written_over(folder: Folder) {
    let ours = folder.connect("ours").await;
    take(&ours).await;
    let path = folder.0.join("tooz/locks/x");
    for content in [&b"short"[..], &[0xff; 4096]] {
        // In place: the driver still has this very file open.
        fs::write(&path, content).unwrap();
        assert_eq!(ours.lock("x").unwrap().try_acquire().await.unwrap_err().kind(), ErrorKind::Config);
        assert_eq!(fs::read(&path).unwrap(), content);
    }
    fs::remove_file(&path).unwrap();
    take(&ours).await;
}

/// Delayed writes leave files without what was written to them, or zeros in its place.
async fn after_a_power_cut_everything_goes_on(folder: Folder) {
    let long = "Ä".repeat(127);
    for zeros in [false, true] {
        let mut tokens = 0;
        for name in ["x", "a/b", long.as_str()] {
            let mut process = folder.start_as("dead", &["do", name, "join", "lock"]);
            assert_eq!([process.line(), process.line()], ["joined", "held"]);
            process.kill();
        }
        let before = folder.connect("before").await;
        tokens = tokens.max(take(&before).await);
        before.close().await.unwrap();
        for path in files(&folder.0.join("tooz")) {
            let file = fs::File::options().write(true).open(&path).unwrap();
            let length = file.metadata().unwrap().len();
            file.set_len(0).unwrap();
            file.set_len(if zeros { length } else { 0 }).unwrap();
        }
        let ours = folder.connect("ours").await;
        let groups: Vec<_> = ours.groups().await.unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(groups, ["a/b", "x"], "the whole name of the third stood in its file alone");
        for name in ["x", "a/b", long.as_str()] {
            let group = ours.group(name).unwrap();
            assert!(group.members().await.unwrap().is_empty());
            let membership = group.join(&()).await.unwrap();
            assert_eq!(group.members().await.unwrap().len(), 1);
            assert!(ours.groups().await.unwrap().iter().any(|group| group.as_str() == name), "its name is back");
            let leadership = membership.campaign().await.unwrap();
            leadership.resign().await.unwrap();
            membership.leave().await.unwrap();
            group.delete().await.unwrap();
            ours.lock(name).unwrap().acquire().await.unwrap().release().await.unwrap();
        }
        assert!(take(&ours).await > tokens);
        ours.close().await.unwrap();
        assert!(names(&folder, "sessions").is_empty(), "{:?}", names(&folder, "sessions"));
        assert_eq!(fs::read_to_string(folder.0.join("tooz/.layout")).unwrap(), "tooz file layout 1\n");
    }
}

fn files(under: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(under).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

async fn a_group_that_lost_its_own_file_can_be_made_again(folder: Folder) {
    let mut dead = folder.start_as("dead", &["do", "g", "join"]);
    dead.line();
    dead.kill();
    fs::remove_file(folder.0.join("tooz/groups/g/.group")).unwrap();
    let ours = folder.connect("ours").await;
    let group = ours.group("g").unwrap();
    assert_eq!(group.members().await.unwrap_err().kind(), ErrorKind::NotFound);
    let membership = within(group.join_or_create(&())).await.unwrap();
    assert_eq!(group.members().await.unwrap().len(), 1);
    membership.leave().await.unwrap();
    group.delete().await.unwrap();
}

async fn a_namespace_in_another_layout_is_refused_by_all_who_come(folder: Folder) {
    let early = folder.connect("early").await;
    fs::create_dir_all(folder.0.join("tooz")).unwrap();
    for (record, found) in [
        ("tooz file layout 2\n", "kept in layout 2, and this version of tooz speaks layout 1"),
        ("what is this\n", "it is spoiled"),
    ] {
        fs::write(folder.0.join("tooz/.layout"), record).unwrap();
        let late = folder.connect("late").await;
        for ours in [&early, &late] {
            let refused = [
                ours.lock("x").unwrap().try_acquire().await.map(drop).unwrap_err(),
                ours.lock("x").unwrap().acquire().await.map(drop).unwrap_err(),
                ours.lock("x").unwrap().holders().await.map(drop).unwrap_err(),
                ours.group("g").unwrap().create().await.unwrap_err(),
                ours.group("g").unwrap().join_or_create(&()).await.map(drop).unwrap_err(),
                ours.group("g").unwrap().members().await.map(drop).unwrap_err(),
                ours.groups().await.map(drop).unwrap_err(),
            ];
            for error in refused {
                assert_eq!(error.kind(), ErrorKind::Config, "{error}");
                assert!(error.to_string().contains(found), "{error}");
            }
        }
        assert_eq!(fs::read_to_string(folder.0.join("tooz/.layout")).unwrap(), record);
        assert_eq!(fs::read_dir(folder.0.join("tooz")).unwrap().count(), 1, "nothing was made");
    }
    // The way out that the message names.
    let url = format!("{}&namespace=new", folder.url());
    let moved = ConnectOptions::new(&url).unwrap().member("moved").unwrap().connect().await.unwrap();
    take(&moved).await;
}

async fn a_namespace_that_is_moved_under_a_session_is_refused_by_it(folder: Folder) {
    let [idle, open] = [folder.connect("idle").await, folder.connect("open").await];
    open.group("g").unwrap().create().await.unwrap();
    take(&open).await;
    assert!(idle.lock("x").unwrap().holders().await.unwrap().is_empty());
    let root = folder.0.join("tooz");
    fs::remove_dir_all(&root).unwrap();
    fs::create_dir(&root).unwrap();
    fs::write(root.join(".layout"), "tooz file layout 2\n").unwrap();
    for ours in [&idle, &open] {
        let refused = [
            ours.lock("x").unwrap().try_acquire().await.map(drop).unwrap_err(),
            ours.lock("x").unwrap().holders().await.map(drop).unwrap_err(),
            ours.group("g").unwrap().create().await.unwrap_err(),
            ours.group("g").unwrap().join(&()).await.map(drop).unwrap_err(),
        ];
        for error in refused {
            assert!(error.kind() == ErrorKind::Config && error.to_string().contains("layout 2"), "{error}");
        }
    }
    assert_eq!(fs::read_dir(root).unwrap().count(), 1, "nothing was made");
}

async fn a_foreign_file_that_begins_with_zeros_stays(folder: Folder) {
    let ours = folder.connect("ours").await;
    let group = ours.group("g").unwrap();
    group.create().await.unwrap();
    take(&ours).await;
    let at = |path: &str| folder.0.join("tooz").join(path);
    let foreign = [("groups/g/img", 32768), ("groups/g/short", 12), ("locks/img", 600), ("locks/large", 32768)]
        .map(|(path, zeros)| (at(path), [vec![0; zeros], b"text".to_vec()].concat()));
    for (path, content) in &foreign {
        fs::write(path, content).unwrap();
    }
    assert!(group.members().await.unwrap().is_empty());
    for name in ["img", "large"] {
        assert_eq!(ours.lock(name).unwrap().try_acquire().await.unwrap_err().kind(), ErrorKind::Config);
    }
    for (path, content) in foreign {
        assert_eq!(fs::read(&path).unwrap(), content, "{}", path.display());
    }
}

async fn a_namespace_without_a_record_is_layout_1_and_gets_one(folder: Folder) {
    let mut old = folder.start_as("old", &["do", "x", "join", "lock"]);
    assert_eq!([old.line(), old.line()], ["joined", "held"]);
    let record = folder.0.join("tooz/.layout");
    // As it was made before there were records.
    fs::remove_file(&record).unwrap();
    let ours = folder.connect("ours").await;
    assert_eq!(ours.group("x").unwrap().members().await.unwrap().len(), 1);
    assert_eq!(ours.lock("x").unwrap().holders().await.unwrap().len(), 1);
    assert!(!record.exists(), "who only looks makes nothing");
    assert!(ours.lock("x").unwrap().try_acquire().await.unwrap().is_none(), "the old one has it");
    assert_eq!(fs::read_to_string(&record).unwrap(), "tooz file layout 1\n");
    ours.close().await.unwrap();
}

async fn many_who_come_first_agree_on_one_layout(folder: Folder) {
    for round in 0..5 {
        let folder = Folder(folder.0.join(round.to_string()));
        let mut all: Vec<_> =
            (0..8).map(|one| folder.start_as(&one.to_string(), &["do", "x", "join", "lock"])).collect();
        let said: Vec<_> = all.iter_mut().map(|process| [process.line(), process.line()]).collect();
        assert!(said.iter().all(|said| said[0] == "joined"), "{said:?}");
        assert_eq!(said.iter().filter(|said| said[1] == "held").count(), 1, "{said:?}");
        let ours = folder.connect("ours").await;
        assert_eq!(ours.group("x").unwrap().members().await.unwrap().len(), 8);
        let names: Vec<_> = fs::read_dir(&folder.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["tooz"]);
    }
}

async fn what_the_dead_leave_is_swept_however_many_live(folder: Folder) {
    let mut living = Vec::new();
    for one in 0..100 {
        let ours = folder.connect(&one.to_string()).await;
        take(&ours).await;
        living.push(ours);
    }
    for _ in 0..20 {
        let mut dead = folder.start(&["do", "y", "lock"]);
        dead.line();
        dead.kill();
    }
    let sessions = folder.0.join("tooz/sessions");
    let leftover = |name: &str, age: Duration| {
        let file = fs::File::create(sessions.join(name)).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    };
    leftover(".new-0000000000000001", Duration::from_hours(1));
    leftover(".new-0000000000000002", Duration::ZERO);
    fs::create_dir(sessions.join(".new-0000000000000003")).unwrap();
    fs::write(sessions.join(".new-0000000000000003/.group"), "").unwrap();
    fs::File::open(sessions.join(".new-0000000000000003"))
        .unwrap()
        .set_modified(SystemTime::now() - Duration::from_hours(1))
        .unwrap();
    let last = folder.connect("last").await;
    take(&last).await;
    let until = Instant::now() + Duration::from_secs(10);
    while names(&folder, "sessions").len() > 102 {
        assert!(Instant::now() < until, "{} are left", names(&folder, "sessions").len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(sessions.join(".new-0000000000000002").exists(), "it may be about to get its name");
    // Sessions that stay for a moment do their share, too.
    for _ in 0..60 {
        let mut dead = folder.start(&["do", "y", "lock"]);
        dead.line();
        dead.kill();
    }
    assert!(names(&folder, "sessions").len() < 102 + 60, "{}", names(&folder, "sessions").len());
    for ours in living {
        ours.close().await.unwrap();
    }
}

async fn a_change_costs_a_watcher_no_look_at_the_others(folder: Folder) {
    const MEMBERS: usize = 100;
    const CHANGES: u64 = 20;
    let url = format!("file://{}?session_timeout=60s", folder.0.display());
    let connect =
        async |member: String| ConnectOptions::new(&url).unwrap().member(member).unwrap().connect().await.unwrap();
    let mut members = Vec::new();
    for one in 0..MEMBERS {
        let ours: Coordinator = connect(format!("m{one}")).await;
        let membership = ours.group("g").unwrap().join_or_create(&0).await.unwrap();
        members.push((ours, membership));
    }
    let program = std::env::current_exe().unwrap();
    let mut watcher = std::process::Command::new(program)
        .args(["--role", &url, "watcher", "watch", "g"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = std::io::BufReader::new(watcher.stdout.take().unwrap());
    let mut line = || {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut output, &mut line).unwrap();
        line.trim().to_owned()
    };
    assert_eq!(line(), "Snapshot");
    let reads = || {
        let text = fs::read_to_string(format!("/proc/{}/io", watcher.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with("syscr")).unwrap();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = reads();
    for change in 1..=CHANGES {
        members[0].1.update(&change).await.unwrap();
        assert_eq!(line(), "Updated");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let each = (reads() - before) / CHANGES;
    println!("{each} reads for each change of one member of {MEMBERS}");
    assert!(each < 20, "{each} reads for each change");
    watcher.kill().unwrap();
    watcher.wait().unwrap();
}

async fn memberships_cost_nothing_while_nothing_happens(folder: Folder) {
    const MANY: usize = 1000;
    let mut process = folder.start(&["idle", "g", &MANY.to_string()]);
    let spent: u64 = process.line().parse().unwrap();
    println!("{spent} µs of processor time a second with {MANY} memberships and as many locks");
    assert!(spent < 30_000, "{spent} µs of processor time a second");
}

async fn who_is_taken_over_after_an_update_is_told_at_once(folder: Folder) {
    let url = format!("file://{}?session_timeout=60s", folder.0.display());
    let connect = async || ConnectOptions::new(&url).unwrap().member("same").unwrap().connect().await.unwrap();
    let (one, two): (Coordinator, Coordinator) = (connect().await, connect().await);
    let membership = one.group("g").unwrap().join_or_create(&1).await.unwrap();
    membership.update(&2).await.unwrap();
    membership.update(&3).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(membership.is_member());
    let _theirs = two.group("g").unwrap().join_with(JoinOptions::new().take_over()).await.unwrap();
    let told = tokio::time::timeout(Duration::from_secs(3), membership.loss().wait()).await;
    assert_eq!(told.expect("by the kernel, and not by looking"), LossReason::TakenOver);
}

async fn the_last_open_files_are_left_to_the_application(folder: Folder) {
    let mut process = folder.start(&["few-files", "x", "256"]);
    let said = process.line();
    assert_eq!(said, "Unavailable with ulimit, 24 left, and again");
}

async fn waits_that_lack_files_go_on_and_are_told_once(folder: Folder) {
    let mut process = folder.start(&["more-than-files", "x", "256"]);
    assert_eq!(process.line(), "1 told; Unavailable, Unavailable, joined: false");
    assert_eq!(process.line(), "all served");
}

async fn capabilities_that_are_too_large_are_refused(folder: Folder) {
    let ours = folder.connect("ours").await;
    let group = ours.group("g").unwrap();
    let membership = group.join_or_create(&"x".repeat(900_000)).await.unwrap();
    assert_eq!(group.members().await.unwrap()[0].capabilities.as_json().len(), 900_002);
    let error = membership.update(&"x".repeat(1_100_000)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(membership.is_member());
}

async fn more_than_four_thousand_share_a_lock(folder: Folder) {
    let mut process = folder.start(&["share", "x", "4500"]);
    let took: Vec<f64> = process.line().split(' ').map(|took| took.parse().unwrap()).collect();
    println!("the first 900 came in {} s, the last 900 in {} s; all were seen in {} s", took[0], took[1], took[2]);
}

/// Whatever the watcher's own table says, it is what a reading says.
async fn members_that_come_and_die_are_told_as_they_are(folder: Folder) {
    let ours = folder.connect("ours").await;
    let group = ours.group("g").unwrap();
    group.create().await.unwrap();
    let mut watch = group.watch().await.unwrap();
    let mut told = BTreeSet::new();
    let mut alive = Vec::new();
    for round in 0..60 {
        match fastrand::u8(0..3) {
            0 if !alive.is_empty() => {
                let mut process: common::Process = alive.swap_remove(fastrand::usize(0..alive.len()));
                process.kill();
            }
            1 => {
                // A reading of our own between two changes neither doubles nor hides one.
                group.members().await.unwrap();
            }
            _ => {
                let mut process = folder.start_as(&format!("m{round}"), &["join", "g"]);
                process.line();
                alive.push(process);
            }
        }
    }
    let expected: BTreeSet<_> =
        group.members().await.unwrap().into_iter().map(|entry| entry.member.to_string()).collect();
    assert_eq!(expected.len(), alive.len());
    let until = tokio::time::Instant::now() + Duration::from_secs(5);
    while let Ok(Some(event)) = tokio::time::timeout_at(until, watch.next()).await {
        use tooz_core::GroupEvent::{Joined, Left, Reset, Snapshot, Updated};
        match event {
            Snapshot(members) | Reset(members) => {
                told = members.into_iter().map(|entry| entry.member.to_string()).collect();
            }
            Joined(entry) => assert!(told.insert(entry.member.to_string()), "{entry:?} came twice"),
            Left(member) => assert!(told.remove(member.as_str()), "{member} left twice"),
            Updated(entry) => panic!("{entry:?} changed nothing"),
            other => panic!("{other:?}"),
        }
        if told == expected {
            break;
        }
    }
    assert_eq!(told, expected);
}
