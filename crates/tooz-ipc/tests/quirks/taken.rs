//! A table that is deleted, replaced or made shorter under those that use it: they lose what they had, and hear of it.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tooz_core::{ErrorKind, GroupEvent, SessionEvent};

use crate::bed::{Name, trials, within};

trials![
    a_deleted_table_is_a_loss_that_is_seen_at_once_and_told,
    a_replaced_table_keeps_no_two_holders_that_believe,
    a_table_that_was_made_shorter_ends_the_session_and_not_the_process,
    a_table_that_was_made_shorter_kills_none_that_only_wait,
    an_overwritten_table_is_a_loss_and_no_process_is_blamed,
    memberships_and_watches_go_on_in_the_next_table,
    a_deleted_group_is_told_though_the_next_one_has_its_place,
    who_is_taken_over_is_told,
    a_broken_grant_is_told_at_once,
    looking_makes_nothing_and_follows_the_table,
    doorbells_of_a_deleted_table_go_with_the_next_that_is_made,
    a_doorbell_that_was_taken_away_is_hung_again,
    what_a_kill_left_half_made_goes_with_the_next_member,
];

async fn a_deleted_table_is_a_loss_that_is_seen_at_once_and_told(name: Name) {
    let (one, two) = (name.connect("one").await, name.connect("two").await);
    let guard = one.lock("x").unwrap().acquire().await.unwrap();
    let other = one.lock("y").unwrap().acquire().await.unwrap();
    assert!(guard.is_held());
    fs::remove_file(name.table()).unwrap();
    let deleted = Instant::now();
    // What was seen within the last 0.2 ms counts as seen now.
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(!guard.is_held(), "judged at the call");
    assert_eq!(within(guard.loss().wait()).await, tooz_core::LossReason::SessionEnded);
    within(other.loss().wait()).await;
    assert!(deleted.elapsed() < Duration::from_secs(3));
    let next = within(two.lock("x").unwrap().acquire()).await.unwrap();
    assert!(next.fencing_token() > guard.fencing_token());
    assert_eq!(guard.release().await.unwrap_err().kind(), ErrorKind::Lost);
    assert!(next.is_held());
    assert!(within(one.lock("y").unwrap().acquire()).await.is_ok(), "it goes on in the new table");
}

async fn a_replaced_table_keeps_no_two_holders_that_believe(name: Name) {
    let one = name.connect("one").await;
    let guard = one.lock("x").unwrap().acquire().await.unwrap();
    fs::rename(name.table(), name.root().join("elsewhere")).unwrap();
    let two = name.connect("two").await;
    let theirs = two.lock("x").unwrap().acquire().await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(!guard.is_held() && theirs.is_held());
    assert!(one.lock("x").unwrap().try_acquire().await.unwrap().is_none(), "it looks at the new table now");
}

async fn a_table_that_was_made_shorter_ends_the_session_and_not_the_process(name: Name) {
    let one = name.connect("one").await;
    let mut events = one.events();
    let guard = one.lock("x").unwrap().acquire().await.unwrap();
    File::options().write(true).open(name.table()).unwrap().set_len(0).unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(!guard.is_held());
    let told = async { while !matches!(events.next().await, Some(SessionEvent::Lost { .. })) {} };
    within(told).await;
    let refused = one.lock("x").unwrap().try_acquire().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Config, "{refused}");
    assert!(refused.to_string().contains("another program has cut it"), "{refused}");
    fs::remove_file(name.table()).unwrap();
    let again = within(one.lock("x").unwrap().acquire()).await.unwrap();
    assert!(again.fencing_token() > guard.fencing_token());
}

/// The death of another is what makes those that wait and watch look at the table.
async fn a_table_that_was_made_shorter_kills_none_that_only_wait(name: Name) {
    for round in 0..3 {
        let mut others = Vec::new();
        for (member, words) in [("h", ["hold", "x"]), ("j", ["join", "g"]), ("d", ["join", "g"])] {
            others.push(name.start_as(member, &words));
            others.last_mut().unwrap().line();
        }
        let mut dies = others.pop().unwrap();
        for (member, words) in [("w", ["wait", "x"]), ("y", ["watch", "g"])] {
            others.push(name.start_as(member, &words));
            others.last_mut().unwrap().line();
        }
        let looks = name.connect("looks").await;
        while looks.lock("x").unwrap().waiters().await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Time to begin to listen for deaths.
        tokio::time::sleep(Duration::from_millis(100)).await;
        File::options().write(true).open(name.table()).unwrap().set_len(0).unwrap();
        dies.kill();
        tokio::time::sleep(Duration::from_millis(1500)).await;
        for other in &mut others {
            let ended = other.child.try_wait().unwrap();
            assert_eq!(ended.and_then(|status| status.signal()), None, "round {round}");
        }
        drop(others);
        fs::remove_file(name.table()).unwrap();
    }
}

async fn an_overwritten_table_is_a_loss_and_no_process_is_blamed(name: Name) {
    let (one, two) = (name.connect("one").await, name.connect("two").await);
    let (mut events, mut others) = (one.events(), two.events());
    let guard = one.lock("x").unwrap().acquire().await.unwrap();
    let membership = one.group("g").unwrap().join_or_create(&1).await.unwrap();
    let mut watch = two.group("g").unwrap().watch().await.unwrap();
    within(watch.next()).await.unwrap();
    let waits = two.lock("x").unwrap();
    let mut waiting = Box::pin(waits.acquire());
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut waiting).await.is_err());
    let file = File::options().write(true).open(name.table()).unwrap();
    file.write_all_at(&vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()], 0).unwrap();
    let told = async { while !matches!(events.next().await, Some(SessionEvent::Lost(_))) {} };
    within(told).await;
    assert!(!guard.is_held());
    let told = async { while !matches!(others.next().await, Some(SessionEvent::Lost(_))) {} };
    within(async {
        tokio::select! { () = told => {}, got = &mut waiting => assert!(got.is_err(), "in a table of zeros") }
    })
    .await;
    let got = tokio::time::timeout(Duration::from_secs(2), &mut waiting).await;
    assert!(!matches!(got, Ok(Ok(_))), "it has the lock in a table of zeros");
    let blamed = tokio::time::timeout(Duration::from_millis(100), membership.loss().wait()).await;
    assert_ne!(blamed.ok(), Some(tooz_core::LossReason::TakenOver));
    let deleted = tokio::time::timeout(Duration::from_millis(100), watch.next()).await;
    assert!(!matches!(deleted, Ok(Some(GroupEvent::Deleted))), "{deleted:?}");
}

async fn memberships_and_watches_go_on_in_the_next_table(name: Name) {
    let (one, two) = (name.connect("one").await, name.connect("two").await);
    let group = one.group("g").unwrap();
    let membership = group.join_or_create(&1).await.unwrap();
    let mut watch = two.group("g").unwrap().watch().await.unwrap();
    assert!(matches!(within(watch.next()).await, Some(GroupEvent::Snapshot(members)) if members.len() == 1));
    fs::remove_file(name.table()).unwrap();
    // The group was in the table, too: the program that needs it makes it again.
    let made = async {
        while group.create().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(made).await;
    let back = async {
        while group.members().await.map_or(0, |members| members.len()) == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), back).await.expect("the member comes back by itself");
    assert!(membership.is_member());
}

/// A group that is made next has the record of the deleted one, and a watch of it the block of the watch that went with that.
async fn a_deleted_group_is_told_though_the_next_one_has_its_place(name: Name) {
    // Nothing is read anew by itself meanwhile.
    let url = format!("{}&session_timeout=10m", name.url());
    let (ours, other) = (crate::bed::connect(&url, "ours").await, name.connect("other").await);
    for round in 0..20 {
        let (old, next) = (format!("old-{round}"), format!("next-{round}"));
        other.group(&*old).unwrap().create().await.unwrap();
        let mut watch = ours.group(&*old).unwrap().watch().await.unwrap();
        assert!(matches!(within(watch.next()).await, Some(GroupEvent::Snapshot(_))));
        other.group(&*old).unwrap().delete().await.unwrap();
        other.group(&*next).unwrap().create().await.unwrap();
        let mut watch_of_next = ours.group(&*next).unwrap().watch().await.unwrap();
        assert!(matches!(within(watch_of_next.next()).await, Some(GroupEvent::Snapshot(_))));
        assert_eq!(within(watch.next()).await, Some(GroupEvent::Deleted), "round {round}");
        let member = other.group(&*next).unwrap().join(&()).await.unwrap();
        assert!(
            matches!(within(watch_of_next.next()).await, Some(GroupEvent::Joined(_))),
            "the next one's watch stands"
        );
        member.leave().await.unwrap();
    }
}

async fn who_is_taken_over_is_told(name: Name) {
    let (one, two) = (name.connect("same").await, name.connect("same").await);
    let membership = one.group("g").unwrap().join_or_create(&1).await.unwrap();
    let refused = two.group("g").unwrap().join(&2).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
    assert!(refused.retry_after().is_some());
    let begun = Instant::now();
    let theirs = two.group("g").unwrap().join_with(tooz_core::JoinOptions::new().take_over()).await.unwrap();
    assert_eq!(within(membership.loss().wait()).await, tooz_core::LossReason::TakenOver);
    assert!(begun.elapsed() < Duration::from_millis(900), "by a ring, not by looking each second");
    // What the robbed one does afterwards touches nothing of the robber's.
    let _ = membership.leave().await;
    assert!(theirs.is_member());
    assert_eq!(two.group("g").unwrap().members().await.unwrap().len(), 1);
}

async fn a_broken_grant_is_told_at_once(name: Name) {
    let (one, two) = (name.connect("one").await, name.connect("two").await);
    let guard = one.lock("x").unwrap().acquire().await.unwrap();
    let holders = two.lock("x").unwrap().holders().await.unwrap();
    let begun = Instant::now();
    two.lock("x").unwrap().break_lock(&holders[0]).await.unwrap();
    assert!(!guard.is_held());
    within(guard.loss().wait()).await;
    assert!(begun.elapsed() < Duration::from_millis(900), "by a ring, not by looking each second");
    let again = two.lock("x").unwrap().break_lock(&holders[0]).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::NotFound);
}

async fn looking_makes_nothing_and_follows_the_table(name: Name) {
    let ours = name.connect("ours").await;
    assert!(ours.groups().await.unwrap().is_empty());
    assert!(ours.lock("x").unwrap().holders().await.unwrap().is_empty());
    assert_eq!(ours.group("g").unwrap().members().await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(ours.group("g").unwrap().watch().await.err().map(|error| error.kind()), Some(ErrorKind::NotFound));
    assert!(!name.base().exists());
    for _ in 0..3 {
        let holder = name.connect("holder").await;
        let _guard = holder.lock("x").unwrap().acquire().await.unwrap();
        assert_eq!(ours.lock("x").unwrap().holders().await.unwrap().len(), 1);
        fs::remove_file(name.table()).unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(ours.lock("x").unwrap().holders().await.unwrap().is_empty());
    }
}

async fn doorbells_of_a_deleted_table_go_with_the_next_that_is_made(name: Name) {
    let (living, next) = (Name::new(), Name::new());
    let mut bells = Vec::new();
    let mut holders = Vec::new();
    for name in [&name, &living] {
        let mut holder = name.start(&["hold", "x"]);
        holder.line();
        holders.push(holder);
        let bell = bell_of_slot_zero(name);
        make_old(&bell);
        bells.push(bell);
    }
    holders[0].kill();
    fs::remove_dir_all(name.base()).unwrap();
    assert!(bells[0].symlink_metadata().is_ok(), "a kill leaves it");
    drop(next.connect("next").await.lock("x").unwrap().acquire().await.unwrap());
    assert!(bells[0].symlink_metadata().is_err() && bells[1].symlink_metadata().is_ok());
}

async fn a_doorbell_that_was_taken_away_is_hung_again(name: Name) {
    let (ours, other) = (name.connect("ours").await, name.connect("other").await);
    let guard = ours.lock("x").unwrap().acquire().await.unwrap();
    let bell = bell_of_slot_zero(&name);
    fs::remove_file(&bell).unwrap();
    let hung = async {
        while UnixDatagram::unbound().unwrap().connect(&bell).is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), hung).await.expect("no doorbell");
    let holders = other.lock("x").unwrap().holders().await.unwrap();
    other.lock("x").unwrap().break_lock(&holders[0]).await.unwrap();
    assert_eq!(within(guard.loss().wait()).await, tooz_core::LossReason::Broken);
}

fn bell_of_slot_zero(name: &Name) -> PathBuf {
    let inode = fs::metadata(name.table()).unwrap().ino();
    name.base().with_file_name(".bells").join(format!("{inode}-0"))
}

fn make_old(path: &Path) {
    assert!(Command::new("touch").args(["-h", "-d", "2 minutes ago"]).arg(path).status().unwrap().success());
}

async fn what_a_kill_left_half_made_goes_with_the_next_member(name: Name) {
    drop(name.connect("first").await.lock("x").unwrap().acquire().await.unwrap());
    let shared_memory = name.base().parent().unwrap().with_file_name("x");
    let ours = name.base().parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
    let left = |name: PathBuf| [name.with_file_name(".new-1"), name.with_file_name(".new-2")];
    let [table, young] = left(name.table());
    fs::write(&table, b"half").unwrap();
    fs::write(&young, b"half").unwrap();
    make_old(&table);
    drop(name.connect("next").await.lock("x").unwrap().acquire().await.unwrap());
    assert!(table.symlink_metadata().is_err(), "a table is large");
    assert!(young.symlink_metadata().is_ok(), "another may be at work on it");
    // Folders are small: they go when the next table is made.
    let folders = [
        name.root().with_file_name(".new-x-1"),
        name.base().with_file_name(".new-x-1"),
        shared_memory.with_file_name(format!(".new-{ours}-{:016x}", fastrand::u64(..))),
        shared_memory.with_file_name(format!(".new-another-{:016x}", fastrand::u64(..))),
    ];
    for folder in &folders {
        fs::create_dir(folder).unwrap();
        make_old(folder);
    }
    fs::remove_file(name.table()).unwrap();
    drop(name.connect("last").await.lock("x").unwrap().acquire().await.unwrap());
    let stays = folders.map(|folder| fs::remove_dir(folder).is_ok());
    assert_eq!(stays, [false, false, false, true], "only what is certainly this driver's");
}
