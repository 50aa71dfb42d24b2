//! Which locks are in use and who waits, where names are hashed, queues are empty, and others have put nodes of their own among them.

use std::time::{Duration, SystemTime};

use libtest_mimic::Trial;
use tooz_core::{Coordinator, Result};

use crate::raw::{Kept, Raw};
use crate::{SERVER, connect, connect_for, namespace, nodes, quirk, soon, until};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        quirk("locks_of_any_name_are_listed_and_empty_queues_are_not", || {
            Box::pin(locks_of_any_name_are_listed_and_empty_queues_are_not())
        }),
        quirk("thousands_of_locks_are_listed", || Box::pin(thousands_of_locks_are_listed())),
        quirk("since_when_a_waiter_waits_is_told", || Box::pin(since_when_a_waiter_waits_is_told())),
    ]
}

async fn listed(coordinator: &Coordinator) -> Result<Vec<String>> {
    let mut names: Vec<_> = coordinator.locks().await?.iter().map(ToString::to_string).collect();
    names.sort();
    Ok(names)
}

async fn locks_of_any_name_are_listed_and_empty_queues_are_not() -> Result<()> {
    let space = namespace();
    let coordinator = connect(&SERVER.url(), "m", &space).await?;
    assert_eq!(listed(&coordinator).await?, [""; 0]);
    let long = "Ä/".repeat(80);
    let (short_held, long_held) = (coordinator.lock("a")?.acquire().await?, coordinator.lock(&*long)?.acquire().await?);
    coordinator.lock("empty")?.acquire().await?.release().await?;
    let mut raw = Raw::connect(SERVER.address()).expect("a session");
    // Other programs' nodes: a queue without a request, a name that is not written as ours are, and one with a request-like node in it.
    for path in ["strange", "strange/child", "%61", "~nohash"] {
        assert!(raw.create(&format!("/{space}/locks/{path}")).expect("an answer"));
    }
    let own = nodes(&space, "/locks/a").pop().expect("a node");
    let request = own.rsplit_once('/').expect("a path").1;
    for queue in ["%61", "~nohash"] {
        let path = format!("/{space}/locks/{queue}/{request}");
        assert!(raw.create_with(&path, br#"{"member":"m","name":"b"}"#, Kept::WithSession).expect("an answer"));
    }
    assert_eq!(listed(&coordinator).await?, ["a", &*long]);
    // Where the holder's node can't be read, the name is known by the waiter's.
    let waiter = connect(&SERVER.url(), "waiter", &space).await?;
    let lock = waiter.lock(&*long)?;
    let waiting = tokio::spawn(async move { lock.acquire().await });
    let queue = || nodes(&space, "/locks").into_iter().filter(|node| node.contains("/~") && !node.contains("~nohash"));
    until("it waits", || queue().count() == 3).await;
    let mut requests: Vec<_> = queue().filter(|node| node.matches('/').count() == 4).collect();
    requests.sort_by_key(|node| node[node.len() - 10..].to_owned());
    assert!(raw.write(&requests[0], b"spoiled").expect("an answer"));
    assert_eq!(listed(&coordinator).await?, ["a", &*long]);
    long_held.release().await?;
    let long_held = soon(waiting).await.expect("no panic")?;
    assert_eq!(listed(&coordinator).await?, ["a", &*long]);
    long_held.release().await?;
    short_held.release().await?;
    assert_eq!(listed(&coordinator).await?, [""; 0]);
    waiter.close().await?;
    coordinator.close().await
}

/// More than fit in a few requests, with short names and hashed ones.
async fn thousands_of_locks_are_listed() -> Result<()> {
    const COUNT: usize = 1_500;
    let coordinator = connect_for(&SERVER.url(), "m", &namespace(), Duration::from_mins(1)).await?;
    let name = |number: usize| format!("{number:04}-{}", "n".repeat(if number.is_multiple_of(2) { 5 } else { 100 }));
    let mut held = Vec::new();
    for number in 0..COUNT {
        held.push(coordinator.lock(name(number))?.acquire().await?);
    }
    assert_eq!(listed(&coordinator).await?, (0..COUNT).map(name).collect::<Vec<_>>());
    held.into_iter().for_each(std::mem::forget);
    coordinator.close().await
}

async fn since_when_a_waiter_waits_is_told() -> Result<()> {
    let space = namespace();
    let (one, two) = (connect(&SERVER.url(), "one", &space).await?, connect(&SERVER.url(), "two", &space).await?);
    let held = one.lock("l")?.acquire().await?;
    let began = SystemTime::now();
    let waiting = tokio::spawn({
        let lock = two.lock("l")?;
        async move { lock.acquire().await }
    });
    until("it waits", || nodes(&space, "/locks/l").len() == 2).await;
    let lock = one.lock("l")?;
    let waiters = lock.waiters().await?;
    let since = waiters.first().and_then(|waiter| waiter.since).expect("it is known");
    let grace = Duration::from_secs(2);
    assert!(since + grace > began && since < SystemTime::now() + grace, "{waiters:?}");
    assert_eq!(lock.holders().await?[0].since, None, "a node does not tell when its turn came");
    held.release().await?;
    soon(waiting).await.expect("no panic")?.release().await?;
    assert!(lock.waiters().await?.is_empty());
    two.close().await?;
    one.close().await
}
