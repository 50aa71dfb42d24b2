//! Many members at once, and the death of one of them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tooz::{GroupEvent, GroupWatch};

use crate::cut::refuse_all;
use crate::replies::told;
use crate::stage::{LATE, LONG, PATIENCE, SHORT, Stage, cases, soon, within};
use crate::worker::{Command, Other};

cases! { "groups", Server, alone: false;
    fifty_join_at_once_and_the_death_of_one_is_told_once,
    a_watcher_that_was_cut_off_follows_a_group_that_was_made_anew,
}

const MEMBERS: usize = 50;
const WATCHERS: usize = 3;

async fn fifty_join_at_once_and_the_death_of_one_is_told_once(stage: &Stage) {
    let looker = stage.connect("looker", LONG).await;
    let group = looker.group("g").unwrap();
    soon("creating", group.create()).await.unwrap();
    let mut watches = Vec::new();
    for index in 0..WATCHERS {
        let looking = stage.connect(&format!("watcher-{index}"), LONG).await;
        watches.push(soon("watching", looking.group("g").unwrap().watch()).await.unwrap());
    }
    let mut other = Other::start(stage, "mortal", SHORT).await;
    let mut coordinators = Vec::new();
    for index in 1..MEMBERS {
        coordinators.push(stage.connect(&format!("member-{index}"), LONG).await);
    }

    let begun = Instant::now();
    let mut joins = JoinSet::new();
    for (index, coordinator) in (1..).zip(&coordinators) {
        let group = coordinator.group("g").unwrap();
        joins.spawn(async move { group.join(&index).await });
    }
    other.ask(&Command::Join { group: "g".into() }).await;
    let mut memberships = Vec::new();
    while let Some(joined) = within(PATIENCE, "fifty joins", joins.join_next()).await {
        memberships.push(joined.unwrap().expect("joining"));
    }
    stage.note("fifty joins at once", begun.elapsed());
    let begun = Instant::now();
    let members = soon("listing", group.members()).await.unwrap();
    stage.note("listing fifty members", begun.elapsed());
    assert_eq!(members.len(), MEMBERS);
    for entry in &members {
        let said: usize = entry.capabilities.get().unwrap();
        let mortal = entry.member.as_str() == "mortal" && said == 1;
        let own = mortal || entry.member.as_str() == format!("member-{said}");
        assert!(own, "the capabilities of {entry:?} are somebody else's");
    }
    for watch in &mut watches {
        let names = arrivals(watch).await;
        assert_eq!(names.len(), MEMBERS, "{names:?}");
    }

    let killed = Instant::now();
    other.kill().await;
    let limit = stage.ended_after(SHORT) + LATE;
    for watch in &mut watches {
        let event = within(limit.saturating_sub(killed.elapsed()), "the death of one", watch.next()).await;
        assert!(matches!(&event, Some(GroupEvent::Left(member)) if member.as_str() == "mortal"), "{event:?}");
        stage.note("from the kill to Left", killed.elapsed());
    }
    sleep(SHORT).await;
    for watch in &mut watches {
        if let Ok(event) = timeout(Duration::from_millis(100), watch.next()).await {
            panic!("{event:?} was told though nothing happened");
        }
    }
    assert_eq!(soon("listing", group.members()).await.unwrap().len(), MEMBERS - 1);
    for membership in memberships {
        soon("leaving", membership.leave()).await.expect("leaving");
    }
    soon("deleting", group.delete()).await.expect("a group without members can be deleted");
    for watch in &mut watches {
        is_told_of_the_end(watch).await;
    }
}

/// The names of those who came, each of whom is told once.
async fn arrivals(watch: &mut GroupWatch) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    while names.len() < MEMBERS {
        match soon("an arrival", watch.next()).await {
            Some(GroupEvent::Snapshot(members)) => assert!(members.is_empty(), "{members:?}"),
            Some(GroupEvent::Joined(entry)) => {
                assert!(names.insert(entry.member.as_str().to_owned()), "{entry:?} was told twice");
            }
            other => panic!("{other:?} in place of an arrival"),
        }
    }
    names
}

async fn is_told_of_the_end(watch: &mut GroupWatch) {
    let mut left = 0;
    loop {
        match soon("the end of the group", watch.next()).await {
            Some(GroupEvent::Left(_)) => left += 1,
            Some(GroupEvent::Deleted) => break,
            other => panic!("{other:?} in place of a leave"),
        }
    }
    assert_eq!(left, MEMBERS - 1, "of those who left");
    assert_eq!(watch.next().await, None);
}

/// A group that is made anew may count its changes from the beginning, while the watcher knows of many.
async fn a_watcher_that_was_cut_off_follows_a_group_that_was_made_anew(stage: &Stage) {
    // A reading of the members that is due anyway is much later than what is expected here.
    let timeout = Duration::from_secs(20);
    let proxy = stage.proxy();
    let (looker, b) =
        (stage.connect_to(&stage.url_by(&proxy), "looker", timeout).await, stage.connect("b", timeout).await);
    let group = b.group("g").unwrap();
    let membership = soon("joining", group.join_or_create(&0)).await.unwrap();
    for number in 1..20 {
        soon("updating", membership.update(&number)).await.unwrap();
    }
    let mut watch = soon("watching", looker.group("g").unwrap().watch()).await.unwrap();
    assert!(matches!(&told(&mut watch).await[..], [GroupEvent::Snapshot(_)]));

    refuse_all(&proxy);
    soon("leaving", membership.leave()).await.expect("leaving");
    soon("deleting", group.delete()).await.expect("deleting");
    let membership = soon("joining", group.join_or_create(&"anew")).await.expect("joining");
    sleep(Duration::from_millis(500)).await;
    proxy.heal();
    let first = within(PATIENCE, "what has changed meanwhile", watch.next()).await;
    assert!(first.is_some(), "the watch ended with another group of that name");
    told(&mut watch).await;
    soon("updating", membership.update(&"news")).await.expect("updating");
    let event = within(Duration::from_secs(5), "a change", watch.next()).await;
    let members = match event {
        Some(GroupEvent::Updated(entry)) => vec![entry],
        Some(GroupEvent::Reset(members)) => members,
        other => panic!("{other:?} in place of a change"),
    };
    assert_eq!(members.iter().map(|entry| entry.capabilities.get::<String>().unwrap()).collect::<Vec<_>>(), ["news"]);
}
