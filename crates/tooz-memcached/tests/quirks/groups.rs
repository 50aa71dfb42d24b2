//! Groups: one entry for each join, and exactly one winner of each race.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;
use tooz_core::{ErrorKind, LossReason};

use crate::bed::{Raw, connect, soon, start, trials};

trials! {
    fifty_joins_at_once_are_one_try_each
    of_a_join_and_a_deletion_exactly_one_wins
    a_take_over_tells_the_other_session
    a_group_that_was_lost_stands_again_with_its_members
    a_member_whose_group_was_lost_is_still_taken_over
    a_list_of_groups_that_was_lost_has_them_again
    a_journal_of_many_joins_is_written_anew
}

async fn fifty_joins_at_once_are_one_try_each() {
    let server = start();
    let first = connect(&server.url(), "first").await;
    let group = first.group("g").unwrap();
    soon(group.create()).await.unwrap();
    let mut coordinators = Vec::new();
    for number in 0..50 {
        let one = connect(&server.url(), &format!("m{number}")).await;
        // The session is open.
        soon(soon(one.lock(format!("warm {number}")).unwrap().acquire()).await.unwrap().release()).await.unwrap();
        coordinators.push(one);
    }
    let mut raw = Raw::to(&server);
    let before = raw.stat("cmd_set");
    let mut joining = JoinSet::new();
    for one in &coordinators {
        let group = one.group("g").unwrap();
        joining.spawn(async move { soon(group.join(&())).await.unwrap() });
    }
    let members = soon(joining.join_all()).await;
    let writes = raw.stat("cmd_set") - before;
    assert!((50..=60).contains(&writes), "{writes} writes for 50 joins");
    assert_eq!(soon(group.members()).await.unwrap().len(), 50);
    drop(members);
}

async fn of_a_join_and_a_deletion_exactly_one_wins() {
    let server = start();
    let (a, b) = (connect(&server.url(), "a").await, connect(&server.url(), "b").await);
    let (mut joined, mut deleted) = (0, 0);
    for round in 0..60 {
        let name = format!("g{round}");
        let (group, same) = (a.group(name.as_str()).unwrap(), b.group(name.as_str()).unwrap());
        soon(group.create()).await.unwrap();
        let (join, delete) = soon(async { tokio::join!(group.join(&()), same.delete()) }).await;
        match (join, delete) {
            (Ok(membership), Err(error)) => {
                assert_eq!(error.kind(), ErrorKind::NotEmpty);
                joined += 1;
                soon(membership.leave()).await.unwrap();
                soon(same.delete()).await.unwrap();
            }
            (Err(error), Ok(())) => {
                assert_eq!(error.kind(), ErrorKind::NotFound);
                deleted += 1;
            }
            other => panic!("{other:?}"),
        }
        assert!(Raw::to(&server).read(&format!("tooz:tooz:g:{name}")).is_none(), "a deleted group leaves nothing");
    }
    assert_eq!(joined + deleted, 60);
    assert!(soon(a.groups()).await.unwrap().is_empty());
}

async fn a_take_over_tells_the_other_session() {
    let server = start();
    let (a, b) = (connect(&server.url(), "same").await, connect(&server.url(), "same").await);
    let first = soon(a.group("g").unwrap().join_or_create(&1)).await.unwrap();
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    let options = tooz_core::JoinOptions::new().take_over();
    let second = soon(b.group("g").unwrap().join_with(options)).await.unwrap();
    tokio::time::timeout(Duration::from_secs(1), first.loss().wait()).await.expect("it is told soon");
    assert!(second.is_member() && guard.is_held(), "the other session and its locks live on");
}

/// What a server that is full drops, to speak of one thing.
const RECORD: &str = "tooz:tooz:g:g";

async fn a_group_that_was_lost_stands_again_with_its_members() {
    let server = start();
    let (a, b) = (connect(&server.url(), "a").await, connect(&server.url(), "b").await);
    let first = soon(a.group("g").unwrap().join_or_create(&1)).await.unwrap();
    let second = soon(b.group("g").unwrap().join(&2)).await.unwrap();
    soon(first.update(&"new")).await.unwrap();
    let mut raw = Raw::to(&server);
    for key in [RECORD, "tooz:tooz:groups"] {
        assert_eq!(raw.ask(&format!("md {key}")), "HD");
    }
    let group = a.group("g").unwrap();
    let both = async {
        while !soon(group.members()).await.is_ok_and(|members| members.len() == 2) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    soon(both).await;
    let members = soon(group.members()).await.unwrap();
    let of_first = members.iter().find(|member| member.member.as_str() == "a").unwrap();
    assert_eq!(of_first.capabilities.get::<String>().unwrap(), "new");
    assert!(first.is_member() && second.is_member(), "neither was taken over");
    assert_eq!(soon(a.groups()).await.unwrap().len(), 1, "it is listed");
    // An update finds it missing before its turn has come.
    assert_eq!(raw.ask(&format!("md {RECORD}")), "HD");
    soon(first.update(&"newer")).await.unwrap();
    soon(second.update(&"newer")).await.unwrap();
    assert!(soon(group.members()).await.unwrap().iter().all(|one| one.capabilities.as_json() == "\"newer\""));
    // It ends as ever.
    soon(first.leave()).await.unwrap();
    assert_eq!(soon(group.delete()).await.unwrap_err().kind(), ErrorKind::NotEmpty);
    soon(second.leave()).await.unwrap();
    soon(group.delete()).await.unwrap();
    assert!(soon(a.groups()).await.unwrap().is_empty() && raw.read(RECORD).is_none());
    sleep(Duration::from_secs(2)).await;
    assert!(raw.read(RECORD).is_none(), "what was left does not stand again");
}

async fn a_member_whose_group_was_lost_is_still_taken_over() {
    let server = start();
    let (a, b) = (connect(&server.url(), "same").await, connect(&server.url(), "same").await);
    let first = soon(a.group("g").unwrap().join_or_create(&1)).await.unwrap();
    let mut raw = Raw::to(&server);
    assert_eq!(raw.ask(&format!("md {RECORD}")), "HD");
    let second = soon(b.group("g").unwrap().join_or_create(&2)).await.unwrap();
    assert_eq!(soon(first.loss().wait()).await, LossReason::TakenOver);
    assert!(second.is_member());
}

async fn a_list_of_groups_that_was_lost_has_them_again() {
    let server = start();
    let (a, b) = (connect(&server.url(), "a").await, connect(&server.url(), "b").await);
    let first = soon(a.group("g").unwrap().join_or_create(&1)).await.unwrap();
    let second = soon(b.group("h").unwrap().join_or_create(&2)).await.unwrap();
    let mut raw = Raw::to(&server);
    for others in 0..3 {
        assert_eq!(raw.ask("md tooz:tooz:groups"), "HD");
        // The list is there again, with one name.
        soon(a.group(format!("other {others}").as_str()).unwrap().create()).await.unwrap();
        let all = async {
            while !soon(a.groups()).await.is_ok_and(|groups| groups.len() == 3) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        soon(all).await;
        soon(a.group(format!("other {others}").as_str()).unwrap().delete()).await.unwrap();
    }
    soon(first.leave()).await.unwrap();
    soon(second.leave()).await.unwrap();
    soon(a.group("g").unwrap().delete()).await.unwrap();
    soon(a.group("h").unwrap().delete()).await.unwrap();
    assert!(soon(a.groups()).await.unwrap().is_empty());
}

async fn a_journal_of_many_joins_is_written_anew() {
    let server = start();
    let a = connect(&server.url(), "a").await;
    let group = a.group("g").unwrap();
    soon(group.create()).await.unwrap();
    for round in 0..200 {
        let membership = soon(group.join(&round)).await.unwrap();
        soon(membership.update(&"again")).await.unwrap();
        soon(membership.leave()).await.unwrap();
    }
    let length = Raw::to(&server).read("tooz:tooz:g:g").unwrap().len();
    assert!(length < 4096, "{length} bytes for a group without members");
}
