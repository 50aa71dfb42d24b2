//! What others take away: each grant and each membership is told as lost, however many they are and by whatever hand.

use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tooz_core::{Coordinator, ErrorKind, JoinOptions, LockGuard, LossReason, Membership, Result};
use tooz_testbed::Proxy;

use crate::raw::Raw;
use crate::{SERVER, connect, connect_for, namespace, nodes, quirk, soon, until};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        quirk("a_hundred_locks_broken_during_a_standstill_are_all_lost", || {
            Box::pin(a_hundred_locks_broken_during_a_standstill_are_all_lost())
        }),
        quirk("mail_that_overflowed_is_made_up_for_by_a_comparison", || {
            Box::pin(mail_that_overflowed_is_made_up_for_by_a_comparison())
        }),
        quirk("a_node_deleted_by_hand_is_told_at_once", || Box::pin(a_node_deleted_by_hand_is_told_at_once())),
        quirk("a_node_deleted_while_there_was_no_connection_is_told", || {
            Box::pin(a_node_deleted_while_there_was_no_connection_is_told())
        }),
        quirk(
            "breaks_of_one_holders_locks_refuse_no_other",
            || Box::pin(breaks_of_one_holders_locks_refuse_no_other()),
        ),
        quirk(
            "take_overs_from_one_session_refuse_no_other",
            || Box::pin(take_overs_from_one_session_refuse_no_other()),
        ),
        quirk("letters_refuse_no_leave_and_no_update", || Box::pin(letters_refuse_no_leave_and_no_update())),
        quirk("a_release_that_finds_nothing_says_so", || Box::pin(a_release_that_finds_nothing_says_so())),
    ]
}

fn raw() -> Raw {
    Raw::connect(SERVER.address()).expect("a session")
}

/// The only node below a branch, at its deepest.
fn node(space: &str, branch: &str) -> String {
    nodes(space, branch)
        .into_iter()
        .find(|node| node.matches('/').count() == branch.matches('/').count() + 2)
        .expect("a node")
}

/// More than are listed in a mailbox.
async fn a_hundred_locks_broken_during_a_standstill_are_all_lost() -> Result<()> {
    const BROKEN: usize = 100;
    let space = namespace();
    let proxy = Proxy::start(SERVER.address()).expect("a proxy");
    let minute = Duration::from_mins(1);
    let holder = connect_for(&proxy.url("zookeeper"), "holder", &space, minute).await?;
    let other = connect_for(&SERVER.url(), "other", &space, minute).await?;
    let mut guards = Vec::new();
    for number in 0..BROKEN + 5 {
        guards.push(holder.lock(format!("l{number}"))?.acquire().await?);
    }
    let group = holder.group("g")?;
    let membership = group.join_or_create(&()).await?;
    for waits in [Duration::from_millis(500), Duration::ZERO] {
        sleep(waits).await;
    }
    proxy.stall();
    let mut taken = Vec::new();
    for number in 0..BROKEN {
        let lock = other.lock(format!("l{number}"))?;
        let there = lock.holders().await?.pop().expect("a holder");
        lock.break_lock(&there).await?;
        taken.push(lock.acquire().await?);
    }
    let thief = connect_for(&SERVER.url(), "holder", &space, minute).await?;
    let theirs = thief.group("g")?.join_with(JoinOptions::new().take_over()).await?;
    proxy.heal();
    let began = Instant::now();
    until("all are lost", || guards[..BROKEN].iter().all(|guard| !guard.is_held())).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(soon(membership.loss().wait()).await, LossReason::TakenOver);
    assert!(guards[BROKEN..].iter().all(LockGuard::is_held), "the others are not lost");
    let error = guards.swap_remove(0).release().await.expect_err("it is another's");
    assert_eq!(error.kind(), ErrorKind::Lost, "{error}");
    assert!(taken.iter().all(LockGuard::is_held) && theirs.is_member());
    thief.close().await?;
    other.close().await?;
    holder.close().await
}

/// Mail alone: what is gone is not watched yet.
async fn mail_that_overflowed_is_made_up_for_by_a_comparison() -> Result<()> {
    let space = namespace();
    let holder = connect_for(&SERVER.url(), "holder", &space, Duration::from_secs(30)).await?;
    let kept = holder.lock("kept")?.acquire().await?;
    let (lost, long) = (holder.lock("lost")?.acquire().await?, holder.lock("y".repeat(200))?.acquire().await?);
    let mut raw = raw();
    for node in
        nodes(&space, "/locks").into_iter().filter(|node| node.matches('/').count() == 4 && !node.contains("/kept/"))
    {
        assert!(raw.delete(&node).expect("an answer"));
    }
    for mail in [&br#"{"member":"holder","overflowed":true}"#[..], b"spoiled"] {
        assert!(raw.write(&node(&space, "/mail").replace("//", "/"), mail).is_ok());
        soon(lost.loss().wait()).await;
        soon(long.loss().wait()).await;
    }
    sleep(Duration::from_millis(500)).await;
    assert!(kept.is_held());
    assert_eq!(nodes(&space, "/mail").len(), 1);
    kept.release().await?;
    holder.close().await
}

async fn a_node_deleted_by_hand_is_told_at_once() -> Result<()> {
    let space = namespace();
    let holder = connect_for(&SERVER.url(), "holder", &space, Duration::from_secs(30)).await?;
    let other = connect(&SERVER.url(), "other", &space).await?;
    let (guard, kept) = (holder.lock("l")?.acquire().await?, holder.lock("kept")?.acquire().await?);
    let shared = holder.lock("shared")?.shared().acquire().await?;
    let membership = holder.group("g")?.join_or_create(&()).await?;
    let leadership = membership.campaign().await?;
    let waiting = tokio::spawn({
        let lock = other.lock("l")?;
        async move { lock.acquire().await }
    });
    until("it waits", || nodes(&space, "/locks/l").len() == 2).await;
    sleep(Duration::from_millis(500)).await;
    let mut raw = raw();
    let mut delete = |node: &str| {
        assert!(raw.delete(node).expect("an answer"), "{node}");
        Instant::now()
    };
    let mut queue = nodes(&space, "/locks/l");
    queue.sort_by_key(|node| node[node.len() - 10..].to_owned());
    let deleted = delete(&queue[0]);
    assert_eq!(soon(guard.loss().wait()).await, LossReason::Broken);
    assert!(deleted.elapsed() < Duration::from_secs(1), "{:?}", deleted.elapsed());
    assert!(soon(waiting).await.expect("no panic")?.is_held());
    delete(&nodes(&space, "/locks/shared")[0]);
    assert_eq!(soon(shared.loss().wait()).await, LossReason::Broken);
    delete(&nodes(&space, "/elections/g")[0]);
    assert_eq!(soon(leadership.loss().wait()).await, LossReason::Broken);
    delete(&nodes(&space, "/groups/g")[0]);
    soon(membership.loss().wait()).await;
    assert!(kept.is_held(), "the session goes on");
    // Writing into a node is no deletion of it.
    let node = nodes(&space, "/locks/kept").pop().expect("a node");
    for text in ["one", "two"] {
        assert!(raw.write(&node, text.as_bytes()).expect("an answer"));
        sleep(Duration::from_millis(300)).await;
        assert!(kept.is_held());
    }
    assert!(raw.delete(&node).expect("an answer"));
    assert_eq!(soon(kept.loss().wait()).await, LossReason::Broken);
    other.close().await?;
    holder.close().await
}

async fn a_node_deleted_while_there_was_no_connection_is_told() -> Result<()> {
    let space = namespace();
    let proxy = Proxy::start(SERVER.address()).expect("a proxy");
    let holder = connect_for(&proxy.url("zookeeper"), "holder", &space, Duration::from_mins(1)).await?;
    let (guard, kept) = (holder.lock("l")?.acquire().await?, holder.lock("kept")?.acquire().await?);
    sleep(Duration::from_millis(500)).await;
    proxy.refuse();
    proxy.reset();
    assert!(raw().delete(&nodes(&space, "/locks/l")[0]).expect("an answer"));
    sleep(Duration::from_secs(1)).await;
    proxy.heal();
    let healed = Instant::now();
    assert_eq!(soon(guard.loss().wait()).await, LossReason::Broken);
    assert!(healed.elapsed() < Duration::from_secs(3), "{:?}", healed.elapsed());
    assert!(kept.is_held());
    holder.close().await
}

async fn a_release_that_finds_nothing_says_so() -> Result<()> {
    let space = namespace();
    let holder = connect_for(&SERVER.url(), "holder", &space, Duration::from_secs(30)).await?;
    let other = holder.lock("other")?.acquire().await?;
    let guard = holder.lock("l")?.acquire().await?;
    // So soon that it was not noticed yet, or just so.
    assert!(raw().delete(&nodes(&space, "/locks/l")[0]).expect("an answer"));
    let error = guard.release().await.expect_err("another may have had it before");
    assert!(matches!(error.kind(), ErrorKind::Lost | ErrorKind::NotFound), "{error}");
    assert!(other.is_held(), "the session goes on");
    other.release().await?;
    holder.close().await
}

/// All of them at once.
async fn hold(coordinator: &Coordinator, count: usize) -> Result<Vec<LockGuard>> {
    let mut asking = JoinSet::new();
    for number in 0..count {
        let lock = coordinator.lock(format!("l{number}"))?;
        asking.spawn(async move { lock.acquire().await });
    }
    asking.join_all().await.into_iter().collect()
}

async fn join(coordinator: &Coordinator, count: usize) -> Result<Vec<Membership>> {
    let mut joined = Vec::new();
    for number in 0..count {
        joined.push(coordinator.group(format!("g{number}"))?.join_or_create(&()).await?);
    }
    Ok(joined)
}

/// Begins to break those locks, all at once.
fn break_all(coordinator: &Coordinator, numbers: impl Iterator<Item = usize>) -> Result<JoinSet<Result<()>>> {
    let mut breaking = JoinSet::new();
    for number in numbers {
        let lock = coordinator.lock(format!("l{number}"))?;
        breaking.spawn(async move {
            let there = lock.holders().await?.pop().expect("a holder");
            lock.break_lock(&there).await
        });
    }
    Ok(breaking)
}

/// All write into one mailbox, from two sessions.
async fn breaks_of_one_holders_locks_refuse_no_other() -> Result<()> {
    const LOCKS: usize = 400;
    let (space, minute) = (namespace(), Duration::from_mins(1));
    let holder = connect_for(&SERVER.url(), "holder", &space, minute).await?;
    let url = format!("{}?operation_timeout=20s", SERVER.url());
    let (one, two) = (connect_for(&url, "one", &space, minute).await?, connect_for(&url, "two", &space, minute).await?);
    let guards = hold(&holder, LOCKS).await?;
    let mut breaking = break_all(&one, (0..LOCKS).filter(|number| number.is_multiple_of(2)))?;
    let mut others = break_all(&two, (0..LOCKS).filter(|number| !number.is_multiple_of(2)))?;
    while let Some(broken) = breaking.join_next().await {
        broken.expect("no panic")?;
    }
    while let Some(broken) = others.join_next().await {
        broken.expect("no panic")?;
    }
    until("all are lost", || guards.iter().all(|guard| !guard.is_held())).await;
    for coordinator in [one, two, holder] {
        coordinator.close().await?;
    }
    Ok(())
}

async fn take_overs_from_one_session_refuse_no_other() -> Result<()> {
    const GROUPS: usize = 150;
    let (space, minute) = (namespace(), Duration::from_mins(1));
    let holder = connect_for(&SERVER.url(), "m", &space, minute).await?;
    let joined = join(&holder, GROUPS).await?;
    let url = format!("{}?operation_timeout=20s", SERVER.url());
    let thief = connect_for(&url, "m", &space, minute).await?;
    let mut taking = JoinSet::new();
    for number in 0..GROUPS {
        let group = thief.group(format!("g{number}"))?;
        taking.spawn(async move { group.join_with(JoinOptions::new().take_over()).await });
    }
    let theirs = taking.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
    until("all are told", || joined.iter().all(|membership| !membership.is_member())).await;
    assert!(theirs.iter().all(Membership::is_member));
    thief.close().await?;
    holder.close().await
}

async fn letters_refuse_no_leave_and_no_update() -> Result<()> {
    const COUNT: usize = 150;
    let (space, minute) = (namespace(), Duration::from_mins(1));
    let url = format!("{}?operation_timeout=20s", SERVER.url());
    let holder = connect_for(&url, "holder", &space, minute).await?;
    let other = connect_for(&url, "other", &space, minute).await?;
    let (guards, joined) = (hold(&holder, COUNT).await?, join(&holder, COUNT).await?);
    let breaking = break_all(&other, 0..COUNT)?;
    let mut changing = JoinSet::new();
    for (number, membership) in joined.into_iter().enumerate() {
        changing.spawn(async move {
            if number.is_multiple_of(2) {
                membership.update(&number).await.map(|()| Some(membership))
            } else {
                membership.leave().await.map(|()| None)
            }
        });
    }
    let kept = changing.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
    breaking.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
    assert!(kept.iter().flatten().all(Membership::is_member));
    until("all are lost", || guards.iter().all(|guard| !guard.is_held())).await;
    other.close().await?;
    holder.close().await
}
