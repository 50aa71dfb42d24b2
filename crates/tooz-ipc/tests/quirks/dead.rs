//! What dead processes leave: nothing that others would have to wait for.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tooz_core::{GroupEvent, LeaderEvent};

use crate::bed::{Name, trials, within};

trials![
    a_killed_holder_frees_the_lock_at_once,
    a_lock_of_the_dead_is_free_for_who_comes_later,
    a_lock_that_many_dead_share_is_free,
    a_slot_that_is_used_again_does_not_bring_the_dead_back,
    a_killed_member_has_left_and_its_group_can_be_deleted,
    a_killed_leader_leaves_a_vacancy_and_the_next_one_is_elected,
    a_fork_without_exec_keeps_what_its_dead_parent_held,
    a_fork_without_exec_does_not_keep_the_change_of_its_dead_parent,
    processes_that_are_killed_all_the_time_take_turns,
    two_hundred_processes_survive_the_death_of_half_of_them,
];

async fn a_killed_holder_frees_the_lock_at_once(name: Name) {
    let mut slowest = Duration::ZERO;
    for _ in 0..10 {
        let mut holder = name.start(&["hold", "x"]);
        let held: u64 = holder.line().parse().unwrap();
        let ours = name.connect("ours").await;
        let lock = ours.lock("x").unwrap();
        assert!(lock.try_acquire().await.unwrap().is_none());
        let seen = lock.holders().await.unwrap();
        assert_eq!((seen[0].pid, seen[0].token.0), (Some(holder.child.id()), held));
        let waiting = tokio::spawn(async move { lock.acquire().await.unwrap() });
        tokio::time::sleep(Duration::from_millis(50)).await;
        let killed = Instant::now();
        holder.kill();
        let guard = within(waiting).await.unwrap();
        slowest = slowest.max(killed.elapsed());
        assert!(guard.fencing_token().0 > held);
        guard.release().await.unwrap();
    }
    println!("kill -9 to the next grant: {slowest:?} at most");
}

async fn a_lock_of_the_dead_is_free_for_who_comes_later(name: Name) {
    let mut holder = name.start(&["hold", "x"]);
    holder.line();
    holder.kill();
    let ours = name.connect("ours").await;
    assert!(ours.lock("x").unwrap().holders().await.unwrap().is_empty());
    assert!(ours.lock("x").unwrap().try_acquire().await.unwrap().is_some(), "no other process needs to clear away");
}

async fn a_lock_that_many_dead_share_is_free(name: Name) {
    let ours = name.connect("ours").await;
    let lock = ours.lock("x").unwrap();
    for _ in 0..3 {
        let mut sharer = name.start(&["share", "x", "1000"]);
        assert_eq!(sharer.line(), "shares");
        assert_eq!(lock.holders().await.unwrap().len(), 1000);
        assert!(lock.try_acquire().await.unwrap().is_none());
        sharer.kill();
        let guard = lock.try_acquire().await.unwrap().expect("all that share it are dead");
        assert_eq!(lock.holders().await.unwrap().len(), 1);
        guard.release().await.unwrap();
    }
    let mut sharer = name.start(&["share", "x", "1000"]);
    sharer.line();
    sharer.kill();
    assert!(lock.holders().await.unwrap().is_empty());
}

async fn a_slot_that_is_used_again_does_not_bring_the_dead_back(name: Name) {
    let ours = name.connect("ours").await;
    ours.group("g").unwrap().create().await.unwrap();
    for _ in 0..5 {
        // Each has the slot of the one before it.
        let (mut holder, mut member) = (name.start(&["hold", "x"]), name.start(&["join", "g"]));
        holder.line();
        member.line();
        holder.kill();
        member.kill();
        let (mut one, mut two) = (name.start(&["hold", "y"]), name.start(&["hold", "z"]));
        one.line();
        two.line();
        assert!(ours.lock("x").unwrap().try_acquire().await.unwrap().is_some());
        assert!(ours.group("g").unwrap().members().await.unwrap().is_empty());
    }
}

async fn a_killed_member_has_left_and_its_group_can_be_deleted(name: Name) {
    let ours = name.connect("ours").await;
    let group = ours.group("g").unwrap();
    group.create().await.unwrap();
    let mut watch = group.watch().await.unwrap();
    assert!(matches!(within(watch.next()).await, Some(GroupEvent::Snapshot(members)) if members.is_empty()));
    let mut slowest = Duration::ZERO;
    for round in 0..10 {
        let member = format!("m{round}");
        let mut started = name.start_as(&member, &["join", "g"]);
        assert_eq!(started.line(), "joined");
        assert!(
            matches!(within(watch.next()).await, Some(GroupEvent::Joined(entry)) if entry.member.as_str() == member)
        );
        let killed = Instant::now();
        started.kill();
        assert!(matches!(within(watch.next()).await, Some(GroupEvent::Left(left)) if left.as_str() == member));
        slowest = slowest.max(killed.elapsed());
    }
    println!("kill -9 to Left: {slowest:?} at most");
    group.delete().await.unwrap();
    assert_eq!(within(watch.next()).await, Some(GroupEvent::Deleted));
}

async fn a_killed_leader_leaves_a_vacancy_and_the_next_one_is_elected(name: Name) {
    let ours = name.connect("ours").await;
    let group = ours.group("g").unwrap();
    let membership = group.join_or_create(&()).await.unwrap();
    let mut watch = group.watch_leader().await.unwrap();
    assert!(matches!(within(watch.next()).await, Some(LeaderEvent::Vacant)));
    let mut leader = name.start_as("first", &["lead", "g"]);
    assert_eq!(leader.line(), "leads");
    let Some(LeaderEvent::Elected(first)) = within(watch.next()).await else { panic!("the election is told") };
    assert_eq!(first.member.as_str(), "first");
    leader.kill();
    assert!(matches!(within(watch.next()).await, Some(LeaderEvent::Vacant)));
    let leadership = within(membership.campaign()).await.unwrap();
    let Some(LeaderEvent::Elected(second)) = within(watch.next()).await else { panic!("the election is told") };
    assert!(second.epoch > first.epoch && second.epoch == leadership.epoch());
}

async fn a_fork_without_exec_keeps_what_its_dead_parent_held(name: Name) {
    let mut holder = name.start(&["hold-and-fork", "x"]);
    let child: i32 = holder.line().parse().unwrap();
    holder.kill();
    let ours = name.connect("ours").await;
    let lock = ours.lock("x").unwrap();
    assert!(lock.acquire_within(Duration::from_millis(300)).await.unwrap().is_none(), "the child keeps it");
    assert_eq!(lock.holders().await.unwrap().len(), 1);
    kill(Pid::from_raw(child), Signal::SIGKILL).unwrap();
    drop(within(lock.acquire()).await.unwrap());
}

/// The parent was killed in the middle of a change, and its child has the description by which others see that a session lives.
async fn a_fork_without_exec_does_not_keep_the_change_of_its_dead_parent(name: Name) {
    let ours = name.connect("ours").await;
    let _first = ours.lock("ours").unwrap().acquire().await.unwrap();
    let mut holder = name.start(&["hold-and-fork", "x"]);
    let child: i32 = holder.line().parse().unwrap();
    holder.kill();
    name.own_by_slot(1);
    let other = within(ours.lock("y").unwrap().try_acquire()).await;
    let held = within(ours.lock("x").unwrap().holders()).await;
    kill(Pid::from_raw(child), Signal::SIGKILL).unwrap();
    assert!(other.unwrap().is_some(), "the others go on");
    assert_eq!(held.unwrap().len(), 1, "what it held is another matter");
    drop(within(ours.lock("x").unwrap().acquire()).await.unwrap());
}

/// In the lock each looks whether it is alone and whether its token is the greatest; some die there, some in the middle of a change.
async fn processes_that_are_killed_all_the_time_take_turns(name: Name) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap().to_owned();
    let start = |millis: u64| name.start(&["contend", "x", &path, &millis.to_string()]);
    let mut doomed: Vec<_> = (0..3).map(|_| start(60_000)).collect();
    let mut survivors: Vec<_> = (0..3).map(|_| start(6000)).collect();
    let until = Instant::now() + Duration::from_secs(6);
    let mut kills = 0;
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..20))).await;
        let which = fastrand::usize(..doomed.len());
        assert!(doomed[which].child.try_wait().unwrap().is_none(), "a contender saw a rival or an old token");
        doomed[which].kill();
        doomed[which] = start(60_000);
        kills += 1;
    }
    let mut turns = Vec::new();
    for survivor in &mut survivors {
        assert_eq!(survivor.line(), "ready");
        turns.push(survivor.line().parse::<u64>().expect("a contender saw a rival or an old token"));
        assert!(survivor.child.wait().unwrap().success());
    }
    println!("{kills} kills, {turns:?} turns");
    assert!(turns.iter().all(|one| *one > 0));
    drop(doomed);
    let ours = name.connect("ours").await;
    assert!(ours.lock("x").unwrap().try_acquire().await.unwrap().is_some());
    let checkup = ours.check_up().await.unwrap();
    assert!(checkup.findings.iter().any(|finding| finding.what.contains("every list and count")), "{checkup:?}");
}

async fn two_hundred_processes_survive_the_death_of_half_of_them(name: Name) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let mut contenders: Vec<_> = (0..200).map(|_| name.start(&["contend", "x", path, "4000"])).collect();
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
    let until = Instant::now() + Duration::from_mins(1);
    for mut survivor in survivors {
        loop {
            match survivor.child.try_wait().unwrap() {
                Some(status) => break assert!(status.success(), "a contender saw a rival or an old token: {status}"),
                None => assert!(Instant::now() < until, "a contender hangs"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let ours = name.connect("ours").await;
    assert!(ours.lock("x").unwrap().try_acquire().await.unwrap().is_some());
}
