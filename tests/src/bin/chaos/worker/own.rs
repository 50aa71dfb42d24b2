//! A lock of one's own, for which no other asks: what is listed of it, and of nothing else, is known to the letter. And the names of others that
//! must not be mixed up with it.

use tooz::{Lock, LockGuard};
use tooz_conformance::history::{Listing, Mode, Queue, now};

use crate::record::{Contest, GROUP, Record};
use crate::worker::Desk;
use crate::worker::grants::{give_back, mode_of};

/// Takes it, looks who waits, tries a lock that has nearly its name, gives both back, and looks which locks are in use.
pub(crate) async fn keep_house(desk: &Desk, worker: &str) {
    let name = format!("own-{}", worker.replace('/', "-"));
    let (own, other) = (name.clone(), name.replace("own", "OWN"));
    let held = take(desk, worker, &own).await;
    if held.is_some() {
        look_at_waiters(desk, worker, &own).await;
    }
    let others = take(desk, worker, &other).await;
    for (number, guard) in [held, others].into_iter().flatten() {
        give_back(desk, number, guard).await;
    }
    list(desk, worker).await;
    // The election of the group is another lock.
    if let Some((number, guard)) = take(desk, worker, GROUP).await {
        give_back(desk, number, guard).await;
    }
}

/// Tries to get it. Where it is known whether it was to be had, and that it was free, a refusal is wrong.
async fn take(desk: &Desk, worker: &str, name: &str) -> Option<(u64, LockGuard)> {
    let lock: Lock = desk.coordinator.lock(name).ok()?;
    let number = desk.number();
    let (worker, name, mode) = (worker.to_owned(), name.to_owned(), Mode::Exclusive);
    desk.say(&Record::Asked { number, worker, of: Contest::Lock, lock: name, mode, at: now() });
    match lock.try_acquire().await {
        Ok(Some(guard)) => {
            desk.say(&Record::Granted { number, at: now(), token: guard.fencing_token().0 });
            Some((number, guard))
        }
        Ok(None) => {
            desk.say(&Record::NotHad { number, at: now(), waited: false });
            None
        }
        Err(error) => {
            desk.say(&Record::Failed { number, at: now(), error: error.to_string() });
            None
        }
    }
}

async fn look_at_waiters(desk: &Desk, worker: &str, name: &str) {
    let Ok(lock) = desk.coordinator.lock(name) else { return };
    let asked = now();
    let Ok(waiters) = lock.waiters().await else { return };
    let waiters = waiters.iter().map(|waiter| (waiter.member.as_str().to_owned(), mode_of(waiter.mode))).collect();
    let (worker, lock) = (worker.to_owned(), name.to_owned());
    desk.say(&Record::Queued(Queue { worker, lock, asked, at: now(), waiters }));
}

/// Not every backend knows.
async fn list(desk: &Desk, worker: &str) {
    let asked = now();
    let Ok(locks) = desk.coordinator.locks().await else { return };
    let locks = locks.iter().map(|lock| lock.as_str().to_owned()).collect();
    desk.say(&Record::Listed(Listing { worker: worker.to_owned(), asked, at: now(), locks }));
}
