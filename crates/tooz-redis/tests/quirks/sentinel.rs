//! Behind Sentinels: fail-overs while locks are held and awaited, and primaries that do not know yet that they are none.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tooz_core::{Characteristic, Coordinator, ErrorKind, GroupEvent};
use tooz_testbed::{Cluster, Kind};

use crate::bed::{cli, connect, soon, trials, try_connect, wait_in_background};

trials! {
    a_failover_loses_neither_holder_nor_waiter
    a_grant_that_a_failover_took_back_is_waited_for_again
    a_waiter_hears_though_the_failover_forgot_what_it_had_heard
    a_watcher_hears_though_the_clock_of_the_new_primary_is_behind
    what_a_failover_forgot_of_memberships_is_said_again
    a_deposed_primary_keeps_no_session_alive
    a_deposed_primary_grants_nothing
    a_paused_primary_that_comes_back_grants_nothing
    less_is_promised_behind_sentinels
    a_name_that_no_sentinel_knows_is_refused
}

async fn cluster() -> Cluster {
    tokio::task::spawn_blocking(|| Cluster::start(Kind::Redis).expect("a cluster can be started")).await.unwrap()
}

/// A member behind the Sentinels, with a timeout that outlives a fail-over.
async fn member(cluster: &Cluster, name: &str) -> Coordinator {
    connect(&format!("{}&session_timeout=12s", cluster.url()), name).await
}

async fn within<T>(seconds: u64, what: &str, future: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(Duration::from_secs(seconds), future).await;
    ended.unwrap_or_else(|_| panic!("{what} took longer than {seconds} s"))
}

async fn a_failover_loses_neither_holder_nor_waiter() {
    let cluster = cluster().await;
    let (a, b) = (member(&cluster, "a").await, member(&cluster, "b").await);
    let membership = soon(a.group("g").unwrap().join_or_create(&1)).await.unwrap();
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    let waiting = wait_in_background(&b, "x");
    sleep(Duration::from_millis(300)).await;
    let old = cluster.leader().unwrap();
    cluster.nodes()[old].kill().unwrap();
    cluster.leader_other_than(old).unwrap();
    sleep(Duration::from_secs(2)).await;
    assert!(guard.is_held() && membership.is_member(), "the timeout is longer than the fail-over took");
    assert_eq!(soon(a.lock("x").unwrap().holders()).await.unwrap().len(), 1);
    let token = guard.fencing_token();
    within(12, "releasing", guard.release()).await.unwrap();
    let next = within(20, "the waiter's grant", waiting).await.unwrap().unwrap();
    assert!(next.fencing_token() > token);
    soon(next.release()).await.unwrap();
    soon(membership.leave()).await.unwrap();
    assert!(soon(a.group("g").unwrap().members()).await.unwrap().is_empty());
}

/// The old primary alone has given the lock to the waiter; to the new one it is the holder's until that one's session ends, and the
/// waiter has its place in the queue.
async fn a_grant_that_a_failover_took_back_is_waited_for_again() {
    let cluster = cluster().await;
    let old = cluster.leader().unwrap();
    // It sees the old primary alone, so that it can't tell the new one of its release.
    let a = connect(&format!("{}?wait=1&session_timeout=10s", cluster.url_of(old)), "a").await;
    let url = format!("{}&session_timeout=60s", cluster.url());
    let (b, c) = (connect(&url, "b").await, connect(&url, "c").await);
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    let first = wait_in_background(&b, "x");
    sleep(Duration::from_millis(300)).await;
    let second = wait_in_background(&c, "x");
    sleep(Duration::from_millis(500)).await;
    cluster.partition(old);
    soon(guard.release()).await.unwrap();
    cluster.leader_other_than(old).unwrap();
    cluster.heal();
    let next = within(25, "the first waiter's grant", first).await.unwrap().unwrap();
    assert!(!second.is_finished(), "it was given to two");
    soon(next.release()).await.unwrap();
    soon(soon(second).await.unwrap().unwrap().release()).await.unwrap();
}

/// The numbers of messages that only the old primary had sent are given again by the new one, to others.
async fn a_waiter_hears_though_the_failover_forgot_what_it_had_heard() {
    let cluster = cluster().await;
    let url = format!("{}&session_timeout=30s", cluster.url());
    let (a, b) = (connect(&url, "a").await, connect(&url, "b").await);
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    let broken = soon(b.lock("y").unwrap().acquire()).await.unwrap();
    let waiting = wait_in_background(&b, "x");
    sleep(Duration::from_millis(500)).await;
    let old = cluster.leader().unwrap();
    cluster.partition(old);
    let holder = soon(a.lock("y").unwrap().holders()).await.unwrap().remove(0);
    soon(a.lock("y").unwrap().break_lock(&holder)).await.unwrap();
    soon(broken.loss().wait()).await;
    cluster.leader_other_than(old).unwrap();
    cluster.heal();
    // The old primary is a replica of the new one, and has hung up on its clients.
    cluster.wait_until_whole().unwrap();
    sleep(Duration::from_secs(1)).await;
    within(20, "releasing", guard.release()).await.unwrap();
    let next = within(5, "the waiter's grant", waiting).await.unwrap().unwrap();
    soon(next.release()).await.unwrap();
}

/// Versions come from the primary's clock: what only the old one had counted is greater than what the new one counts.
async fn a_watcher_hears_though_the_clock_of_the_new_primary_is_behind() {
    let cluster = cluster().await;
    // The reading of the members that is due anyway is much later than what is expected here.
    let url = format!("{}&session_timeout=60s", cluster.url());
    let (a, b) = (connect(&url, "a").await, connect(&url, "b").await);
    let group = a.group("g").unwrap();
    let membership = soon(group.join_or_create(&0)).await.unwrap();
    let mut watch = soon(b.group("g").unwrap().watch()).await.unwrap();
    assert!(matches!(soon(watch.next()).await, Some(GroupEvent::Snapshot(_))));
    sleep(Duration::from_millis(500)).await;
    let old = cluster.leader().unwrap();
    cluster.partition(old);
    cli(&cluster.nodes()[old], &["SET", "tooz:{tooz}:fence", "4000000000000000"]);
    soon(membership.update(&1)).await.unwrap();
    assert!(matches!(soon(watch.next()).await, Some(GroupEvent::Updated(_))));
    cluster.leader_other_than(old).unwrap();
    cluster.heal();
    cluster.wait_until_whole().unwrap();
    // The update was forgotten, and is said again.
    sleep(Duration::from_secs(2)).await;
    while tokio::time::timeout(Duration::from_millis(500), watch.next()).await.is_ok() {}
    soon(membership.update(&2)).await.unwrap();
    let told = within(5, "the update", watch.next()).await;
    let members = match told {
        Some(GroupEvent::Updated(entry)) => vec![entry],
        Some(GroupEvent::Reset(members)) => members,
        other => panic!("{other:?} in place of an update"),
    };
    assert_eq!(members[0].capabilities.get::<i32>().unwrap(), 2);
}

async fn what_a_failover_forgot_of_memberships_is_said_again() {
    let cluster = cluster().await;
    let url = format!("{}&session_timeout=60s", cluster.url());
    let (a, b) = (connect(&url, "a").await, connect(&url, "b").await);
    // Its joins count without replicas.
    let careless = connect(&format!("{url}&wait=0"), "careless").await;
    let groups = ["left", "updated", "joined"].map(|name| a.group(name).unwrap());
    let left = soon(groups[0].join_or_create(&0)).await.unwrap();
    let updated = soon(groups[1].join_or_create(&0)).await.unwrap();
    soon(groups[2].create()).await.unwrap();
    drop(soon(careless.lock("x").unwrap().acquire()).await.unwrap());
    sleep(Duration::from_millis(500)).await;
    let old = cluster.leader().unwrap();
    cluster.partition(old);
    soon(left.leave()).await.unwrap();
    soon(updated.update(&1)).await.unwrap();
    let joined = soon(careless.group("joined").unwrap().join(&0)).await.unwrap();
    cluster.leader_other_than(old).unwrap();
    cluster.heal();
    cluster.wait_until_whole().unwrap();
    within(10, "mending", async {
        while !listed(&b, "left").await.is_empty()
            || listed(&b, "updated").await != [("a".to_owned(), 1)]
            || listed(&b, "joined").await != [("careless".to_owned(), 0)]
        {
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    assert!(updated.is_member() && joined.is_member());
    soon(updated.leave()).await.unwrap();
    soon(joined.leave()).await.unwrap();
    for group in groups {
        soon(group.delete()).await.unwrap();
    }
}

/// The members and what they say.
async fn listed(coordinator: &Coordinator, group: &str) -> Vec<(String, i32)> {
    let members = soon(coordinator.group(group).unwrap().members()).await.unwrap();
    let told = |entry: tooz_core::RosterEntry| (entry.member.as_str().to_owned(), entry.capabilities.get().unwrap());
    members.into_iter().map(told).collect()
}

async fn a_deposed_primary_keeps_no_session_alive() {
    let cluster = cluster().await;
    let old = cluster.leader().unwrap();
    // It sees the old primary alone, and no Sentinel that could tell it better.
    let a = connect(&format!("{}?wait=1&session_timeout=3s", cluster.url_of(old)), "a").await;
    let b = member(&cluster, "b").await;
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    let loss = guard.loss();
    let told = tokio::spawn(async move {
        loss.wait().await;
        Instant::now()
    });
    cluster.partition(old);
    cluster.leader_other_than(old).unwrap();
    let next = within(30, "the next grant", b.lock("x").unwrap().acquire()).await.unwrap();
    let granted = Instant::now();
    assert!(told.is_finished() || !guard.is_held(), "two believe to hold it");
    assert!(within(2, "the loss", told).await.unwrap() <= granted + Duration::from_millis(100));
    assert!(next.fencing_token() > guard.fencing_token());
    cluster.heal();
}

async fn a_deposed_primary_grants_nothing() {
    let cluster = cluster().await;
    let old = cluster.leader().unwrap();
    let a = connect(&format!("{}?wait=1&session_timeout=6s", cluster.url_of(old)), "a").await;
    drop(soon(a.lock("first").unwrap().acquire()).await.unwrap());
    sleep(Duration::from_millis(200)).await;
    cluster.partition(old);
    let error = within(6, "an answer", a.lock("x").unwrap().try_acquire()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("replicas"), "{error}");
    cluster.heal();
}

async fn a_paused_primary_that_comes_back_grants_nothing() {
    let cluster = cluster().await;
    let (a, b) = (member(&cluster, "a").await, member(&cluster, "b").await);
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    let old = cluster.leader().unwrap();
    cluster.nodes()[old].pause().unwrap();
    cluster.leader_other_than(old).unwrap();
    let waiting = wait_in_background(&b, "x");
    sleep(Duration::from_secs(3)).await;
    cluster.nodes()[old].resume().unwrap();
    for _ in 0..30 {
        assert!(!(waiting.is_finished() && guard.is_held()), "two believe to hold it");
        sleep(Duration::from_millis(100)).await;
    }
    let token = guard.fencing_token();
    let _ = within(12, "releasing", guard.release()).await;
    let next = within(25, "the waiter's grant", waiting).await.unwrap().unwrap();
    assert!(next.fencing_token() > token);
}

async fn less_is_promised_behind_sentinels() {
    let cluster = cluster().await;
    let a = member(&cluster, "a").await;
    drop(soon(a.lock("x").unwrap().acquire()).await.unwrap());
    let has = |one| a.characteristics().has(one);
    assert!(has(Characteristic::FairLocks) && has(Characteristic::HoldsAcrossRestart));
    assert!(!has(Characteristic::DurableFencing) && !has(Characteristic::Linearizable));
    let careless = connect(&format!("{}&wait=0", cluster.url()), "b").await;
    drop(soon(careless.lock("x").unwrap().acquire()).await.unwrap());
    assert!(!careless.characteristics().has(Characteristic::HoldsAcrossRestart));
    let found = soon(a.check_up()).await.unwrap();
    assert!(found.findings.iter().any(|finding| finding.what.contains("replicas")), "{found:?}");
    // One Sentinel that is down is no trouble, wherever it stands in the list.
    cluster.sentinels()[0].kill().unwrap();
    let b = member(&cluster, "b").await;
    assert!(soon(b.lock("x").unwrap().acquire()).await.unwrap().is_held());
}

async fn a_name_that_no_sentinel_knows_is_refused() {
    let cluster = cluster().await;
    let error = try_connect(&cluster.url().replace("sentinel=tooz", "sentinel=nobody"), "a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.to_string().contains("nobody"), "{error}");
    let address = cluster.sentinels()[0].address();
    let error = try_connect(&format!("redis://{address}"), "a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.to_string().contains("?sentinel=NAME"), "{error}");
}
