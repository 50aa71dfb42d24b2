//! Work that runs while something is held: it stops at the loss, begins anew with the next grant, and is over for all when it has ended.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tooz_core::{ConnectOptions, Coordinator, ErrorKind, Leadership, LockGuard};
use tooz_memory::Store;

async fn connect(store: &str, member: &str) -> Coordinator {
    let options = ConnectOptions::new(&format!("memory://{store}?session_timeout=2s&operation_timeout=1s")).unwrap();
    options.member(member).unwrap().connect().await.unwrap()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("it takes too long")
}

/// What tells that it was dropped.
struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_leader_stops_at_the_loss_and_leads_again() {
    let (one, two) = (connect("lead", "one").await, connect("lead", "two").await);
    let (begun, dropped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let membership = one.group("g").unwrap().join_or_create(&()).await.unwrap();
    let last: Arc<Mutex<Option<Arc<Leadership>>>> = Arc::default();
    let leading = {
        let (begun, dropped, last) = (Arc::clone(&begun), Arc::clone(&dropped), Arc::clone(&last));
        tokio::spawn(async move {
            let answer = membership.lead(|leadership| {
                let (round, dropped) = (begun.fetch_add(1, Ordering::SeqCst), Dropped(Arc::clone(&dropped)));
                *last.lock().unwrap() = Some(Arc::clone(&leadership));
                async move {
                    let _dropped = dropped;
                    if round == 0 {
                        std::future::pending::<()>().await;
                    }
                    leadership.epoch()
                }
            });
            let answer = answer.await;
            (answer, membership)
        })
    };
    within(async {
        while begun.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    let first = last.lock().unwrap().clone().unwrap();
    Store::named("lead").expire(&"one".parse().unwrap());
    let (answer, membership) = within(leading).await.unwrap();
    let second = last.lock().unwrap().clone().unwrap();
    assert!(answer.unwrap() == second.epoch() && second.epoch() > first.epoch());
    assert_eq!(
        (begun.load(Ordering::SeqCst), dropped.load(Ordering::SeqCst)),
        (2, 2),
        "what ran under the loss was dropped"
    );
    assert!(!second.is_leader(), "it has resigned, also for those that still have it in hand");
    assert!(membership.is_member(), "who resigns stays a member");
    assert_eq!(two.group("g").unwrap().leader().await.unwrap(), None);
    // Shared, and left by one of those that share it.
    let membership = Arc::new(membership);
    within(Arc::clone(&membership).leave()).await.unwrap();
    assert!(!membership.is_member() && membership.leave().await.unwrap_err().kind() == ErrorKind::NotMember);
}

#[tokio::test]
async fn a_group_is_left_when_the_leader_has_done_its_work() {
    let one = connect("group-lead", "one").await;
    let group = one.group("g").unwrap();
    let said = within(group.lead(|leadership| async move { leadership.is_leader() })).await.unwrap();
    assert!(said && group.members().await.unwrap().is_empty());
}

#[tokio::test]
async fn work_under_a_lock_begins_anew_after_a_loss_and_ends_with_the_coordinator() {
    let (one, two) = (connect("hold", "one").await, connect("hold", "two").await);
    let lock = one.lock("x").unwrap();
    let begun = Arc::new(AtomicUsize::new(0));
    let kept: Arc<Mutex<Option<Arc<LockGuard>>>> = Arc::default();
    let holding = {
        let (begun, kept) = (Arc::clone(&begun), Arc::clone(&kept));
        tokio::spawn(async move {
            lock.hold(|guard| {
                let round = begun.fetch_add(1, Ordering::SeqCst);
                *kept.lock().unwrap() = Some(guard);
                async move {
                    if round != 1 {
                        std::future::pending::<()>().await;
                    }
                }
            })
            .await
        })
    };
    within(async {
        while begun.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert!(two.lock("x").unwrap().try_acquire().await.unwrap().is_none());
    Store::named("hold").expire(&"one".parse().unwrap());
    within(holding).await.unwrap().unwrap();
    assert!(!kept.lock().unwrap().as_ref().unwrap().is_held(), "it was given back for all");
    let guard = two.lock("x").unwrap().try_acquire().await.unwrap();
    assert!(guard.is_some(), "the lock is free though a guard is still in hand");
    drop(guard);

    let lock = one.lock("x").unwrap();
    let holding = tokio::spawn(async move { lock.hold(|_guard| std::future::pending::<()>()).await });
    within(async {
        while two.lock("x").unwrap().holders().await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    one.close().await.unwrap();
    assert_eq!(within(holding).await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
}
