//! What is this driver's own: the kernel as the judge over processes that are really killed and stopped, files that
//! others delete or spoil, and folders that are not what they should be.
// Long because each case stands for itself; what they share is in `common`.

mod common;

use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use common::{Folder, signal, take, within};
use tooz_core::{
    Characteristic, ConnectOptions, Coordinator, ErrorKind, GroupEvent, JoinOptions, LeaderEvent, LossReason,
};

fn main() -> ExitCode {
    common::main(common::trials![
        a_killed_holder_frees_the_lock_at_once,
        a_stopped_holder_keeps_the_lock_because_the_kernel_is_the_judge,
        two_hundred_processes_survive_the_death_of_half_of_them,
        a_killed_member_has_left_and_its_group_can_be_deleted,
        a_killed_leader_leaves_a_vacancy_and_the_next_one_is_elected,
        a_deleted_lock_file_is_a_loss_that_is_seen_at_once_and_told,
        a_spoiled_lock_file_never_makes_tokens_go_back,
        an_unwanted_wait_blocks_no_request_and_is_adopted,
        readers_with_a_cancelled_writer_go_on,
        looking_makes_nothing,
        a_folder_that_is_none_is_told_with_its_path,
        a_link_is_not_followed_out_of_the_folder,
        a_duplicated_descriptor_keeps_the_lock_after_its_owner,
        without_inotify_changes_are_found_by_looking,
        who_is_taken_over_is_told,
        files_of_the_dead_are_swept,
    ])
}

async fn a_killed_holder_frees_the_lock_at_once(folder: Folder) {
    let mut holder = folder.start(&["hold", "x"]);
    let held: u64 = holder.line().parse().unwrap();
    let ours = folder.connect("ours").await;
    let lock = ours.lock("x").unwrap();
    assert!(lock.try_acquire().await.unwrap().is_none());
    let seen = lock.holders().await.unwrap();
    assert_eq!((seen[0].pid, seen[0].token.0), (Some(holder.child.id()), held));
    let waiting = tokio::spawn(async move { lock.acquire().await.unwrap() });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let killed = Instant::now();
    holder.kill();
    let guard = within(waiting).await.unwrap();
    println!("kill -9 to the next grant: {:?}", killed.elapsed());
    assert!(guard.fencing_token().0 > held);
}

async fn a_stopped_holder_keeps_the_lock_because_the_kernel_is_the_judge(folder: Folder) {
    let mut holder = folder.start(&["hold", "x"]);
    holder.line();
    holder.signal("STOP");
    let ours = folder.connect("ours").await;
    // Longer than the session timeout of these tests, which means nothing to the kernel.
    assert!(ours.lock("x").unwrap().acquire_within(Duration::from_millis(1500)).await.unwrap().is_none());
    assert_eq!(ours.lock("x").unwrap().holders().await.unwrap().len(), 1);
    holder.signal("CONT");
    assert!(ours.lock("x").unwrap().try_acquire().await.unwrap().is_none());
}

/// All contend; in the lock each looks whether it is alone and whether its token is the greatest.
async fn two_hundred_processes_survive_the_death_of_half_of_them(folder: Folder) {
    const ALL: usize = 200;
    fs::create_dir_all(&folder.0).unwrap();
    let mut contenders: Vec<_> = (0..ALL).map(|_| folder.start(&["contend", "x", "4"])).collect();
    for contender in &mut contenders {
        assert_eq!(contender.line(), "ready");
    }
    let mut survivors = Vec::new();
    for (index, mut contender) in contenders.into_iter().enumerate() {
        if index % 2 == 0 {
            tokio::time::sleep(Duration::from_millis(3)).await;
            contender.kill();
        } else {
            survivors.push(contender);
        }
    }
    let until = Instant::now() + Duration::from_secs(90);
    for mut survivor in survivors {
        loop {
            match survivor.child.try_wait().unwrap() {
                Some(status) => break assert!(status.success(), "a contender saw a rival or an old token: {status}"),
                None => assert!(Instant::now() < until, "a contender hangs"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let ours = folder.connect("ours").await;
    assert!(ours.lock("x").unwrap().try_acquire().await.unwrap().is_some());
}

async fn a_killed_member_has_left_and_its_group_can_be_deleted(folder: Folder) {
    let ours = folder.connect("ours").await;
    let group = ours.group("g").unwrap();
    group.create().await.unwrap();
    let mut watch = group.watch().await.unwrap();
    assert!(matches!(within(watch.next()).await, Some(GroupEvent::Snapshot(members)) if members.is_empty()));
    let mut slowest = Duration::ZERO;
    for round in 0..20 {
        let name = format!("m{round}");
        let mut member = folder.start_as(&name, &["join", "g"]);
        assert_eq!(member.line(), "joined");
        assert!(matches!(within(watch.next()).await, Some(GroupEvent::Joined(entry)) if entry.member.as_str() == name));
        let killed = Instant::now();
        member.kill();
        assert!(matches!(within(watch.next()).await, Some(GroupEvent::Left(member)) if member.as_str() == name));
        slowest = slowest.max(killed.elapsed());
    }
    println!("kill -9 to Left: {slowest:?} at most");
    assert!(group.members().await.unwrap().is_empty());
    group.delete().await.unwrap();
    assert_eq!(within(watch.next()).await, Some(GroupEvent::Deleted));
}

async fn a_killed_leader_leaves_a_vacancy_and_the_next_one_is_elected(folder: Folder) {
    let ours = folder.connect("ours").await;
    let group = ours.group("g").unwrap();
    let membership = group.join_or_create(&()).await.unwrap();
    let mut watch = group.watch_leader().await.unwrap();
    assert!(matches!(within(watch.next()).await, Some(LeaderEvent::Vacant)));
    let mut leader = folder.start_as("first", &["lead", "g"]);
    assert_eq!(leader.line(), "leading");
    let Some(LeaderEvent::Elected(first)) = within(watch.next()).await else { panic!("the election is told") };
    assert_eq!(first.member.as_str(), "first");
    leader.kill();
    assert!(matches!(within(watch.next()).await, Some(LeaderEvent::Vacant)));
    let leadership = within(membership.campaign()).await.unwrap();
    let Some(LeaderEvent::Elected(second)) = within(watch.next()).await else { panic!("the election is told") };
    assert!(second.epoch > first.epoch && second.epoch == leadership.epoch());
    leadership.resign().await.unwrap();
    assert!(matches!(within(watch.next()).await, Some(LeaderEvent::Vacant)));
}

async fn a_deleted_lock_file_is_a_loss_that_is_seen_at_once_and_told(folder: Folder) {
    let (one, two) = (folder.connect("one").await, folder.connect("two").await);
    let guard = one.lock("x").unwrap().acquire().await.unwrap();
    assert!(guard.is_held());
    fs::remove_file(folder.0.join("tooz/locks/x")).unwrap();
    let other = one.lock("y").unwrap().acquire().await.unwrap();
    fs::remove_file(folder.0.join("tooz/locks/y")).unwrap();
    assert!(!guard.is_held(), "judged at the call");
    assert_eq!(within(other.loss().wait()).await, LossReason::Broken);
    let next = two.lock("x").unwrap().try_acquire().await.unwrap().expect("the new file is free");
    assert!(next.fencing_token() > guard.fencing_token());
    assert_eq!(guard.release().await.unwrap_err().kind(), ErrorKind::Lost);
    assert!(next.is_held());
    // The open file that `one` may have kept is not the lock's any more.
    assert!(one.lock("x").unwrap().try_acquire().await.unwrap().is_none());
}

async fn a_spoiled_lock_file_never_makes_tokens_go_back(folder: Folder) {
    let ours = folder.connect("ours").await;
    let lock = ours.lock("x").unwrap();
    let mut last = take(&ours).await;
    let path = folder.0.join("tooz/locks/x");
    for content in [&b""[..], &[0; 4096], b"tooz file 1\n", b"tooz file 1\nx\n"] {
        // In place: the file stays the same, what stood in it is lost.
        fs::write(&path, content).unwrap();
        let token = take(&ours).await;
        assert!(token > last, "{token} after {last}");
        last = token;
        let guard = lock.acquire().await.unwrap();
        assert_eq!(lock.holders().await.unwrap()[0].token, guard.fencing_token());
        guard.release().await.unwrap();
    }
}

async fn an_unwanted_wait_blocks_no_request_and_is_adopted(folder: Folder) {
    let holder = folder.connect("holder").await;
    let third = folder.connect("third").await;
    for _ in 0..20 {
        let guard = holder.lock("x").unwrap().acquire().await.unwrap();
        let waiter = folder.connect("waiter").await;
        for _ in 0..3 {
            assert!(waiter.lock("x").unwrap().acquire_within(Duration::from_millis(50)).await.unwrap().is_none());
        }
        // The time of an `acquire_within` is up a moment before its request is withdrawn.
        tokio::time::sleep(Duration::from_millis(20)).await;
        guard.release().await.unwrap();
        let third = third.lock("x").unwrap().try_acquire().await.unwrap();
        third.expect("no holder and no waiter is left").release().await.unwrap();
    }
    // Threads are counted in a process where nothing else runs.
    let _guard = holder.lock("x").unwrap().acquire().await.unwrap();
    assert_eq!(folder.start(&["give-up", "x"]).line(), "1 1", "one thread however often a wait is given up");
}

async fn readers_with_a_cancelled_writer_go_on(folder: Folder) {
    let (one, two, three) = (folder.connect("one").await, folder.connect("two").await, folder.connect("three").await);
    let lock = |of: &Coordinator| of.lock("x").unwrap();
    let reader = lock(&one).shared().acquire().await.unwrap();
    for _ in 0..10 {
        // The writer stands at the gate, so that no reader passes it, until it is not wanted any more.
        let writer = lock(&two);
        let writing = tokio::spawn(async move { writer.acquire().await.map(drop) });
        let stands = async {
            while let Some(passed) = lock(&three).shared().try_acquire().await.unwrap() {
                passed.release().await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within(stands).await;
        writing.abort();
        assert!(writing.await.is_err());
        within(lock(&three).shared().acquire()).await.unwrap().release().await.unwrap();
    }
    let writer = lock(&two);
    let writing = tokio::spawn(async move { writer.acquire().await.unwrap() });
    tokio::time::sleep(Duration::from_millis(30)).await;
    reader.release().await.unwrap();
    let guard = within(writing).await.unwrap();
    assert!(lock(&three).shared().try_acquire().await.unwrap().is_none());
    guard.release().await.unwrap();
    assert!(lock(&three).shared().try_acquire().await.unwrap().is_some());
}

async fn looking_makes_nothing(folder: Folder) {
    let ours = folder.connect("ours").await;
    assert!(ours.groups().await.unwrap().is_empty());
    assert!(ours.lock("x").unwrap().holders().await.unwrap().is_empty());
    assert_eq!(ours.group("g").unwrap().members().await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(ours.group("g").unwrap().watch().await.err().map(|error| error.kind()), Some(ErrorKind::NotFound));
    ours.close().await.unwrap();
    assert!(!folder.0.exists());
}

async fn a_folder_that_is_none_is_told_with_its_path(folder: Folder) {
    fs::write(&folder.0, "a file").unwrap();
    let error = folder.try_connect("ours").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.to_string().contains(folder.0.to_str().unwrap()), "{error}");
    // No user may make folders in /sys, not even root.
    let options = ConnectOptions::new("file:///sys/tooz").unwrap().member("ours").unwrap();
    let ours = options.connect().await.unwrap();
    let error = ours.lock("x").unwrap().try_acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    assert!(error.to_string().contains("/sys/tooz"), "{error}");
    assert!(ours.lock("x").unwrap().holders().await.unwrap().is_empty(), "looking is allowed");
}

async fn a_link_is_not_followed_out_of_the_folder(folder: Folder) {
    let ours = folder.connect("ours").await;
    take(&ours).await;
    let outside = folder.0.with_file_name("outside");
    std::os::unix::fs::symlink(&outside, folder.0.join("tooz/locks/y")).unwrap();
    assert_eq!(ours.lock("y").unwrap().try_acquire().await.unwrap_err().kind(), ErrorKind::Config);
    assert!(!outside.exists());
}

async fn a_duplicated_descriptor_keeps_the_lock_after_its_owner(folder: Folder) {
    let mut holder = folder.start(&["hold-with-heir", "x"]);
    let heir = holder.line();
    holder.kill();
    let ours = folder.connect("ours").await;
    let lock = ours.lock("x").unwrap();
    assert!(lock.acquire_within(Duration::from_millis(300)).await.unwrap().is_none(), "the heir keeps it");
    signal(&heir, "KILL");
    drop(within(lock.acquire()).await.unwrap());
}

async fn without_inotify_changes_are_found_by_looking(folder: Folder) {
    let url = format!("{}&inotify=false", folder.url());
    let options = ConnectOptions::new(&url).unwrap().member("ours").unwrap();
    let ours = options.connect().await.unwrap();
    assert!(!ours.characteristics().has(Characteristic::PushedWatches));
    let group = ours.group("g").unwrap();
    let membership = group.join_or_create(&()).await.unwrap();
    let mut watch = group.watch().await.unwrap();
    assert!(matches!(within(watch.next()).await, Some(GroupEvent::Snapshot(members)) if members.len() == 1));
    let mut other = folder.start_as("other", &["join", "g"]);
    other.line();
    assert!(matches!(within(watch.next()).await, Some(GroupEvent::Joined(_))));
    other.kill();
    assert!(matches!(within(watch.next()).await, Some(GroupEvent::Left(_))));
    let robber = folder.connect("ours").await;
    let _theirs = robber.group("g").unwrap().join_with(JoinOptions::new().take_over()).await.unwrap();
    assert_eq!(within(membership.loss().wait()).await, LossReason::TakenOver);
}

async fn who_is_taken_over_is_told(folder: Folder) {
    let (one, two) = (folder.connect("same").await, folder.connect("same").await);
    let membership = one.group("g").unwrap().join_or_create(&1).await.unwrap();
    let refused = two.group("g").unwrap().join(&2).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
    assert!(refused.retry_after().is_some());
    let theirs = two.group("g").unwrap().join_with(JoinOptions::new().take_over()).await.unwrap();
    assert_eq!(within(membership.loss().wait()).await, LossReason::TakenOver);
    // What the robbed one does afterwards touches nothing of the robber's.
    let _ = membership.leave().await;
    assert!(theirs.is_member());
    assert_eq!(two.group("g").unwrap().members().await.unwrap().len(), 1);
}

async fn files_of_the_dead_are_swept(folder: Folder) {
    let ours = folder.connect("ours").await;
    ours.group("g").unwrap().create().await.unwrap();
    let mut member = folder.start_as("dead", &["join", "g"]);
    member.line();
    let files = |branch: &str| {
        let entries = fs::read_dir(folder.0.join("tooz").join(branch)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    assert!(files("groups/g").contains(&"dead".to_owned()));
    assert_eq!(files("sessions").len(), 1);
    member.kill();
    assert!(ours.group("g").unwrap().members().await.unwrap().is_empty());
    assert_eq!(files("groups/g"), [".group"]);
    take(&ours).await;
    assert_eq!(files("sessions").len(), 1, "the dead one's file went, ours came");
    ours.close().await.unwrap();
    assert!(files("sessions").is_empty());
}
