//! Locks: a queue of keys in the order of their creation, each waiting for the nearest one before it that is in its way.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tooz_core::driver::{Granted, LockKey, LockRequest, Owned as OwnedRequests, Wanted};
use tooz_core::{Error, ErrorKind, FencingToken, Holder, LockMode, Outcome, Result};

use crate::cluster::Lane;
use crate::error;
use crate::feed::{Notice, Scope};
use crate::keys::{LockFolder, LockRecord, read, write};
use crate::own::{Certainty, Owned, What};
use crate::proto::etcdserverpb::{LeaseTimeToLiveRequest, RangeRequest, TxnRequest};
use crate::proto::mvccpb::KeyValue;
use crate::request::{
    absent, all, created_at, delete, exists, get, newest, none_of, oldest, one, put, ranges, some, version_is,
};
use crate::session::{Etcd, PAGE};
use crate::withdrawal::session_is_gone;

/// A new watch before which a write slips in is among those that etcd serves ten times a second, and who made it is not told so. So whoever
/// waits looks a few times in the first tenths of that second, each time after so many milliseconds more, and never again.
const GLANCES: [u64; 4] = [6, 12, 24, 72];

/// How many others are looked at in the step that takes a place. Where there are more, a second request finds the nearest of them, beside
/// the writes of all others instead of among them: for that etcd sorts all that stand there.
const NEAR: i64 = 16;
/// How many may hold one lock and wait for it. For each who comes, etcd walks over all of them.
const LONGEST: i64 = 20_000;

/// After a look that failed, the next comes after so many milliseconds.
const AGAIN: [u64; 4] = [100, 300, 1000, 2000];

/// Where a request stands.
enum Standing {
    /// Nobody is in its way, and as the creation revisions only grow, nobody ever will be.
    First(i64),
    /// That key is the nearest one in its way; nothing is known after that revision.
    Behind { own: i64, other: Vec<u8>, as_of: i64 },
    /// It has no key. Somebody took it away, or it was never made.
    Nowhere,
}

/// Why a waiter looks at its place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    /// Something was told.
    Told,
    /// It is time to.
    Time,
}

/// Whether a request takes a place where somebody is in its way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// It takes the lock or nothing.
    Try,
    /// It takes a place in the queue.
    Wait,
}

impl Etcd {
    /// One transaction: the key is made only if nobody is in the way.
    pub(crate) async fn try_to_lock(&self, request: &LockRequest) -> Result<Option<Granted>> {
        match self.enter(request, Manner::Try).await? {
            Standing::First(revision) => Ok(Some(self.granted(request, revision))),
            Standing::Nowhere => Ok(None),
            // Such a key is never made; whoever made it, it is not to stand in anybody's way.
            Standing::Behind { .. } => self.give_back(request).await.map(|()| None),
        }
    }

    /// Takes a place in the queue and waits there until nobody is in the way.
    pub(crate) async fn queue(&self, request: &LockRequest, wanted: &Wanted) -> Result<Option<Granted>> {
        let mut standing = self.enter(request, Manner::Wait).await?;
        loop {
            let (own, other, as_of) = match standing {
                Standing::First(revision) => return Ok(Some(self.granted(request, revision))),
                Standing::Behind { own, other, as_of } => (own, other, as_of),
                // Somebody took the place away while the session lives: it is taken again, at the end of the queue.
                Standing::Nowhere => {
                    standing = self.enter(request, Manner::Wait).await?;
                    continue;
                }
            };
            wanted.queued();
            let woken = self.wake_up_call(request);
            let gone = Arc::clone(&woken);
            let watching = self.feed.watch(Scope::key_from_now(&other), move |notice| match notice {
                Notice::Deleted { .. } | Notice::Gap => gone.notify_one(),
                // What happened before the watch stood is looked for.
                Notice::Ready { since } if since > as_of => gone.notify_one(),
                Notice::Ready { .. } | Notice::Put(_) => {}
            });
            let (mut glances, mut failures) = (GLANCES.into_iter(), 0);
            standing = loop {
                // A push is only a hint. The jitter keeps those who wait from asking in step.
                let pause = glances.next().map_or(self.timeout, Duration::from_millis);
                let why = tokio::select! {
                    () = woken.notified() => Why::Told,
                    () = tokio::time::sleep(pause.mul_f64(0.8 + 0.2 * fastrand::f64())) => Why::Time,
                    () = wanted.unwanted() => {
                        drop(watching);
                        self.give_back(request).await?;
                        return Ok(None);
                    }
                };
                match self.look_again(request, own, &other, why).await {
                    // The same watch goes on: it misses nothing.
                    Ok(Standing::Behind { other: still, .. }) if still == other => {
                        wanted.queued();
                        failures = 0;
                    }
                    Ok(standing) => break standing,
                    Err(error) if error.kind() == ErrorKind::Lost || !wanted.is_wanted() => return Err(error),
                    // The place is kept, whatever hinders the look: also who may not look just now stands there still.
                    Err(error) => {
                        wanted.trouble(&error);
                        let pause = AGAIN[failures.min(AGAIN.len() - 1)];
                        tokio::select! {
                            () = tokio::time::sleep(Duration::from_millis(pause)) => {}
                            () = wanted.unwanted() => {}
                        }
                        failures += 1;
                        woken.notify_one();
                    }
                }
            };
        }
    }

    /// By which the keeper wakes the one who waits for this request.
    fn wake_up_call(&self, request: &LockRequest) -> Arc<Notify> {
        match self.own.owned().get(&request.id).map(|owned| &owned.what) {
            Some(What::Place(woken)) => Arc::clone(woken),
            _ => Arc::default(),
        }
    }

    fn granted(&self, request: &LockRequest, revision: i64) -> Granted {
        self.own.grant(request.id);
        Granted::new(FencingToken(revision.unsigned_abs()))
    }

    /// Makes the key of a request, unless it is there already.
    ///
    /// The transaction also tests the version of the session's key, which every withdrawal of an unanswered request raises: so
    /// whatever was sent before such a withdrawal and arrives only after it does nothing. No tombstone is needed.
    async fn enter(&self, request: &LockRequest, manner: Manner) -> Result<Standing> {
        let opened = self.opened()?;
        let folder = self.keys.lock(&request.key);
        let place = folder.place(request.mode, request.id);
        let value = write(&LockRecord::new(&self.member, request, opened.lease.id))?;
        self.own.enlist(request.id, Owned::new(&place, What::Place(Arc::default())))?;
        let conflicting = folder.conflicting(request.mode);
        loop {
            let version = opened.version();
            let mut compare = vec![absent(&place), version_is(&opened.key, version)];
            if manner == Manner::Try {
                compare.push(none_of(&conflicting));
            }
            let txn = TxnRequest {
                compare,
                success: vec![put(&place, value.clone(), opened.lease.id), get(some(&conflicting, NEAR))],
                failure: vec![get(one(&opened.key)), get(one(&place))],
            };
            let reply = match self.txn(Lane::Wish, &txn).await {
                Ok(reply) => reply,
                Err(error) => {
                    if error.outcome() == Outcome::Unknown {
                        self.own.doubt_making(request.id);
                    }
                    // If an earlier sending is in doubt, core has to take the request back.
                    return Err(match self.own.strike_unmade(request.id) {
                        Certainty::Certain => error,
                        Certainty::Doubtful => error.with_outcome(Outcome::Unknown),
                    });
                }
            };
            if reply.was_repeated {
                self.own.doubt_making(request.id);
            }
            let (done, revision) = (reply.message.succeeded, header_revision(&reply.message));
            let found = ranges(reply.message);
            if done {
                self.own.confirm(request.id, revision);
                let Some(there) = found.first() else { return Err(error::strange("a transaction without answers")) };
                if there.count > LONGEST {
                    self.give_back(request).await?;
                    return Err(Error::config(format!(
                        "{} has {} holders and waiters, and etcd looks at all of them for each who comes: more than {LONGEST} may not be",
                        request.key, there.count
                    )));
                }
                if there.more {
                    return self.look_at_place(request, revision).await;
                }
                // All of them were there before.
                let nearest = there.kvs.iter().filter(|kv| kv.key != place).max_by_key(|kv| kv.create_revision);
                return Ok(match nearest {
                    None => Standing::First(revision),
                    Some(other) => Standing::Behind { own: revision, other: other.key.clone(), as_of: revision },
                });
            }
            let [session, own] = found.as_slice() else { return Err(error::strange("a transaction without answers")) };
            let Some(session) = session.kvs.first() else {
                return Err(session_is_gone());
            };
            if let Some(own) = own.kvs.first() {
                // It was made by an earlier sending whose answer was lost; of several, the others may still come.
                self.own.doubt_making(request.id);
                self.own.confirm(request.id, own.create_revision);
                return self.look_at_place(request, own.create_revision).await;
            }
            self.follow(opened, version, session.version).await?;
            if session.version == version {
                // All is as it should be, so somebody is in the way of one who only tries.
                if self.own.strike_unmade(request.id) == Certainty::Doubtful {
                    self.give_back(request).await?;
                }
                return Ok(Standing::Nowhere);
            }
        }
    }

    /// Looks whether a waiter's place has changed. Where nothing was told, it is enough that it is there and the one in its way is too:
    /// nobody can have come between them.
    async fn look_again(&self, request: &LockRequest, created: i64, other: &[u8], why: Why) -> Result<Standing> {
        if why == Why::Time {
            let lease = self.opened()?.lease.id;
            let place = self.keys.lock(&request.key).place(request.mode, request.id);
            let keys = [place.as_slice(), other];
            let reading = keys.map(|key| get(RangeRequest { keys_only: true, ..one(key) })).to_vec();
            let txn = TxnRequest { success: reading, ..TxnRequest::default() };
            let reply = self.txn(Lane::Duty, &txn).await?.message;
            let as_of = header_revision(&reply);
            let found = ranges(reply);
            let [own, before] = found.as_slice() else {
                return Err(error::strange("a transaction without answers"));
            };
            let is_there = own.kvs.first().is_some_and(|own| own.create_revision == created && own.lease == lease);
            match before.kvs.first() {
                _ if !is_there => return Ok(Standing::Nowhere),
                Some(before) if before.create_revision < created => {
                    return Ok(Standing::Behind { own: created, other: other.to_vec(), as_of });
                }
                _ => {}
            }
        }
        self.look_at_place(request, created).await
    }

    /// Reads, in one step, whether the key is still there and who is the nearest in its way.
    async fn look_at_place(&self, request: &LockRequest, created: i64) -> Result<Standing> {
        let lease = self.opened()?.lease.id;
        let folder = self.keys.lock(&request.key);
        let place = folder.place(request.mode, request.id);
        let before = RangeRequest { max_create_revision: created - 1, ..newest(&folder.conflicting(request.mode), 1) };
        let own = RangeRequest { keys_only: true, ..one(&place) };
        let reply = self
            .txn(Lane::Duty, &TxnRequest { success: vec![get(own), get(before)], ..TxnRequest::default() })
            .await?
            .message;
        let as_of = header_revision(&reply);
        let found = ranges(reply);
        let [own, before] = found.as_slice() else { return Err(error::strange("a transaction without answers")) };
        Ok(match (own.kvs.first(), before.kvs.first()) {
            (Some(own), before) if own.create_revision == created && own.lease == lease => match before {
                None => Standing::First(created),
                Some(other) => Standing::Behind { own: created, other: other.key.clone(), as_of },
            },
            _ => Standing::Nowhere,
        })
    }

    /// Gives back a grant or a place. One write, if all that could make the key was answered.
    pub(crate) async fn give_back(&self, request: &LockRequest) -> Result<()> {
        let opened = self.opened()?;
        // Struck first: whoever hears of the deletion must not take it for one by force.
        if let Some(mut struck) = self.own.strike(request.id)
            && struck.certainty() == Certainty::Certain
        {
            let deleted = match self.delete(&struck.key).await {
                Ok(deleted) => deleted,
                Err(error) => {
                    // Its repetition needs no more than this.
                    struck.maybe_deleted |= error.outcome() == Outcome::Unknown;
                    self.own.restore(request.id, struck);
                    return Err(error);
                }
            };
            if deleted.message {
                return Ok(());
            }
            // It was gone already: by an earlier sending of this, by force, or with the session, of which the holder must hear.
            let living = TxnRequest { compare: vec![exists(&opened.key)], ..TxnRequest::default() };
            if !self.txn(Lane::Duty, &living).await?.message.succeeded {
                return Err(session_is_gone());
            }
            let was_by_us = deleted.was_repeated || struck.maybe_deleted || !matches!(struck.what, What::Grant);
            return if was_by_us { Ok(()) } else { Err(taken_away(request)) };
        }
        // Core knows the mode of what it asked for, but not of what it finds left over after a reconnect.
        let folder = self.keys.lock(&request.key);
        let places = [LockMode::Exclusive, LockMode::Shared].map(|mode| folder.place(mode, request.id));
        self.withdraw(opened, &places).await
    }

    /// The first writer, or all readers before it: two ranges of one transaction.
    pub(crate) async fn holders_of(&self, key: &LockKey) -> Result<Vec<Holder>> {
        let folder = self.keys.lock(key);
        let readers = RangeRequest { limit: PAGE, ..all(&folder.of(LockMode::Shared)) };
        let reading =
            [oldest(&folder.of(LockMode::Exclusive)), oldest(&folder.strays()), readers.clone()].map(get).to_vec();
        let reply = self.txn(Lane::Wish, &TxnRequest { success: reading, ..TxnRequest::default() }).await?.message;
        let revision = header_revision(&reply);
        let Ok([writers, strays, shared]) = <[_; 3]>::try_from(ranges(reply)) else {
            return Err(error::strange("a transaction without answers"));
        };
        let shared = self.rest(&readers, shared, revision).await?;
        let writer = writers.kvs.iter().chain(&strays.kvs).min_by_key(|kv| kv.create_revision);
        let before = |kv: &&KeyValue| writer.is_none_or(|writer| kv.create_revision < writer.create_revision);
        let mut holding: Vec<_> = shared.iter().filter(before).collect();
        if holding.is_empty() {
            holding.extend(writer);
        }
        Ok(holding.into_iter().filter_map(|kv| holder(&folder, kv)).collect())
    }

    /// Deletes the key that was created at that revision, if it is still there.
    pub(crate) async fn take_away(&self, key: &LockKey, token: FencingToken) -> Result<()> {
        let gone = || Error::new(ErrorKind::NotFound, format!("nobody holds it with token {token} any more"));
        let revision = i64::try_from(token.0).ok().filter(|revision| *revision > 0).ok_or_else(gone)?;
        let range = RangeRequest {
            min_create_revision: revision,
            max_create_revision: revision,
            keys_only: true,
            ..all(&self.keys.lock(key).all())
        };
        let found = self.range(Lane::Duty, &range).await?;
        let place = found.kvs.first().map(|kv| kv.key.clone()).ok_or_else(gone)?;
        let txn = TxnRequest {
            compare: vec![created_at(&place, revision)],
            success: vec![delete(&place)],
            failure: Vec::new(),
        };
        let reply = self.txn(Lane::Duty, &txn).await?;
        // If it was sent twice, the first sending may be what took it away.
        if reply.message.succeeded || reply.was_repeated { Ok(()) } else { Err(gone()) }
    }

    /// All keys of the lease are in the lease's own list.
    pub(crate) async fn owned_requests(&self) -> Result<OwnedRequests> {
        let id = self.opened()?.lease.id;
        let request = LeaseTimeToLiveRequest { id, keys: true };
        let asking = |line: crate::endpoint::Line| async move { line.lease().lease_time_to_live(request).await };
        let reply = self.cluster.ask(Lane::First, asking).await?;
        // Whole seconds: zero is a lease that lives for a part of one.
        if reply.message.ttl < 0 {
            return Err(error::lost("the lease has ended at the server"));
        }
        let locks = reply.message.keys.iter().filter_map(|key| self.keys.request_of(key)).collect();
        Ok(OwnedRequests::new(locks))
    }
}

fn taken_away(request: &LockRequest) -> Error {
    let words =
        format!("the key of {} was taken away by force before: somebody else may have had it since", request.key);
    Error::new(ErrorKind::NotFound, words)
}

/// Who stands at a key of a lock. What no driver of this kind wrote is in the way all the same, so it is listed by its key, and can be broken.
fn holder(folder: &LockFolder, kv: &KeyValue) -> Option<Holder> {
    let member = match read::<LockRecord>(&kv.value) {
        Some(record) => record.member,
        None => folder.stranger(&kv.key)?,
    };
    let mode = folder.mode_of(&kv.key).unwrap_or(LockMode::Exclusive);
    Some(Holder::new(member, mode, FencingToken(kv.create_revision.unsigned_abs())))
}

fn header_revision(response: &crate::proto::etcdserverpb::TxnResponse) -> i64 {
    response.header.as_ref().map_or(0, |header| header.revision)
}
