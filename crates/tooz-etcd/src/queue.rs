//! The position of a request in the queue of a lock: how its key is made, and how it is looked at again.
//!
//! | position | what is known | what follows |
//! |---|---|---|
//! | [`Position::First`] | the key is there, and none before it is in its way | the grant |
//! | [`Position::Behind`] | the key is there, and so was another in its way | a watch of that other, then a look |
//! | [`Position::Missing`] | there is no key | a waiter makes it again, at the end of the queue |

use std::sync::Arc;

use tooz_core::driver::{LockRequest, Locks as _};
use tooz_core::{Error, LockMode, Outcome, Result};

use crate::error;
use crate::holdings::{Certainty, Holding, HoldingKind};
use crate::lanes::Lane;
use crate::proto::etcdserverpb::{RangeRequest, TxnRequest};
use crate::record::{LockRecord, write};
use crate::request::{absent, get, newest, none_of, one, put, ranges, revision_of, some, version_is, without_value};
use crate::session::EtcdSession;
use crate::withdrawal::follow;

/// How many others are looked at in the step that takes a place. Where there are more, a second request finds the nearest of them, beside
/// the writes of all others instead of among them: for that etcd sorts all that stand there.
const NEAR: i64 = 16;
/// How many requests may hold one lock and wait for it. For each that comes, etcd walks over all of them.
const LONGEST: i64 = 20_000;

/// Where a request stands.
pub(crate) enum Position {
    /// None is in its way, and as the creation revisions only grow, none ever will be.
    First(i64),
    /// That key is the nearest one in its way; nothing is known after that revision.
    Behind { own: i64, other: Vec<u8>, as_of: i64 },
    /// It has no key. It was taken away, or was never made.
    Missing,
}

/// Why a waiter looks at its place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Something was told.
    Told,
    /// It is time to.
    Time,
}

/// Whether a request takes a place where another is in its way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// It takes the lock or nothing.
    Try,
    /// It takes a place in the queue.
    Wait,
}

/// How many at the head of a queue of these modes hold the lock: the first writer, or all readers before it.
pub(crate) fn count_holders(queue: impl IntoIterator<Item = LockMode>) -> usize {
    let mut queue = queue.into_iter();
    match queue.next() {
        None => 0,
        Some(LockMode::Exclusive) => 1,
        Some(LockMode::Shared) => 1 + queue.take_while(|mode| *mode == LockMode::Shared).count(),
    }
}

impl EtcdSession {
    /// Makes the key of a request, unless it is there already.
    ///
    /// The transaction also tests the version of the session's key, which every withdrawal of an unanswered request raises: so
    /// what was sent before such a withdrawal and arrives only after it does nothing. No tombstone is needed.
    pub(crate) async fn enter(&self, request: &LockRequest, manner: Manner) -> Result<Position> {
        let lease = self.lease()?;
        let folder = self.layout.lock(&request.key);
        let place = folder.place(request.mode, request.id);
        let value = write(&LockRecord::new(&self.member, request.mode, request.id, lease.id))?;
        self.holdings.enlist(request.id, Holding::new(&place, HoldingKind::Place(Arc::default())))?;
        let conflicting = folder.conflicting(request.mode);
        loop {
            let version = lease.version();
            let mut compare = vec![absent(&place), version_is(&lease.key, version)];
            if manner == Manner::Try {
                compare.push(none_of(&conflicting));
            }
            let txn = TxnRequest {
                compare,
                success: vec![put(&place, value.clone(), lease.id), get(some(&conflicting, NEAR))],
                failure: vec![get(one(&lease.key)), get(one(&place))],
            };
            let reply = match self.client.txn(Lane::Wish, &txn).await {
                Ok(reply) => reply,
                Err(error) => {
                    if error.outcome() == Outcome::Unknown {
                        self.holdings.doubt_making(request.id);
                    }
                    // If an earlier sending is in doubt, core has to take the request back.
                    return Err(match self.holdings.strike_unmade(request.id) {
                        Certainty::Certain => error,
                        Certainty::Doubtful => error.with_outcome(Outcome::Unknown),
                    });
                }
            };
            if reply.was_repeated {
                self.holdings.doubt_making(request.id);
            }
            let (done, revision) = (reply.message.succeeded, revision_of(&reply.message));
            let found = ranges(reply.message);
            if done {
                self.holdings.confirm(request.id, revision);
                let Some(there) = found.first() else { return Err(error::strange("a transaction without answers")) };
                if there.count > LONGEST {
                    self.release(request).await?;
                    return Err(Error::config(format!(
                        "{} has {} holders and waiters, and etcd looks at all of them for each that comes: more than {LONGEST} may not be",
                        request.key, there.count
                    )));
                }
                if there.more {
                    return self.look(request, revision).await;
                }
                // All of them were there before.
                let nearest = there.kvs.iter().filter(|kv| kv.key != place).max_by_key(|kv| kv.create_revision);
                return Ok(match nearest {
                    None => Position::First(revision),
                    Some(other) => Position::Behind { own: revision, other: other.key.clone(), as_of: revision },
                });
            }
            let [session, own] = found.as_slice() else { return Err(error::strange("a transaction without answers")) };
            let Some(session) = session.kvs.first() else {
                return Err(error::session_is_gone());
            };
            if let Some(own) = own.kvs.first() {
                // It was made by an earlier sending whose answer was lost; of several, the others may still come.
                self.holdings.doubt_making(request.id);
                self.holdings.confirm(request.id, own.create_revision);
                return self.look(request, own.create_revision).await;
            }
            follow(&self.client, lease, version, session.version).await?;
            if session.version == version {
                // All is as it should be, so another is in the way of one that only tries.
                if self.holdings.strike_unmade(request.id) == Certainty::Doubtful {
                    self.release(request).await?;
                }
                return Ok(Position::Missing);
            }
        }
    }

    /// Looks whether a waiter's place has changed. Where nothing was told, it is enough that it is there and the one in its way is too:
    /// no other can have come between them.
    pub(crate) async fn look_again(
        &self,
        request: &LockRequest,
        created: i64,
        other: &[u8],
        reason: Reason,
    ) -> Result<Position> {
        if reason == Reason::Time {
            let lease = self.lease()?.id;
            let place = self.layout.lock(&request.key).place(request.mode, request.id);
            let keys = [place.as_slice(), other];
            let reading = keys.map(|key| get(without_value(key))).to_vec();
            let txn = TxnRequest { success: reading, ..TxnRequest::default() };
            let reply = self.client.txn(Lane::Duty, &txn).await?.message;
            let as_of = revision_of(&reply);
            let found = ranges(reply);
            let [own, before] = found.as_slice() else {
                return Err(error::strange("a transaction without answers"));
            };
            let is_there = own.kvs.first().is_some_and(|own| own.create_revision == created && own.lease == lease);
            match before.kvs.first() {
                _ if !is_there => return Ok(Position::Missing),
                Some(before) if before.create_revision < created => {
                    return Ok(Position::Behind { own: created, other: other.to_vec(), as_of });
                }
                _ => {}
            }
        }
        self.look(request, created).await
    }

    /// Reads, in one step, whether the key is still there and which is the nearest in its way.
    async fn look(&self, request: &LockRequest, created: i64) -> Result<Position> {
        let lease = self.lease()?.id;
        let folder = self.layout.lock(&request.key);
        let place = folder.place(request.mode, request.id);
        let before = RangeRequest { max_create_revision: created - 1, ..newest(&folder.conflicting(request.mode), 1) };
        let own = without_value(&place);
        let txn = TxnRequest { success: vec![get(own), get(before)], ..TxnRequest::default() };
        let reply = self.client.txn(Lane::Duty, &txn).await?.message;
        let as_of = revision_of(&reply);
        let found = ranges(reply);
        let [own, before] = found.as_slice() else { return Err(error::strange("a transaction without answers")) };
        Ok(match (own.kvs.first(), before.kvs.first()) {
            (Some(own), before) if own.create_revision == created && own.lease == lease => match before {
                None => Position::First(created),
                Some(other) => Position::Behind { own: created, other: other.key.clone(), as_of },
            },
            _ => Position::Missing,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_writer_or_all_readers_before_it_hold() {
        const X: LockMode = LockMode::Exclusive;
        const S: LockMode = LockMode::Shared;
        for (queue, holders) in [(&[][..], 0), (&[X, X], 1), (&[X, S], 1), (&[S, S, X, S], 2), (&[S, S], 2)] {
            assert_eq!(count_holders(queue.iter().copied()), holders, "{queue:?}");
        }
    }
}
