//! Locks: a queue of keys in the order of their creation, each waiting for the nearest one before it that is in its way.

use std::time::Duration;

use tokio::time::Instant;
use tooz_core::driver::{Backoff, Granted, LockKey, LockRequest, Locks, PushStream, Space, Wanted, async_trait};
use tooz_core::{Error, ErrorKind, FencingToken, Holder, LockMode, MemberId, Outcome, Result, Waiter};

use crate::client::Lane;
use crate::holdings::{Certainty, HoldingKind};
use crate::layout::{LockFolder, count_holders, letter};
use crate::queue::Position;
use crate::record::{Letter, LockRecord, read, write};
use crate::release::release;
use crate::request::{KeyEntry, TxnResult, delete_at, lock};
use crate::session::ConsulSession;
use crate::watch;
use crate::withdrawal::withdraw;

/// How often a grant is looked for that is to be broken, while its key changes.
const TRIES: usize = 5;

#[async_trait]
impl Locks for ConsulSession {
    /// Takes a place and leaves it again if another is in the way: no transaction can say "if there is none below this prefix".
    async fn try_lock(&self, request: &LockRequest) -> Result<Option<Granted>> {
        let latest = Instant::now() + self.client.limit;
        match self.enter(request, Some(latest)).await? {
            Position::First { created } => Ok(Some(self.granted(request, created))),
            // The answer waits until the place is surely gone: else a third would find in its way a place that no request stands for.
            Position::Behind { .. } | Position::Missing => self.release(request).await.map(|()| None),
        }
    }

    /// Takes a place in the queue and waits there until none is in the way.
    async fn lock(&self, request: &LockRequest, wanted: &Wanted) -> Result<Option<Granted>> {
        let mut position = self.enter(request, None).await?;
        let mut pauses = Backoff::between(Duration::from_millis(50), Duration::from_secs(2));
        let mut fails_since = None;
        loop {
            position = match position {
                Position::First { created } => return Ok(Some(self.granted(request, created))),
                // The place was taken away while the session lives: it is taken again, at the end of the queue.
                Position::Missing => {
                    self.holdings.strike_unmade(request.id);
                    self.enter(request, None).await?
                }
                Position::Behind { created, other } => {
                    wanted.queued();
                    let mut since = created;
                    loop {
                        let change = tokio::select! {
                            change = self.change_of(request, since, &other) => change,
                            () = wanted.unwanted() => {
                                self.release(request).await?;
                                return Ok(None);
                            }
                        };
                        let found = match change {
                            Ok(()) => self.look(request).await,
                            Err(error) => Err(error),
                        };
                        match found {
                            Ok(position) => {
                                pauses.reset();
                                fails_since = None;
                                break position;
                            }
                            Err(error) if error.kind() == ErrorKind::Lost || !wanted.is_wanted() => return Err(error),
                            // The place is kept, whatever hinders the look. A short interruption is no trouble: nothing is missed by it.
                            Err(error) => {
                                // Servers that were set back would be deaf to a question about a later index.
                                since = 0;
                                let failing = fails_since.get_or_insert_with(Instant::now);
                                if !error.is_retryable() || failing.elapsed() > self.timeout / 2 {
                                    wanted.trouble(&error);
                                }
                                tokio::select! {
                                    () = pauses.pause() => {}
                                    () = wanted.unwanted() => {}
                                }
                            }
                        }
                    }
                }
            };
        }
    }

    /// One write, if all that could make the key was answered.
    async fn release(&self, request: &LockRequest) -> Result<()> {
        let session = self.server_session()?;
        // Struck first: what is told of the deletion must not be taken for one by force.
        if let Some(mut struck) = self.holdings.strike(request.id)
            && struck.certainty() == Certainty::Certain
        {
            let released = match release(&self.client, session, &struck.key).await {
                Ok(released) => released,
                Err(error) => {
                    // Its repetition needs no more than this.
                    struck.maybe_deleted |= error.outcome() == Outcome::Unknown;
                    self.holdings.restore(request.id, struck);
                    return Err(error);
                }
            };
            if released.was_there {
                return Ok(());
            }
            // It was gone already: by an earlier sending of this, or by force.
            let was_by_us =
                released.was_repeated || struck.maybe_deleted || !matches!(struck.kind, HoldingKind::Grant(_));
            return if was_by_us { Ok(()) } else { Err(taken_away(request)) };
        }
        // Core knows the mode of what it asked for, but not of what it finds left over after a reconnect.
        let folder = self.layout.lock(&request.key);
        let places = [LockMode::Exclusive, LockMode::Shared].map(|mode| folder.place(mode, request.id));
        withdraw(&self.client, session, &places).await
    }

    /// The first writer, or all readers before it.
    async fn holders(&self, key: &LockKey) -> Result<Vec<Holder>> {
        let (folder, line, _) = self.line(key).await?;
        let holder = |entry: &KeyEntry| {
            let token = FencingToken(entry.created);
            Some(Holder::new(member_at(&folder, entry)?, folder.mode_of(&entry.key), token))
        };
        Ok(line.iter().take(holding(&folder, &line)).filter_map(holder).collect())
    }

    /// Deletes the key that was created at that index, if it is still there, and tells its session.
    async fn break_lock(&self, key: &LockKey, token: FencingToken) -> Result<()> {
        let gone = || Error::new(ErrorKind::NotFound, format!("no grant with token {token} is there any more"));
        let mut was_repeated = false;
        for _ in 0..TRIES {
            let (folder, line, _) = self.line(key).await?;
            let Some(entry) = line.iter().find(|entry| entry.created == token.0) else {
                // If it was sent twice, the first sending may be what took it away.
                return if was_repeated { Ok(()) } else { Err(gone()) };
            };
            let mut ops = vec![delete_at(&entry.key, entry.modified)];
            if let (Some(victim), Some(request)) = (&entry.session, folder.request_of(&entry.key)) {
                let told = write(&Letter::Broken(request.to_string()))?;
                // It goes with the session, and is refused where that has ended: then the key has gone too.
                ops.push(lock(&letter(&self.layout.session(victim), fastrand::u64(..)), &told, victim));
            }
            let reply = self.client.transact(Lane::Duty, &ops).await?;
            was_repeated |= reply.was_repeated;
            if let TxnResult::Done(_) = reply.message {
                return Ok(());
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "the grant changes all the time: try again")
            .with_outcome(Outcome::Unknown))
    }

    /// A hint whenever the holders change.
    async fn watch_lock(&self, key: &LockKey) -> Result<Option<PushStream>> {
        let (folder, line, index) = self.line(key).await?;
        Ok(Some(watch::lock(self.watching(), folder, line, index)))
    }

    async fn locks(&self) -> Result<Vec<LockKey>> {
        let mut locks = Vec::new();
        for space in [Space::Lock, Space::Election] {
            let folders = self.client.names(&self.layout.locks(space)).await?;
            locks.extend(folders.iter().filter_map(|folder| self.layout.lock_of(space, folder)));
        }
        Ok(locks)
    }

    async fn waiters(&self, key: &LockKey) -> Result<Vec<Waiter>> {
        let (folder, line, _) = self.line(key).await?;
        let waiter = |entry: &KeyEntry| Some(Waiter::new(member_at(&folder, entry)?, folder.mode_of(&entry.key)));
        Ok(line.iter().skip(holding(&folder, &line)).filter_map(waiter).collect())
    }
}

impl ConsulSession {
    fn granted(&self, request: &LockRequest, created: u64) -> Granted {
        self.holdings.grant(request.id, &request.key);
        Granted::new(FencingToken(created))
    }

    /// Ends when the other may be gone, or when something was told of the own place.
    async fn change_of(&self, request: &LockRequest, since: u64, other: &KeyEntry) -> Result<()> {
        let woken = match self.holdings.all().get(&request.id.0).map(|holding| &holding.kind) {
            Some(HoldingKind::Place(_, woken)) => std::sync::Arc::clone(woken),
            _ => std::sync::Arc::default(),
        };
        tokio::select! {
            () = woken.notified() => Ok(()),
            gone = self.crowd.gone(&self.client, other, since) => gone,
        }
    }
}

fn taken_away(request: &LockRequest) -> Error {
    let words =
        format!("the key of {} was taken away by force before: another may have had the lock since", request.key);
    Error::new(ErrorKind::NotFound, words)
}

/// How many at the head of that line hold the lock.
fn holding(folder: &LockFolder, line: &[KeyEntry]) -> usize {
    count_holders(line.iter().map(|entry| folder.mode_of(&entry.key)))
}

/// The member that a key of a lock is of. What no driver of this kind wrote is in the way all the same, so it is listed by its key, and can be
/// broken.
fn member_at(folder: &LockFolder, entry: &KeyEntry) -> Option<MemberId> {
    match read::<LockRecord>(&entry.value) {
        Some(record) => Some(record.member),
        None => folder.stranger(&entry.key),
    }
}
