//! Locks: a queue of keys in the order of their creation, each waiting for the nearest one before it that is in its way.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tooz_core::driver::{
    Backoff, Granted, LockKey, LockRequest, Locks, PushStream, Space, Wanted, async_trait, spread,
};
use tooz_core::{Error, ErrorKind, FencingToken, Holder, LockMode, MemberId, Outcome, Result, Waiter};

use crate::client::PAGE;
use crate::dispatch::{Notice, Scope};
use crate::error;
use crate::holdings::{Certainty, HoldingKind};
use crate::lanes::Lane;
use crate::layout::LockFolder;
use crate::proto::etcdserverpb::{RangeRequest, TxnRequest};
use crate::proto::mvccpb::KeyValue;
use crate::queue::{Manner, Position, Reason, count_holders};
use crate::record::{LockRecord, read};
use crate::request::{all, created_at, delete, exists, get, oldest, ranges, revision_of};
use crate::session::EtcdSession;
use crate::watch;
use crate::withdrawal::withdraw_or_owe;

/// A new watch before which a write slips in is among those that etcd serves ten times a second, and its maker is not told so. So a
/// waiter looks a few times in the first tenths of that second, each time after so many milliseconds more, and never again.
const GLANCES: [u64; 4] = [6, 12, 24, 72];

#[async_trait]
impl Locks for EtcdSession {
    /// One transaction: the key is made only if none is in the way.
    async fn try_lock(&self, request: &LockRequest) -> Result<Option<Granted>> {
        match self.enter(request, Manner::Try).await? {
            Position::First(revision) => Ok(Some(self.granted(request, revision))),
            Position::Missing => Ok(None),
            // Such a key is never made; wherever it is from, it is not to stand in the way of others.
            Position::Behind { .. } => self.release(request).await.map(|()| None),
        }
    }

    /// Takes a place in the queue and waits there until none is in the way.
    async fn lock(&self, request: &LockRequest, wanted: &Wanted) -> Result<Option<Granted>> {
        let mut position = self.enter(request, Manner::Wait).await?;
        loop {
            let (own, other, as_of) = match position {
                Position::First(revision) => return Ok(Some(self.granted(request, revision))),
                Position::Behind { own, other, as_of } => (own, other, as_of),
                // The place was taken away while the session lives: it is taken again, at the end of the queue.
                Position::Missing => {
                    position = self.enter(request, Manner::Wait).await?;
                    continue;
                }
            };
            wanted.queued();
            let woken = self.wake_up_call(request);
            let gone = Arc::clone(&woken);
            let watching = self.dispatch.watch(Scope::key_from_now(&other), move |notice| match notice {
                Notice::Deleted { .. } | Notice::Gap => gone.notify_one(),
                // What happened before the watch stood is looked for.
                Notice::Ready { since } if since > as_of => gone.notify_one(),
                Notice::Ready { .. } | Notice::Put(_) => {}
            });
            let mut glances = GLANCES.into_iter();
            let mut pauses = Backoff::between(Duration::from_millis(100), Duration::from_secs(2));
            position = loop {
                // A push is only a hint. The jitter keeps waiters from asking in step.
                let pause = glances.next().map_or(self.timeout, Duration::from_millis);
                let reason = tokio::select! {
                    () = woken.notified() => Reason::Told,
                    () = tokio::time::sleep(spread(pause, 0.8..1.0)) => Reason::Time,
                    () = wanted.unwanted() => {
                        drop(watching);
                        self.release(request).await?;
                        return Ok(None);
                    }
                };
                match self.look_again(request, own, &other, reason).await {
                    // This watch goes on: it misses nothing.
                    Ok(Position::Behind { other: still, .. }) if still == other => {
                        wanted.queued();
                        pauses.reset();
                    }
                    Ok(position) => break position,
                    Err(error) if error.kind() == ErrorKind::Lost || !wanted.is_wanted() => return Err(error),
                    // The place is kept, whatever hinders the look: also a user that may not look just now stands there still.
                    Err(error) => {
                        wanted.trouble(&error);
                        tokio::select! {
                            () = pauses.pause() => {}
                            () = wanted.unwanted() => {}
                        }
                        woken.notify_one();
                    }
                }
            };
        }
    }

    /// One write, if all that could make the key was answered.
    async fn release(&self, request: &LockRequest) -> Result<()> {
        let lease = self.lease()?;
        // Struck first: what is told of the deletion must not be taken for one by force.
        if let Some(mut struck) = self.holdings.strike(request.id)
            && struck.certainty() == Certainty::Certain
        {
            let deleted = match self.client.delete(&struck.key).await {
                Ok(deleted) => deleted,
                Err(error) => {
                    // Its repetition needs no more than this.
                    struck.maybe_deleted |= error.outcome() == Outcome::Unknown;
                    self.holdings.restore(request.id, struck);
                    return Err(error);
                }
            };
            if deleted.message {
                return Ok(());
            }
            // It was gone already: by an earlier sending of this, by force, or with the session, of which the holder must hear.
            let living = TxnRequest { compare: vec![exists(&lease.key)], ..TxnRequest::default() };
            if !self.client.txn(Lane::Duty, &living).await?.message.succeeded {
                return Err(error::session_is_gone());
            }
            let was_by_us = deleted.was_repeated || struck.maybe_deleted || !matches!(struck.kind, HoldingKind::Grant);
            return if was_by_us { Ok(()) } else { Err(taken_away(request)) };
        }
        // Core knows the mode of what it asked for, but not of what it finds left over after a reconnect.
        let folder = self.layout.lock(&request.key);
        let places = [LockMode::Exclusive, LockMode::Shared].map(|mode| folder.place(mode, request.id));
        withdraw_or_owe(&self.client, lease, &self.holdings, &places).await
    }

    /// The first writer, or all readers before it: ranges of one transaction.
    async fn holders(&self, key: &LockKey) -> Result<Vec<Holder>> {
        let folder = self.layout.lock(key);
        let readers = RangeRequest { limit: PAGE, ..all(&folder.of(LockMode::Shared)) };
        let reading =
            [oldest(&folder.of(LockMode::Exclusive)), oldest(&folder.strays()), readers.clone()].map(get).to_vec();
        let txn = TxnRequest { success: reading, ..TxnRequest::default() };
        let reply = self.client.txn(Lane::Wish, &txn).await?.message;
        let revision = revision_of(&reply);
        let Ok([writers, strays, shared]) = <[_; 3]>::try_from(ranges(reply)) else {
            return Err(error::strange("a transaction without answers"));
        };
        let shared = self.client.rest(&readers, shared, revision).await?;
        let writer = writers.kvs.iter().chain(&strays.kvs).min_by_key(|kv| kv.create_revision);
        let before = |kv: &&KeyValue| writer.is_none_or(|writer| kv.create_revision < writer.create_revision);
        let mut holding: Vec<_> = shared.iter().filter(before).collect();
        if holding.is_empty() {
            holding.extend(writer);
        }
        let holder = |kv: &KeyValue| {
            let token = FencingToken(kv.create_revision.unsigned_abs());
            Some(Holder::new(member_at(&folder, kv)?, folder.mode_of(&kv.key), token))
        };
        Ok(holding.into_iter().filter_map(holder).collect())
    }

    /// Deletes the key that was created at that revision, if it is still there.
    async fn break_lock(&self, key: &LockKey, token: FencingToken) -> Result<()> {
        let gone = || Error::new(ErrorKind::NotFound, format!("no grant with token {token} is there any more"));
        let revision = i64::try_from(token.0).ok().filter(|revision| *revision > 0).ok_or_else(gone)?;
        let range = RangeRequest {
            min_create_revision: revision,
            max_create_revision: revision,
            keys_only: true,
            ..all(&self.layout.lock(key).all())
        };
        let found = self.client.range(Lane::Duty, &range).await?;
        let place = found.kvs.first().map(|kv| kv.key.clone()).ok_or_else(gone)?;
        let txn = TxnRequest {
            compare: vec![created_at(&place, revision)],
            success: vec![delete(&place)],
            failure: Vec::new(),
        };
        let reply = self.client.txn(Lane::Duty, &txn).await?;
        // If it was sent twice, the first sending may be what took it away.
        if reply.message.succeeded || reply.was_repeated { Ok(()) } else { Err(gone()) }
    }

    /// A hint whenever the holders change.
    async fn watch_lock(&self, key: &LockKey) -> Result<Option<PushStream>> {
        let folder = self.layout.lock(key);
        let range = RangeRequest { keys_only: true, limit: PAGE, ..all(&folder.all()) };
        let found = self.client.range(Lane::Wish, &range).await?;
        let revision = found.header.as_ref().map_or(0, |header| header.revision);
        let queue = self.client.rest(&range, found, revision).await?;
        Ok(Some(watch::lock(&self.dispatch, folder, queue, revision)))
    }

    /// Keys without their values, in pages. What is left of a lock's own keys at the end of a page is passed over, however many there are.
    async fn locks(&self) -> Result<Vec<LockKey>> {
        let mut locks: Vec<LockKey> = Vec::new();
        for space in [Space::Lock, Space::Election] {
            let mut range = RangeRequest { keys_only: true, limit: PAGE, ..all(&self.layout.locks(space)) };
            loop {
                let found = self.client.range(Lane::Wish, &range).await?;
                for lock in found.kvs.iter().filter_map(|kv| self.layout.lock_of(&kv.key)) {
                    if locks.last() != Some(&lock) {
                        locks.push(lock);
                    }
                }
                let Some(last) = found.kvs.last().filter(|_| found.more) else { break };
                range.key = match self.layout.lock_of(&last.key) {
                    Some(lock) => self.layout.lock(&lock).all().to,
                    None => [last.key.as_slice(), &[0]].concat(),
                };
            }
        }
        Ok(locks)
    }

    /// The whole queue of one revision, in pages in the order of the keys: to sort it, etcd would read all of it for each page.
    async fn waiters(&self, key: &LockKey) -> Result<Vec<Waiter>> {
        let folder = self.layout.lock(key);
        let range = RangeRequest { limit: PAGE, ..all(&folder.all()) };
        let found = self.client.range(Lane::Wish, &range).await?;
        let revision = found.header.as_ref().map_or(0, |header| header.revision);
        let mut queue = self.client.rest(&range, found, revision).await?;
        queue.sort_unstable_by_key(|kv| kv.create_revision);
        let holders = count_holders(queue.iter().map(|kv| folder.mode_of(&kv.key)));
        let waiter = |kv: &KeyValue| Some(Waiter::new(member_at(&folder, kv)?, folder.mode_of(&kv.key)));
        Ok(queue.iter().skip(holders).filter_map(waiter).collect())
    }
}

impl EtcdSession {
    /// By which the watch of the session's keys wakes this request.
    fn wake_up_call(&self, request: &LockRequest) -> Arc<Notify> {
        match self.holdings.all().get(&request.id).map(|holding| &holding.kind) {
            Some(HoldingKind::Place(woken)) => Arc::clone(woken),
            _ => Arc::default(),
        }
    }

    fn granted(&self, request: &LockRequest, revision: i64) -> Granted {
        self.holdings.grant(request.id);
        Granted::new(FencingToken(revision.unsigned_abs()))
    }
}

fn taken_away(request: &LockRequest) -> Error {
    let words =
        format!("the key of {} was taken away by force before: another may have had the lock since", request.key);
    Error::new(ErrorKind::NotFound, words)
}

/// The member that a key of a lock is of. What no driver of this kind wrote is in the way all the same, so it is listed by its key, and can be
/// broken.
fn member_at(folder: &LockFolder, kv: &KeyValue) -> Option<MemberId> {
    match read::<LockRecord>(&kv.value) {
        Some(record) => Some(record.member),
        None => folder.stranger(&kv.key),
    }
}
