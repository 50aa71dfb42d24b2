//! What callers do that core must bear: wakers that poll at once, and guards that live until the end of their thread.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::process::Command;
use std::sync::{Arc, Mutex, TryLockError, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tooz_core::LockGuard;

use crate::stage::{SOON, Toy, ends_within, soon, trial};

/// A task without an executor: the thread that wakes it polls it, there and then.
struct AtOnce<T> {
    future: Mutex<Option<Pin<Box<dyn Future<Output = T> + Send>>>>,
    ended: mpsc::Sender<T>,
}

impl<T: Send + 'static> AtOnce<T> {
    fn start(future: impl Future<Output = T> + Send + 'static) -> mpsc::Receiver<T> {
        let (ended, receiver) = mpsc::channel();
        Wake::wake(Arc::new(AtOnce { future: Mutex::new(Some(Box::pin(future))), ended }));
        receiver
    }
}

impl<T: Send + 'static> Wake for AtOnce<T> {
    fn wake(self: Arc<Self>) {
        let waker = Waker::from(Arc::clone(&self));
        let ended = match self.future.try_lock() {
            Ok(mut place) => {
                let Some(future) = place.as_mut() else { return };
                let poll = future.as_mut().poll(&mut Context::from_waker(&waker));
                if poll.is_ready() {
                    *place = None;
                }
                poll
            }
            // It is polled just now, perhaps below this very call: it is looked at again a moment later.
            Err(TryLockError::WouldBlock) => {
                let again = Arc::clone(&self);
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(1));
                    again.wake();
                });
                return;
            }
            Err(TryLockError::Poisoned(_)) => return,
        };
        if let Poll::Ready(value) = ended {
            let _ = self.ended.send(value);
        }
    }
}

#[test]
fn a_waker_that_polls_at_once_causes_no_dead_lock() {
    trial(async || {
        let toy = Toy::named("wakers");
        let (one, two) = (toy.connect("one").await, toy.connect("two").await);
        for round in 0..200 {
            let held = soon("a lock", one.lock("x").unwrap().acquire()).await.unwrap();
            // One in the same local queue, one in the other's.
            let (own, other) = (one.lock("x").unwrap(), two.lock("x").unwrap());
            let release_at_once =
                |lock: tooz_core::Lock| async move { lock.acquire().await.unwrap().release().await.is_ok() };
            let waiting = [AtOnce::start(release_at_once(own)), AtOnce::start(release_at_once(other))];
            let loss = held.loss();
            let told = AtOnce::start(async move {
                let reason = loss.wait().await;
                (reason, loss.is_lost())
            });
            if round % 2 == 0 {
                soon("release()", held.release()).await.unwrap();
            } else {
                ends_within(SOON, "dropping a guard", move || drop(held));
            }
            for ended in waiting {
                assert!(ends_within(SOON, "the waiter", move || ended.recv_timeout(SOON).expect("the waiter gets it")));
            }
            assert!(ends_within(SOON, "the loss", move || told.recv_timeout(SOON).expect("the loss is told")).1);
        }
    });
}

#[test]
fn a_waker_that_polls_at_once_hears_of_changes_losses_and_the_end() {
    trial(async || {
        let toy = Toy::named("wakers-of-watches");
        let rival = toy.observer("rival").await;
        let membership = rival.group("g").unwrap().join_or_create(&0).await.unwrap();
        let coordinator = toy.connect("one").await;
        let own = coordinator.group("g").unwrap().join(&1).await.unwrap();
        let guard = soon("a lock", coordinator.lock("x").unwrap().acquire()).await.unwrap();
        let mut watch = coordinator.group("g").unwrap().watch().await.unwrap();
        let mut leaders = coordinator.group("g").unwrap().watch_leader().await.unwrap();
        let mut events = coordinator.events();
        let looking = coordinator.clone();
        let watching = AtOnce::start(async move {
            // A task that is woken asks the very things that might be locked just then.
            while watch.next().await.is_some() {
                let _ = (looking.state(), looking.events());
            }
        });
        let looking = coordinator.clone();
        let listening = AtOnce::start(async move {
            while events.next().await.is_some() {
                let _ = (looking.state(), looking.events(), looking.terms().is_some());
            }
        });
        let leading = AtOnce::start(async move { while leaders.next().await.is_some() {} });
        let (lost, asked) = (guard.loss(), coordinator.lock("x").unwrap());
        let losing = AtOnce::start(async move {
            lost.wait().await;
            // A question under the wake of a loss.
            let _ = asked.try_acquire().await;
            drop(guard);
        });
        for change in 0..50 {
            soon("an update", membership.update(&change)).await.unwrap();
        }
        drop(soon("a campaign", membership.campaign()).await.unwrap());
        toy.expire("one");
        let ended = ends_within(SOON, "the waiter for the loss", move || losing.recv_timeout(SOON));
        ended.expect("the loss is heard of");
        soon("the membership again", async {
            while !own.is_member() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        soon("close()", coordinator.close()).await.unwrap();
        for (what, ended) in [("the watch", watching), ("the events", listening), ("the leaders", leading)] {
            ends_within(SOON, what, move || ended.recv_timeout(SOON)).unwrap_or_else(|_| panic!("{what} does not end"));
        }
    });
}

thread_local! {
    static KEPT: RefCell<Vec<LockGuard>> = const { RefCell::new(Vec::new()) };
}

const CHILD: &str = "TOOZ_TOY_CHILD";

#[test]
fn a_guard_that_is_dropped_at_the_end_of_its_thread_is_released() {
    let name = "callers::a_guard_that_is_dropped_at_the_end_of_its_thread_is_released";
    if std::env::var_os(CHILD).is_none() {
        // A test that might abort does so in a process of its own.
        let program = std::env::current_exe().unwrap();
        let output = Command::new(program).args(["--exact", name, "--nocapture"]).env(CHILD, "1").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", output.status);
        return;
    }
    trial(async || {
        let toy = Toy::named("thread-local");
        let (coordinator, rival) = (toy.connect("one").await, toy.observer("rival").await);
        for round in 0..50 {
            let (guard, shared) = {
                let lock = coordinator.lock("x").unwrap();
                let other = coordinator.lock("y").unwrap().shared();
                (soon("a lock", lock.acquire()).await.unwrap(), soon("a lock", other.acquire()).await.unwrap())
            };
            let runtime = tokio::runtime::Handle::current();
            let waiting = (round % 2 == 0).then(|| {
                let lock = rival.lock("x").unwrap();
                runtime.spawn(async move { lock.acquire().await.map(drop) })
            });
            let waiting_here = coordinator.lock("x").unwrap();
            let waiting_here = runtime.spawn(async move { waiting_here.acquire().await.map(drop) });
            let thread = std::thread::spawn(move || {
                KEPT.with(|kept| kept.borrow_mut().push(guard));
                // Some destructors of the thread have run before, some after that.
                drop(tokio::runtime::Builder::new_current_thread().build());
                KEPT.with(|kept| kept.borrow_mut().push(shared));
            });
            ends_within(SOON, "the thread", move || thread.join()).expect("it does not panic");
            soon("the next one", waiting_here).await.unwrap().unwrap();
            if let Some(waiting) = waiting {
                soon("the rival", waiting).await.unwrap().unwrap();
            }
        }
        crate::stage::comes_free(&rival, "x", SOON).await;
        crate::stage::comes_free(&rival, "y", SOON).await;
    });
}
