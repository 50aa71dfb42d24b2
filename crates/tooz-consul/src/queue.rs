//! The position of a request in the queue of a lock: how its key is made, and how it is looked at again.
//!
//! | position | what is known | what follows |
//! |---|---|---|
//! | [`Position::First`] | the key is there, and none before it is in its way | the grant |
//! | [`Position::Behind`] | the key is there, and so was another in its way | waiting for a change of that other, then a look |
//! | [`Position::Missing`] | there is no key | a waiter makes it again, at the end of the queue |
//!
//! Keys are in the order of the indexes at which they were made, which only grow. So the set before a place only shrinks, and any state, however
//! old, that has the own key and none in its way proves the grant.

use std::sync::Arc;

use tokio::time::Instant;
use tooz_core::driver::{LockKey, LockRequest, Locks as _};
use tooz_core::{Error, Outcome, Result};

use crate::client::{Lane, Scope};
use crate::error;
use crate::holdings::{Certainty, Holding, HoldingKind};
use crate::layout::LockFolder;
use crate::record::{LockRecord, write};
use crate::request::{KeyEntry, TxnResult, check_index, get_below, lock};
use crate::session::ConsulSession;
use crate::withdrawal::follow;

/// How many requests may hold one lock and wait for it. Each that comes reads all of them.
const LONGEST: usize = 2_000;
/// How often a place is tried to be taken beside one's own withdrawals.
const TRIES: usize = 10;

/// Where a request stands.
pub(crate) enum Position {
    /// None is in its way, and none ever will be.
    First { created: u64 },
    /// That other is the nearest one in its way.
    Behind { created: u64, other: KeyEntry },
    /// It has no key. It was taken away, or was never made.
    Missing,
}

/// Where the request with that key of that session stands among all of its lock.
fn position(folder: &LockFolder, place: &str, session: &str, all: impl Iterator<Item = KeyEntry>) -> Position {
    let all: Vec<KeyEntry> = all.collect();
    let own = all.iter().find(|entry| entry.key == place && entry.session.as_deref() == Some(session));
    let Some(created) = own.map(|own| own.created) else { return Position::Missing };
    let mode = folder.mode_of(place);
    let in_the_way =
        all.into_iter().filter(|entry| entry.created < created && mode.conflicts_with(folder.mode_of(&entry.key)));
    match in_the_way.max_by_key(|entry| entry.created) {
        None => Position::First { created },
        Some(other) => Position::Behind { created, other },
    }
}

impl ConsulSession {
    /// Makes the key of a request, unless it is there already, and reads all of its lock in the same step.
    ///
    /// The transaction also compares the index of the session's key, which every withdrawal of an unanswered request raises: so
    /// what was sent before such a withdrawal and arrives only after it does nothing. No tombstone is needed.
    ///
    /// One that is wanted by a certain moment is not sent after it.
    pub(crate) async fn enter(&self, request: &LockRequest, latest: Option<Instant>) -> Result<Position> {
        let session = self.server_session()?;
        let folder = self.layout.lock(&request.key);
        let place = folder.place(request.mode, request.id);
        // Each repetition writes this very value, so that one of them changes nothing.
        let value = write(&LockRecord::new(&self.member, request.mode, request.id))?;
        let kind = HoldingKind::Place(request.key.clone(), Arc::default());
        self.holdings.enlist(request.id, Holding::new(place.clone(), kind))?;
        for _ in 0..TRIES {
            let index = session.index();
            let ops =
                vec![check_index(&session.key, index), lock(&place, &value, &session.id), get_below(folder.all())];
            let reply = match session.change(&self.client, Lane::Place, ops, latest).await {
                Ok(reply) => reply,
                Err(error) => return Err(self.not_entered(request, error)),
            };
            if reply.was_repeated {
                self.holdings.doubt_making(request.id);
            }
            match reply.message {
                // The first two are the session's key and the own one.
                TxnResult::Done(entries) => {
                    return self.entered(request, &folder, &place, entries.into_iter().skip(2)).await;
                }
                verdict if verdict.fails(0) => {
                    if let Err(error) = follow(&self.client, session, index).await {
                        return Err(self.not_entered(request, error));
                    }
                }
                TxnResult::Refused(_) => {
                    let ended = session.require(&self.client).await.err();
                    let error = ended.unwrap_or_else(|| error::strange("a place that can't be taken"));
                    return Err(self.not_entered(request, error));
                }
            }
        }
        let error =
            Error::new(tooz_core::ErrorKind::Unavailable, "the session's key is written all the time: try again");
        Err(self.not_entered(request, error.with_outcome(Outcome::NotApplied)))
    }

    /// If an earlier sending is in doubt, core has to take the request back.
    fn not_entered(&self, request: &LockRequest, error: Error) -> Error {
        if error.outcome() == Outcome::Unknown {
            self.holdings.doubt_making(request.id);
        }
        match self.holdings.strike_unmade(request.id) {
            Certainty::Certain => error,
            Certainty::Doubtful => error.with_outcome(Outcome::Unknown),
        }
    }

    async fn entered(
        &self,
        request: &LockRequest,
        folder: &LockFolder,
        place: &str,
        all: impl ExactSizeIterator<Item = KeyEntry>,
    ) -> Result<Position> {
        let length = all.len();
        let found = position(folder, place, &self.server_session()?.id, all);
        match &found {
            Position::First { created } | Position::Behind { created, .. } => {
                self.holdings.confirm(request.id, *created);
            }
            // It was made in this very step, so that the servers hide what the token may not read.
            Position::Missing => {
                self.holdings.confirm(request.id, 1);
                self.release(request).await?;
                return Err(hidden(folder.all()));
            }
        }
        if length > LONGEST {
            self.release(request).await?;
            return Err(Error::config(format!(
                "{} has {length} holders and waiters, and each that comes reads all of them: more than {LONGEST} may not be",
                request.key
            )));
        }
        Ok(found)
    }

    /// Looks where a waiter stands now.
    pub(crate) async fn look(&self, request: &LockRequest) -> Result<Position> {
        let session = &self.server_session()?.id;
        let folder = self.layout.lock(&request.key);
        let place = folder.place(request.mode, request.id);
        let page = self.client.glance(Lane::Duty, folder.all(), Scope::Below).await?;
        match position(&folder, &place, session, page.entries.into_iter()) {
            // A leader that was just elected may not have read its own log.
            Position::Missing => {
                let page = self.client.read(Lane::Duty, folder.all(), Scope::Below).await?;
                Ok(position(&folder, &place, session, page.entries.into_iter()))
            }
            found => Ok(found),
        }
    }

    /// Everything of one lock, first come first.
    pub(crate) async fn line(&self, key: &LockKey) -> Result<(LockFolder, Vec<KeyEntry>, u64)> {
        let folder = self.layout.lock(key);
        let page = self.client.read(Lane::Wish, folder.all(), Scope::Below).await?;
        let mut all = page.entries;
        all.sort_unstable_by_key(|entry| entry.created);
        Ok((folder, all, page.index))
    }
}

/// The token may write what it may not read.
fn hidden(folder: &str) -> Error {
    let words = format!(
        "the token may not read what it has just written below {folder}: it needs key_prefix \"tooz/\" {{ policy = \"write\" }} \
         and no narrower rule that denies"
    );
    Error::new(tooz_core::ErrorKind::Unauthorized, words).with_outcome(Outcome::NotApplied)
}

#[cfg(test)]
mod tests {
    use tooz_core::LockMode;
    use tooz_core::driver::RequestId;

    use super::*;

    const X: LockMode = LockMode::Exclusive;
    const S: LockMode = LockMode::Shared;

    #[test]
    fn only_what_was_made_before_and_conflicts_is_in_the_way() {
        let layout = crate::layout::Layout::new(&"n".parse().unwrap()).unwrap();
        let folder = layout.lock(&LockKey::lock(&"l".parse().unwrap()));
        let made = |mode, id: u128, created| KeyEntry {
            key: folder.place(mode, RequestId(id)),
            value: Vec::new(),
            session: Some("s".to_owned()),
            created,
            modified: created,
        };
        let all = || [made(S, 1, 10), made(X, 2, 20), made(S, 3, 30), made(X, 4, 40)].into_iter();
        let at = |mode, id| position(&folder, &folder.place(mode, RequestId(id)), "s", all());
        assert!(matches!(at(S, 1), Position::First { created: 10 }));
        assert!(matches!(at(X, 2), Position::Behind { other, .. } if other.created == 10));
        assert!(matches!(at(S, 3), Position::Behind { other, .. } if other.created == 20));
        assert!(matches!(at(X, 4), Position::Behind { other, .. } if other.created == 30));
        assert!(matches!(at(X, 5), Position::Missing));
        let stranger = position(&folder, &folder.place(S, RequestId(1)), "another", all());
        assert!(matches!(stranger, Position::Missing), "another session's key is not one's own");
    }
}
