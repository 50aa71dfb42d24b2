//! Limits: each is an error that says what to do, and what was full has room again.

use tooz_core::{Coordinator, ErrorKind, Outcome};

use crate::bed::{Name, trials, within};

trials![
    a_full_table_says_how_to_get_a_larger_one_and_has_room_again,
    a_table_full_of_the_dead_has_room_for_the_next,
    a_full_table_can_be_looked_at,
    watches_that_were_dropped_leave_nothing,
    capabilities_that_are_too_long_are_refused,
    ten_thousand_locks_are_held_by_one_session,
    options_that_make_no_sense_are_refused,
];

async fn a_full_table_says_how_to_get_a_larger_one_and_has_room_again(name: Name) {
    let ours = name.connect("ours").await;
    let mut kept = Vec::new();
    let error = loop {
        match ours.lock(format!("lock-{}", kept.len())).unwrap().try_acquire().await {
            Ok(guard) => kept.push(guard.unwrap()),
            Err(error) => break error,
        }
    };
    println!("a table of 2 MiB has room for {} locks", kept.len());
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Config, Outcome::NotApplied), "{error}");
    assert!(error.to_string().contains("full") && error.to_string().contains("size="), "{error}");
    let joined = ours.group("g").unwrap().join_or_create(&()).await.unwrap_err();
    assert_eq!(joined.kind(), ErrorKind::Config, "{joined}");
    for guard in kept.split_off(kept.len() - 10) {
        guard.release().await.unwrap();
    }
    within(ours.group("g").unwrap().join_or_create(&())).await.unwrap().leave().await.unwrap();
    assert!(ours.lock("again").unwrap().try_acquire().await.unwrap().is_some());
    let checkup = ours.check_up().await.unwrap();
    assert!(
        checkup
            .findings
            .iter()
            .any(|finding| finding.what.contains("blocks are in use") && finding.mend.contains("size="))
    );
    assert!(!checkup.findings.iter().any(|finding| finding.what.contains("died")), "no process did: {checkup:?}");
}

async fn finds(ours: &Coordinator, words: &str) -> bool {
    ours.check_up().await.unwrap().findings.iter().any(|finding| finding.what.contains(words))
}

/// Not one lives that would look after them.
async fn a_table_full_of_the_dead_has_room_for_the_next(name: Name) {
    let mut dies = name.start(&["fill", "x"]);
    assert!(dies.line().parse::<usize>().unwrap() > 1000);
    dies.kill();
    let ours = name.connect("late").await;
    let guard = within(ours.lock("another").unwrap().acquire()).await.unwrap();
    assert!(finds(&ours, "1 locks with 1 holders").await, "{:?}", ours.check_up().await);
    guard.release().await.unwrap();
}

async fn a_full_table_can_be_looked_at(name: Name) {
    let mut filler = name.start(&["fill", "x"]);
    let locks: usize = filler.line().parse().unwrap();
    let ours = name.connect("operator").await;
    assert_eq!(ours.locks().await.unwrap().len(), locks);
    assert!(finds(&ours, &format!("{locks} locks")).await && finds(&ours, "every list and count").await);
    assert!(ours.groups().await.unwrap().is_empty());
    let refused = ours.lock("other").unwrap().try_acquire().await.unwrap_err();
    assert!(refused.kind() == ErrorKind::Config && refused.to_string().contains("is full"), "{refused}");
    // An operator makes room by force.
    for one in 1..4 {
        let lock = ours.lock(format!("x-{one}")).unwrap();
        let holders = lock.holders().await.unwrap();
        assert_eq!(holders[0].pid, Some(filler.child.id()));
        lock.break_lock(&holders[0]).await.unwrap();
    }
    assert!(within(ours.lock("other").unwrap().try_acquire()).await.unwrap().is_some());
}

async fn watches_that_were_dropped_leave_nothing(name: Name) {
    let ours = name.connect("ours").await;
    let group = ours.group("g").unwrap();
    group.create().await.unwrap();
    for _ in 0..100 {
        let mut watch = group.watch().await.unwrap();
        within(watch.next()).await.unwrap();
    }
    let none = async {
        while !finds(&ours, " 0 watches").await {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), none).await.expect("watches stay");
}

async fn capabilities_that_are_too_long_are_refused(name: Name) {
    let ours = name.connect("ours").await;
    let group = ours.group("g").unwrap();
    let error = group.join_or_create(&"x".repeat(70_000)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("65536"), "{error}");
    let membership = group.join_or_create(&"x".repeat(65_000)).await.unwrap();
    assert_eq!(membership.update(&"x".repeat(70_000)).await.unwrap_err().kind(), ErrorKind::Config);
    let read: String = group.members().await.unwrap()[0].capabilities.get().unwrap();
    assert_eq!(read.len(), 65_000);
}

async fn ten_thousand_locks_are_held_by_one_session(name: Name) {
    let url = format!("ipc://{}?size=8", name.0);
    let ours = crate::bed::connect(&url, "ours").await;
    let mut kept = Vec::new();
    for one in 0..10_000 {
        kept.push(ours.lock(format!("lock-{one}")).unwrap().try_acquire().await.unwrap().unwrap());
    }
    assert_eq!(ours.locks().await.unwrap().len(), 10_000);
    let begun = std::time::Instant::now();
    ours.close().await.unwrap();
    println!("10,000 locks were given back in {:?}", begun.elapsed());
    assert!(crate::bed::connect(&url, "late").await.locks().await.unwrap().is_empty());
}

async fn options_that_make_no_sense_are_refused(name: Name) {
    for (option, words) in [
        ("size=0", "from 1 to"),
        ("size=9999", "from 1 to"),
        ("mode=644", "600, 660 or 666"),
        ("mode=660", "group=NAME"),
        ("mode=600&group=root", "mode=660"),
        ("group=no-such-group", "getent group"),
        ("group=4294967295", "is no group"),
    ] {
        let url = format!("ipc://{}?{option}", name.0);
        let options = tooz_core::ConnectOptions::new(&url).unwrap().member("ours").unwrap();
        let error = options.connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}
