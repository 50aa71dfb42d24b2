//! Processes that are stopped: outside of a change they keep what they have, and miss nothing; inside of one all others are told whom to let go on.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tooz_core::{ErrorKind, GroupEvent, Outcome, SessionEvent};

use crate::bed::{Name, connect, trials, within};

trials![
    a_stopped_holder_keeps_the_lock_because_the_kernel_is_the_judge,
    a_stopped_waiter_keeps_its_place_and_its_turn,
    one_that_is_stopped_in_the_middle_of_a_change_is_named_and_others_wait,
    those_in_the_queue_are_told_who_is_stopped_in_the_middle_of_a_change,
    those_that_come_then_are_told_it_as_well,
    a_stopped_watcher_sees_what_came_while_its_doorbell_was_full,
];

async fn a_stopped_holder_keeps_the_lock_because_the_kernel_is_the_judge(name: Name) {
    let mut holder = name.start(&["hold", "x"]);
    holder.line();
    holder.signal(Signal::SIGSTOP);
    let ours = name.connect("ours").await;
    assert!(ours.lock("x").unwrap().acquire_within(Duration::from_millis(1500)).await.unwrap().is_none());
    assert_eq!(ours.lock("x").unwrap().holders().await.unwrap().len(), 1);
    // It can be taken away from it, by force.
    let holders = ours.lock("x").unwrap().holders().await.unwrap();
    ours.lock("x").unwrap().break_lock(&holders[0]).await.unwrap();
    drop(within(ours.lock("x").unwrap().acquire()).await.unwrap());
    holder.signal(Signal::SIGCONT);
}

async fn a_stopped_waiter_keeps_its_place_and_its_turn(name: Name) {
    let ours = name.connect("ours").await;
    let lock = ours.lock("x").unwrap();
    let guard = lock.acquire().await.unwrap();
    let mut first = name.start_as("first", &["wait", "x"]);
    first.line();
    while lock.waiters().await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    first.signal(Signal::SIGSTOP);
    let mut second = name.start_as("second", &["wait", "x"]);
    second.line();
    while lock.waiters().await.unwrap().len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    guard.release().await.unwrap();
    let holders = lock.holders().await.unwrap();
    assert_eq!(holders[0].member.as_str(), "first", "its turn has come, whether it runs or not");
    assert!(lock.acquire_within(Duration::from_millis(300)).await.unwrap().is_none());
    first.signal(Signal::SIGCONT);
    let token: u64 = first.line().parse().unwrap();
    assert_eq!(token, holders[0].token.0);
    first.kill();
    assert!(second.line().parse::<u64>().unwrap() > token);
}

/// They keep their places.
async fn those_in_the_queue_are_told_who_is_stopped_in_the_middle_of_a_change(name: Name) {
    let ours = name.connect("ours").await;
    let lock = ours.lock("x").unwrap();
    drop(lock.acquire().await.unwrap());
    let mut stopped = name.start(&["hold", "x"]);
    stopped.line();
    let mut events = ours.events();
    let first = lock.clone();
    let first = tokio::spawn(async move { first.acquire().await.unwrap() });
    let second = name.connect("second").await.lock("x").unwrap();
    let second = tokio::spawn(async move { second.acquire_within(Duration::from_secs(6)).await });
    while lock.waiters().await.unwrap().len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stopped.signal(Signal::SIGSTOP);
    name.own_by_slot(1);
    let pid = format!("kill -CONT {}", stopped.child.id());
    let error = within(second).await.unwrap().unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.to_string().contains(&pid), "{error}");
    loop {
        match within(events.next()).await.unwrap() {
            SessionEvent::Troubled(error) if error.to_string().contains(&pid) => break,
            _ => {}
        }
    }
    stopped.kill();
    within(first).await.unwrap().release().await.unwrap();
}

/// Also where a request has less time than a change is waited for, or where core asks again until its own time is over.
async fn those_that_come_then_are_told_it_as_well(name: Name) {
    let url = format!("{}&operation_timeout=5s&session_timeout=30s", name.url());
    let ours = connect(&url, "ours").await;
    ours.group("g").unwrap().create().await.unwrap();
    drop(ours.lock("x").unwrap().acquire().await.unwrap());
    let mut stopped = name.start(&["hold", "x"]);
    stopped.line();
    stopped.signal(Signal::SIGSTOP);
    name.own_by_slot(1);
    let pid = format!("kill -CONT {}", stopped.child.id());
    let error = within(ours.lock("y").unwrap().acquire_within(Duration::from_secs(2))).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.to_string().contains(&pid), "{error}");
    let error = within(ours.group("g").unwrap().join_or_create(&())).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.to_string().contains(&pid), "{error}");
    let lock = ours.lock("y").unwrap();
    let waiting = tokio::spawn(async move { lock.acquire().await.unwrap() });
    tokio::time::sleep(Duration::from_millis(100)).await;
    stopped.kill();
    within(waiting).await.unwrap().release().await.unwrap();
    drop(within(ours.group("g").unwrap().join(&())).await.unwrap());
}

async fn one_that_is_stopped_in_the_middle_of_a_change_is_named_and_others_wait(name: Name) {
    let url = format!("{}&operation_timeout=400ms", name.url());
    let ours = connect(&url, "ours").await;
    let guard = ours.lock("ours").unwrap().acquire().await.unwrap();
    let mut stopped = name.start(&["hold", "x"]);
    stopped.line();
    stopped.signal(Signal::SIGSTOP);
    name.own_by_slot(1);
    let asked = Instant::now();
    let error = within(ours.lock("y").unwrap().try_acquire()).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::NotApplied), "{error}");
    assert!(error.to_string().contains(&format!("kill -CONT {}", stopped.child.id())), "{error}");
    assert!(error.to_string().contains("All others wait for it"), "{error}");
    assert!(asked.elapsed() < Duration::from_secs(3));
    let looked = Instant::now();
    assert!(guard.is_held(), "what is held can be seen all the same");
    assert!(looked.elapsed() < Duration::from_millis(100));
    let lock = ours.lock("y").unwrap();
    let waiting = tokio::spawn(async move { lock.acquire().await.unwrap() });
    tokio::time::sleep(Duration::from_millis(100)).await;
    stopped.kill();
    within(waiting).await.unwrap().release().await.unwrap();
    drop(within(ours.lock("x").unwrap().acquire()).await.unwrap());
    guard.release().await.unwrap();
}

async fn a_stopped_watcher_sees_what_came_while_its_doorbell_was_full(name: Name) {
    let ours = name.connect("ours").await;
    let group = ours.group("g").unwrap();
    let membership = group.join_or_create(&0).await.unwrap();
    let mut watcher = name.start(&["watch", "g"]);
    assert!(watcher.line().starts_with("Snapshot"));
    watcher.signal(Signal::SIGSTOP);
    // Far more than a doorbell has room for.
    for round in 1..200 {
        membership.update(&round).await.unwrap();
    }
    let other = name.connect("late").await;
    let _late = within(other.group("g").unwrap().join(&())).await.unwrap();
    watcher.signal(Signal::SIGCONT);
    let mut seen = String::new();
    while !(seen.contains("199") && seen.contains("late")) {
        seen += &watcher.line();
    }
    let mut watch = group.watch().await.unwrap();
    assert!(matches!(within(watch.next()).await, Some(GroupEvent::Snapshot(members)) if members.len() == 2));
}
