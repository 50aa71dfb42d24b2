//! Many members at once, and the death of one of them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tooz::{GroupEvent, GroupWatch};

use crate::stage::{LATE, LONG, PATIENCE, SHORT, Stage, cases, soon, within};
use crate::worker::{Command, Other};

cases! { "groups", Server, alone: false;
    fifty_join_at_once_and_the_death_of_one_is_told_once,
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
    let limit = SHORT + stage.backend.slack + LATE;
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
    soon("deleting", group.delete()).await.expect("a group that everybody left can be deleted");
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
