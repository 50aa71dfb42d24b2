//! A reader that is slow: the snapshot is still the first item, and the end still the last.

use tooz_core::{Coordinator, GroupEvent, GroupWatch, Membership};

use crate::stage::{Toy, soon, trial};

/// How many changes wait for a reader before they are told by one.
const CAPACITY: usize = 1024;

async fn watched(name: &str) -> (Coordinator, Coordinator, Membership, GroupWatch) {
    let toy = Toy::named(name);
    let rival = toy.observer("rival").await;
    let membership = rival.group("g").unwrap().join_or_create(&0).await.unwrap();
    let coordinator = toy.connect("one").await;
    let watch = coordinator.group("g").unwrap().watch().await.unwrap();
    (coordinator, rival, membership, watch)
}

#[test]
fn the_snapshot_comes_first_however_late_it_is_read() {
    trial(async || {
        for changes in [CAPACITY - 2, CAPACITY - 1, CAPACITY, CAPACITY + 1, 2 * CAPACITY, 3 * CAPACITY + 7] {
            let (_coordinator, _rival, membership, mut watch) = watched(&format!("slow-{changes}")).await;
            for change in 0..changes {
                membership.update(&change).await.unwrap();
            }
            let last = (changes - 1).to_string();
            match soon("the first", watch.next()).await {
                // It is told as of now: there is nothing left to tell.
                Some(GroupEvent::Snapshot(all)) if all[0].capabilities.as_json() == last => continue,
                Some(GroupEvent::Snapshot(_)) => {}
                other => panic!("after {changes} changes: {other:?}"),
            }
            soon("the last change", async {
                loop {
                    let present = match watch.next().await {
                        Some(GroupEvent::Updated(entry)) => entry.capabilities.as_json() == last,
                        Some(GroupEvent::Reset(all)) => all[0].capabilities.as_json() == last,
                        other => panic!("{other:?}"),
                    };
                    if present {
                        return;
                    }
                }
            })
            .await;
        }
    });
}

#[test]
fn the_end_comes_last_however_late_it_is_read() {
    trial(async || {
        for changes in CAPACITY - 6..CAPACITY + 6 {
            let (_coordinator, rival, membership, mut watch) = watched(&format!("end-{changes}")).await;
            soon("the snapshot", watch.next()).await.unwrap();
            for change in 0..changes {
                membership.update(&change).await.unwrap();
            }
            membership.leave().await.unwrap();
            rival.group("g").unwrap().delete().await.unwrap();
            // Everything must be there before the first look.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            let mut last = None;
            soon("the end", async {
                while let Some(event) = watch.next().await {
                    last = Some(event);
                }
            })
            .await;
            assert_eq!(last, Some(GroupEvent::Deleted), "after {changes} changes");
        }
    });
}
